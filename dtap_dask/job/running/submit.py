"""Give a job to a running cluster and leave; ask for its status, wait for it, cancel it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
from distributed import Client, default_client

from dtap_dask.errors import JobError
from dtap_dask.features.steps.transformers import allowed_estimators
from dtap_dask.job import taps
from dtap_dask.job.cluster.client import ClusterOptions, compare_versions, open_client
from dtap_dask.job.jobfile.spec import FitFrom, Job
from dtap_dask.job.running.driver import Submission, drive, driver_key
from dtap_dask.job.running.options import RunOptions
from dtap_dask.job.running.run import first_snapshot
from dtap_dask.job.status.follow import follow
from dtap_dask.job.status.hints import run_command
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import ENDED, Snapshot
from dtap_dask.job.status.sources import SchedulerSource
from dtap_dask.storage import open_store
from dtap_dask.storage.settings import absolute

# A driver that waits in the scheduler's queue comes before the tasks of others: it takes no thread for long.
PRIORITY = 100


@dataclass(frozen=True)
class Submitted:
    """A job on a cluster, by its id. `client` is used where it is given; else each call opens one.

    `note` is what `submit` had to say.
    """

    id: str
    note: str = ""
    cluster: ClusterOptions | None = None
    client: Client | None = None

    def status(self) -> Snapshot:
        """The present state. JobError where the scheduler knows no such job, InterruptedRun where it is gone."""
        with running_client(self.cluster, self.client) as client:
            return SchedulerSource(SchedulerStore(client), self.id).read().snapshot

    def wait(self, progress: str = "auto") -> Snapshot:
        """Wait until the job has ended, showing its progress; raises what `run` would raise."""
        with running_client(self.cluster, self.client) as client:
            ended = follow(SchedulerSource(SchedulerStore(client), self.id), progress)
        if ended.error is not None:
            raise ended.error
        return ended.snapshot

    def cancel(self) -> None:
        """Stop it: no further tasks start, running ones finish, the output can be resumed. JobError if it has ended."""
        with running_client(self.cluster, self.client) as client:
            cancel(client, self.id, vars(self.cluster or ClusterOptions()))


def submit(
    job: str | Path | Mapping[str, Any] | Job,
    *,
    client: Client | None = None,
    cluster: ClusterOptions | None = None,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Submitted:
    """Give a job to a running Dask cluster, and return within seconds; options are those of `run`.

    The job file is checked here, and its relative paths, `${NAME}` and storage settings are resolved here. The source
    is not listed here, as that may take minutes: the job's status reports what is wrong with its columns. The cluster
    is `client`, else what `cluster` says, else the current client or Dask's own configuration.
    """
    options = RunOptions.of(overwrite=overwrite, resume=resume, limit=limit)
    loaded = Job.load(job, overrides)
    with loaded.redacting():
        resolved = _resolved(loaded)
        with running_client(cluster, client) as opened:
            submission = Submission(first_snapshot(resolved), resolved, options, allowed_estimators())
            note = _hand_over(opened, submission)
            return Submitted(submission.snapshot.id, note, cluster, client)


def _resolved(job: Job) -> Job:
    """The job with paths and settings that mean the same on any machine; its document is unchanged."""
    settings = taps.settings(job.storage)
    fit = job.fit
    for path in (*job.source.path, job.output.path, *([fit.from_] if isinstance(fit, FitFrom) else ())):
        open_store(path, settings)  # raises what is wrong with it
    if isinstance(fit, FitFrom):
        fit = FitFrom.model_validate({"from": absolute(fit.from_)})
    source = job.source.model_copy(update={"path": tuple(map(absolute, job.source.path))})
    output = job.output.model_copy(update={"path": absolute(job.output.path)})
    return job.model_copy(update={"source": source, "output": output, "storage": settings, "fit": fit})


def _hand_over(client: Client, submission: Submission) -> str:
    """Start the driver and publish it, so that the scheduler keeps it without a client; returns a note for the user."""
    if client.nthreads():
        compare_versions(client)  # workers of other versions may be unable to read the submission
    run = submission.snapshot.id
    scheduler = SchedulerStore(client)
    scheduler.instruct(run, driver=driver_key(run))
    note = _waiting(client)
    scheduler.publish(replace(submission.snapshot, state="waiting", note=note), [])
    future = client.submit(drive, submission, key=driver_key(run), pure=False, priority=PRIORITY)
    client.publish_dataset(future, name=driver_key(run))
    return note


def _waiting(client: Client) -> str:
    if client.nthreads():
        return f"Submitted to {client.scheduler.address}."
    return f"The scheduler {client.scheduler.address} has no workers yet: the job waits for some."


@contextmanager
def running_client(cluster: ClusterOptions | None, client: Client | None = None) -> Iterator[Client]:
    """A client of a running scheduler: a job that is left alone needs one that outlives this process."""
    options = cluster or ClusterOptions()
    named = options.scheduler or options.scheduler_file or dask.config.get("scheduler-address", None)
    if client is None and not named:
        try:
            client = default_client()
        except ValueError as error:
            raise JobError(
                "Which scheduler? Give its address: --scheduler tcp://host:8786, --scheduler-file F, or Dask's setting "
                "scheduler-address; in Python client=... For one on this machine: `dask scheduler` and `dask worker`. "
                "A run that started its own workers is found by the path of its output, not by its id."
            ) from error
    with open_client(options, client) as opened:
        yield opened


def cancel(client: Client, run: str, where: Mapping[str, Any]) -> None:
    """Make a run stop: its driver sees it within a second or two. JobError where there is nothing to stop.

    `where` has the fields of ClusterOptions by which the scheduler was reached, for the message.
    """
    scheduler = SchedulerStore(client)
    snapshot = SchedulerSource(scheduler, run).read().snapshot
    if snapshot.state in ENDED:
        raise JobError(f"{run} has ended already ({snapshot.state}): there is nothing to cancel.")
    if scheduler.instructions(run).get("cancel"):
        raise JobError(
            f"{run} is being cancelled already: `{run_command('wait', run, where)}` waits until it has ended."
        )
    scheduler.instruct(run, cancel=True)
    if scheduler.instructions(run).get("driver") and not scheduler.instructions(run).get("attempt"):
        note = "Cancelled before it began."  # no driver has seen the instruction; one that starts later does
        scheduler.publish(replace(snapshot, state="cancelled", note=note, exit_code=4), [])
        client.unpublish_dataset(driver_key(run))
