"""Watches a run beside its tasks: workers that come and go, and instructions to stop."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from distributed import Client

from dtap_dask.errors import RESUMABLE, Cancelled, InterruptedRun, Superseded
from dtap_dask.job.cluster.client import WAIT_FOR_WORKERS_SECONDS
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.job.status.scheduler_store import SchedulerStore, losses
from dtap_dask.words import count

SECONDS = 1.0


class Watchdog:
    """A thread for the length of a `with` block, which reports what it sees; `check` raises the reason to stop.

    `threads` is how many the cluster has now. `attempt` identifies this execution of a submitted driver, which stops
    when the scheduler has started another one.
    """

    def __init__(self, client: Client, report: RunReporter, attempt: str | None = None):
        self._client, self._report, self._attempt = client, report, attempt
        self._scheduler, self.run = SchedulerStore(client), report.snapshot.id
        self._ended = threading.Event()
        self._reason: InterruptedRun | None = None
        self._without_workers_since: float | None = None
        self.threads = sum(client.nthreads().values())
        self._thread = threading.Thread(target=self._work, name="dtap_dask-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._client.subscribe_topic("all", self._on_event)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)
        if self._client.status == "running":
            self._client.unsubscribe_topic("all")

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""
        if self._reason is not None:
            raise self._reason

    def _on_event(self, event: tuple[float, Any]) -> None:
        """Count what was lost with a worker that is gone."""
        lost = losses(event[1], self.run)
        if lost:
            self._report.add(**lost)

    def _work(self) -> None:
        while True:
            # The thread that runs the tasks sees such an error too, and says what to do.
            with suppress(OSError, TimeoutError, RuntimeError, InterruptedRun):
                self._poll()
            if self._ended.wait(SECONDS):
                return

    def _poll(self) -> None:
        threads, instructions = self._client.nthreads(), self._scheduler.instructions(self.run)
        self.threads = sum(threads.values())
        self._count_workers(len(threads))
        if self._attempt and instructions.get("attempt") != self._attempt:
            self._reason = Superseded("The scheduler has started this driver elsewhere.")
        elif instructions.get("cancel"):
            self._reason = Cancelled(f"Cancelled. {RESUMABLE}")

    def _count_workers(self, workers: int) -> None:
        if workers:
            if self._without_workers_since is not None:
                self._report.note(f"Continuing with {count(workers, 'worker')}.")
            self._without_workers_since = None
            self._report.update(workers=workers, state="running")
            return
        if self._without_workers_since is None:
            self._without_workers_since = time.monotonic()
            self._report.note("Waiting for workers: all are gone. The run continues when new ones connect.")
        self._report.update(workers=0, state="waiting")
        if time.monotonic() - self._without_workers_since > WAIT_FOR_WORKERS_SECONDS:
            self._reason = InterruptedRun(
                f"No worker for {WAIT_FOR_WORKERS_SECONDS / 60:.0f} minutes. Finished work is kept: start some "
                "(`dask worker <address of the scheduler>`) and continue with --resume (in Python resume=True)."
            )
