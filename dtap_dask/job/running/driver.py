"""A run whose driver is a task on the cluster: it outlives the client, and is restarted when its worker dies."""

from __future__ import annotations

import traceback
import uuid
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from distributed import Client, Reschedule, Worker, get_worker, secede
from distributed.security import Security

from dtap_dask.errors import DtapError
from dtap_dask.features.steps.transformers import allow_estimators
from dtap_dask.job import taps
from dtap_dask.job.execution.executor import UnexpectedError
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.running.options import RunOptions
from dtap_dask.job.running.run import carry_out
from dtap_dask.job.running.session import OpenExecutor, dask_executor
from dtap_dask.job.status.displays import Silent
from dtap_dask.job.status.folder import StatusWriter, read_runs
from dtap_dask.job.status.reporter import EVENTS_SECONDS, RunReporter
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import ENDED, Snapshot
from dtap_dask.records.folder import MANIFEST
from dtap_dask.storage import open_store

CONNECT_SECONDS = 30


@dataclass(frozen=True)
class Submission:
    """What a driver needs. Everything is resolved where the job was submitted; secrets are values."""

    snapshot: Snapshot  # before anything has happened
    job: Job = field(repr=False)
    options: RunOptions
    estimators: tuple[str, ...] = ()  # modules from which transformers may come


def driver_key(run: str) -> str:
    """The key of a run's driver among the scheduler's tasks."""
    return f"driver-{run}"


def drive(submission: Submission) -> str:
    """Carry out a submission on a worker, outside of its thread pool; returns the state in which the run ended.

    The scheduler may restart this at any time: when the worker dies, when the result is lost with it, or when it takes
    a live worker for dead. Each attempt stores its id on the scheduler; an older one that sees another id stops. Until
    then both write the same bytes under the same names.
    """
    secede()
    allow_estimators(*submission.estimators)
    worker: Worker = get_worker()
    with Client(
        worker.scheduler.address,
        security=_as_client(worker.security),
        set_as_default=False,
        timeout=CONNECT_SECONDS,
        name=driver_key(submission.snapshot.id),
    ) as client:
        runs, run = SchedulerStore(client), submission.snapshot.id
        last = runs.snapshot(run) or submission.snapshot
        if last.state in ENDED:
            return last.state
        restarted = runs.instructions(run).get("attempt") is not None
        attempt = uuid.uuid4().hex
        runs.instruct(run, attempt=attempt)
        first = _first_snapshot(submission.snapshot, last if restarted else None)
        report = RunReporter(first, Silent(), submission.job.secrets, runs.notes(run))
        executor = partial(dask_executor, nullcontext(client), report, submission.job.secrets, attempt=attempt)
        _carry_out(submission, report, client, executor, restarted)
        _leave_status(submission.job, report)
        if report.snapshot.state == "interrupted" and client.status != "running":
            raise Reschedule  # this driver has lost the scheduler; if the scheduler lives, it restarts the driver
        return report.snapshot.state


def _first_snapshot(submitted: Snapshot, earlier: Snapshot | None) -> Snapshot:
    """The snapshot with which an attempt starts: a lost `earlier` attempt counts as a lost worker and a retry."""
    if earlier is None:
        return replace(submitted, state="running")
    return replace(submitted, state="running", lost_workers=earlier.lost_workers + 1, retries=earlier.retries + 1)


def _carry_out(
    submission: Submission, report: RunReporter, client: Client, executor: OpenExecutor, restarted: bool
) -> None:
    """Errors of any kind end here: they have been reported, and Dask would log them with everything they hold."""
    with suppress(Exception), report.publishing(SchedulerStore(client).publish, EVENTS_SECONDS):
        if restarted:
            report.note("The worker that ran the driver is gone: the driver was restarted here, and continues.")
        try:
            carry_out(submission.job, report, executor, submission.options, restarted=restarted)
        except Exception as error:
            if isinstance(error, UnexpectedError) or not isinstance(error, DtapError):
                report.note(traceback.format_exc())  # nobody else will see where it came from
            raise


def _leave_status(job: Job, report: RunReporter) -> None:
    """Write the status of a run that failed before it published any in its output folder, if nothing is there."""
    if report.snapshot.state != "failed":
        return
    with suppress(Exception):  # that the folder cannot be written may be why it failed
        store = open_store(job.output.path, taps.settings(job.storage))
        if not read_runs(store) and not store.is_file(MANIFEST):
            StatusWriter(store).publish(report.snapshot, ())


def _as_client(security: Security) -> Security:
    """The worker's security; its own certificate stands in for a client's where it was started without one."""
    return Security(
        require_encryption=security.require_encryption,
        tls_ca_file=security.tls_ca_file,
        tls_client_cert=security.tls_client_cert or security.tls_worker_cert,
        tls_client_key=security.tls_client_key or security.tls_worker_key,
    )
