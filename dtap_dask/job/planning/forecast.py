"""What a run of a plan is expected to give: rows, bytes and shards of each part, memory and time.

Without a probe this rests on footers alone: where a filter or conditions decide, rows are only bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features import FittedState, feature_infos
from dtap_dask.features.bucketize import Bucketize
from dtap_dask.features.encode import OneHotEncode, OrdinalEncode
from dtap_dask.features.feature import Block, Chain
from dtap_dask.features.step import Fitted, Step
from dtap_dask.job.cluster import machine
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.planning.probe import Probe
from dtap_dask.job.planning.sharding import planned_row_bytes, shard_counts
from dtap_dask.lake.parquet.row_groups import OPEN_BYTES
from dtap_dask.records.shard import WINDOW_BYTES

WINDOW_ROWS = 65_536  # rows of a window that is shuffled and encoded, if they stay below WINDOW_BYTES
# A one-hot vector is as wide as there are values, which only fitting tells: so many at least, and so many as a guess.
ONE_HOT = (1, 64)
# Vocabularies from one word to as many as need four bytes for an id.
VOCABULARY = (1, 1 << 17)
Certainty = Literal["exactly", "about", "at most"]


@dataclass(frozen=True)
class PartForecast:
    """A part of the split: its rows, how many shards it is cut into, and the bytes of all of them, from and to."""

    name: str
    rows: int
    shards: int
    bytes_low: int
    bytes_high: int


@dataclass(frozen=True)
class Forecast:
    """What to expect of a run on so many threads, each in a worker with `worker_memory` bytes.

    `certainty` is that of the rows, and so of shards and bytes. `row_bytes` is the size of a row in the output, from
    and to. `memory` is what a thread needs beside the libraries; of that `vocabularies` are for exact counts of
    distinct values, as far as a probe tells. `seconds` are those of each stage, empty without a probe. `asked`: someone
    named the threads.
    """

    certainty: Certainty
    rows: int
    parts: tuple[PartForecast, ...]
    row_bytes: tuple[float, float]
    threads: int
    asked: bool
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
        """The size of the output, from and to."""
        low, high = self.row_bytes
        return round(self.rows * low), round(self.rows * high)


def forecast(
    plan: Plan, probe: Probe | None = None, *, workers: int | None = None, memory: int | None = None
) -> Forecast:
    """What to expect of a plan, on so many workers of one thread (default: the cores of this machine).

    `memory` is that of one worker in bytes (default: its share of this machine's).
    """
    threads = workers or machine.cores()
    low, high = _row_bytes(plan, probe)
    fitted = probe.infos if probe else ()
    certainty, shares = _shares(plan, probe)
    rows = _task_rows(plan)[:, None] * shares
    shards = shard_counts(plan, rows, planned_row_bytes(plan, fitted) if fitted else high).sum(axis=0)
    counts = np.rint(rows.sum(axis=0)).astype(int)
    vocabularies = sum(words.bytes for words in probe.words) if probe else 0
    return Forecast(
        certainty=certainty,
        rows=min(round(float(rows.sum())), plan.totals.rows.read),
        parts=tuple(
            PartForecast(name, int(count), int(number), round(count * low), round(count * high))
            for name, count, number in zip(plan.job.split_names, counts, shards, strict=True)
        ),
        row_bytes=(low, high),
        threads=threads,
        asked=workers is not None,
        worker_memory=memory or machine.memory() // threads,
        memory=_memory(plan, high) + vocabularies,
        vocabularies=vocabularies,
        seconds=dict(_seconds(plan, probe, threads)) if probe else {},
        probe=probe,
    )


def _task_rows(plan: Plan) -> npt.NDArray[np.float64]:
    return plan.amounts(plan.write_tasks)[:, 0].astype(np.float64)


def _shares(plan: Plan, probe: Probe | None) -> tuple[Certainty, npt.NDArray[np.float64]]:
    """The share of the source rows that each part gets, as the probe saw it or as the job asks for."""
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
    """The size of a row of the output: as measured, else with the least and the most that vocabularies may need."""
    if probe is not None and probe.row_bytes:
        return probe.row_bytes, probe.row_bytes
    low, high = (planned_row_bytes(plan, feature_infos(_as_if_fitted(plan, i))) for i in range(2))
    return max(low, 1e-9), max(high, 1e-9)


def _as_if_fitted(plan: Plan, which: int) -> FittedState:
    """A state with vocabularies of the least (0) or the most (1) words that are to be reckoned with."""
    pipeline, rows = plan.checked.pipeline, max(1, plan.totals.rows.read)
    fitted: dict[Chain | Block, Fitted] = {
        lane.chain(index + 1): learnt
        for feature in pipeline.features
        for lane in feature.lanes
        for index, step in enumerate(lane.steps)
        if (learnt := _as_if_learnt(step, rows, which))
    }
    return FittedState(pipeline.specs, pipeline.schema, pipeline.levels, rows, fitted)


def _as_if_learnt(step: Step, rows: int, which: int) -> Fitted:
    if isinstance(step, OrdinalEncode):
        return {"vocabulary": pa.nulls(min(step.top_k or rows, rows, VOCABULARY[which]))}
    if isinstance(step, OneHotEncode):
        return {"categories_": pa.nulls(min(step.max_values, rows, ONE_HOT[which]))}
    if isinstance(step, Bucketize) and step.quantiles is not None:
        return {"boundaries_": (0.0,) * (step.quantiles - 1)}
    return {}


def _memory(plan: Plan, row_bytes: float) -> int:
    """What one worker thread needs at most, roughly: row groups that are open, and two windows of encoded rows."""
    largest = np.sort(plan.groups.raw_bytes)[-16:]
    window = min(WINDOW_BYTES, min(WINDOW_ROWS, plan.totals.rows.read) * row_bytes)
    return min(OPEN_BYTES, int(largest.sum())) + round(2 * window)


def _seconds(plan: Plan, probe: Probe, threads: int) -> Iterator[tuple[str, float]]:
    """Each stage at the pace of the probe, its tasks on so many threads, as many rounds as that takes."""
    if plan.job.fit == "dask_ml" and plan.checked.pipeline.levels:
        return  # dask-ml's passes are not what was measured
    if not probe.row_bytes:
        return  # it ended early
    for stage, pace in zip(plan.stages, probe.paces, strict=True):
        tasks = len(stage.tasks)
        rounds = -(-tasks // threads)
        yield stage.name, plan.totals.rows.read / pace.rows_per_second * rounds / tasks
