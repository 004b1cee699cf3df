"""Grouping row groups into tasks: their order, and how many a task takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dtap_dask.job.jobfile.spec import Job
from dtap_dask.lake.parquet.row_group import RowGroups

# A row group of more decoded bytes than this is a task of its own.
OWN_TASK_BYTES = 512 << 20
# At least this many tasks, so that several workers have something to do.
MIN_TASKS = 8
# A write task reads about this many decoded bytes of the needed columns, or `output.shard_size` if that is smaller, so
# that small datasets get few shards; but there are always at least WRITERS tasks, and none takes more than MOST_GROUPS
# row groups. Below MIN_TASKS the number of tasks is a power of two: five tasks keep two workers as long as six.
TASK_BYTES = 16 << 20
WRITERS = 2
MOST_GROUPS = 64
# Where files hold many row groups, more read tasks than this also read at least TASK_BYTES each.
MANY_TASKS = 64
# A global shuffle keeps a piece for each task and shard, so it has no more tasks than this, whatever they read.
MOST_SHUFFLING = 2048
# A shard mixed from fewer row groups than this is a poor sample.
MIXED_FROM = 8


def limited(groups: RowGroups, limit: int | None) -> RowGroups:
    """The first row groups, up to and including the one in which `limit` rows are reached."""
    if limit is None:
        return groups
    return groups.take(np.cumsum(groups.rows) - groups.rows < limit)


def task_order(count: int, job: Job) -> Sequence[int]:
    """The order in which write tasks take row groups: the source's, or a permutation that the seed decides."""
    if job.output.shuffle == "none":
        return range(count)
    order: list[int] = np.random.Generator(np.random.PCG64(job.output.seed)).permutation(count).tolist()
    return order


def group_tasks(
    raw_bytes: npt.NDArray[np.int64], order: Sequence[int], files: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """Cut the order into tasks of about eight row groups (sixteen where there are many), but into at least eight tasks.

    `raw_bytes` holds the uncompressed bytes of each row group, shape [groups]. One that is too large to share a task
    gets its own, after the others. Given the number of `files`, tasks take more row groups where files have many small
    ones, as each task reads the whole footer of a file.
    """
    count = _shared_tasks(raw_bytes)
    if files is not None and len(raw_bytes) > 2 * MIXED_FROM * files:
        count = min(count, max(MANY_TASKS, _enough_tasks(raw_bytes, TASK_BYTES)))
    return _cut(raw_bytes, order, count)


def group_write_tasks(
    raw_bytes: npt.NDArray[np.int64], order: Sequence[int], shard_size: int, *, shuffle: bool = False
) -> tuple[tuple[int, ...], ...]:
    """As `group_tasks`, but fewer where there are few bytes: each task writes at least one shard for every part.

    For a global shuffle at most MOST_SHUFFLING, besides those of row groups that are too large to share one.
    """
    enough = max(WRITERS, _enough_tasks(raw_bytes, min(TASK_BYTES, shard_size)))
    if shuffle:
        enough = min(enough, MOST_SHUFFLING)
    if enough < MIN_TASKS:
        enough = 1 << (enough - 1).bit_length()
    return _cut(raw_bytes, order, min(enough, _shared_tasks(raw_bytes)))


def _enough_tasks(raw_bytes: npt.NDArray[np.int64], least: int) -> int:
    """The number of tasks of `least` bytes or MOST_GROUPS row groups that the row groups that can share one make."""
    small = raw_bytes[raw_bytes <= OWN_TASK_BYTES]
    return max(int(small.sum()) // least, -(-len(small) // MOST_GROUPS))


def _shared_tasks(raw_bytes: npt.NDArray[np.int64]) -> int:
    """The number of tasks that the row groups that can share one make."""
    shared = int((raw_bytes <= OWN_TASK_BYTES).sum())
    most = MIXED_FROM if shared <= MIXED_FROM * 1000 else 2 * MIXED_FROM
    return min(shared, max(MIN_TASKS, -(-shared // most)))


def _cut(raw_bytes: npt.NDArray[np.int64], order: Sequence[int], count: int) -> tuple[tuple[int, ...], ...]:
    positions = np.array(order, np.int64)
    large = raw_bytes[positions] > OWN_TASK_BYTES
    shared = positions[~large]
    parts = np.array_split(shared, count) if count else []
    return (*(tuple(part.tolist()) for part in parts), *((position,) for position in positions[large].tolist()))
