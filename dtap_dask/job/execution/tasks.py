"""What runs on the workers: plain functions over plain values, safe to run twice. No Dask in here, no TensorFlow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import InterruptedRun
from dtap_dask.features import Accumulator, FittedState, Graph, Partial, Rows, Transform, finish, merge
from dtap_dask.job.execution.memory import keep_freed_memory
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.planning.counted import Counted, Reading, refuse_empty
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary, summarize_footers
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.scan import ScanBatch, ScanSpec, ScanTask, even_ranges, read_mapped, read_task
from dtap_dask.records.columns import cut, fixed_bytes
from dtap_dask.records.commit import run_write_task
from dtap_dask.records.example import Layout
from dtap_dask.records.folder import RunPaths
from dtap_dask.records.shard import ShardInfo, Shuffle, TaskShards
from dtap_dask.storage import Store, open_store

# Between attempts, in seconds: half a minute in all, in which a DataNode or a mount may come back.
IO_PAUSES = (0.5, 1, 2, 4, 8, 15)
T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class TaskContext:
    """What every task of a run must know; a few KB that travel with each task."""

    source_url: str
    output_url: str
    settings: str  # the job's storage section as JSON
    run_id: str
    token: str  # of this run alone: a process that lives on must not take another run's state for this one's
    scan: ScanSpec
    graph: Graph
    layout: Layout
    shuffle: Shuffle
    seed: int
    secrets: Secrets = field(default_factory=Secrets)

    def __repr__(self) -> str:
        return f"TaskContext({self.run_id!r})"  # Dask logs the arguments of what fails, and the rest may hold secrets

    def source(self) -> Store:
        """The source, with counters of its own."""
        keep_freed_memory()
        return open_store(self.source_url, json.loads(self.settings))

    def output(self) -> Store:
        """The output folder."""
        return open_store(self.output_url, json.loads(self.settings))

    def state(self, levels: int) -> FittedState:
        """The state with so many levels fitted."""
        if levels == 0:
            return FittedState.unfitted(self.graph)
        return _load_state(self.output_url, self.settings, RunPaths(self.run_id).fitted(levels), self.token)

    def transform(self, levels: int) -> Transform:
        """The features by that state."""
        if levels == 0:
            state = self.state(0)
            return Transform(state)
        return _load_transform(self.output_url, self.settings, RunPaths(self.run_id).fitted(levels), self.token)


@lru_cache(maxsize=2)
def _load_state(output_url: str, settings: str, folder: str, token: str) -> FittedState:
    return FittedState.load(open_store(output_url, json.loads(settings)), folder)


@lru_cache(maxsize=1)
def _load_transform(output_url: str, settings: str, folder: str, token: str) -> Transform:
    """Its tables of words are made once in a process, not once a task."""
    state = _load_state(output_url, settings, folder, token)
    return Transform(state)


@dataclass(frozen=True)
class FitPart:
    """What fitting has seen of some tasks: the counts of each, and the statistics of all."""

    counted: tuple[Counted, ...]
    partial: Partial


def patiently(action: Callable[[], T]) -> T:
    """Try again when a filesystem fails for the moment; a missing file is missing at once.

    InterruptedRun where it fails still: whatever was written stays.
    """
    for pause in (*IO_PAUSES, None):
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            if pause is None:
                raise InterruptedRun(
                    f"Reading or writing failed {len(IO_PAUSES) + 1} times in {sum(IO_PAUSES):.0f} s: {error}. "
                    "Finished work is kept: once the storage answers again, continue with --resume."
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def read_footers(source: Store, files: Sequence[SourceFile], query: FooterQuery) -> FooterSummary:
    """What the footers of some files show."""
    return patiently(lambda: summarize_footers(source, files, query))


def count(context: TaskContext, task: ScanTask) -> Counted:
    """How many rows of a task survive, row group by row group and part by part; nothing else is read."""
    scan = replace(context.scan, outputs=())
    return patiently(lambda: _counted(context.source(), scan, task, lambda rows, split: None))


def fit(context: TaskContext, level: int, task: ScanTask, suspecting: bool = True) -> FitPart:
    """The statistics of one level over one task's rows, and the counts."""

    def accumulate() -> FitPart:
        state = context.state(level)
        accumulator = Accumulator(state, suspecting=suspecting)

        def add(rows: pa.RecordBatch, split: npt.NDArray[np.int16]) -> None:
            accumulator.add(rows, context.scan.fit_mask(split))

        counted = _counted(context.source(), context.scan, task, add)
        return FitPart((counted,), accumulator.partial())

    return patiently(accumulate)


def _counted(
    source: Store, scan: ScanSpec, task: ScanTask, use: Callable[[pa.RecordBatch, npt.NDArray[np.int16]], None]
) -> Counted:
    parts = len(scan.split.names) if scan.split else 1
    rows = np.zeros((len(task.groups), parts), np.int64)
    unmatched = 0
    # Checksums are of what goes into a dataset: the same pages are read again to be written, and checked there.
    for batch in read_task(source, replace(scan, verify_checksums=False), task):
        matched, split = batch.in_parts()
        unmatched += len(batch.split) - len(split)
        rows[batch.group] += np.bincount(split, minlength=parts)
        use(matched, split)
    return Counted(task.index, rows, unmatched, Reading.of(source))


def merge_fits(parts: Sequence[FitPart]) -> FitPart:
    """The statistics of neighbouring tasks as one."""
    counted = tuple(one for part in parts for one in part.counted)
    return FitPart(counted, merge([part.partial for part in parts]))


@dataclass(frozen=True)
class FittedLevel:
    """What a level leaves beside its state: the counts of each task, and features that give the label away."""

    counted: tuple[Counted, ...]
    warnings: tuple[str, ...]


def finish_fit(context: TaskContext, level: int, part: FitPart) -> FittedLevel:
    """Turn merged statistics into fitted state, kept in the run's folder for the workers that need it next."""
    refuse_empty(context.scan, context.source_url, np.sum([one.rows.sum(axis=0) for one in part.counted], axis=0))
    before = context.state(level)
    state = finish(part.partial, before)
    state.save(context.output(), RunPaths(context.run_id).fitted(level + 1))
    suspects = part.partial.suspects
    return FittedLevel(part.counted, tuple(suspects.warnings()) if suspects is not None else ())


@dataclass(frozen=True)
class Written:
    """The shards of one task, and what reading its rows took (nothing when they were there already)."""

    shards: tuple[ShardInfo, ...]
    reading: Reading


def write(context: TaskContext, levels: int, task: ScanTask, shards: TaskShards) -> Written:
    """Write one task's shards, unless an earlier attempt has: they are published under their final names."""
    source = context.source()

    def attempt() -> tuple[ShardInfo, ...]:
        transform = context.transform(levels)
        batches = transformed(source, context.scan, task, transform, mixed=context.shuffle == "mixed")
        return run_write_task(
            context.output(),
            context.run_id,
            shards,
            batches,
            infos=transform.infos,
            layout=context.layout,
            shuffle=context.shuffle,
            seed=context.seed,
        )

    return Written(patiently(attempt), Reading.of(source))


def transformed(
    source: Store, scan: ScanSpec, task: ScanTask, transform: Transform, *, mixed: bool
) -> Iterator[tuple[npt.NDArray[np.int16], Rows]]:
    """A task's rows as the records will hold them, with the part of each; rows of no part are left out."""

    def parts(batch: ScanBatch, turns: int) -> Iterator[tuple[npt.NDArray[np.int16], Rows]]:
        rows, split = batch.in_parts()
        if rows.num_rows:
            made = transform.apply(rows)
            for start, stop in even_ranges(rows.num_rows, turns):
                yield split[start:stop], cut(made, start, stop)

    row_bytes = sum(map(fixed_bytes, transform.infos))
    return read_mapped(source, scan, task, parts, mixed=mixed, result_bytes=row_bytes)
