"""The records of a split's shards, read in place or staged: the same records in the same order either way.

An epoch's first few shards are interleaved among themselves before all others, so that training on staged shards begins
as soon as those few have arrived. Which ones they are, and how many are interleaved, depends on the manifest alone.

TensorFlow opens local files only. A staged shard enters the graph as an element of a Python generator; when TensorFlow
asks the generator for another element, or discards it, it has finished with the shard, which is then released.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DtapError
from dtap_dask.storage.cache import Cache
from dtap_dask.train import ending
from dtap_dask.train.dataset import DatasetSplit
from dtap_dask.train.staging import StagingSession

HEAD = 4  # shards interleaved at the start of an epoch
CYCLE = 16  # and afterwards
CYCLE_BYTES = 2 << 30  # the most bytes of those, unless they are only HEAD
AHEAD = 4  # shards fetched beyond those
READ_BYTES = 1 << 20  # one read of a shard
READ_AHEAD_BYTES = 2 << 20  # serialized records read ahead in each of the interleaved shards
WAIT = 0.2  # seconds after which TensorFlow can check whether it must stop

OpenShard = Callable[[tf.Tensor], tf.data.Dataset]


def interleaved(split: DatasetSplit, source: StagedShards | None, order: tf.Tensor, block: int) -> tf.data.Dataset:
    """The records of the shards numbered `order` (int64 [n]), interleaved: `block` records of each shard in turn."""
    count = len(split.shards)
    ahead = max(1, min(2 * block, READ_AHEAD_BYTES // split.record_bytes))

    def arranged(read: OpenShard) -> tf.data.Dataset:
        parts: list[tf.data.Dataset] = []
        for start, stop, cycle in ((0, min(HEAD, count), HEAD), (HEAD, count, cycle_length(split))):
            if start < stop or not parts:
                numbers = tf.data.Dataset.range(start, stop)
                each = lambda at: read(at).prefetch(ahead)  # noqa: E731
                parts.append(
                    numbers.interleave(each, cycle_length=max(1, min(cycle, stop - start)), block_length=block)
                )
        return parts[0] if len(parts) == 1 else parts[0].concatenate(parts[1])

    return _opened(split, source, order, arranged)


def in_order(split: DatasetSplit, source: StagedShards | None) -> tf.data.Dataset:
    """The records of all shards in the manifest's order."""
    numbers = tf.data.Dataset.range(len(split.shards))
    return _opened(split, source, tf.range(len(split.shards), dtype=tf.int64), numbers.flat_map)


def for_workers(split: DatasetSplit, block: int) -> tf.data.Dataset:
    """The records of all shards, as an input that the workers of tf.data service can divide among themselves.

    A worker requests one shard after another, and few at a time, so that all workers get some.
    """
    count = len(split.shards)
    paths = tf.constant(split.paths, tf.string, shape=[count])
    read = lambda at: _read(split, tf.gather(paths, at))  # noqa: E731
    return tf.data.Dataset.range(count).interleave(
        read, cycle_length=max(1, min(cycle_length(split), count // CYCLE)), block_length=block
    )


def cycle_length(split: DatasetSplit) -> int:
    """The number of shards that are interleaved, after the first ones of an epoch."""
    largest = max((shard.bytes for shard in split.shards), default=1)
    return max(HEAD, min(CYCLE, CYCLE_BYTES // largest))


def _opened(
    split: DatasetSplit, source: StagedShards | None, order: tf.Tensor, arrange: Callable[[OpenShard], tf.data.Dataset]
) -> tf.data.Dataset:
    if source is not None:
        return source.epoch(order, arrange)
    paths = tf.constant(split.paths, tf.string, shape=[len(split.shards)])
    return arrange(lambda at: _read(split, tf.gather(paths, tf.gather(order, at))))


def _read(split: DatasetSplit, path: tf.Tensor) -> tf.data.Dataset:
    """A tf.data.TFRecordDataset without the function that it is wrapped in: each takes milliseconds to start."""
    variant = tf.raw_ops.TFRecordDataset(
        filenames=path,
        compression_type="GZIP" if split.layout.compression == "gzip" else "",
        buffer_size=READ_BYTES,
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


class StagedShards:
    """The shards of a split that TensorFlow cannot open in place, fetched to a local cache."""

    def __init__(self, split: DatasetSplit, cache: Cache, shuffle: bool):
        """StorageError where the shards that are open at the same time do not fit in the cache."""
        self._split, self._cache = split, cache
        sizes = sorted((shard.bytes for shard in split.shards), reverse=True)
        open_at_once = cycle_length(split) if shuffle else 1
        self._least, self._most = sum(sizes[:open_at_once]), sum(sizes[: open_at_once + AHEAD])
        cache.check_fits(
            self._least, f"the {len(sizes[:open_at_once])} shards of {split.store.url} that are read at once"
        )
        self.failure: DtapError | None = None  # of this epoch
        self._sessions: dict[int, StagingSession] = {}
        self._numbers = itertools.count()
        ending.prepare()

    def epoch(self, order: tf.Tensor, arrange: Callable[[OpenShard], tf.data.Dataset]) -> tf.data.Dataset:
        """The records of all shards; `arrange` gets a function that opens a shard by its position in `order`."""
        number = tf.TensorSpec([], tf.int64)
        sessions = tf.data.Dataset.from_generator(self._session, args=(order,), output_signature=number)
        return sessions.flat_map(lambda session: arrange(lambda at: self._records(session, at)))

    def _records(self, session: tf.Tensor, at: tf.Tensor) -> tf.data.Dataset:
        text = tf.TensorSpec([], tf.string)
        paths = tf.data.Dataset.from_generator(self._path, args=(session, at), output_signature=(text, text))
        paths = paths.filter(lambda path, failure: tf.strings.length(path) + tf.strings.length(failure) > 0)
        return paths.map(_unless_failed).flat_map(lambda path: _read(self._split, path))

    def _session(self, order: Any) -> Iterator[int]:
        number, self.failure = next(self._numbers), None
        shards = [self._split.shards[at] for at in order]
        session = StagingSession(self._cache, self._split.store, shards, self._least, self._most)
        self._sessions[number] = session
        try:
            yield number
        finally:
            del self._sessions[number]
            session.close()

    def _path(self, number: int, at: int) -> Iterator[tuple[str, str]]:
        """("", "") until the shard has arrived; then (path, "") or ("", error)."""
        session = self._sessions[int(number)]
        try:
            while (path := session.path(int(at), WAIT)) is None:
                yield "", ""
        except DtapError as error:
            self.failure = error
            yield "", str(error)
            return
        try:
            yield path, ""
        finally:
            session.done(int(at))


def _unless_failed(path: tf.Tensor, failure: tf.Tensor) -> tf.Tensor:
    """The path, or TensorFlow's error: an exception in Python would end up as a traceback in its message."""
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(failure, ""), [failure])]):
        return tf.identity(path)
