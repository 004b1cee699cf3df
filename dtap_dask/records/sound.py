"""Whether a manifest can be true: its columns fit in records, and its records in files.

A manifest may be damaged or forged. Whoever loads it hands its shapes and counts to TensorFlow, which ends the process
where they ask for more memory than there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from dtap_dask.errors import JobError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.encoder import MOST_BYTES
from dtap_dask.records.example import STORED, Layout, check_schema
from dtap_dask.records.shard import ShardInfo
from dtap_dask.records.tfrecord import OVERHEAD

_DEFLATED = 1040  # DEFLATE makes bytes at most this many times smaller


def check_sound(infos: Sequence[FeatureInfo], layout: Layout, shards: Iterable[ShardInfo]) -> None:
    """ValueError where columns or shards are such as no writer makes."""
    places = 0
    for info in infos:
        if any(size is not None and size < 0 for size in info.shape):
            raise ValueError(f"column {info.name!r} has the shape {info.shape}")
        if info.dtype not in (*STORED, "bytes") or (info.dtype == "bytes") != (info.stored == "bytes"):
            raise ValueError(f"column {info.name!r} is {info.dtype}, stored as {info.stored}")
        places += math.prod(size or 0 for size in info.shape)
    if places >= MOST_BYTES:
        raise ValueError(f"a row has {places:,} values, and a record holds at most {MOST_BYTES:,} bytes")
    try:
        check_schema(infos, layout)
    except JobError as error:
        raise ValueError(str(error)) from error
    for shard in shards:
        _check_shard(shard, layout)


def _check_shard(shard: ShardInfo, layout: Layout) -> None:
    most = shard.bytes * (_DEFLATED if layout.compression == "gzip" else 1)
    counted = shard.rows >= shard.records >= 0 and (shard.records > 0) == (shard.rows > 0)
    if not counted or shard.rows > shard.records * layout.rows_per_record or shard.records * OVERHEAD > most:
        raise ValueError(
            f"{shard.path} cannot hold {shard.rows:,} rows in {shard.records:,} records and {shard.bytes:,} bytes"
        )
    if shard.record_bytes is not None and not OVERHEAD <= shard.record_bytes <= max(most, OVERHEAD):
        raise ValueError(f"{shard.path} has records of {shard.record_bytes:,} bytes")
