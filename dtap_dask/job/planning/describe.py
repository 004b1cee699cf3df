"""A plan, printed: its numbers for programs, from which the text for a person is made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dtap_dask.features.graph.serving import unservable
from dtap_dask.job import taps
from dtap_dask.job.cluster.machine import parse_size
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.footers import summarize_in_processes
from dtap_dask.job.planning.forecast import Forecast, forecast
from dtap_dask.job.planning.output import cannot_write
from dtap_dask.job.planning.plan import Plan, make_plan
from dtap_dask.job.planning.plan_text import WIDTH, format_plan
from dtap_dask.job.planning.probe import probe as measure
from dtap_dask.job.planning.warnings import task_warnings, vocabulary_warnings
from dtap_dask.lake.scan import bound_derive
from dtap_dask.words import as_html, terminal_width

NARROWEST = 40


def print_plan(
    job: str,
    *,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    probe: bool = False,
    workers: int | None = None,
    memory: str | None = None,
    as_json: bool = False,
) -> None:
    """Print what a job will do."""
    size = parse_size(memory) if memory is not None else None
    plan = make_plan(job, overrides=overrides, limit=limit, read_footers=summarize_in_processes)
    with plan.job.redacting():
        measured = measure(plan) if probe else None
        numbers = plan.job.redact(plan_numbers(plan, forecast(plan, measured, workers=workers, memory=size)))
    width = max(NARROWEST, min(WIDTH, terminal_width() or WIDTH))
    print(json.dumps(numbers, indent=2) if as_json else format_plan(numbers, width))


class PrintedPlan(Plan):
    """A plan that prints as `dtap-dask plan` prints it."""

    def __repr__(self) -> str:
        return format_plan(self.job.redact(plan_numbers(self, forecast(self))))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return as_html(repr(self))


def plan(
    job: str | Path | Mapping[str, Any] | Job, *, overrides: Iterable[str] = (), limit: int | None = None
) -> PrintedPlan:
    """Plan a job: what it will read, fit and write. Only listings and footers are read.

    `job` is a path, a dict or a Job, `overrides` are changes such as 'output.path=out', and `limit` plans for that
    many source rows, rounded up to whole row groups. Raises JobError with every mistake in the job, SourceError where
    the source cannot be read.
    """
    made = make_plan(job, overrides=overrides, limit=limit, read_footers=summarize_in_processes)
    return PrintedPlan(**vars(made))


def plan_numbers(plan: Plan, expected: Forecast) -> dict[str, Any]:
    """The numbers of a plan and its forecast, for programs."""
    return {
        "name": plan.job.name,
        "fingerprint": plan.fingerprint,
        **_input(plan),
        **_stages(plan, expected.shards),
        "splits": list(plan.job.split_names),
        "fitted": None if plan.origin else plan.job.split.fit if plan.job.split else "train",
        "fitted_from": plan.origin.noted.model_dump() if plan.origin else None,
        "features": [output.name for output in plan.checked.graph.outputs],
        "not_servable": list(unservable(plan.checked.graph, bound_derive(plan.checked.scan))),
        "output": _output(plan, expected),
        "memory_bytes_per_thread": expected.memory,
        "worker": {
            "threads": expected.threads,
            "memory_bytes": expected.worker_memory,
            "vocabulary_bytes": expected.vocabularies,
        },
        "probe": _probe(plan, expected) if expected.probe else None,
        "warnings": [*plan.warnings, *_warnings(plan, expected)],
    }


def _input(plan: Plan) -> dict[str, Any]:
    return {
        "source": {
            "url": plan.source.url,
            "listed_bytes": plan.listed_bytes,
            "kept_files": len(plan.files),
            **plan.totals.model_dump(),
        },
        "paths": list(plan.job.source.path),
        "where": plan.job.source.where,
        "columns": len(plan.checked.scan.schema),
        "partitions": {
            field.name: {"type": str(field.type), "declared": field.name in (plan.job.source.partitions or {})}
            for field in plan.checked.scan.partitions
        },
    }


def _stages(plan: Plan, shards: int) -> dict[str, Any]:
    graph, reasons = plan.checked.graph, plan.checked.graph.reasons
    everything = len(plan.groups) if plan.job.output.shuffle == "global" else 0
    mixed = sorted(len(task) for task in plan.write_tasks)
    return {
        "passes": plan.passes,
        "levels": [
            {
                "level": stage.level + 1,
                "stage": stage.name,
                "because": reasons[stage.level],
                "steps": graph.fitted_in(stage.level),
            }
            for stage in plan.stages
            if stage.kind == "fit"
        ],
        "tasks": {
            "fit": len(plan.fit_tasks) if plan.passes > 1 else 0,
            "shuffle": len(plan.write_tasks) if everything else 0,
            "write": shards if everything else len(plan.write_tasks),
        },
        "row_groups_a_shard": {"least": everything or mixed[0], "most": everything or mixed[-1]},
    }


def _output(plan: Plan, expected: Forecast) -> dict[str, Any]:
    low, high = expected.bytes
    return {
        "path": plan.job.output.path,
        "layout": plan.job.output.layout,
        "compression": plan.job.output.compression,
        "rows_at_most": plan.totals.rows.read,
        "rows": expected.rows,
        "certainty": expected.certainty,
        "shards": expected.shards,
        "bytes_at_most": high,
        "bytes_at_least": low,
        "shuffled_bytes": expected.shuffled_bytes,
        "row_bytes": [round(size, 1) for size in expected.row_bytes],
        "parts": {part.name: _part(part) for part in expected.parts},
    }


def _part(part: Any) -> dict[str, Any]:
    numbers = asdict(part)
    del numbers["name"]
    return {**numbers, "shard_bytes": round(part.bytes_high / part.shards) if part.shards else 0}


def _probe(plan: Plan, expected: Forecast) -> dict[str, Any]:
    probe = expected.probe
    assert probe is not None
    return {
        "row_groups": probe.row_groups,
        "row_groups_of": len(plan.groups),
        "rows": probe.rows,
        "kept": sum(probe.kept) / max(1, probe.rows),
        "stages": {
            pace.stage: {
                "rows": pace.rows,
                "seconds": round(pace.seconds, 3),
                "rows_per_second": round(pace.rows_per_second),
                "forecast_seconds": round(expected.seconds[pace.stage], 1) if expected.seconds else None,
            }
            for pace in probe.paces
        },
        "forecast_seconds": round(sum(expected.seconds.values()), 1) if expected.seconds else None,
        "distinct": {column.column: {"seen": column.seen, "expected": column.expected} for column in probe.distinct},
        "trouble": probe.error,
    }


def _warnings(plan: Plan, expected: Forecast) -> Iterator[str]:
    refused = cannot_write(plan.job, taps.settings(plan.job.storage))
    if refused:
        yield refused
    size = int(plan.groups.raw_bytes.sum())
    yield from task_warnings(len(plan.write_tasks), size, expected.threads, requested=expected.requested)
    measured = {one.column: one.bytes for one in expected.probe.distinct} if expected.probe else None
    if not plan.origin:
        yield from vocabulary_warnings(plan.checked.graph, plan.source_notes, measured, expected.worker_memory)
    if expected.probe and expected.probe.error:
        yield f"The probe ended early, and so may a run: {expected.probe.error}"
