"""A whole run: plan, fit, seal, write, commit; each stage idempotent, so that an interrupted run can go on."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from distributed import Client

from dtap_dask.errors import InterruptedRun
from dtap_dask.features import feature_infos
from dtap_dask.job import tasks
from dtap_dask.job.cluster import ClusterOptions, open_client, preflight
from dtap_dask.job.describe import passes, split_names
from dtap_dask.job.engine import Engine
from dtap_dask.job.output import Output
from dtap_dask.job.plan import FOOTERS_A_TASK, Plan, make_plan
from dtap_dask.job.progress import Reporter, human, reporter
from dtap_dask.job.seal import fixed_row_bytes, rows_by_group, seal
from dtap_dask.job.sources import source_totals, write_sources
from dtap_dask.job.spec import Job
from dtap_dask.job.table import summary, told
from dtap_dask.job.tasks import Counted, Reading, Work, Written
from dtap_dask.lake.discover import SourceFile
from dtap_dask.lake.footers import Footer
from dtap_dask.records.columns import is_fixed
from dtap_dask.records.commit import commit_dataset, finish_commit, stage, sweep
from dtap_dask.records.example import Layout
from dtap_dask.records.lock import lock
from dtap_dask.records.manifest import Manifest, build_manifest, standing_manifest
from dtap_dask.records.shard import TaskShards
from dtap_dask.storage import Store, open_store


def run(
    job: str | Path | Mapping[str, Any] | Job,
    *,
    client: Client | None = None,
    cluster: ClusterOptions | None = None,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: str = "auto",
) -> Manifest:
    """Run a job (a path, a dict or a Job) to the end and return the manifest of the dataset.

    `client` None takes the current Dask client, else what `cluster` says, else a LocalCluster for the run.
    `overrides` are changes such as 'output.path=out'; `limit` stops after the row group in which that many source
    rows are reached; `overwrite` replaces a dataset once the new one stands, `resume` goes on with an interrupted
    run; `progress` is 'bars', 'plain', 'json', 'silent' or 'auto'. Raises a DtapError that says what to do next;
    InterruptedRun where `resume` can go on.
    """
    loaded = Job.load_leniently(job, overrides)
    with ExitStack() as stack:
        stack.enter_context(loaded.redacting())
        report = stack.enter_context(reporter(progress, redact=loaded.redact))
        opened = _Lazily(lambda: stack.enter_context(open_client(cluster or ClusterOptions(), client)))
        try:
            plan = make_plan(loaded, limit=limit, read_footers=_footers_on(opened, report))
            return _Run(plan, report, opened).go(overwrite, resume)
        except KeyboardInterrupt as error:
            raise InterruptedRun("Stopped. What is written stays: go on with --resume.") from error


class _Lazily:
    """A Dask client that is opened when it is first needed: mistakes are told before processes are started."""

    def __init__(self, opening: Callable[[], Client]):
        self._opening = opening
        self._client: Client | None = None

    def __call__(self) -> Client:
        if self._client is None:
            self._client = self._opening()
        return self._client


def _footers_on(
    opened: _Lazily, report: Reporter
) -> Callable[[Store, Sequence[SourceFile], pa.Schema, Sequence[str]], list[Footer]]:
    """Read many footers in tasks."""

    def read(source: Store, files: Sequence[SourceFile], schema: pa.Schema, stats: Sequence[str]) -> list[Footer]:
        parts = [files[start : start + FOOTERS_A_TASK] for start in range(0, len(files), FOOTERS_A_TASK)]
        report.begin("scan", len(parts), 0, 0)
        items = [(source, part, schema, stats) for part in parts]
        found = Engine(opened()).each("scan", tasks.read_footers, items, lambda _: report.advance(0, 0))
        report.end()
        return [footer for part in found for footer in part]

    return read


@dataclass
class _Run:
    plan: Plan
    report: Reporter
    opened: _Lazily

    def __post_init__(self) -> None:
        job = self.plan.job
        self.store = open_store(job.output.path, job.storage)
        self.output = Output(self.store, self.plan.run_id)
        self.layout = Layout(job.output.layout, job.output.rows_per_record, job.output.compression)
        self.levels = self.plan.checked.pipeline.levels
        self.readings: list[Reading] = []
        self.work = Work(
            source_url=self.plan.source.address,
            output_url=self.store.address,
            settings=json.dumps(self.store.settings),
            run_id=self.plan.run_id,
            token=uuid.uuid4().hex,
            scan=self.plan.checked.scan,
            specs=self.plan.checked.specs,
            schema=self.plan.checked.pipeline.schema,
            layout=self.layout,
            shuffle=job.output.shuffle,
            seed=job.output.seed,
        )

    def go(self, overwrite: bool, resume: bool) -> Manifest:
        start = time.monotonic()
        with lock(self.store, steal=resume):
            finish_commit(self.store)
            finished = self.output.admit(self.plan.fingerprint, overwrite, resume)
            if finished is not None:
                self.report.note(f"{self.store.url} is finished already; nothing was left to do.")
                return finished
            self.start_cluster()
            if overwrite:
                self.begin_anew()
            sweep(self.store, self.plan.run_id)
            shards = self.output.sealed()
            if shards is None:
                shards = self.fit_and_seal()
            else:
                self.report.note(f"Going on with run {self.plan.run_id}: what was fitted is kept.")
            manifest = self.commit(self.write(shards))
        self.conclude(manifest, time.monotonic() - start)
        return manifest

    def start_cluster(self) -> None:
        client = self.opened()
        self.report.note(f"Dask dashboard: {client.dashboard_link}")
        for warning in self.plan.warnings:
            self.report.note(f"Note: {warning}")
        preflight(client, self.plan.source, self.store)
        self.engine = Engine(client)

    def begin_anew(self) -> None:
        """Leave nothing of unfinished runs that could count as done, or lie beside the new shards."""
        standing = standing_manifest(self.store)
        keep = standing.files if standing else frozenset()
        for run_id in self.output.unfinished():
            self.output.forget(run_id, keep)

    def fit_and_seal(self) -> list[TaskShards]:
        rows = self.counted_rows()
        shards = list(seal(self.plan, rows, self.row_bytes()))
        self.output.seal(self.plan.fingerprint, shards)
        return shards

    def counted_rows(self) -> npt.NDArray[np.int64]:
        """Fit every level; the exact rows of each row group in each part, which the first pass counts on its way."""
        counted: Sequence[Counted] | None = None
        if self.plan.job.fit == "dask_ml" and self.levels:
            from dtap_dask.job.oracle import fit_with_dask_ml  # brings dask-ml and scikit-learn: seconds to import

            fit_with_dask_ml(self.opened(), self.plan, self.work, self.report)
            counted = self.count()
        else:
            for level in range(self.levels):
                counted = self.fit(level)
            if not self.levels and self.plan.needs_counting:
                counted = self.count()
        self.tell_unmatched(counted)
        return rows_by_group(self.plan, counted)

    def fit(self, level: int) -> tuple[Counted, ...]:
        items = [(self.work, level, self.plan.task(i, one)) for i, one in enumerate(self.plan.fit_tasks)]
        self.begin("fit" if self.levels == 1 else f"fit {level + 1}", self.plan.fit_tasks)
        finish = _Finish(self.work, level)
        names = ("fit", "merge-fit", "finish-fit")
        done = self.advancing([item[2] for item in items])
        counted: tuple[Counted, ...] = self.engine.tree(
            names, tasks.fit, items, merge=tasks.merge_fits, last=finish, done=done
        )
        self.report.end()
        self.readings += [one.reading for one in counted]
        return counted

    def count(self) -> list[Counted]:
        items = [(self.work, self.plan.task(i, one)) for i, one in enumerate(self.plan.fit_tasks)]
        self.begin("count", self.plan.fit_tasks)
        counted = self.engine.each("count", tasks.count, items, self.advancing([item[1] for item in items]))
        self.report.end()
        self.readings += [one.reading for one in counted]
        return counted

    def write(self, shards: Sequence[TaskShards]) -> list[Written]:
        items = [
            (self.work, self.levels, self.plan.task(i, one), shards[i]) for i, one in enumerate(self.plan.write_tasks)
        ]
        self.begin("write", self.plan.write_tasks)
        written = self.engine.each("write", tasks.write, items, self.advancing([item[2] for item in items]))
        self.report.end()
        self.readings += [one.reading for one in written]
        return written

    def commit(self, written: Sequence[Written]) -> Manifest:
        state = self.work.state(self.levels)
        folder = stage(self.store, self.plan.run_id)
        state.save(self.store, folder)
        write_sources(self.store, f"{folder}sources.parquet", self.plan)
        manifest = build_manifest(
            job=self.plan.job.document,
            fingerprint=self.plan.fingerprint,
            source=source_totals(self.plan),
            infos=feature_infos(state),
            layout=self.layout,
            splits=split_names(self.plan.job),
            shards=[shard for one in written for shard in one.shards],
        )
        return commit_dataset(self.store, self.plan.run_id, manifest)

    def row_bytes(self) -> float:
        """What a row takes in a record: exact for fixed widths; text and lists as they lie in the source."""
        infos = feature_infos(self.work.state(self.levels))
        columns = max(1, len(self.plan.checked.scan.schema))
        a_column = sum(group.raw_bytes for group in self.plan.groups) / max(1, self.plan.totals.read.rows) / columns
        varying = sum(not is_fixed(info) for info in infos)
        return fixed_row_bytes(infos, self.layout) + varying * a_column

    def begin(self, stage_name: str, positions: Sequence[tuple[int, ...]]) -> None:
        groups = [self.plan.groups[position] for one in positions for position in one]
        self.report.begin(stage_name, len(positions), sum(g.rows for g in groups), sum(g.bytes for g in groups))

    def advancing(self, planned: Sequence[Any]) -> Callable[[int], None]:
        return lambda index: self.report.advance(planned[index].rows, planned[index].bytes)

    def tell_unmatched(self, counted: Sequence[Counted] | None) -> None:
        unmatched = sum(one.unmatched for one in counted or ())
        if unmatched:
            self.report.note(f"Note: {unmatched:,} rows match no condition of split.where and are left out.")

    def conclude(self, manifest: Manifest, seconds: float) -> None:
        """Say what there is now, and how much was read for it."""
        for line in told(self.store.url, manifest):
            self.report.note(line)
        rows = self.plan.totals.read.rows
        needed = self.plan.totals.read.bytes
        self.report.note(f"{rows:,} source rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s")
        columns, footers = sum(one.columns for one in self.readings), sum(one.footers for one in self.readings)
        times = f"{passes(self.plan)} pass{'es' if passes(self.plan) > 1 else ''}"
        self.report.note(
            f"Read {human(columns)}, {columns / max(1, needed):.2f} times the {human(needed)} of the needed columns "
            f"({times}), and {human(footers)} of footers"
        )
        done = {"path": self.store.url, "seconds": round(seconds, 3), "source_rows": rows}
        read = {"bytes_needed": needed, "bytes_read": columns, "footer_bytes_read": footers}
        self.report.result({**done, **read, **summary(manifest)})


@dataclass(frozen=True)
class _Finish:
    """`tasks.finish_fit` of one level, as a function of the merged statistics alone."""

    work: Work
    level: int

    def __call__(self, part: tasks.FitPart) -> tuple[Counted, ...]:
        return tasks.finish_fit(self.work, self.level, part)
