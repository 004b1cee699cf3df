"""What the scheduler knows of runs: the last snapshot of each, and what it saw itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from dtap_dask.job.status.snapshot import ENDED, TOPIC, Snapshot

RUNS_KEPT = 50
MOMENTS_KEPT = 240
# Of a driver that has said nothing for so long, that is said.
SILENT_SECONDS = 20.0
# Validates: a snapshot of another version, or of somebody's own making, must not break the page for all runs.
_SNAPSHOT = TypeAdapter(Snapshot)


class History:
    """The rows that a run's stages had done at some moments: few enough to be kept, many enough to be drawn."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []  # seconds since the start, rows

    def take(self, snapshot: Snapshot) -> None:
        """One more moment, if something has been done since the last."""
        seconds, rows = snapshot.told - snapshot.started, sum(stage.rows_done for stage in snapshot.stages)
        if self._points and rows < self._points[-1][1]:  # a driver that was lost began anew
            self._points.clear()
        if not self._points or rows > self._points[-1][1]:
            self._points.append((seconds, rows))
        if len(self._points) > MOMENTS_KEPT:
            self._points = [*self._points[:-1:2], self._points[-1]]

    def rates(self, parts: int) -> tuple[float, list[float]]:
        """The seconds from the first to the last moment, and the rows a second in that many equal parts of them.

        Rows that a task has done count from the moment before it ended on, as all of them did not come at its end.
        """
        if len(self._points) < 2:
            return 0.0, []
        seconds, rows = np.array(self._points).T
        edges = np.linspace(seconds[0], seconds[-1], parts + 1)
        span = float(seconds[-1] - seconds[0])
        return span, (np.diff(np.interp(edges, seconds, rows)) * parts / max(span, 1e-9)).tolist()


@dataclass
class Run:
    """The last snapshot of one run, when it came by the scheduler's clock, and what the scheduler counted."""

    said: Snapshot
    heard: float
    retries: int = 0
    lost_workers: int = 0
    history: History = field(default_factory=History)

    @property
    def snapshot(self) -> Snapshot:
        """The last snapshot, with the scheduler's counts where it saw more: a driver that was lost began at 0 again."""
        return replace(
            self.said,
            retries=max(self.said.retries, self.retries),
            lost_workers=max(self.said.lost_workers, self.lost_workers),
        )

    @property
    def ended(self) -> bool:
        """Whether the driver has said so."""
        return self.said.state in ENDED

    def seconds(self, now: float) -> float:
        """How long it has been going, or went; differences of one clock each, as the driver's may be off."""
        since = 0.0 if self.ended else now - self.heard
        return max(0.0, self.said.told - self.said.started + since)

    def silent(self, now: float) -> float | None:
        """Seconds without a word, if that is too long."""
        quiet = now - self.heard
        return quiet if not self.ended and quiet > SILENT_SECONDS else None


class Board:
    """Takes Dask's events and keeps the last runs, those that spoke last at the end."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def __iter__(self) -> Iterator[Run]:
        """Those that go on first, each by their start, the latest first."""
        return iter(sorted(self._runs.values(), key=lambda run: (run.ended, -run.said.started, run.said.id)))

    def take(self, topic: str, message: Any) -> None:
        """One event of the scheduler's log; those that do not concern us cost a comparison."""
        if topic == TOPIC:
            self._tell(_SNAPSHOT.validate_python(message))
        elif topic == "all" and isinstance(message, Mapping) and message.get("action") == "remove-worker":
            self._lose(message)

    def _tell(self, said: Snapshot) -> None:
        known = self._runs.pop(said.id, None)
        if known:
            known.said, known.heard = said, time.time()
        run = self._runs[said.id] = known or Run(said, time.time())
        run.history.take(said)
        if len(self._runs) > RUNS_KEPT:
            del self._runs[next(iter(self._runs))]

    def _lose(self, message: Mapping[str, Any]) -> None:
        """A worker is gone: its tasks and its results that nobody else has are begun again elsewhere.

        Dask tells both once a worker, so no task's transition need be watched. A worker that was told to go is not
        lost. Whose a task is, its key says: it holds the id of the run.
        """
        again = [str(key) for name in ("processing-tasks", "lost-computed-tasks") for key in message.get(name, ())]
        for run in self._runs.values():
            if not run.ended:
                run.lost_workers += not message.get("expected")
                run.retries += sum(run.said.id in key for key in again)


def seconds_left(snapshot: Snapshot) -> float | None:
    """How long the stages told of will take at the pace so far; None before that is known, or when the run has ended.

    Stages that have not begun are reckoned by rows, at the pace of those that have.
    """
    if snapshot.state in ENDED:
        return None
    begun = [stage for stage in snapshot.stages if stage.ended or stage.tasks_done]
    rows, seconds = sum(stage.rows_done for stage in begun), sum(stage.seconds for stage in begun)
    left = 0.0
    for stage in snapshot.stages:
        if stage in begun:
            left += stage.seconds_left or 0.0
        elif rows:
            left += stage.rows * seconds / rows
        else:
            return None
    return left if begun else None
