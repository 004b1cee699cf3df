"""The shards that windows are read from: in place, or fetched to a local disk as they are needed."""

from __future__ import annotations

import resource
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import groupby
from time import perf_counter
from typing import Protocol

import numpy as np

from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.feed import FeedMeter, spent
from dtap_dask.loading.order.epoch_order import EpochOrder, group_size
from dtap_dask.loading.shards.open_shard import OpenShard
from dtap_dask.loading.shards.staging import StagingSession
from dtap_dask.storage.cache import Cache

WAIT = 0.2  # seconds between two checks whether a shard has arrived
SHARE = 4  # of the files that a process may open, a quarter at most are shards in place


class ShardFiles(Protocol):
    """Open shards of a split, for any of several threads."""

    def opened(self, piece: int, shard: int) -> OpenShard:
        """A shard of a piece's group, by its number. OutputError or StorageError where it cannot be opened."""

    def was_read(self, piece: int) -> None:
        """The records of a piece were read."""

    def close(self) -> None:
        """No more windows are read."""


class LocalShards:
    """Shards that are read in place. As many as two groups have stay open, whoever reads them.

    Those of all loaders of a process together are no more than a share of the files that it may open.
    """

    def __init__(self, split: DatasetSplit, shuffle: bool):
        self._split = split
        self._most = 2 * group_size(split, shuffle)
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in split.shards]
        if split.layout.compression == "none":  # others are in memory
            with _counting:
                _in_place.add(self)

    def __len__(self) -> int:
        return len(self._open)

    def close_oldest(self) -> None:
        """Close the shard that was not asked for for longest, once nobody reads it."""
        with self._lock:
            if self._open:
                self._open.popitem(last=False)

    def opened(self, piece: int, shard: int) -> OpenShard:
        """See ShardFiles."""
        with self._locks[shard]:
            with self._lock:
                found = self._open.get(shard)
            if found is None:
                _make_room()
                found = _open(self._split, shard, self._split.paths[shard])
            with self._lock:
                self._open[shard] = found
                self._open.move_to_end(shard)
            while len(self) > self._most:
                self.close_oldest()
        return found

    def was_read(self, piece: int) -> None:
        """See ShardFiles."""

    def close(self) -> None:
        """See ShardFiles."""


_in_place: weakref.WeakSet[LocalShards] = weakref.WeakSet()
_counting = threading.Lock()


def _make_room() -> None:
    """Close shards of the loaders that have most open, until one more fits in the share of all."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return
    with _counting:
        loaders = list(_in_place)
    while sum(map(len, loaders)) >= max(1, limit // SHARE):
        max(loaders, key=len).close_oldest()


class StagedShards:
    """Shards that one pass fetches to a cache, group by group, and releases once it has read the group's windows.

    A group to which a pass comes back, as one that repeats rows does, is fetched again, as it may be evicted meanwhile.
    """

    def __init__(self, split: DatasetSplit, cache: Cache, order: EpochOrder, groups: Sequence[int], feed: FeedMeter):
        """`groups`: the group of each piece that will be read, in order."""
        self._split = split
        self._visits = np.cumsum(np.diff(groups, prepend=groups[:1]) != 0).tolist()  # of each piece
        self._left = Counter(self._visits)
        self._shards = {
            visit: order.shards(group).tolist() for visit, group in enumerate(group for group, _ in groupby(groups))
        }
        each = [(visit, shard) for visit, shards in self._shards.items() for shard in shards]
        self._places = {one: place for place, one in enumerate(each)}
        self._open: dict[tuple[int, int], OpenShard] = {}
        self._locks = {one: threading.Lock() for one in each}
        self._lock = threading.Lock()
        shards = [split.shards[shard] for _, shard in each]
        self._session = StagingSession(cache, split.store, shards, *staged_bytes(split, order.shuffled), feed=feed)

    def opened(self, piece: int, shard: int) -> OpenShard:
        """See ShardFiles."""
        one = self._visits[piece], shard
        found = self._open.get(one)
        if found is not None:
            return found
        begin = perf_counter()
        while (path := self._session.path(self._places[one], WAIT)) is None:
            pass
        spent("remote", begin)
        with self._locks[one]:
            found = self._open.get(one) or _open(self._split, shard, path)
            self._open[one] = found
        return found

    def was_read(self, piece: int) -> None:
        """See ShardFiles."""
        visit = self._visits[piece]
        with self._lock:
            self._left[visit] -= 1
            done = not self._left[visit]
        if done:
            for shard in self._shards[visit]:
                self._open.pop((visit, shard), None)
                self._session.done(self._places[visit, shard])

    def close(self) -> None:
        """See ShardFiles."""
        self._open.clear()
        self._session.close()


def staged_bytes(split: DatasetSplit, shuffle: bool) -> tuple[int, int]:
    """The bytes of shards that a pass keeps in the cache: at least one group, at most two."""
    sizes = sorted((shard.bytes for shard in split.shards), reverse=True)
    group = group_size(split, shuffle)
    return sum(sizes[:group]), sum(sizes[: 2 * group])


def open_shard(split: DatasetSplit, shard: int, cache: Cache | None) -> OpenShard:
    """A shard in place, or with a cache from there, where it is fetched first; the cache may evict it meanwhile."""
    if cache is None:
        return _open(split, shard, split.paths[shard])
    held = cache.stage(split.store, split.shards[shard], lambda: False)
    try:
        return _open(split, shard, held.path)
    finally:
        held.release()


def _open(split: DatasetSplit, shard: int, path: str) -> OpenShard:
    info = split.shards[shard]
    return OpenShard(f"{split.store.url}/{info.path}", info, path, split.layout.compression == "gzip")
