"""Row groups into tasks: in which order, how many together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtap_dask.job.jobfile.spec import Job
from dtap_dask.lake.footers import RowGroup

# A row group of more decoded bytes than this is a task of its own.
OWN_TASK_BYTES = 512 << 20
# So many tasks there are at least, that several workers have something to do.
MIN_TASKS = 8
# A shard mixed from fewer row groups than this is not much of a sample.
MIXED_FROM = 8


def limited(groups: list[RowGroup], limit: int | None) -> list[RowGroup]:
    """The first row groups, up to the one in which `limit` rows are reached."""
    if limit is None:
        return groups
    before = np.cumsum([0, *(group.rows for group in groups)])
    return [group for group, rows in zip(groups, before, strict=False) if rows < limit]


def task_order(count: int, job: Job) -> Sequence[int]:
    """The order in which write tasks take row groups: the source's, or a permutation that the seed decides."""
    if job.output.shuffle == "none":
        return range(count)
    return [int(i) for i in np.random.Generator(np.random.PCG64(job.output.seed)).permutation(count)]


def group_tasks(groups: Sequence[RowGroup], order: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Cut the order into tasks of about eight row groups (sixteen where there are many), but into at least eight tasks.

    A row group too large to share a task has one of its own, after the others.
    """
    alone = [position for position in order if groups[position].raw_bytes > OWN_TASK_BYTES]
    shared = [position for position in order if groups[position].raw_bytes <= OWN_TASK_BYTES]
    most = MIXED_FROM if len(shared) <= MIXED_FROM * 1000 else 2 * MIXED_FROM
    count = min(len(shared), max(MIN_TASKS, -(-len(shared) // most)))
    parts = np.array_split(np.array(shared, np.int64), count) if count else []
    return (*(tuple(map(int, part)) for part in parts), *((position,) for position in alone))


def split_names(job: Job) -> list[str]:
    """The parts of the split; a job without one writes all rows as `train`."""
    if job.split is None:
        return ["train"]
    return list(job.split.parts or job.split.where or {})


def fit_name(levels: int, level: int) -> str:
    """What the fitting of one of so many levels is called, as a stage."""
    return "fit" if levels == 1 else f"fit {level + 1}"
