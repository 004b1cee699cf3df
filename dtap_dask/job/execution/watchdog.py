"""Looks after a run beside its tasks: whether workers are there, came or went, and whether it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from distributed import Client

from dtap_dask.errors import InterruptedRun
from dtap_dask.job.status.reporter import Cancelled, RunReporter, Superseded
from dtap_dask.job.status.scheduler_store import SchedulerStore

SECONDS = 1.0
# Batch systems may take long to give workers back; after that somebody should look.
WAIT_FOR_WORKERS_SECONDS = 1800.0


class Watchdog:
    """A thread for the length of a `with` block. `attempt` is the mark of a driver, which may be begun again elsewhere.

    What it sees it tells; a reason to stop waits in `check` for the thread that does the work.
    """

    def __init__(self, client: Client, report: RunReporter, attempt: str | None = None):
        self._client, self._report, self._attempt = client, report, attempt
        self._board, self.run = SchedulerStore(client), report.snapshot.id
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
        """An event of the scheduler: when a worker goes, Dask says which tasks must be begun again."""
        message = event[1]
        if isinstance(message, Mapping) and message.get("action") == "remove-worker":
            again = [str(key) for name in ("processing-tasks", "lost-computed-tasks") for key in message.get(name, ())]
            retries = sum(self.run in key for key in again)
            self._report.add(lost_workers=int(not message.get("expected")), retries=retries)

    def _work(self) -> None:
        while not self._ended.wait(SECONDS):
            try:
                threads, orders = self._client.nthreads(), self._board.orders(self.run)
            except (OSError, TimeoutError, RuntimeError, InterruptedRun):
                continue  # the thread that does the work sees it too, and says what to do
            self.threads = sum(threads.values())
            self._look_for_workers(len(threads))
            if self._attempt and orders.get("attempt") != self._attempt:
                self._reason = Superseded("The scheduler has begun this driver again elsewhere.")
            elif orders.get("cancel"):
                self._reason = Cancelled(
                    "Cancelled. What is written stays: go on with --resume (in Python resume=True)."
                )

    def _look_for_workers(self, workers: int) -> None:
        if workers:
            if self._alone is not None:
                self._report.note(f"Going on with {workers} worker{'s' if workers > 1 else ''}.")
            self._alone = None
            self._report.update(workers=workers, state="running")
            return
        if self._alone is None:
            self._alone = time.monotonic()
            self._report.note("Waiting for workers: all are gone. The run goes on when some come.")
        self._report.update(workers=0, state="waiting")
        if time.monotonic() - self._alone > WAIT_FOR_WORKERS_SECONDS:
            self._reason = InterruptedRun(
                f"No worker came for {WAIT_FOR_WORKERS_SECONDS / 60:.0f} minutes. What is written stays: start some "
                "(`dask worker <address of the scheduler>`) and go on with --resume (in Python resume=True)."
            )
