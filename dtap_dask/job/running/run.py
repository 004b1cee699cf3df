"""A whole run: plan, fit, plan shards, write, commit; each step is idempotent, so an interrupted run can be resumed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from distributed import Client

from dtap_dask.errors import STOPPED, InterruptedRun, OutputError
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.cluster.starting import refuse_unguarded
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.plan import Plan, plan_of
from dtap_dask.job.planning.sharding import plan_shards, planned_row_bytes, rows_by_group
from dtap_dask.job.running.commit import commit, refuse_differing
from dtap_dask.job.running.options import Intent, RunOptions
from dtap_dask.job.running.run_folder import RunFolder
from dtap_dask.job.running.session import OpenExecutor, RunSession, dask_executor
from dtap_dask.job.running.sources import refuse_replaced, write_sources
from dtap_dask.job.running.stages import Stages, expected_stages, task_context
from dtap_dask.job.running.summary import report_finished, report_summary
from dtap_dask.job.status.comparison import compare, forecast_run, write_comparisons
from dtap_dask.job.status.displays import open_display
from dtap_dask.job.status.folder import read_run
from dtap_dask.job.status.hints import output_command
from dtap_dask.job.status.reporter import EVENTS_SECONDS, RunReporter, run_name
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import Snapshot
from dtap_dask.records.commit import sweep
from dtap_dask.records.folder import SOURCES
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.shard_plan import ShardPlan
from dtap_dask.storage.settings import absolute


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
    rows are reached; `overwrite` replaces a dataset once the new one is complete, `resume` continues an interrupted
    run; `probe` measures on a few row groups first, so that the time is forecast, too; `progress` is 'bars', 'plain',
    'json', 'silent', 'notebook' or 'auto'. Raises a DtapError that says what to do next; InterruptedRun where the run
    can be resumed.
    """
    refuse_unguarded()
    options = RunOptions.of(overwrite=overwrite, resume=resume, limit=limit, probe=probe)
    loaded = Job.load_leniently(job, overrides)
    with loaded.redacting(), open_display(progress) as display:
        report = RunReporter(first_snapshot(loaded), display, loaded.secrets)
        opening = _reporting_client(cluster or ClusterOptions(), client, report)
        try:
            return carry_out(loaded, report, partial(dask_executor, opening, report, loaded.secrets), options)
        except KeyboardInterrupt as error:
            raise InterruptedRun(STOPPED) from error


@contextmanager
def _reporting_client(cluster: ClusterOptions, client: Client | None, report: RunReporter) -> Iterator[Client]:
    """An open client whose scheduler keeps the run's status."""
    with (
        open_client(cluster, client, report.note, lambda workers: report.update(starting=workers)) as opened,
        report.publishing(SchedulerStore(opened).publish, EVENTS_SECONDS),
    ):
        yield opened


def first_snapshot(job: Job) -> Snapshot:
    """A run of a job before anything has happened, under a new id."""
    name, now = str(job.document.get("name", job.name)), time.time()
    return Snapshot(run_name(name), name, job.redact(absolute(job.output.path)), "running", now, now)


def carry_out(
    job: Job, report: RunReporter, open_executor: OpenExecutor, options: RunOptions, *, restarted: bool = False
) -> Manifest:
    """Run a loaded job on an executor that is opened when it is first needed.

    `restarted` says that an earlier attempt of this very run may have left something, which is then resumed.
    """
    started = time.monotonic()
    with RunSession(job, report, open_executor, options.intent, restarted) as session:
        plan = plan_of(job, options.limit, session.read_footers)
        session.lock()
        folder = RunFolder(session.store, plan.run_id)
        intent = _intent(folder, options.intent, report.snapshot.id) if restarted else options.intent
        finished = folder.admit(plan.fingerprint, intent)
        if finished is not None:
            refuse_replaced(folder.store, SOURCES, plan)
            refuse_differing(finished, folder.store)
            report_finished(report, job, finished, folder.store, time.monotonic() - started)
            return finished
        return _Run(session, plan, folder, intent, report).produce(options.probe, started)


def _intent(folder: RunFolder, wanted: Intent, run: str) -> Intent:
    """Resume where an earlier attempt of this run has planned its shards, or may have committed them."""
    try:
        snapshot = read_run(folder.store, run)
    except OutputError:  # damaged
        snapshot = None
    written = snapshot is not None and snapshot.shards_planned == snapshot.shards_committed
    return "resume" if written or folder.planned_by() == run else wanted


@dataclass(frozen=True)
class _Run:
    """A run that its output folder admits: from a plan through fitted state and shards to a manifest."""

    session: RunSession
    plan: Plan
    folder: RunFolder
    intent: Intent
    report: RunReporter

    def produce(self, probe: bool, started: float) -> Manifest:
        """Fit, write and commit; `started` is when the run did, by time.monotonic()."""
        plan, folder, report = self.plan, self.folder, self.report
        if self.intent == "overwrite":
            folder.mark_overwrite()  # before anything that may be interrupted
        stages = self._start()
        expected = forecast_run(plan, stages.executor.threads, probe, report.note)
        if self.intent == "overwrite":
            folder.delete_unfinished()
        sweep(folder.store, plan.run_id)
        shards = self._planned_shards() or self._fit(stages)
        written = stages.write(shards)
        compare_rows = cache(partial(stages.compare, shards))
        manifest = commit(
            stages,
            folder.store,
            self.session.lock(),
            written=written,
            pairs=shards.pairs,
            compare=compare_rows,
        )
        refuse_differing(manifest, folder.store, compare_rows().features)
        compared = compare(expected, manifest, () if self.intent == "resume" else report.snapshot.stages)
        write_comparisons(folder.store, report.snapshot.id, compared)
        report_summary(stages, folder.store, manifest, compared, time.monotonic() - started)
        return manifest

    def _start(self) -> Stages:
        """Open the executor, if planning has not, and keep the status in the output folder from now on."""
        plan, store, report = self.plan, self.folder.store, self.report
        for warning in plan.warnings:
            report.warn(warning)
        executor = self.session.executor(plan.source)
        self.session.publish_status()
        command = output_command("status", store, plan.job.storage, plan.job.secrets)
        report.note(f"Run {report.snapshot.id}: `{command}` shows its progress.")
        return Stages(plan, task_context(plan, store), executor, report)

    def _planned_shards(self) -> ShardPlan | None:
        """The shards of an interrupted run, which are to be written as it planned them."""
        shards = self.folder.planned_shards()
        if shards is None:
            self.report.expect(expected_stages(self.plan))
            return None
        refuse_replaced(self.folder.store, self.folder.paths.sources, self.plan)
        self.report.expect([stage for stage in expected_stages(self.plan) if stage.name in ("shuffle", "write")])
        self.report.note(f"Continuing run {self.plan.run_id}: what was fitted is kept.")
        return shards

    def _fit(self, stages: Stages) -> ShardPlan:
        """Fit, and plan the shards by the rows that were counted."""
        plan, folder = self.plan, self.folder
        rows = rows_by_group(plan, stages.fit())
        infos = stages.context.state(stages.levels).infos
        shards = plan_shards(plan, rows, planned_row_bytes(plan, infos))
        write_sources(folder.store, folder.paths.sources, plan)
        folder.save_plan(plan.fingerprint, shards, self.report.snapshot.id)
        return shards
