"""A finished dataset on a local filesystem: what its manifest says, held against the files that are there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtap_dask.errors import JobError, OutputError, Problem, StorageError, did_you_mean
from dtap_dask.features.state import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.manifest import Manifest, ParseFeature, ShardInfo, read_manifest
from dtap_dask.storage import Store, open_store


@dataclass(frozen=True)
class Split:
    """One split: its columns in the order of the records, and its shards that hold rows, in the manifest's order.

    `spec` is what tf.io.parse_example needs. `records` is the shards' number of
    records, `record_bytes` about the uncompressed size of one.
    """

    infos: tuple[FeatureInfo, ...]
    layout: Layout
    spec: Mapping[str, ParseFeature]
    paths: tuple[str, ...]
    rows: int
    records: int
    record_bytes: int


def open_dataset(path: str | os.PathLike[str], storage: Mapping[str, Any] | None) -> tuple[Manifest, Store]:
    """The manifest of the dataset at `path`, and its store. OutputError where there is no finished dataset."""
    store = open_store(os.fspath(path), storage)
    return read_manifest(store), store


def open_split(path: str | os.PathLike[str], name: str, storage: Mapping[str, Any] | None) -> Split:
    """The split `name` of the dataset at `path`.

    Raises JobError for an unknown split, OutputError where a shard is missing or not of the size that the manifest
    states, StorageError where TensorFlow cannot open the files.
    """
    manifest, store = open_dataset(path, storage)
    if name not in manifest.splits:
        raise JobError(Problem("split", f"{store.url} has no split {name!r}.{did_you_mean(name, manifest.splits)}"))
    shards = [shard for shard in manifest.splits[name].shards if shard.rows]
    return Split(
        infos=manifest.infos,
        layout=manifest.layout,
        spec=manifest.feature_spec,
        paths=tuple(_checked(store, shard) for shard in shards),
        rows=sum(shard.rows for shard in shards),
        records=sum(shard.records for shard in shards),
        record_bytes=max(map(_record_bytes, shards), default=1),
    )


def _record_bytes(shard: ShardInfo) -> int:
    if shard.record_bytes:
        return shard.record_bytes
    if shard.offsets is not None and len(shard.offsets) > 1:
        return shard.offsets[-1] // (len(shard.offsets) - 1)
    return max(1, shard.bytes // shard.records)


def _checked(store: Store, shard: ShardInfo) -> str:
    """The local path of a shard whose size is the manifest's."""
    local = store.local_path(shard.path)
    if local is None:
        raise StorageError(
            f"Loading straight from {store.url} is not available yet: TensorFlow opens local files only. Copy the "
            "folder to a local disk or a mount, with manifest.json, and load that path."
        )
    try:
        found = store.size(shard.path)
    except FileNotFoundError:
        found = -1
    if found != shard.bytes:
        state = "is missing" if found < 0 else f"has {found:,} bytes"
        raise OutputError(
            f"{store.url}/{shard.path} {state}; the manifest states {shard.bytes:,} bytes. The dataset was changed or "
            "copied in part: copy it again, or write it anew with `dtap-dask run --overwrite`."
        )
    return local
