"""The runs' numbers at the scheduler's /metrics, beside Dask's own, where prometheus_client is installed there.

All of them are listed in docs/cluster.md. An ended run is listed until fifty others have published something.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from dtap_dask.job.dashboard.board import Board, ObservedRun
from dtap_dask.job.status.snapshot import Stage

# Name, description, whether it only grows: those of runs have the labels `run` and `job`, those of stages `stage`, too.
OF_RUNS = (
    ("run_state", "1, with the label state: waiting, running, done, failed, interrupted or cancelled", False),
    ("run_seconds", "Seconds since the start, until the end", False),
    ("run_seconds_left", "Seconds left at the average pace; absent while unknown, and after the end", False),
    ("run_silent_seconds", "Seconds since the driver last reported; absent after the end", False),
    ("run_workers", "Workers of the cluster", False),
    ("bytes_read", "Bytes that tasks read", True),
    ("bytes_written", "Bytes that tasks wrote", True),
    ("shards_planned", "Shards of the dataset; absent until they are planned", False),
    ("shards_committed", "Finished shards", False),
    ("retries", "Tasks that were started again", True),
    ("lost_workers", "Workers lost during the run", True),
)
OF_STAGES = (
    ("stage_tasks", "Tasks planned"),
    ("stage_tasks_done", "Tasks that have ended"),
    ("stage_rows", "Source rows planned"),
    ("stage_rows_done", "Source rows of the tasks that have ended"),
    ("stage_bytes_done", "Bytes of source columns of the tasks that have ended"),
    ("stage_seconds", "Seconds that the stage has taken so far"),
)


class Metrics:
    """A collector for prometheus_client, which has one registry a process: as with Dask's own, the last scheduler's."""

    def __init__(self) -> None:
        self._boards: list[Board] = []
        self._registered = False

    def follow(self, board: Board) -> None:
        """Serve this board's numbers; without prometheus_client do nothing: Dask's /metrics says so itself."""
        self._boards.append(board)
        if not self._registered:
            try:
                from prometheus_client import REGISTRY
            except ImportError:
                return
            REGISTRY.register(self)
            self._registered = True

    def leave(self, board: Board) -> None:
        """Its scheduler has closed; in tests, one process has several."""
        self._boards.remove(board)

    def collect(self) -> Iterator[Any]:
        """prometheus_client's hook, called for each request of /metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        runs, now = list(self._boards[-1]) if self._boards else [], time.time()
        for name, text, grows in OF_RUNS:
            labels = ["run", "job", "state"] if name == "run_state" else ["run", "job"]
            family = (CounterMetricFamily if grows else GaugeMetricFamily)(f"dtap_dask_{name}", text, labels=labels)
            for run in runs:
                value = _of_run(run, name, now)
                if value is not None:
                    state = [run.published.state] if name == "run_state" else []
                    family.add_metric([run.published.id, run.published.name, *state], value)
            yield family
        for name, text in OF_STAGES:
            family = GaugeMetricFamily(f"dtap_dask_{name}", text, labels=["run", "job", "stage"])
            for run in runs:
                for stage in run.published.stages:
                    family.add_metric([run.published.id, run.published.name, stage.name], _of_stage(stage, name))
            yield family


METRICS = Metrics()


def _of_run(run: ObservedRun, name: str, now: float) -> float | None:
    snapshot = run.snapshot
    own: dict[str, float | None] = {
        "run_state": 1,
        "run_seconds": run.seconds(now),
        "run_seconds_left": snapshot.seconds_left,
        "run_silent_seconds": None if run.ended else now - run.received,
        "run_workers": snapshot.workers,
    }
    return own[name] if name in own else getattr(snapshot, name)


def _of_stage(stage: Stage, name: str) -> float:
    value: float = getattr(stage, name.removeprefix("stage_"))
    return value
