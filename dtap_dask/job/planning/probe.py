"""A short measurement: fit, transform and encode a few row groups here, with nothing written, to forecast a run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

import numpy as np

from dtap_dask.errors import DataError
from dtap_dask.features import Accumulator, FeatureInfo, FittedState, Partial, Transform, feature_infos, finish
from dtap_dask.features.counts import Counts
from dtap_dask.features.fit import measures
from dtap_dask.job.planning.distinct_values import expected_distinct
from dtap_dask.job.planning.grouping import MIXED_FROM
from dtap_dask.job.planning.plan import Plan
from dtap_dask.job.planning.sharding import layout_of
from dtap_dask.job.planning.stages import PlannedStage
from dtap_dask.job.planning.warnings import COPIES, WORD_BYTES
from dtap_dask.lake.parquet.row_groups import planned_rows
from dtap_dask.lake.scan import ScanBatch, ScanSpec, ScanTask, read_task
from dtap_dask.records.shard import AssignedRows, TaskShards, write_shards
from dtap_dask.storage import Store

SECONDS = 4.0
GROUP_ROWS = 1 << 17  # no more of one row group, as the probe is to see many places;
FEW_ROWS = 1 << 20  # or as many as make this together, where row groups are few
BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class StagePace:
    """How fast one thread was in a stage: source rows (before the filter) and seconds."""

    stage: str
    rows: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Source rows a second."""
        return self.rows / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class DistinctEstimate:
    """The distinct values that a step counts in a column: `seen` in the probe, `expected` in the run.

    `bytes` is the memory that their exact counts are expected to take at their peak, in one worker.
    """

    column: str
    seen: int
    expected: int
    bytes: int


@dataclass(frozen=True)
class Probe:
    """What was measured on `row_groups` of the plan: `rows` source rows, of which `kept` are in each part.

    `row_bytes` is the size of a row of the output, compressed as the job wants it; `infos` the output columns as
    fitted on the rows seen. `trouble` says what went wrong, where the probe ended early.
    """

    row_groups: int
    rows: int
    kept: tuple[int, ...]
    paces: tuple[StagePace, ...]
    row_bytes: float | None
    infos: tuple[FeatureInfo, ...]
    words: tuple[DistinctEstimate, ...]
    trouble: str = ""


def probe(plan: Plan, seconds: float = SECONDS) -> Probe:
    """Measure for about so many seconds, in this process, with one thread."""
    measuring = _Measuring(plan, seconds / max(2, len(plan.stages)))
    try:
        measuring.measure()
    except DataError as error:
        measuring.trouble = str(error)
    return measuring.result()


def spread(count: int) -> Iterator[int]:
    """0 to count - 1 so that the first few lie far apart: van der Corput's sequence."""
    bits = max(1, (count - 1).bit_length())
    for i in range(1 << bits):
        place = int(f"{i:0{bits}b}"[::-1], 2)
        if place < count:
            yield place


class _Measuring:
    def __init__(self, plan: Plan, seconds: float):
        self._plan, self._seconds = plan, seconds
        self._scan, self._pipeline = plan.checked.scan, plan.checked.pipeline
        self._state = FittedState.unfitted(plan.checked.specs, self._pipeline.schema)
        self._taken: dict[int, int] = {}  # rows of each row group, by its position
        self._most = max(GROUP_ROWS, FEW_ROWS // len(plan.groups))
        self._paces: list[StagePace] = []
        self._learnt: list[Partial] = []  # by level
        self._rows = 0
        self._kept = np.zeros(len(plan.job.split_names), np.int64)
        self._row_bytes: float | None = None
        self.trouble = ""

    def measure(self) -> None:
        """Every pass that a run makes. The first one chooses the row groups; a run that only writes counts for that."""
        self._warm_up()
        passes = {"fit": self._fit, "count": self._count, "write": self._write}
        if len(self._plan.stages) == 1:
            self._count(self._plan.stages[0])
        for stage in self._plan.stages:
            self._paces.append(passes[stage.kind](stage))

    def result(self) -> Probe:
        """What is known so far."""
        fitted = self._state.levels >= self._pipeline.levels
        return Probe(
            len(self._taken),
            self._rows,
            tuple(int(rows) for rows in self._kept),
            tuple(self._paces),
            self._row_bytes,
            feature_infos(self._state) if fitted else (),
            tuple(self._words()),
            self.trouble,
        )

    def _warm_up(self) -> None:
        """What is done once in a process is no part of a pace: a few rows of the first row group through the scan."""
        for _ in self._read(self._scan, next(spread(len(self._plan.groups))), rows=1):
            pass

    def _read(self, scan: ScanSpec, position: int, rows: int) -> Iterator[tuple[ScanBatch, int]]:
        """Batches of the first rows of a row group, and how many source rows each comes from."""
        group = self._plan.groups[position]
        size = planned_rows(scan.schema, group, min(BATCH_ROWS, max(rows, 1024)))
        batches = read_task(self._plan.source, scan, ScanTask(position, (group,)), batch_rows=size)
        with contextlib.closing(cast("Any", batches)):
            for number, batch in enumerate(islice(batches, -(-rows // size))):
                yield batch, min(size, group.rows - number * size)

    def _count(self, stage: PlannedStage) -> StagePace:
        """Count rows, reading no more columns than that takes."""
        start = time.monotonic()
        scan = replace(self._scan, outputs=())
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
        """Fit a level: the first takes row groups until its time is over, later ones take the same."""
        level, start = stage.level, time.monotonic()
        ends = start + self._seconds if level == 0 else math.inf
        accumulator = Accumulator(self._pipeline, level, self._state)
        rows = 0
        places = ((position, self._most) for position in spread(len(self._plan.groups)))
        for position, most in places if level == 0 else list(self._taken.items()):
            for batch, source_rows in self._read(self._scan, position, most):
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
        learnt = accumulator.partial()
        self._learnt.append(learnt)
        self._state = finish(self._pipeline, level, learnt, self._state)
        return StagePace(stage.name, rows, time.monotonic() - start)

    def _write(self, stage: PlannedStage) -> StagePace:
        """Row groups as a write task takes them, several together, through all that writes them but the files."""
        transform = Transform(self._pipeline, self._state)
        start, size, kept, rows = time.monotonic(), 0, 0, 0
        for unit in _units(self._taken):
            batches: list[AssignedRows] = []
            for position in unit:
                for batch, source_rows in self._read(self._scan, position, self._taken[position]):
                    matched, split = batch.in_parts()
                    rows += source_rows
                    if matched.num_rows:
                        batches.append((split, transform.apply(matched)))
            size += self._encode(batches, transform.infos)
            kept += sum(len(split) for split, _ in batches)
            if time.monotonic() - start > self._seconds:
                break
        self._row_bytes = size / kept if kept else None
        return StagePace(stage.name, rows, time.monotonic() - start)

    def _encode(self, batches: Sequence[AssignedRows], infos: Sequence[FeatureInfo]) -> int:
        names, output = self._plan.job.split_names, self._plan.job.output
        parts = np.concatenate([split for split, _ in batches]) if batches else np.empty(0, np.int16)
        rows = tuple(int(count) for count in np.bincount(parts, minlength=len(names)))
        paths = tuple((name,) if count else () for name, count in zip(names, rows, strict=True))
        written = write_shards(
            cast("Store", _Nowhere()),
            "",
            TaskShards(0, tuple(names), rows, paths),
            batches,
            infos=infos,
            layout=layout_of(self._plan.job),
            shuffle=output.shuffle,
            seed=output.seed,
        )
        return sum(shard.bytes for shard in written)

    def _words(self) -> Iterator[DistinctEstimate]:
        """The distinct values of every column that is counted, each once."""
        share = self._plan.totals.rows.read / max(1, self._rows)
        for learnt in self._learnt:
            for measure, counts in zip(measures(self._pipeline, learnt.level), learnt.statistics, strict=True):
                if not isinstance(counts, Counts):
                    continue
                seen = len(counts.tally)
                expected = expected_distinct(counts.tally, counts.count, counts.count * share)
                each = (counts.values.nbytes / seen if counts.values is not None and seen else 0) * COPIES + WORD_BYTES
                yield DistinctEstimate(measure.chains[0].column, seen, expected, round(expected * each))


def _units(taken: Mapping[int, int]) -> Iterator[list[int]]:
    """Row groups together as a write task has them, or fewer where they are large."""
    unit: list[int] = []
    for position in taken:
        unit.append(position)
        if len(unit) == MIXED_FROM or sum(taken[one] for one in unit) >= GROUP_ROWS:
            yield unit
            unit = []
    if unit:
        yield unit


class _Nowhere:
    """A store as far as shards need one, that keeps nothing."""

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[_Nowhere]:
        """A file."""
        yield self

    def write(self, data: Any) -> int:
        """All of it, gone."""
        return len(data)
