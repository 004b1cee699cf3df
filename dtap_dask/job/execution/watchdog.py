"""Looks after a run beside its tasks: whether workers are there, came or went, and whether it is told to stop."""

from __future__ import annotations

import threading
import time
from typing import Any

from distributed import Client

from dtap_dask.errors import RESUMABLE, Cancelled, InterruptedRun, Superseded
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.job.status.scheduler_store import SchedulerStore, losses
from dtap_dask.words import count

SECONDS = 1.0
# Batch systems may take long to give workers back; after that somebody should look.
WAIT_FOR_WORKERS_SECONDS = 1800.0


class Watchdog:
    """A thread for the length of a `with` block. `attempt` is the mark of a driver, which may be begun again elsewhere.

    What it sees it tells; a reason to stop waits in `check` for the thread that does the work.
    """

    def __init__(self, client: Client, report: RunReporter, attempt: str | None = None):
        self._client, self._report, self._attempt = client, report, attempt
        self._scheduler, self.run = SchedulerStore(client), report.snapshot.id
        self._ended = threading.Event()
        self._reason: InterruptedRun | None = None
        self._alone: float | None = None
        self.threads = sum(client.nthreads().values())
        self._thread = threading.Thread(target=self._work, name="dtap_dask-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._client.subscribe_topic("all", self._heard)
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

    def _heard(self, event: tuple[float, Any]) -> None:
        """An event of the scheduler."""
        lost = losses(event[1], self.run)
        if lost:
            self._report.add(**lost)

    def _work(self) -> None:
        while not self._ended.wait(SECONDS):
            try:
                threads, instructions = self._client.nthreads(), self._scheduler.instructions(self.run)
            except (OSError, TimeoutError, RuntimeError, InterruptedRun):
                continue  # the thread that does the work sees it too, and says what to do
            self.threads = sum(threads.values())
            self._look_for_workers(len(threads))
            if self._attempt and instructions.get("attempt") != self._attempt:
                self._reason = Superseded("The scheduler has begun this driver again elsewhere.")
            elif instructions.get("cancel"):
                self._reason = Cancelled(f"Cancelled. {RESUMABLE}")

    def _look_for_workers(self, workers: int) -> None:
        if workers:
            if self._alone is not None:
                self._report.note(f"Going on with {count(workers, 'worker')}.")
            self._alone = None
            self._report.update(workers=workers, state="running")
            return
        if self._alone is None:
            self._alone = time.monotonic()
            self._report.note("Waiting for workers: all are gone. The run goes on when some come.")
        self._report.update(workers=0, state="waiting")
        if time.monotonic() - self._alone > WAIT_FOR_WORKERS_SECONDS:
            self._reason = InterruptedRun(
                f"No worker came for {WAIT_FOR_WORKERS_SECONDS / 60:.0f} minutes. Finished work is kept: start some "
                "(`dask worker <address of the scheduler>`) and continue with --resume (in Python resume=True)."
            )
