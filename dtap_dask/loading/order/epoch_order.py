"""The order of an epoch: a function of the split, the seed and the number of the epoch alone.

Shards are shuffled and taken in groups; within a group all runs of records are shuffled and cut into windows; within a
window all rows are shuffled. A group is what must be on a local disk at the same time, a window what is decoded at the
same time. The first group is small, so that training on shards that are fetched first begins soon.

Nothing of a group is computed before it is needed, so that the order of any place in an epoch costs the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dtap_dask.features.columns.column import offsets_of
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.order.runs import RowNumbers, Runs

HEAD = 4  # shards in the first group of an epoch, and the fewest in any
CYCLE = 16  # shards in every other group, if they are no more than CYCLE_BYTES
CYCLE_BYTES = 2 << 30
MIXED_BYTES = 256 << 20  # a group that would be smaller has more shards, but no more than MOST
MOST = 128
# The size of a window: this many rows, or this many bytes of records if that is less. Larger ones mix better and cost
# memory: about three exist at a time.
WINDOW_ROWS = 65_536
WINDOW_BYTES = 64 << 20
_SHARDS, _RUNS, _ROWS = range(3)  # what a random sequence permutes

EpochKey = tuple[int, int]  # the seed, an integer of 64 bits, and the number of the epoch


@dataclass(frozen=True)
class Window:
    """Rows that are decoded and shuffled together: their runs, in the order in which they are joined.

    `rows` is the number of rows that the epoch has of these runs.
    """

    number: int
    group: int
    runs: RowNumbers
    rows: int


@dataclass(frozen=True)
class Group:
    """A group: its runs in order, and where its windows begin, counted in runs and in rows, each with its end."""

    runs: RowNumbers
    run_starts: RowNumbers
    row_starts: RowNumbers


class EpochOrder:
    """The order of the rows of one epoch. `key` is None for the order of the manifest.

    `rows` are the rows that each run has in this epoch, int64 [runs]; None: all of them, once. Runs without rows, and
    shards without such runs, are in no window. Rows are numbered 0 to `rows.sum()` - 1 in this order.
    """

    def __init__(self, split: DatasetSplit, runs: Runs, key: EpochKey | None, rows: RowNumbers | None = None):
        self._runs, self._key = runs, key
        self._rows = runs.rows if rows is None else rows
        count = len(split.shards)
        self._shards = np.arange(count) if key is None else self._random(_SHARDS, 0).permutation(count)
        head = head_size(split, self.shuffled)
        self._first_shard = np.array([0, *range(min(head, count), count, group_size(split, self.shuffled)), count])
        used = self._rows > 0
        self._shard_runs = np.add.reduceat(used, runs.first[:-1], dtype=np.int64)
        shard_rows = np.add.reduceat(self._rows, runs.first[:-1])[self._shards]
        self._group_rows = offsets_of(np.add.reduceat(shard_rows, self._first_shard[:-1]))
        self._window_runs = _runs_per_window(split, runs, self._rows[used], even=rows is None)
        group_runs = np.add.reduceat(self._shard_runs[self._shards], self._first_shard[:-1])
        group_windows = -(-group_runs // self._window_runs)
        self._group_windows = offsets_of(group_windows)
        self._group = functools.lru_cache(2)(self._arranged)

    @property
    def shuffled(self) -> bool:
        """Whether this is not the order of the manifest."""
        return self._key is not None

    def shards(self, group: int) -> RowNumbers:
        """The shards of a group that have rows in this epoch, by their numbers in the manifest."""
        found = self._shards[self._first_shard[group] : self._first_shard[group + 1]]
        return found[self._shard_runs[found] > 0]

    def groups(self, windows: RowNumbers) -> RowNumbers:
        """The group of each of these windows."""
        return np.searchsorted(self._group_windows, windows, "right") - 1

    def window(self, number: int) -> Window:
        """The window of that number."""
        group = int(self.groups(np.array(number)))
        found, within = self._group(group), number - int(self._group_windows[group])
        start, stop = found.run_starts[within : within + 2]
        rows = int(found.row_starts[within + 1] - found.row_starts[within])
        return Window(number, group, found.runs[start:stop], rows)

    def permutation(self, window: Window) -> RowNumbers | None:
        """The order of a window's rows: int64 [rows], the place of each among them. None: as read."""
        return None if self._key is None else self._random(_ROWS, window.number).permutation(window.rows)

    def pieces(self, spans: Iterable[tuple[int, int]]) -> RowNumbers:
        """The windows of the rows `start` to `stop` - 1 of each span: (window, first row in it, end), int64 [n, 3]."""
        found = [self._pieces(start, stop) for start, stop in spans if start < stop]
        return np.concatenate(found) if found else np.empty((0, 3), np.int64)

    def _pieces(self, start: int, stop: int) -> RowNumbers:
        (first, begin), (last, end) = self._located(start), self._located(stop - 1)
        windows = np.arange(first, last + 1)
        found = np.stack([windows, np.zeros_like(windows), np.full_like(windows, -1)], axis=1)
        found[0, 1], found[-1, 2] = begin, end + 1
        return found

    def _located(self, row: int) -> tuple[int, int]:
        """The window of a row, and the row's place in it."""
        group = int(np.searchsorted(self._group_rows, row, "right")) - 1
        starts, within = self._group(group).row_starts, row - int(self._group_rows[group])
        window = int(np.searchsorted(starts, within, "right")) - 1
        return int(self._group_windows[group]) + window, within - int(starts[window])

    def _arranged(self, number: int) -> Group:
        first = self._runs.first
        runs = np.concatenate([np.arange(first[shard], first[shard + 1]) for shard in self.shards(number)])
        runs = runs[self._rows[runs] > 0]
        runs = runs if self._key is None else self._random(_RUNS, number).permutation(runs)
        run_starts = np.append(np.arange(0, len(runs), self._window_runs), len(runs))
        return Group(runs, run_starts, offsets_of(self._rows[runs])[run_starts])

    def _random(self, kind: int, number: int) -> np.random.Generator:
        return random_of(self._key or (0, 0), kind, number)


def random_of(key: EpochKey, kind: int, number: int) -> np.random.Generator:
    """The random sequence of an epoch for thing `number` of a kind."""
    seed, epoch = key
    return np.random.Generator(np.random.PCG64([seed % (1 << 64), epoch, kind, number]))


def group_size(split: DatasetSplit, shuffle: bool) -> int:
    """The most shards in a group: several are mixed, but the order of the manifest takes one after another."""
    if not shuffle:
        return 1
    largest = max((shard.bytes for shard in split.shards), default=1)
    small = min(MOST, MIXED_BYTES // largest)
    return max(min(CYCLE, CYCLE_BYTES // largest), small, HEAD)


def head_size(split: DatasetSplit, shuffle: bool) -> int:
    """The most shards in the first group: a quarter of a group, but all of a small split."""
    size = group_size(split, shuffle)
    small = sum(shard.bytes for shard in split.shards) <= MIXED_BYTES
    return size if small else min(size, max(HEAD, size // 4))


def _runs_per_window(split: DatasetSplit, runs: Runs, rows: RowNumbers, *, even: bool) -> int:
    """The most runs in a window, where runs have `rows` rows each, about as many unless some are chosen (not `even`).

    Where they are chosen, so that some runs have many times the mean, no window gets more than four times its rows.
    """
    mean = max(1, -(-int(rows.sum()) // max(1, len(rows))))
    found = min(-(-WINDOW_ROWS // mean), _runs_per_window_bytes(split, runs))
    if not even:
        found = min(found, 4 * WINDOW_ROWS // int(rows.max(initial=1)))
    return max(1, found)


def _runs_per_window_bytes(split: DatasetSplit, runs: Runs) -> int:
    return WINDOW_BYTES // (split.record_bytes * runs.records)
