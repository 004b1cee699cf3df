"""What runs on workers: plain functions of plain values, safe to run twice. They use neither Dask nor TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import InterruptedRun
from dtap_dask.features import Accumulator, Partial, Rows, Transform, finish, merge
from dtap_dask.job.execution.context import TaskContext
from dtap_dask.job.planning.counted import Counted, Reading, refuse_empty
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary, summarize_footers
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.scan import ScanBatch, ScanSpec, ScanTask, even_ranges, raw_columns, read_mapped, read_task
from dtap_dask.records.columns import cut, fixed_bytes
from dtap_dask.records.commit import run_write_task
from dtap_dask.records.first_rows import RowRecorder
from dtap_dask.records.folder import RunPaths
from dtap_dask.records.global_shuffle import PieceFile, gathered, run_shuffle_task
from dtap_dask.records.shard import ROW_GROUP, ShardInfo, TaskShards
from dtap_dask.records.shard_plan import ShuffleTask
from dtap_dask.storage import Store

# Between attempts, in seconds: half a minute in all, in which a DataNode or a mount may come back.
IO_PAUSES = (0.5, 1, 2, 4, 8, 15)
T = TypeVar("T")


@dataclass(frozen=True)
class FitPart:
    """The counts of each of some tasks, and their merged statistics."""

    counted: tuple[Counted, ...]
    partial: Partial


def with_retries(action: Callable[[], T]) -> T:
    """Repeat an action that fails with OSError, after pauses; a missing file is an error at once.

    InterruptedRun where it keeps failing: what has been written is kept.
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
                    "Finished work is kept: once the storage answers again, continue with --resume (in Python "
                    "resume=True)."
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def read_footers(source: Store, files: Sequence[SourceFile], query: FooterQuery) -> FooterSummary:
    """What the query asks of the footers of some files."""
    return with_retries(lambda: summarize_footers(source, files, query))


def count(context: TaskContext, task: ScanTask) -> Counted:
    """The number of rows that a task keeps, by row group and part; only the columns that decide it are read."""
    scan = replace(context.scan, outputs=(), folds=())
    return with_retries(lambda: _counted(context.source(), scan, task, lambda rows, split: None))


def fit(context: TaskContext, level: int, task: ScanTask, suspecting: bool = True) -> FitPart:
    """The statistics of one level over one task's rows, and the counts; `suspecting` looks for leaks of the label."""

    def accumulate() -> FitPart:
        state = context.state(level)
        accumulator = Accumulator(state, suspecting=suspecting)

        def add(rows: pa.RecordBatch, split: npt.NDArray[np.int16]) -> None:
            accumulator.add(rows, context.scan.fit_mask(split))

        counted = _counted(context.source(), context.scan, task, add)
        return FitPart((counted,), accumulator.partial())

    return with_retries(accumulate)


def _counted(
    source: Store, scan: ScanSpec, task: ScanTask, use: Callable[[pa.RecordBatch, npt.NDArray[np.int16]], None]
) -> Counted:
    parts = len(scan.split.names) if scan.split else 1
    rows = np.zeros((len(task.groups), parts), np.int64)
    unmatched = 0
    # Checksums protect what goes into a dataset: the write tasks read the same pages again, and verify them.
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
    """The counts of each task of a level, and warnings of features that leak the label; its state is in the folder."""

    counted: tuple[Counted, ...]
    warnings: tuple[str, ...]


def finish_fit(context: TaskContext, level: int, part: FitPart) -> FittedLevel:
    """Turn merged statistics into fitted state, and keep it in the run's folder for the tasks of the next level."""
    refuse_empty(context.scan, context.source_url, np.sum([one.rows.sum(axis=0) for one in part.counted], axis=0))
    before = context.state(level)
    state = finish(part.partial, before)
    state.save(context.output(), RunPaths(context.run_id).fitted(level + 1))
    suspects = part.partial.suspects
    return FittedLevel(part.counted, tuple(suspects.warnings()) if suspects is not None else ())


@dataclass(frozen=True)
class Written:
    """The shards of one task, how many bytes of them are new, and what it read of the source.

    Nothing is new where an earlier attempt had written them.
    """

    shards: tuple[ShardInfo, ...]
    new_bytes: int
    reading: Reading

    @classmethod
    def of(cls, shards: tuple[ShardInfo, ...], output: Store, reading: Reading) -> Written:
        """`output` is a task's own store, whose counters tell whether it has written."""
        size = sum(shard.bytes for shard in shards) if output.counters.bytes_written else 0
        return cls(shards, size, reading)


@dataclass(frozen=True)
class Shuffled:
    """The bytes that a shuffle task keeps, and what it read of the source."""

    bytes: int
    reading: Reading


def write(context: TaskContext, levels: int, task: ScanTask, shards: TaskShards, noted: int = 0) -> Written:
    """Write one task's shards under their final names, unless an earlier attempt has; keep `noted` rows as read."""
    source, output = context.source(), context.output()

    def attempt() -> tuple[ShardInfo, ...]:
        transform, recorder = context.transform(levels), RowRecorder(noted) if noted else None
        mixed = context.shuffle == "mixed"
        batches = transformed(source, context.scan, task, transform, mixed=mixed, recorder=recorder)
        return run_write_task(
            output,
            context.run_id,
            shards,
            batches,
            infos=transform.infos,
            layout=context.layout,
            shuffle=context.shuffle,
            seed=context.seed,
            recorder=recorder,
        )

    return Written.of(with_retries(attempt), output, Reading.of(source))


def shuffle(context: TaskContext, levels: int, task: ScanTask, dealing: ShuffleTask, noted: int = 0) -> Shuffled:
    """Deal one task's rows to all shards and keep them, unless an earlier attempt has; keep `noted` rows as read."""
    source = context.source()

    def attempt() -> PieceFile:
        transform, recorder = context.transform(levels), RowRecorder(noted) if noted else None
        batches = transformed(source, context.scan, task, transform, mixed=False, recorder=recorder)
        return run_shuffle_task(
            context.output(),
            context.run_id,
            dealing,
            batches,
            infos=transform.infos,
            layout=context.layout,
            seed=context.seed,
            recorder=recorder,
        )

    return Shuffled(with_retries(attempt).bytes, Reading.of(source))


def gather(context: TaskContext, levels: int, tasks: int, shards: TaskShards, number: int) -> Written:
    """Write the one shard of a task, number `number` of its split, from what `tasks` shuffle tasks have kept."""
    output = context.output()

    def attempt() -> tuple[ShardInfo, ...]:
        infos, layout, seed = context.state(levels).infos, context.layout, context.seed
        place = number, shards.task
        batches = gathered(output, context.run_id, tasks, shards, place, infos=infos, layout=layout, seed=seed)
        return run_write_task(
            output, context.run_id, shards, batches, infos=infos, layout=layout, shuffle="global", seed=seed
        )

    return Written.of(with_retries(attempt), output, Reading(0, 0))


def transformed(
    source: Store,
    scan: ScanSpec,
    task: ScanTask,
    transform: Transform,
    *,
    mixed: bool,
    recorder: RowRecorder | None,
) -> Iterator[tuple[npt.NDArray[np.int16], Rows]]:
    """A task's rows as the records will hold them, with the part of each; rows of no part are left out.

    They have a column ROW_GROUP besides their features. `recorder` gets each batch as it was read, with the columns
    that new rows must have.
    """
    raw = raw_columns(scan).schema.names if recorder is not None else []
    wider = replace(scan, outputs=tuple(dict.fromkeys((*scan.outputs, *raw))))

    def parts(batch: ScanBatch, turns: int) -> Iterator[tuple[npt.NDArray[np.int16], Rows]]:
        rows, split = batch.in_parts()
        if rows.num_rows:
            made = {**transform.apply(rows), ROW_GROUP: np.full(rows.num_rows, batch.group, np.int32)}
            for start, stop in even_ranges(rows.num_rows, turns):
                if recorder is not None:
                    recorder.came(rows.select(raw).slice(start, stop - start))
                yield split[start:stop], cut(made, start, stop)

    row_bytes = sum(map(fixed_bytes, transform.infos))
    return read_mapped(source, wider, task, parts, mixed=mixed, result_bytes=row_bytes)
