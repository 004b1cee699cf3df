"""What a run holds while it lasts: the lock of its output folder, and an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from distributed import Client

from dtap_dask.job import taps
from dtap_dask.job.cluster.client import preflight
from dtap_dask.job.dashboard import install, page_link
from dtap_dask.job.execution.dask_executor import DaskExecutor
from dtap_dask.job.execution.executor import Executor
from dtap_dask.job.execution.watchdog import Watchdog
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.running.options import Intent
from dtap_dask.job.running.run_folder import refuse_dataset
from dtap_dask.job.running.stages import scan
from dtap_dask.job.status.folder import FILES_SECONDS, StatusWriter
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.records.lock import HeldLock, lock
from dtap_dask.storage import Store, open_store

OpenExecutor = Callable[[Store, Store], AbstractContextManager[Executor]]  # given the source and the output


@contextmanager
def dask_executor(
    opening: AbstractContextManager[Client],
    report: RunReporter,
    secrets: Secrets,
    source: Store,
    output: Store,
    *,
    attempt: str | None = None,
) -> Iterator[DaskExecutor]:
    """An executor on a cluster whose workers have passed the preflight and which is watched from now on.

    `attempt` identifies this execution of a submitted driver.
    """
    with opening as client:
        report.note(f"Dask dashboard: {client.dashboard_link}")
        missing, page = install(client), page_link(client)
        if missing or page:
            report.note(missing or f"Page of the runs: {page}")
        preflight(client, source, output, report.note)
        report.update(workers=len(client.nthreads()))
        with Watchdog(client, report, attempt) as watchdog:
            yield DaskExecutor(client, watchdog, secrets)


class RunSession:
    """Takes the lock and opens the executor once, when each is first needed: no task runs before both.

    The lock is released before the executor closes, as closing a cluster takes a second or more. `restarted` says that
    an earlier attempt of the same run may have left something.
    """

    def __init__(self, job: Job, report: RunReporter, open_executor: OpenExecutor, intent: Intent, restarted: bool):
        self.store = open_store(job.output.path, taps.settings(job.storage))
        self._report, self._open_executor = report, open_executor
        self._intent, self._restarted = intent, restarted
        self._executor_stack, self._lock_stack = ExitStack(), ExitStack()
        self._executor: Executor | None = None
        self._lock: HeldLock | None = None

    def __enter__(self) -> RunSession:
        return self

    def __exit__(self, *error: Any) -> None:
        self._executor_stack.push(self._lock_stack)
        self._executor_stack.__exit__(*error)

    def lock(self) -> HeldLock:
        """Keep other runs out of the output folder."""
        if self._lock is None:
            steal, overwrite = self._intent == "resume", self._intent == "overwrite"
            holding = lock(self.store, steal=steal, run=self._report.snapshot.id, overwrite=overwrite)
            self._lock = self._lock_stack.enter_context(holding)
        return self._lock

    def executor(self, source: Store) -> Executor:
        """Open the executor, if it is not yet."""
        self.lock()
        if self._executor is None:
            self._executor = self._executor_stack.enter_context(self._open_executor(source, self.store))
        return self._executor

    def read_footers(self, source: Store, files: Sequence[SourceFile], query: FooterQuery) -> FooterSummary:
        """Read the footers of many files in tasks, while the run is being planned."""
        self.lock()
        if not self._restarted:  # an earlier attempt may have committed
            refuse_dataset(self.store, self._intent)
        return scan(self.executor(source), self._report, source, files, query)

    def publish_status(self) -> None:
        """From now on, keep the run's status in the output folder, too."""
        self._lock_stack.enter_context(self._report.publishing(StatusWriter(self.store).publish, FILES_SECONDS))
