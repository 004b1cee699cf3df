"""The shards of a whole run, as they are planned: what its write tasks write, and what a global shuffle deals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtap_dask.records.shard import TaskShards


@dataclass(frozen=True)
class ShuffleTask:
    """What one task of a global shuffle deals to the shards, each by split.

    `rows` are its own, `before` those of all tasks before it, `total` those of all tasks; `shards` is the number of
    shards. The rows of a split are dealt one by one: row number i of the split, counted over all tasks, goes to shard
    i mod `shards`, so that every shard gets as many rows of each task as any other, give or take one.
    """

    task: int
    splits: tuple[str, ...]
    rows: tuple[int, ...]
    before: tuple[int, ...]
    total: tuple[int, ...]
    shards: tuple[int, ...]

    def dealt_before(self, split: int, shard: int) -> int:
        """The rows that the tasks before this one deal to a shard."""
        return dealt(self.before[split], self.shards[split], shard)

    def shard_rows(self, split: int, shard: int) -> int:
        """The rows of a shard in the end."""
        return dealt(self.total[split], self.shards[split], shard)


def dealt(rows: int, shards: int, shard: int) -> int:
    """How many of the first `rows` rows, dealt one by one, go to a shard: those of numbers equal to it mod `shards`."""
    return (rows - shard + shards - 1) // shards


@dataclass(frozen=True)
class ShardPlan:
    """The shards of a run.

    `pairs` is the number of ordered pairs of two rows of one row group in each split, to which the mixing of shards is
    compared. `dealt` is empty unless shuffling is global: the rows of each split that each shuffle task deals. Then
    every write task has one shard, in the order of the splits.
    """

    tasks: tuple[TaskShards, ...]
    pairs: tuple[int, ...]
    dealt: tuple[tuple[int, ...], ...] = ()

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """The shards of each split."""
        return tuple(
            tuple(itertools.chain.from_iterable(group))
            for group in zip(*(one.shards for one in self.tasks), strict=True)
        )

    def shuffle_tasks(self) -> list[ShuffleTask]:
        """The tasks of a global shuffle; none of any other."""
        splits, shards = self.tasks[0].splits, tuple(map(len, self.paths))
        totals = tuple(map(sum, zip(*self.dealt, strict=True)))
        before = [0] * len(splits)
        tasks = []
        for number, rows in enumerate(self.dealt):
            tasks.append(ShuffleTask(number, splits, rows, tuple(before), totals, shards))
            before = [done + more for done, more in zip(before, rows, strict=True)]
        return tasks

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {"shards": [task.to_json() for task in self.tasks], "pairs": self.pairs, "dealt": self.dealt}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShardPlan:
        """From JSON types."""
        tasks = tuple(map(TaskShards.from_json, data["shards"]))
        return cls(tasks, tuple(map(int, data["pairs"])), tuple(tuple(map(int, rows)) for rows in data["dealt"]))
