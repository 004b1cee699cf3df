"""A finished dataset: what its manifest says, held against the files that are there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtap_dask.errors import JobError, OutputError, Problem, did_you_mean
from dtap_dask.features.state import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.manifest import MANIFEST, Manifest, ParseFeature, ShardInfo, read_manifest
from dtap_dask.storage import Store, near, open_store


@dataclass(frozen=True)
class Split:
    """One split: its columns in the order of the records, and its shards that hold rows, in the manifest's order.

    `paths` are those of the shards for TensorFlow to open, empty where they lie on no local filesystem. `spec` is what
    tf.io.parse_example needs. `records` is the shards' number of records, `record_bytes` about the uncompressed size
    of one.
    """

    infos: tuple[FeatureInfo, ...]
    layout: Layout
    spec: Mapping[str, ParseFeature]
    store: Store
    shards: tuple[ShardInfo, ...]
    paths: tuple[str, ...]
    rows: int
    records: int
    record_bytes: int


def open_dataset(path: str | os.PathLike[str], storage: Mapping[str, Any] | None) -> tuple[Manifest, Store]:
    """The manifest of the dataset at `path`, and its store. OutputError where there is no finished dataset."""
    store = open_store(os.fspath(path), near.others(storage or {}))
    return read_manifest(store), store


def open_split(path: str | os.PathLike[str], name: str, storage: Mapping[str, Any] | None) -> Split:
    """The split `name` of the dataset at `path`, or where `storage.mounts` says that it is mounted.

    Raises JobError for an unknown split or a wrong setting, OutputError where a shard is missing or not of the size
    that the manifest states, StorageError where a mount shows another dataset.
    """
    manifest, store = open_dataset(path, storage)
    if name not in manifest.splits:
        raise JobError(Problem("split", f"{store.url} has no split {name!r}.{did_you_mean(name, manifest.splits)}"))
    store = near.mounted(store, MANIFEST, storage or {}) or store
    shards = tuple(shard for shard in manifest.splits[name].shards if shard.rows)
    _check(store, shards)
    paths = [store.local_path(shard.path) for shard in shards]
    return Split(
        infos=manifest.infos,
        layout=manifest.layout,
        spec=manifest.feature_spec,
        store=store,
        shards=shards,
        paths=tuple(path for path in paths if path is not None),
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


def _check(store: Store, shards: Sequence[ShardInfo]) -> None:
    """That every shard is there with the manifest's size, by one listing for each folder."""
    folders = sorted({shard.path.rpartition("/")[0] for shard in shards})
    sizes = {info.path: info.size for folder in folders for info in store.list_files(folder)}
    for shard in shards:
        found = sizes.get(shard.path)
        if found != shard.bytes:
            state = "is missing" if found is None else f"has {found:,} bytes"
            raise OutputError(
                f"{store.url}/{shard.path} {state}; the manifest states {shard.bytes:,} bytes. The dataset was changed "
                "or copied in part: copy it again, or write it anew with `dtap-dask run --overwrite`."
            )
