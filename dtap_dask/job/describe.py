"""A plan as a person reads it, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from dtap_dask.job.plan import Plan
from dtap_dask.job.progress import human
from dtap_dask.job.spec import Job
from dtap_dask.lake.groups import OPEN_BYTES

# What a worker's thread holds beside the libraries: row groups being read, a window of encoded rows and its copy.
WINDOW_ROWS = 65_536


def as_json(plan: Plan) -> dict[str, Any]:
    """Every number of the plan, for programs."""
    low, high = output_bytes(plan)
    return {
        "name": plan.job.name,
        "fingerprint": plan.fingerprint,
        "source": {"url": plan.source.url, **asdict(plan.totals)},
        "where": plan.job.source.where,
        "passes": passes(plan),
        "levels": [{"level": i + 1, "because": reason} for i, reason in enumerate(plan.checked.pipeline.reasons)],
        "tasks": {"fit": len(plan.fit_tasks) if passes(plan) > 1 else 0, "write": len(plan.write_tasks)},
        "splits": split_names(plan.job),
        "features": list(plan.checked.pipeline.outputs),
        "output": {
            "path": plan.job.output.path,
            "layout": plan.job.output.layout,
            "rows_at_most": plan.totals.read.rows,
            "bytes_at_most": high,
            "bytes_at_least": low,
        },
        "memory_bytes_per_thread": memory_bytes(plan),
        "warnings": list(plan.warnings),
    }


def as_text(plan: Plan) -> str:
    """The plan as a tree, with its warnings below."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    totals, job = plan.totals, plan.job
    left = totals.read
    yield f"{job.name}  (fingerprint {plan.run_id})"
    yield f"├─ source    {', '.join(job.source.path)}: {totals.found.files:,} files, {human(totals.found.bytes)}"
    gone = totals.found.files - totals.partitions.files
    told = f"{gone:,} never opened" if gone else "none pruned"
    yield f"│  ├─ folders     {totals.partitions.files:,} files left, {told}"
    yield (
        f"│  ├─ statistics  {left.row_groups:,} of {totals.found.row_groups:,} row groups left, "
        f"{left.rows:,} rows before the row filter"
    )
    yield f"│  └─ columns     {len(plan.checked.scan.schema)} needed, {human(left.bytes)} a pass"
    yield f"├─ passes    {passes(plan)} over these columns"
    for reason in plan.checked.pipeline.reasons:
        yield f"│  ├─ fit         {len(plan.fit_tasks):,} tasks for {reason}"
    if not plan.checked.pipeline.levels and plan.needs_counting:
        yield f"│  ├─ count       {len(plan.fit_tasks):,} tasks: the rows of each part, to plan the shards"
    mixed = sorted(len(task) for task in plan.write_tasks)
    groups = f"{mixed[0]} to {mixed[-1]}" if mixed[0] < mixed[-1] else f"{mixed[0]}"
    yield f"│  └─ write       {len(plan.write_tasks):,} tasks; the rows of a shard come from {groups} row groups"
    yield f"├─ split     {', '.join(split_names(job))}" + (f" (fitted on {job.split.fit})" if job.split else "")
    low, high = output_bytes(plan)
    yield f"├─ output    {job.output.path}: layout {job.output.layout}, {len(plan.checked.pipeline.outputs)} columns"
    yield f"│  └─ at most {left.rows:,} rows, about {human(low)} to {human(high)} before compression"
    yield f"└─ memory    about {human(memory_bytes(plan))} a worker thread beside the libraries"
    for warning in plan.warnings:
        yield f"! {warning}"


def passes(plan: Plan) -> int:
    """How often the needed columns are read: once a level, once to write, and once to count where nothing is fitted."""
    levels = plan.checked.pipeline.levels
    return levels + 1 if levels else 1 + plan.needs_counting


def split_names(job: Job) -> list[str]:
    """The parts of the split; a job without one writes all rows as `train`."""
    if job.split is None:
        return ["train"]
    return list(job.split.parts or job.split.where or {})


def output_bytes(plan: Plan) -> tuple[int, int]:
    """The records' size if every row is kept: with ids in one byte and in four; text and lists as in the source.

    What one-hot vectors add is known only once their values are fitted, and left out.
    """
    rows, schema = plan.totals.read.rows, plan.checked.pipeline.schema
    columns = max(1, len(plan.checked.scan.schema))
    in_source = sum(group.raw_bytes for group in plan.groups) // columns
    as_it_is = [
        spec for spec in plan.checked.specs if not spec.steps and not _fixed(schema.field(spec.columns[0]).type)
    ]
    per_value = (1, 4) if plan.job.output.layout == "blocks" else (12, 24)
    values = sum(len(spec.columns) for spec in plan.checked.specs) - len(as_it_is)
    low, high = (rows * values * each + in_source * len(as_it_is) for each in per_value)
    return low, high


def _fixed(kind: Any) -> bool:
    try:
        return bool(kind.bit_width)
    except ValueError:
        return False


def memory_bytes(plan: Plan) -> int:
    """What one worker thread needs at most, roughly: the row groups it has open, and two windows of encoded rows."""
    largest = sorted((group.raw_bytes for group in plan.groups), reverse=True)[:16]
    reading = min(OPEN_BYTES, int(np.sum(largest)))
    rows = min(WINDOW_ROWS, plan.totals.read.rows)
    return reading + 2 * rows * 8 * len(plan.checked.pipeline.outputs)
