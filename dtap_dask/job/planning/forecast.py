"""Forecast of a run: rows, bytes and shards of each part, memory and time.

Without a probe it is computed from footers alone: filters and conditions then only bound the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dtap_dask.errors import DataError
from dtap_dask.features import FittedState
from dtap_dask.features.graph.known import completed
from dtap_dask.job.cluster import machine
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.planning.probe import Probe
from dtap_dask.job.planning.sharding import planned_row_bytes, total_shards
from dtap_dask.lake.parquet.reading import OPEN_BYTES
from dtap_dask.records.global_shuffle import HELD_BYTES
from dtap_dask.records.shard import WINDOW_BYTES, WINDOW_ROWS

Certainty = Literal["exactly", "about", "at most"]


@dataclass(frozen=True)
class PartForecast:
    """A part of the split: its rows, its number of shards, and the least and most bytes of all of them."""

    name: str
    rows: int
    shards: int
    bytes_low: int
    bytes_high: int


@dataclass(frozen=True)
class Forecast:
    """Forecast of a run on `threads` threads, each in a worker with `worker_memory` bytes.

    - `certainty`: of the rows, and therefore of shards and bytes.
    - `row_bytes`: the least and most bytes of a row in the output.
    - `shuffled_bytes`: that a global shuffle keeps beside the output until the run ends, at most; 0 without one.
    - `requested`: the user chose the number of threads.
    - `memory`: bytes that a thread needs besides the libraries; of these `vocabularies` are for exact counts of
      distinct values, which only a probe estimates.
    - `seconds`: by name of stage; empty without a probe.
    """

    certainty: Certainty
    rows: int
    parts: tuple[PartForecast, ...]
    row_bytes: tuple[float, float]
    shuffled_bytes: int
    threads: int
    requested: bool
    worker_memory: int
    memory: int
    vocabularies: int
    seconds: Mapping[str, float]
    probe: Probe | None

    @property
    def shards(self) -> int:
        """Shards of all parts."""
        return sum(part.shards for part in self.parts)

    @property
    def bytes(self) -> tuple[int, int]:
        """The least and most bytes of the output."""
        low, high = self.row_bytes
        return round(self.rows * low), round(self.rows * high)


def forecast(
    plan: Plan, probe: Probe | None = None, *, workers: int | None = None, memory: int | None = None
) -> Forecast:
    """Forecast of a plan on `workers` workers of one thread (default: one for each core of this machine).

    `memory` is the bytes of one worker (default: its share of this machine's).
    """
    threads = workers or machine.cores()
    low, high = _row_bytes(plan, probe)
    fitted = probe.infos if probe else ()
    certainty, shares = _shares(plan, probe)
    rows = _task_rows(plan)[:, None] * shares
    row_size = planned_row_bytes(plan, fitted) if fitted else high
    shards = total_shards(plan, rows, row_size)
    counts = np.rint(rows.sum(axis=0)).astype(int)
    vocabularies = sum(column.bytes for column in probe.distinct) if probe else 0
    return Forecast(
        certainty=certainty,
        rows=min(round(float(rows.sum())), plan.totals.rows.read),
        parts=tuple(
            PartForecast(name, int(count), int(number), round(count * low), round(count * high))
            for name, count, number in zip(plan.job.split_names, counts, shards, strict=True)
        ),
        row_bytes=(low, high),
        shuffled_bytes=round(rows.sum() * row_size) if plan.job.output.shuffle == "global" else 0,
        threads=threads,
        requested=workers is not None,
        worker_memory=memory or machine.memory() // threads,
        memory=_memory(plan, high) + vocabularies,
        vocabularies=vocabularies,
        seconds=dict(_seconds(plan, probe, threads, int(shards.sum()))) if probe else {},
        probe=probe,
    )


def _task_rows(plan: Plan) -> npt.NDArray[np.float64]:
    return plan.amounts(plan.write_tasks)[:, 0].astype(np.float64)


def _shares(plan: Plan, probe: Probe | None) -> tuple[Certainty, npt.NDArray[np.float64]]:
    """The share of the source rows in each part, as the probe measured it or as the job asks for, shape [parts]."""
    scan, names = plan.checked.scan, plan.job.split_names
    if not plan.needs_counting:
        return "exactly", np.ones(1)
    if probe is not None and probe.rows:
        return "about", np.array(probe.kept) / probe.rows
    fractions = scan.split.fractions if scan.split else None
    shares = np.array(fractions if fractions else [1.0] * len(names)) * (1.0 if scan.sample is None else scan.sample)
    bounded = scan.where is not None or (scan.split is not None and not fractions)
    return "at most" if bounded else "about", shares


def _row_bytes(plan: Plan, probe: Probe | None) -> tuple[float, float]:
    """The least and most bytes of a row of the output: both as measured, or by the size of vocabularies."""
    if probe is not None and probe.row_bytes:
        return probe.row_bytes, probe.row_bytes
    low, high = (planned_row_bytes(plan, _as_if_fitted(plan, i).infos) for i in range(2))
    return max(low, 1e-9), max(high, 1e-9)


def _as_if_fitted(plan: Plan, which: int) -> FittedState:
    """A state with the least (0) or the most (1) that may be fitted; the one that the job takes."""
    if plan.origin:
        return plan.checked.state
    graph, known, rows = plan.checked.graph, plan.checked.state.fitted, max(1, plan.totals.rows.read)
    learning = [value for value in graph.values if value.learns]
    guessed = {value: value.applied.guess_further(known.get(value, {}), rows)[which] for value in learning}
    try:
        return FittedState(graph, graph.passes, rows, completed(graph, {**known, **guessed}, ()))
    except DataError:
        if which == 0:
            raise
        return _as_if_fitted(plan, 0)  # a step takes fewer ids than are guessed at most


def _memory(plan: Plan, row_bytes: float) -> int:
    """About the most bytes that a worker thread needs: open row groups, and a window of rows twice."""
    largest = np.sort(plan.groups.raw_bytes)[-16:]
    window = min(WINDOW_BYTES, min(WINDOW_ROWS, plan.totals.rows.read) * row_bytes)
    if plan.job.output.shuffle == "global":
        window = min(HELD_BYTES, plan.totals.rows.read * row_bytes)
    return min(OPEN_BYTES, int(largest.sum())) + round(2 * window)


def _seconds(plan: Plan, probe: Probe, threads: int, shards: int) -> Iterator[tuple[str, float]]:
    """The time of each stage: the pace of the probe, times the rounds in which `threads` threads run its tasks."""
    if plan.job.fit == "dask_ml" and plan.checked.graph.passes:
        return  # the probe does not measure dask-ml's passes
    if not probe.row_bytes:
        return  # the probe ended early
    for stage, pace in zip(plan.stages, probe.paces, strict=True):
        tasks = max(1, shards) if stage.kind == "gather" else len(stage.tasks)
        rounds = -(-tasks // threads)
        yield stage.name, plan.totals.rows.read / pace.rows_per_second * rounds / tasks
