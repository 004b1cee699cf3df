"""A short measurement for the forecast: fits, transforms and encodes a few row groups here and writes nothing."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from dtap_dask.errors import DataError
from dtap_dask.features import Accumulator, Partial, Transform, finish
from dtap_dask.features.engine.fit import measures
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.job.planning.distinct_values import expected_distinct
from dtap_dask.job.planning.grouping import MIXED_FROM
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.planning.sampling import first_batches
from dtap_dask.job.planning.sharding import FEW_SHARDS, layout_of
from dtap_dask.job.planning.stages import PlannedStage
from dtap_dask.job.planning.warnings import COPIES, WORD_BYTES
from dtap_dask.lake.scan import ScanBatch, ScanTask, read_task
from dtap_dask.records.global_shuffle import deal_rows
from dtap_dask.records.shard import ROW_GROUP, AssignedRows, TaskShards, write_shards
from dtap_dask.records.shard_plan import ShuffleTask
from dtap_dask.storage import Store

SECONDS = 4.0
GROUP_ROWS = 1 << 17  # at most, of one row group, so that many of them are seen;
FEW_ROWS = 1 << 20  # where there are few row groups, as many of each as make this together
BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class StagePace:
    """The pace of one thread in a stage: source rows (before the filter) and seconds."""

    stage: str
    rows: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Source rows per second."""
        return self.rows / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class DistinctEstimate:
    """The distinct values of a column that a step counts: `seen` in the probe, `expected` in the run.

    `bytes` is the expected peak memory of their exact counts in one worker.
    """

    column: str
    seen: int
    expected: int
    bytes: int


@dataclass(frozen=True)
class Probe:
    """Measurements of a few row groups of a plan.

    - `row_groups`, `rows`: how many were read, and their source rows; `kept`: rows in each part.
    - `row_bytes`: bytes of a row of the output, compressed as the job says; None where no row was kept.
    - `infos`: the output columns as fitted on these rows.
    - `distinct`: estimates for columns whose values are counted.
    - `error`: why the probe ended early, if it did.
    """

    row_groups: int
    rows: int
    kept: tuple[int, ...]
    paces: tuple[StagePace, ...]
    row_bytes: float | None
    infos: tuple[FeatureInfo, ...]
    distinct: tuple[DistinctEstimate, ...]
    error: str = ""


def probe(plan: Plan, seconds: float = SECONDS) -> Probe:
    """Measure for about `seconds`, in this process, with one thread."""
    measuring = _Measuring(plan, seconds / max(2, len(plan.stages)))
    try:
        measuring.measure()
    except DataError as error:
        measuring.error = str(error)
    return measuring.result()


def spread(count: int) -> Iterator[int]:
    """The numbers 0 to count - 1, with the first ones far apart: van der Corput's sequence."""
    bits = max(1, (count - 1).bit_length())
    for i in range(1 << bits):
        number = int(f"{i:0{bits}b}"[::-1], 2)
        if number < count:
            yield number


class _Measuring:
    def __init__(self, plan: Plan, seconds: float):
        self._plan, self._seconds = plan, seconds
        self._scan, self._graph = plan.checked.scan, plan.checked.graph
        self._state = plan.checked.state
        self._taken: dict[int, int] = {}  # rows of each row group, by its position
        self._most = max(GROUP_ROWS, FEW_ROWS // len(plan.groups))
        self._paces: list[StagePace] = []
        self._partials: list[Partial] = []  # by level
        self._rows = 0
        self._encoding = 0.0  # seconds
        self._kept = np.zeros(len(plan.job.split_names), np.int64)
        self._row_bytes: float | None = None
        self.error = ""

    def measure(self) -> None:
        """Every pass that a run makes. The first one chooses the row groups; a run that only writes counts for that."""
        self._warm_up()
        passes = {"fit": self._fit, "count": self._count, "write": self._write, "shuffle": self._write}
        if self._plan.passes == 1:
            self._count(self._plan.stages[0])
        for stage in self._plan.stages:
            if stage.kind == "gather":
                self._paces.append(StagePace(stage.name, self._paces[-1].rows, self._encoding))
            else:
                self._paces.append(passes[stage.kind](stage))

    def result(self) -> Probe:
        """The measurements so far."""
        fitted = self._state.is_complete
        return Probe(
            len(self._taken),
            self._rows,
            tuple(int(rows) for rows in self._kept),
            tuple(self._paces),
            self._row_bytes,
            self._state.infos if fitted else (),
            tuple(self._distinct()),
            self.error,
        )

    def _warm_up(self) -> None:
        """Scan a few rows, so that what happens once per process is in no stage's pace."""
        for _ in self._read(next(spread(len(self._plan.groups))), rows=1):
            pass

    def _read(self, position: int, rows: int) -> Iterator[tuple[ScanBatch, int]]:
        """Batches of the first rows of a row group, and the number of source rows behind each."""
        batch_rows = min(BATCH_ROWS, max(rows, 1024))
        return first_batches(self._plan, self._scan, position, rows, batch_rows=batch_rows)

    def _count(self, stage: PlannedStage) -> StagePace:
        """Count rows, reading no more columns than that takes."""
        start = time.monotonic()
        scan = replace(self._scan, outputs=(), folds=())
        for position in spread(len(self._plan.groups)):
            group = self._plan.groups[position]
            for batch in read_task(self._plan.source, scan, ScanTask(position, (group,))):
                self._keep(batch)
            self._taken[position] = min(group.rows, self._most)
            self._rows += group.rows
            if time.monotonic() - start > self._seconds:
                break
        return StagePace(stage.name, self._rows, time.monotonic() - start)

    def _keep(self, batch: ScanBatch) -> None:
        split = batch.split[batch.split >= 0]
        self._kept += np.bincount(split, minlength=len(self._kept))

    def _fit(self, stage: PlannedStage) -> StagePace:
        """Fit a level. The first takes row groups until its time is up, later ones take the same."""
        level, start = stage.level, time.monotonic()
        ends = start + self._seconds if level == 0 else math.inf
        accumulator = Accumulator(self._state)
        rows = 0
        chosen = ((position, self._most) for position in spread(len(self._plan.groups)))
        for position, most in chosen if level == 0 else list(self._taken.items()):
            for batch, source_rows in self._read(position, most):
                matched, split = batch.in_parts()
                accumulator.add(matched, self._scan.fit_mask(split))
                rows += source_rows
                if level == 0:
                    self._keep(batch)
                    self._taken[position] = self._taken.get(position, 0) + source_rows
                if time.monotonic() > ends:
                    break
            if time.monotonic() > ends:
                break
        self._rows = rows
        partial = accumulator.partial()
        self._partials.append(partial)
        self._state = finish(partial, self._state)
        return StagePace(stage.name, rows, time.monotonic() - start)

    def _write(self, stage: PlannedStage) -> StagePace:
        """Transform and encode row groups, several together as a write task does; only the files are left out.

        A shuffle deals rows instead, and the time of encoding them is that of the next stage.
        """
        transform = Transform(self._state)
        start, size, kept, rows = time.monotonic(), 0, 0, 0
        for unit in _units(self._taken):
            batches: list[AssignedRows] = []
            for position in unit:
                for batch, source_rows in self._read(position, self._taken[position]):
                    matched, split = batch.in_parts()
                    rows += source_rows
                    if matched.num_rows:
                        groups = np.full(matched.num_rows, position, np.int32)
                        batches.append((split, {**transform.apply(matched), ROW_GROUP: groups}))
            if stage.kind == "shuffle":
                self._deal(batches, transform.infos)
            begun = time.monotonic()
            size += self._encode(batches, transform.infos)
            self._encoding += time.monotonic() - begun
            kept += sum(len(split) for split, _ in batches)
            if time.monotonic() - start > self._seconds:
                break
        self._row_bytes = size / kept if kept else None
        elsewhere = self._encoding if stage.kind == "shuffle" else 0.0
        return StagePace(stage.name, rows, time.monotonic() - start - elsewhere)

    def _rows_of_parts(self, batches: Sequence[AssignedRows]) -> tuple[int, ...]:
        parts = np.concatenate([split for split, _ in batches]) if batches else np.empty(0, np.int16)
        return tuple(np.bincount(parts, minlength=len(self._kept)).tolist())

    def _deal(self, batches: Sequence[AssignedRows], infos: Sequence[FeatureInfo]) -> None:
        rows = self._rows_of_parts(batches)
        shards = tuple(min(count, FEW_SHARDS) for count in rows)
        task = ShuffleTask(0, self._plan.job.split_names, rows, (0,) * len(rows), rows, shards)
        deal_rows(cast("Store", _NullStore()), "", task, batches, infos=infos, layout=layout_of(self._plan.job), seed=0)

    def _encode(self, batches: Sequence[AssignedRows], infos: Sequence[FeatureInfo]) -> int:
        names, output = self._plan.job.split_names, self._plan.job.output
        rows = self._rows_of_parts(batches)
        paths = tuple((name,) if count else () for name, count in zip(names, rows, strict=True))
        written = write_shards(
            cast("Store", _NullStore()),
            "",
            TaskShards(0, tuple(names), rows, paths),
            batches,
            infos=infos,
            layout=layout_of(self._plan.job),
            shuffle="none" if output.shuffle == "none" else "mixed",
            seed=output.seed,
        )
        return sum(shard.bytes for shard in written)

    def _distinct(self) -> Iterator[DistinctEstimate]:
        """Estimates of the distinct values of every column that is counted."""
        share = self._plan.totals.rows.read / max(1, self._rows)
        for partial in self._partials:
            for measure, counts in zip(measures(self._graph, partial.at), partial.statistics, strict=True):
                if not isinstance(counts, Counts):
                    continue
                seen = len(counts.tally)
                expected = expected_distinct(counts.tally, counts.count, counts.count * share)
                each = (counts.values.nbytes / seen if counts.values is not None and seen else 0) * COPIES + WORD_BYTES
                yield DistinctEstimate(measure.values[0].columns[0], seen, expected, round(expected * each))


def _units(taken: Mapping[int, int]) -> Iterator[list[int]]:
    """Row groups in groups as a write task has them, or smaller ones where row groups are large."""
    unit: list[int] = []
    for position in taken:
        unit.append(position)
        if len(unit) == MIXED_FROM or sum(taken[one] for one in unit) >= GROUP_ROWS:
            yield unit
            unit = []
    if unit:
        yield unit


class _NullStore:
    """As much of a store as writing shards needs; keeps nothing."""

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[_NullStore]:
        """A file that keeps nothing."""
        yield self

    def write(self, data: Any) -> int:
        """Discard the bytes; their number."""
        return len(data)
