"""What the scheduler knows about runs: the last snapshot of each, and its own counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from dtap_dask.job.status.scheduler_store import losses
from dtap_dask.job.status.snapshot import ENDED, SILENT_SECONDS, TOPIC, Snapshot

RUNS_KEPT = 50
MOMENTS_KEPT = 240
# Validates: a snapshot of another version, or a forged one, must not break the page for all runs.
_SNAPSHOT = TypeAdapter(Snapshot)


class History:
    """The rows that a run's stages had done at some moments: few enough to keep, enough to draw."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []  # seconds since the start, rows

    def take(self, snapshot: Snapshot) -> None:
        """Add a moment, if there are more rows than at the last."""
        seconds, rows = snapshot.updated - snapshot.started, sum(stage.rows_done for stage in snapshot.stages)
        if self._points and rows < self._points[-1][1]:  # another attempt of the run
            self._points.clear()
        if not self._points or rows > self._points[-1][1]:
            self._points.append((seconds, rows))
        if len(self._points) > MOMENTS_KEPT:
            self._points = [*self._points[:-1:2], self._points[-1]]

    def rates(self, parts: int) -> tuple[float, list[float]]:
        """The seconds from the first to the last moment, and the rows a second in `parts` equal parts of them.

        A task's rows are spread over the time since the moment before it ended, as it did not do them all at its end.
        """
        if len(self._points) < 2:
            return 0.0, []
        seconds, rows = np.array(self._points).T
        edges = np.linspace(seconds[0], seconds[-1], parts + 1)
        span = float(seconds[-1] - seconds[0])
        return span, (np.diff(np.interp(edges, seconds, rows)) * parts / max(span, 1e-9)).tolist()


@dataclass
class ObservedRun:
    """The last snapshot of one run, when it arrived by the scheduler's clock, and the scheduler's own counts."""

    published: Snapshot
    received: float
    retries: int = 0
    lost_workers: int = 0
    history: History = field(default_factory=History)

    @property
    def snapshot(self) -> Snapshot:
        """The last snapshot, with the scheduler's counts where they are higher: its driver may have missed some."""
        return replace(
            self.published,
            retries=max(self.published.retries, self.retries),
            lost_workers=max(self.published.lost_workers, self.lost_workers),
        )

    @property
    def ended(self) -> bool:
        """Whether the driver has published the end."""
        return self.published.state in ENDED

    def seconds(self, now: float) -> float:
        """How long it has taken; each difference is of one clock, as the driver's may be wrong."""
        since = 0.0 if self.ended else now - self.received
        return max(0.0, self.published.updated - self.published.started + since)

    def silent(self, now: float) -> float | None:
        """Seconds since the last snapshot, if that is too long."""
        quiet = now - self.received
        return quiet if not self.ended and quiet > SILENT_SECONDS else None


class Board:
    """Takes Dask's events and keeps the last runs, in the order of their last snapshots."""

    def __init__(self) -> None:
        self._runs: dict[str, ObservedRun] = {}

    def __iter__(self) -> Iterator[ObservedRun]:
        """Unfinished runs first; the latest start first."""
        return iter(sorted(self._runs.values(), key=lambda run: (run.ended, -run.published.started, run.published.id)))

    def take(self, topic: str, message: Any) -> None:
        """One event of the scheduler; most are of no concern here, and cost a comparison."""
        if topic == TOPIC:
            self._receive(_SNAPSHOT.validate_python(message))
        elif topic == "all":
            for run in self._runs.values():
                lost = {} if run.ended else losses(message, run.published.id)
                run.lost_workers += lost.get("lost_workers", 0)
                run.retries += lost.get("retries", 0)

    def _receive(self, snapshot: Snapshot) -> None:
        known = self._runs.pop(snapshot.id, None)
        if known:
            known.published, known.received = snapshot, time.time()
        run = self._runs[snapshot.id] = known or ObservedRun(snapshot, time.time())
        run.history.take(snapshot)
        if len(self._runs) > RUNS_KEPT:
            del self._runs[next(iter(self._runs))]
