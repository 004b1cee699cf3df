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
from distributed import Client

from dtap_dask.errors import InterruptedRun, OutputError, Superseded
from dtap_dask.features.leaks import looking
from dtap_dask.job import taps
from dtap_dask.job.cluster.client import ClusterOptions, open_client, preflight
from dtap_dask.job.cluster.starting import refuse_unguarded
from dtap_dask.job.dashboard import install, page_link
from dtap_dask.job.execution import tasks
from dtap_dask.job.execution.dask_executor import STOPPED, DaskExecutor
from dtap_dask.job.execution.lazy import LazyItems
from dtap_dask.job.execution.tasks import FittedLevel, TaskContext, Written
from dtap_dask.job.execution.watchdog import Watchdog
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.counted import Counted, Reading
from dtap_dask.job.planning.plan import Plan, plan_of
from dtap_dask.job.planning.sharding import assign_shards, layout_of, planned_row_bytes, rows_by_group
from dtap_dask.job.planning.stages import PlannedStage, count_stage
from dtap_dask.job.running.conclude import conclude
from dtap_dask.job.running.run_folder import RunFolder
from dtap_dask.job.running.sources import refuse_replaced, write_sources
from dtap_dask.job.running.stages import Finish, Lazily, footers_on, stage_of, stages
from dtap_dask.job.status.comparison import compare, forecast_run, write_comparisons
from dtap_dask.job.status.displays import open_display
from dtap_dask.job.status.folder import FILES_SECONDS, StatusWriter, read_run
from dtap_dask.job.status.hints import output_command
from dtap_dask.job.status.reporter import EVENTS_SECONDS, RunReporter, run_name
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import Snapshot
from dtap_dask.records.commit import begin_commit, commit_dataset, finish_commit, sweep
from dtap_dask.records.folder import SOURCES
from dtap_dask.records.lock import HeldLock, lock
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.manifest_build import build_manifest
from dtap_dask.records.shard import TaskShards
from dtap_dask.storage import open_store
from dtap_dask.storage.places import absolute
from dtap_dask.words import count


def run(
    job: str | Path | Mapping[str, Any] | Job,
    *,
    client: Client | None = None,
    cluster: ClusterOptions | None = None,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    probe: bool = False,
    progress: str = "auto",
) -> Manifest:
    """Run a job (a path, a dict or a Job) to the end and return the manifest of the dataset.

    `client` None takes the current Dask client, else what `cluster` says, else a LocalCluster for the run.
    `overrides` are changes such as 'output.path=out'; `limit` stops after the row group in which that many source
    rows are reached; `overwrite` replaces a dataset once the new one stands, `resume` goes on with an interrupted
    run; `probe` measures on a few row groups first, so that the time is forecast, too; `progress` is 'bars', 'plain',
    'json', 'silent', 'notebook' or 'auto'. Raises a DtapError that says what to do next; InterruptedRun where `resume`
    can go on.
    """
    refuse_unguarded()
    loaded = Job.load_leniently(job, overrides)
    with ExitStack() as stack:
        stack.enter_context(loaded.redacting())
        display = stack.enter_context(open_display(progress))
        report = RunReporter(beginning(loaded), display, loaded.secrets)

        def starting(workers: int) -> None:
            report.update(starting=workers)

        def opening() -> Client:
            opened = stack.enter_context(open_client(cluster or ClusterOptions(), client, report.note, starting))
            stack.enter_context(report.publishing(SchedulerStore(opened).publish, EVENTS_SECONDS))
            return opened

        try:
            return carry_out(loaded, report, opening, How(limit, overwrite, resume, probe=probe))
        except KeyboardInterrupt as error:
            raise InterruptedRun(STOPPED) from error


def beginning(job: Job) -> Snapshot:
    """A run of a job before anything has happened, under a new id."""
    name, now = str(job.document.get("name", job.name)), time.time()
    return Snapshot(run_name(name), name, job.redact(absolute(job.output.path)), "running", now, now)


@dataclass(frozen=True)
class How:
    """How a job is to be run. A driver that may be begun again elsewhere has a mark, `attempt`.

    It is begun `again` where an earlier attempt of the same run may have left something. `probe` measures first, so
    that the time can be compared with its forecast.
    """

    limit: int | None
    overwrite: bool
    resume: bool
    attempt: str | None = None
    again: bool = False
    probe: bool = False


def carry_out(job: Job, report: RunReporter, opening: Callable[[], Client], how: How) -> Manifest:
    """Run a loaded job, on a client that is opened when it is first needed."""
    begun, opened = time.monotonic(), Lazily(opening)
    plan = plan_of(job, how.limit, footers_on(opened, report, job.secrets))
    return _Run(plan, report, opened, how, begun).go()


@dataclass
class _Run:
    plan: Plan
    report: RunReporter
    opened: Lazily
    how: How
    begun: float

    def __post_init__(self) -> None:
        job = self.plan.job
        self.store = open_store(job.output.path, taps.settings(job.storage))
        self.output = RunFolder(self.store, self.plan.run_id)
        self.layout = layout_of(job)
        self.levels = self.plan.checked.graph.passes
        self.readings: list[Reading] = []
        self.work = TaskContext(
            source_url=self.plan.source.address,
            output_url=self.store.address,
            settings=json.dumps(taps.combined(self.plan.source, self.store)),
            run_id=self.plan.run_id,
            token=uuid.uuid4().hex,
            scan=self.plan.checked.scan,
            graph=self.plan.checked.graph,
            layout=self.layout,
            shuffle=job.output.shuffle,
            seed=job.output.seed,
            secrets=job.secrets,
        )

    def go(self) -> Manifest:
        with ExitStack() as stack:
            resumes, begins = self.how.resume, self.how.overwrite
            held = stack.enter_context(lock(self.store, steal=resumes, run=self.report.snapshot.id, overwrite=begins))
            overwrite, resume = self.wanted()
            finished = self.output.admit(self.plan.fingerprint, overwrite, resume)
            if finished is not None:
                refuse_replaced(self.store, SOURCES, self.plan)
                self.report.note(f"{self.store.url} is finished already; nothing was left to do.")
                self.report.finish("done", self.report.snapshot.note, 0)
                return finished
            if overwrite:
                self.output.mark_overwrite()  # before anything that may be interrupted
            self.start_cluster(stack)
            if overwrite:
                self.output.begin_anew()
            sweep(self.store, self.plan.run_id)
            shards = self.output.sealed()
            if shards is not None:
                refuse_replaced(self.store, self.output.paths.sources, self.plan)
            self.report.expect([stage for stage in stages(self.plan) if shards is None or stage.name == "write"])
            if shards is None:
                shards = self.fit_and_seal()
            else:
                self.report.note(f"Going on with run {self.plan.run_id}: what was fitted is kept.")
            manifest = self.commit(self.write(shards), held)
            compared = compare(self.expected, manifest, () if resume else self.report.snapshot.stages)
            write_comparisons(self.store, self.report.snapshot.id, compared)
            seconds = time.monotonic() - self.begun
            conclude(self.plan, self.report, self.store, manifest, self.readings, compared=compared, seconds=seconds)
        return manifest

    def wanted(self) -> tuple[bool, bool]:
        """Whether to overwrite and to resume. What an earlier attempt of this very run has left is gone on with."""
        if self.how.again:
            try:
                told = read_run(self.store, self.report.snapshot.id)
            except OutputError:  # damaged
                told = None
            written = told is not None and told.shards_planned == told.shards_committed  # it may have committed, too
            if written or self.output.begun_by() == self.report.snapshot.id:
                return False, True
        return self.how.overwrite, self.how.resume

    def start_cluster(self, stack: ExitStack) -> None:
        """From here on the run is told of in its folder and looked after."""
        client = self.opened()
        self.report.note(f"Dask dashboard: {client.dashboard_link}")
        missing, page = install(client), page_link(client)
        if missing or page:
            self.report.note(missing or f"Page of the runs: {page}")
        for warning in self.plan.warnings:
            self.report.warn(warning)
        preflight(client, self.plan.source, self.store, self.report.note)
        stack.enter_context(self.report.publishing(StatusWriter(self.store).publish, FILES_SECONDS))
        self.report.update(workers=len(client.nthreads()))
        asking = output_command("status", self.store, self.plan.job.storage, self.plan.job.secrets)
        self.report.note(f"Run {self.report.snapshot.id}: `{asking}` says how it goes.")
        watch = stack.enter_context(Watchdog(client, self.report, self.how.attempt))
        self.engine = DaskExecutor(client, watch, self.plan.job.secrets)
        self.expected = forecast_run(self.plan, sum(client.nthreads().values()), self.how.probe, self.report.note)

    def fit_and_seal(self) -> list[TaskShards]:
        rows = self.counted_rows()
        infos = self.work.state(self.levels).infos
        shards = list(assign_shards(self.plan, rows, planned_row_bytes(self.plan, infos)))
        write_sources(self.store, self.output.paths.sources, self.plan)
        self.output.seal(self.plan.fingerprint, shards, self.report.snapshot.id)
        return shards

    def counted_rows(self) -> npt.NDArray[np.int64]:
        """Fit every level; the exact rows of each row group in each part, which the first pass counts on its way."""
        counted: Sequence[Counted] | None = None
        if self.plan.job.fit == "dask_ml" and self.levels:
            from dtap_dask.job.estimators.oracle import (
                fit_with_dask_ml,  # brings dask-ml and scikit-learn: seconds to import
            )

            fit_with_dask_ml(self.opened(), self.plan, self.work, self.report)
            counted = self.count(count_stage(self.plan.fit_tasks))
        else:
            for stage in self.plan.stages:
                if stage.kind == "fit":
                    counted = self.fit(stage)
                elif stage.kind == "count":
                    counted = self.count(stage)
        self.tell_unmatched(counted)
        return rows_by_group(self.plan, counted)

    def fit(self, stage: PlannedStage) -> tuple[Counted, ...]:
        plan, level = self.plan, stage.level
        count = len(stage.tasks)
        items = LazyItems(count, lambda i: (self.work, level, plan.task(i, stage.tasks[i]), looking(i, count)))
        told = self.begin(stage)
        planned = plan.amounts(stage.tasks)[:, 1]

        def done(index: int) -> None:
            """What a task has read stays on the workers until all is merged: what it was to read is told meanwhile."""
            self.report.add(bytes_read=int(planned[index]))
            told(index)

        finish = Finish(self.work, level)
        names = ("fit", "merge-fit", "finish-fit")
        fitted: FittedLevel = self.engine.tree(names, tasks.fit, items, merge=tasks.merge_fits, last=finish, done=done)
        self.report.end()
        self.took(fitted.counted, foreseen=int(planned.sum()))
        for warning in fitted.warnings:
            self.report.note(f"Note: {warning}")
        return fitted.counted

    def count(self, stage: PlannedStage) -> list[Counted]:
        plan = self.plan
        items = LazyItems(len(stage.tasks), lambda i: (self.work, plan.task(i, stage.tasks[i])))
        done = self.begin(stage)
        counted = self.engine.each("count", tasks.count, items, done, took=lambda one: self.took([one]))
        self.report.end()
        return counted

    def write(self, shards: Sequence[TaskShards]) -> list[Written]:
        plan, stage = self.plan, self.plan.stages[-1]
        items = LazyItems(len(stage.tasks), lambda i: (self.work, self.levels, plan.task(i, stage.tasks[i]), shards[i]))
        self.report.update(shards_planned=sum(len(paths) for one in shards for paths in one.shards))
        done = self.begin(stage)
        written = self.engine.each("write", tasks.write, items, done, took=self.took_shards, lasting=True)
        self.report.end()
        return written

    def took(self, ended: Sequence[Counted | Written], foreseen: int = 0) -> None:
        """Keep count of what tasks have read, of which so many bytes were told already."""
        self.readings += [one.reading for one in ended]
        self.report.add(bytes_read=sum(one.reading.columns + one.reading.footers for one in ended) - foreseen)

    def took_shards(self, one: Written) -> None:
        """Keep count of shards; those that were there already cost no reading, and were not written now."""
        self.took([one])
        size = sum(shard.bytes for shard in one.shards) if one.reading.columns else 0
        self.report.add(shards_committed=len(one.shards), bytes_written=size)

    def commit(self, written: Sequence[Written], held: HeldLock) -> Manifest:
        """Make what was written the dataset; where the storage fails for the moment, again from the start."""

        def attempt() -> Manifest:
            finish_commit(self.store)  # of an attempt that failed after its manifest
            return self.commit_once(written, held)

        return tasks.patiently(attempt)

    def commit_once(self, written: Sequence[Written], held: HeldLock) -> Manifest:
        state = self.work.state(self.levels)
        folder = begin_commit(self.store, self.plan.run_id)
        state.save(self.store, folder)
        write_sources(self.store, f"{folder}/{SOURCES}", self.plan)
        manifest = build_manifest(
            job=self.plan.job.document,
            fingerprint=self.plan.fingerprint,
            source=self.plan.totals,
            infos=state.infos,
            layout=self.layout,
            splits=self.plan.job.split_names,
            shards=[shard for one in written for shard in one.shards],
        )
        self.report.flush()  # a driver that is begun again after its commit must know of it
        if not held.is_mine():
            raise Superseded(f"Another run has taken over {self.store.url} from this one.")
        return commit_dataset(self.store, self.plan.run_id, manifest)

    def begin(self, stage: PlannedStage) -> Callable[[int], None]:
        """Tell that a stage begins; what is returned tells that a task of it has ended."""
        begun = stage_of(self.plan, stage)
        self.report.begin(stage.name, begun.tasks, begun.rows, begun.bytes)
        amounts = self.plan.amounts(stage.tasks)
        return lambda index: self.report.advance(*amounts[index].tolist())

    def tell_unmatched(self, counted: Sequence[Counted] | None) -> None:
        unmatched = sum(one.unmatched for one in counted or ())
        if unmatched:
            self.report.warn(f"left out, as no condition of split.where holds: {count(unmatched, 'row')}.")
