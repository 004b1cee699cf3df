"""Finds the damaged shard when TensorFlow reports only that there is one."""

from __future__ import annotations

import re

import tensorflow as tf

from dtap_dask.errors import DtapError, OutputError
from dtap_dask.records.shard import ShardInfo
from dtap_dask.records.tfrecord import HEADER, OVERHEAD, read_record_at, read_records
from dtap_dask.train.dataset import DatasetSplit

# The most bytes of shards that are read again to find the damaged one: some seconds' worth.
SEARCHED_BYTES = 4 << 30
_OFFSET = re.compile(r"(?:corrupted|truncated) record at (\d+)")


def explained(split: DatasetSplit, error: tf.errors.OpError) -> DtapError | None:
    """An error that names the shard that caused one of TensorFlow's; None for errors that no shard caused."""
    if isinstance(error, tf.errors.NotFoundError):
        return OutputError(
            f"A shard of {split.store.url} is no longer there: {error.message.splitlines()[0]}. The dataset was "
            "written again or deleted after it was loaded: load it again."
        )
    if not isinstance(error, tf.errors.DataLossError):
        return None
    found = _OFFSET.search(error.message)
    try:
        _search(split, int(found[1]) if found else None)
    except OutputError as named:
        return named
    except OSError:  # a shard that has become unreadable since is not the one that TensorFlow reported
        pass
    return OutputError(
        f"A shard of the split {split.name!r} of {split.store.url} is damaged: {error.message.splitlines()[0]}. "
        f"`dtap-dask verify {split.store.url}` names it; copy that file again from where it was written, or write "
        "the dataset again with `dtap-dask run JOB --overwrite`."
    )


def _search(split: DatasetSplit, offset: int | None) -> None:
    """Raise the OutputError of the first damaged record.

    TensorFlow gives the `offset` of a record, or of its data, in one of the files. Where the manifest states where
    records begin, one read per shard is enough; other shards are read from their beginning.
    """
    plain = split.layout.compression == "none"
    unindexed = []
    for shard in split.shards:
        starts = _starts(shard) if plain and offset is not None else None
        if starts is None or offset is None:
            unindexed.append(shard)
            continue
        for start in (offset, offset - HEADER):
            if start in starts:
                read_record_at(split.store, shard.path, start)
    left = SEARCHED_BYTES
    for shard in unindexed:
        left -= shard.bytes
        if left < 0:
            return
        for _ in read_records(split.store, shard.path, split.layout.compression):
            pass


def _starts(shard: ShardInfo) -> range | tuple[int, ...] | None:
    """Where the records of a shard begin, None if the manifest does not state it."""
    if shard.offsets is not None:
        return shard.offsets
    if shard.record_bytes is None or shard.record_bytes < OVERHEAD:
        return None
    return range(0, shard.bytes, shard.record_bytes)
