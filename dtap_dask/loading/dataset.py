"""A finished dataset: its manifest, checked against the files that are there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtap_dask.errors import DataError, JobError, OutputError, Problem, did_you_mean
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.folder import MANIFEST
from dtap_dask.records.manifest import Manifest, ParseFeature
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.shard import ShardInfo
from dtap_dask.storage import Store, local_copies, open_store


@dataclass(frozen=True)
class DatasetSplit:
    """One split: its columns in the order of the records, and its shards that hold rows, in the manifest's order.

    `paths` are the shards' local paths, empty where they are on no local filesystem. `spec` is the argument of
    tf.io.parse_example. `records` is the number of records, `record_bytes` their approximate uncompressed size.
    `fitted` is whether the job's steps were fitted on this split.
    """

    name: str
    fitted: bool
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
    """The manifest and the store of the dataset at `path`. OutputError where there is no finished dataset."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise JobError(Problem("path", f"{path!r} is not the path of a dataset"))
    store = open_store(os.fspath(path), local_copies.others(storage or {}))
    return read_manifest(store), store


def open_split(path: str | os.PathLike[str], name: str, storage: Mapping[str, Any] | None) -> DatasetSplit:
    """The split `name` of the dataset at `path`, or of its mount in `storage.mounts`.

    Raises JobError for an unknown split or a wrong setting, DataError where the split has no rows, OutputError where a
    shard is missing or differs in size from what the manifest states, StorageError where the mount has another dataset.
    """
    manifest, store = open_dataset(path, storage)
    if not isinstance(name, str) or name not in manifest.splits:
        raise JobError(
            Problem("split", f"{store.url} has no split {name!r}.{did_you_mean(f'{name}', manifest.splits)}")
        )
    store = local_copies.mounted(store, MANIFEST, storage or {}) or store
    shards = tuple(shard for shard in manifest.splits[name].shards if shard.rows)
    if not shards:
        raise _empty(manifest, store, name)
    _check(store, shards)
    paths = [store.local_path(shard.path) for shard in shards]
    return DatasetSplit(
        name=name,
        fitted=name == _fitted(manifest),
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


def selected(infos: Sequence[FeatureInfo], features: Sequence[str] | None) -> tuple[FeatureInfo, ...]:
    """The named features in that order (None: all of them, in the manifest's order), then all other columns.

    Raises JobError for names that are not features, names given twice, and an empty choice.
    """
    known = {info.name: info for info in infos if info.role == "feature"}
    if features is None:
        return tuple(infos)
    names = names_in("features", features, [*known][:2])
    problems = [
        Problem("features", _no_feature(name, infos, known)) for name in dict.fromkeys(names) if name not in known
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [Problem("features", f"{name!r} is named twice") for name in twice]
    if problems:
        raise JobError(problems)
    return (*(known[name] for name in names), *(info for info in infos if info.role != "feature"))


def names_in(argument: str, given: Any, such: Sequence[str]) -> list[str]:
    """The names in a list of some. JobError for anything else; `such` are examples."""
    names = [*given] if isinstance(given, Iterable) and not isinstance(given, str | bytes) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise JobError(Problem(argument, f"{given!r} is not a list of names, such as {such!r}"))
    return names


def _no_feature(name: str, infos: Sequence[FeatureInfo], known: Mapping[str, FeatureInfo]) -> str:
    role = next((info.role for info in infos if info.name == name), None)
    if role is None:
        return f"the dataset has no feature {name!r}.{did_you_mean(name, known)}"
    if role == "kept":
        return f"{name!r} is not a feature but a kept column: give `kept=True` to load it"
    return f"{name!r} is not a feature but the {role}: it comes with every batch"


def _fitted(manifest: Manifest) -> str | None:
    """The split that the job was fitted on: `split.fit`, or else `train`; None where it took a fitted state."""
    if manifest.fitted_from is not None:
        return None
    split = manifest.job.get("split")
    named = split.get("fit") if isinstance(split, Mapping) else None
    return named if isinstance(named, str) else "train"


def _empty(manifest: Manifest, store: Store, name: str) -> DataError:
    full = [f"{other!r} ({part.rows:,} rows)" for other, part in manifest.splits.items() if part.rows]
    return DataError(
        f"The split {name!r} of {store.url} has no rows, so there is nothing to load. "
        f"{'With rows: ' + ', '.join(full) if full else 'No other split has any'}. Check `split` and `source.where` of "
        "the job, and run it again with `dtap-dask run JOB --overwrite`."
    )


def _record_bytes(shard: ShardInfo) -> int:
    if shard.record_bytes:
        return shard.record_bytes
    if shard.offsets is not None and len(shard.offsets) > 1:
        return shard.offsets[-1] // (len(shard.offsets) - 1)
    return max(1, shard.bytes // shard.records)


def _check(store: Store, shards: Sequence[ShardInfo]) -> None:
    """OutputError where a shard is missing or differs in size; lists each folder once."""
    folders = sorted({shard.path.rpartition("/")[0] for shard in shards})
    sizes = {info.path: info.size for folder in folders for info in store.list_files(folder)}
    for shard in shards:
        found = sizes.get(shard.path)
        if found != shard.bytes:
            state = "is missing" if found is None else f"has {found:,} bytes"
            raise OutputError(
                f"{store.url}/{shard.path} {state}; the manifest states {shard.bytes:,} bytes. The dataset was changed "
                "or copied in part: copy it again, or write it again with `dtap-dask run JOB --overwrite`."
            )
