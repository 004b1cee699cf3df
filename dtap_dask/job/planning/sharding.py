"""From exact row counts to shards: how many, which task writes which, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dtap_dask.features import FeatureInfo
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.counted import Counted, refuse_empty
from dtap_dask.job.planning.plan import Plan
from dtap_dask.records.columns import is_fixed
from dtap_dask.records.example import Layout, encoder_of
from dtap_dask.records.folder import shard_path
from dtap_dask.records.shard import TaskShards


def assign_shards(plan: Plan, rows: npt.NDArray[np.int64], row_bytes: float) -> tuple[TaskShards, ...]:
    """The shards of every write task, from the rows of each row group in each part, shape [groups, parts].

    A task owns whole shards of about `shard_size` bytes, at least one for each part that it has rows of. The
    names say how many shards a part has in all, and carry the fingerprint, so that generations never mix; those of
    compressed shards end in `.gz`, by which other readers of TFRecords know them.
    DataError where the part that is fitted, or everything, is empty.
    """
    names = plan.job.split_names
    refuse_empty(plan.checked.scan, plan.source.url, rows.sum(axis=0))
    tasks = np.stack([rows[list(positions)].sum(axis=0) for positions in plan.write_tasks])
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


def shard_counts(plan: Plan, rows: npt.NDArray[np.number[Any]], row_bytes: float) -> npt.NDArray[np.int64]:
    """How many shards each write task makes of each part, from the rows that it has of it, shape [tasks, parts]."""
    a_shard = max(1.0, plan.job.output.shard_size / row_bytes)
    return np.where(rows > 0, np.maximum(1, np.rint(rows / a_shard)), 0).astype(np.int64)


def layout_of(job: Job) -> Layout:
    """How rows lie in the job's records."""
    return Layout(job.output.layout, job.output.rows_per_record, job.output.compression)


def planned_row_bytes(plan: Plan, infos: Sequence[FeatureInfo]) -> float:
    """What a row takes in a record: exact for fixed widths; text and lists as they lie in the source."""
    columns = max(1, len(plan.checked.scan.schema))
    a_column = int(plan.groups.raw_bytes.sum()) / max(1, plan.totals.rows.read) / columns
    varying = sum(not is_fixed(info) for info in infos)
    return fixed_row_bytes(infos, layout_of(plan.job)) + varying * a_column


def fixed_row_bytes(infos: Sequence[FeatureInfo], layout: Layout) -> float:
    """Bytes of a row in a record, framing included, of the columns of fixed width: by encoding a few zeros."""
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
    """Rows of each row group in each part, shape [groups, parts]: as counted, else (nothing filters) by the footers."""
    if counted is None:
        return plan.groups.rows[:, None]
    rows = np.zeros((len(plan.groups), len(plan.job.split_names)), np.int64)
    for one in counted:
        rows[list(plan.fit_tasks[one.task])] = one.rows
    return rows
