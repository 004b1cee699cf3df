"""Shards by exact row counts: how many there are, their names, and the task that writes each.

With a global shuffle every task deals its rows to all shards, and each shard is then a write task of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dtap_dask.features.info import FeatureInfo
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.counted import Counted, refuse_empty
from dtap_dask.job.planning.plan import Plan
from dtap_dask.records.columns import is_fixed
from dtap_dask.records.example import Layout, encoder_of
from dtap_dask.records.folder import shard_path
from dtap_dask.records.shard import TaskShards
from dtap_dask.records.shard_plan import ShardPlan, dealt

# A global shuffle makes as many shards as `mixed` would, up to this number, or what `shard_size` asks for.
FEW_SHARDS = 8


def plan_shards(plan: Plan, rows: npt.NDArray[np.int64], row_bytes: float) -> ShardPlan:
    """All shards of a run, from the rows of each row group in each part, shape [groups, parts].

    DataError if the part that is fitted, or everything, is empty.
    """
    pairs = tuple(sum(count * (count - 1) for count in part) for part in rows.T.tolist())
    if plan.job.output.shuffle != "global":
        return ShardPlan(assign_shards(plan, rows, row_bytes), pairs)
    refuse_empty(plan.checked.scan, plan.source.url, rows.sum(axis=0))
    tasks = _task_rows(plan, rows)
    shards = total_shards(plan, tasks, row_bytes)
    return ShardPlan(tuple(_one_each(plan, tasks.sum(axis=0), shards)), pairs, tuple(map(tuple, tasks.tolist())))


def _one_each(plan: Plan, rows: npt.NDArray[np.int64], shards: npt.NDArray[np.int64]) -> Iterator[TaskShards]:
    """A write task for each shard of each part."""
    names = plan.job.split_names
    numbers = ((part, shard) for part, count in enumerate(shards.tolist()) for shard in range(count))
    for task, (part, shard) in enumerate(numbers):
        path = shard_path(names[part], shard, int(shards[part]), plan.run_id, plan.job.output.compression)
        yield TaskShards(
            task,
            tuple(names),
            tuple(dealt(int(rows[part]), int(shards[part]), shard) if one == part else 0 for one in range(len(names))),
            tuple((path,) if one == part else () for one in range(len(names))),
        )


def assign_shards(plan: Plan, rows: npt.NDArray[np.int64], row_bytes: float) -> tuple[TaskShards, ...]:
    """The shards of every write task, from the rows of each row group in each part, shape [groups, parts].

    A task owns whole shards of about `shard_size` bytes, at least one for each part that it has rows of. Names hold the
    number of shards of the part, and the fingerprint, so that shards of different runs never mix; names of compressed
    shards end in `.gz`, as other readers of TFRecords expect. DataError if the part that is fitted, or everything, is
    empty.
    """
    names = plan.job.split_names
    refuse_empty(plan.checked.scan, plan.source.url, rows.sum(axis=0))
    tasks = _task_rows(plan, rows)
    shards = shard_counts(plan, tasks, row_bytes)
    total = shards.sum(axis=0)
    first = np.cumsum(shards, axis=0) - shards
    return tuple(
        TaskShards(
            index,
            tuple(names),
            tuple(int(count) for count in tasks[index]),
            tuple(
                tuple(
                    shard_path(name, first[index, part] + j, total[part], plan.run_id, plan.job.output.compression)
                    for j in range(shards[index, part])
                )
                for part, name in enumerate(names)
            ),
        )
        for index in range(len(tasks))
    )


def _task_rows(plan: Plan, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows of each task that writes, or shuffles, in each part, shape [tasks, parts]."""
    return np.stack([rows[list(positions)].sum(axis=0) for positions in plan.write_tasks])


def total_shards(plan: Plan, rows: npt.NDArray[np.number[Any]], row_bytes: float) -> npt.NDArray[np.int64]:
    """The number of shards of each part, from the rows of each write task in it, shape [tasks, parts]."""
    each: npt.NDArray[np.int64] = shard_counts(plan, rows, row_bytes).sum(axis=0)
    if plan.job.output.shuffle != "global":
        return each
    together: npt.NDArray[np.int64] = shard_counts(plan, rows.sum(axis=0, keepdims=True), row_bytes)[0]
    return np.maximum(together, np.minimum(each, FEW_SHARDS))


def shard_counts(plan: Plan, rows: npt.NDArray[np.number[Any]], row_bytes: float) -> npt.NDArray[np.int64]:
    """The number of shards that each write task makes of each part, from its rows in it; both shape [tasks, parts]."""
    rows_per_shard = max(1.0, plan.job.output.shard_size / row_bytes)
    return np.where(rows > 0, np.maximum(1, np.rint(rows / rows_per_shard)), 0).astype(np.int64)


def layout_of(job: Job) -> Layout:
    """The layout of the job's records."""
    return Layout(job.output.layout, job.output.rows_per_record, job.output.compression)


def planned_row_bytes(plan: Plan, infos: Sequence[FeatureInfo]) -> float:
    """Bytes of a row in a record: exact for columns of fixed width, others as large as in the source."""
    columns = max(1, len(plan.checked.scan.schema))
    column_bytes = int(plan.groups.raw_bytes.sum()) / max(1, plan.totals.rows.read) / columns
    varying = sum(not is_fixed(info) for info in infos)
    return fixed_row_bytes(infos, layout_of(plan.job)) + varying * column_bytes


def fixed_row_bytes(infos: Sequence[FeatureInfo], layout: Layout) -> float:
    """Bytes of a row in a record, framing included, in the columns of fixed width: measured by encoding zeros."""
    fixed = [info for info in infos if is_fixed(info)]
    if not fixed:
        return 0.0
    encoder = encoder_of(fixed, layout)
    rows = {
        info.name: np.zeros((encoder.rows_per_record, *(size or 0 for size in info.shape)), info.stored)
        for info in fixed
    }
    return float(encoder.encode(rows).lengths.sum()) / encoder.rows_per_record


def rows_by_group(plan: Plan, counted: Sequence[Counted] | None) -> npt.NDArray[np.int64]:
    """Rows of each row group in each part, shape [groups, parts]: as counted, or by footers if nothing filters them."""
    if counted is None:
        return plan.groups.rows[:, None]
    rows = np.zeros((len(plan.groups), len(plan.job.split_names)), np.int64)
    for one in counted:
        rows[list(plan.fit_tasks[one.task])] = one.rows
    return rows
