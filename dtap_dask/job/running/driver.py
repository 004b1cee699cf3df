"""A run whose driver is a task on the cluster: it outlives the client, and is begun again when its worker dies."""

from __future__ import annotations

import traceback
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace

from distributed import Client, Reschedule, Worker, get_worker, secede
from distributed.security import Security

from dtap_dask.errors import DtapError
from dtap_dask.job import taps
from dtap_dask.job.execution.dask_executor import UnexpectedError
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.running.run import How, carry_out
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
    """What a driver needs: everything resolved where the job was submitted, secrets as values."""

    beginning: Snapshot
    job: Job = field(repr=False)
    limit: int | None = None
    overwrite: bool = False
    resume: bool = False


def driver_key(run: str) -> str:
    """The key of a run's driver among the scheduler's tasks."""
    return f"driver-{run}"


def drive(submission: Submission) -> str:
    """Runs on a worker, beside its threads: carry out the submission, and tell how it ended; returns the state.

    The scheduler may begin this again at any time: when the worker dies, when the result is lost with it, or when it
    takes a worker for dead that lives. Each attempt leaves its mark on the noticeboard; an older one that sees another
    mark leaves everything to it. Until it does, both write the same bytes under the same names.
    """
    secede()
    worker: Worker = get_worker()
    with Client(
        worker.scheduler.address,
        security=_as_client(worker.security),
        set_as_default=False,
        timeout=CONNECT_SECONDS,
        name=driver_key(submission.beginning.id),
    ) as client:
        board = SchedulerStore(client)
        told = board.snapshot(submission.beginning.id) or submission.beginning
        if told.state in ENDED:
            return told.state
        earlier = board.instructions(told.id).get("attempt")
        attempt = uuid.uuid4().hex
        board.instruct(told.id, attempt=attempt)
        how = How(submission.limit, submission.overwrite, submission.resume, attempt, again=earlier is not None)
        report = RunReporter(
            _begun(submission.beginning, told, how.again), Silent(), submission.job.secrets, board.notes(told.id)
        )
        _carry_out(submission.job, report, client, how)
        _leave_word(submission.job, report)
        if report.snapshot.state == "interrupted" and client.status != "running":
            raise Reschedule  # this driver has lost the scheduler; does the scheduler live, then it begins it again
        return report.snapshot.state


def _begun(beginning: Snapshot, told: Snapshot, again: bool) -> Snapshot:
    """The state in which an attempt begins: what was lost with the earlier one counts."""
    if not again:
        return replace(beginning, state="running")
    lost, retries = told.lost_workers + 1, told.retries + 1
    return replace(beginning, state="running", lost_workers=lost, retries=retries)


def _carry_out(job: Job, report: RunReporter, client: Client, how: How) -> None:
    """An error of any kind ends here: it has been told, and Dask would log it with what it holds."""
    with suppress(Exception), report.publishing(SchedulerStore(client).publish, EVENTS_SECONDS):
        if how.again:
            report.note("The worker that carried the driver is gone: it was begun again here, and goes on.")
        try:
            carry_out(job, report, lambda: client, how)
        except Exception as error:
            if isinstance(error, UnexpectedError) or not isinstance(error, DtapError):
                report.note(traceback.format_exc())  # nobody else will see where it came from
            raise


def _leave_word(job: Job, report: RunReporter) -> None:
    """Tell in the output folder of a run that failed before it told of itself there, if nobody else has."""
    if report.snapshot.state != "failed":
        return
    with suppress(Exception):  # a folder that cannot be written may be why
        store = open_store(job.output.path, taps.settings(job.storage))
        if not read_runs(store) and not store.is_file(MANIFEST):
            StatusWriter(store).publish(report.snapshot, ())


def _as_client(security: Security) -> Security:
    """A worker's certificate serves its driver as a client's, where the worker was started without one of that kind."""
    return Security(
        require_encryption=security.require_encryption,
        tls_ca_file=security.tls_ca_file,
        tls_client_cert=security.tls_client_cert or security.tls_worker_cert,
        tls_client_key=security.tls_client_key or security.tls_worker_key,
    )
