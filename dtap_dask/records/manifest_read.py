"""Manifests read back, and checked: a damaged or forged one is refused.

Whoever loads a dataset hands the manifest's shapes and counts to TensorFlow, which ends the process where they ask for
more memory than there is. So columns must fit in records, and records in files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from dtap_dask.errors import JobError, OutputError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.encoder import MOST_BYTES
from dtap_dask.records.example import STORED, Layout, check_schema
from dtap_dask.records.folder import MANIFEST, RUNS
from dtap_dask.records.manifest import FORMAT_VERSION, Manifest
from dtap_dask.records.manifest_build import feature_spec, record_fields
from dtap_dask.records.shard import ShardInfo
from dtap_dask.records.tfrecord import OVERHEAD
from dtap_dask.storage import Store
from dtap_dask.storage.safe_json import parse_json
from dtap_dask.validation import problems

_DEFLATED = 1040  # DEFLATE makes bytes at most this many times smaller


def read_manifest(store: Store) -> Manifest:
    """The manifest of the dataset in a folder.

    Raises OutputError where there is no folder, no manifest (it says whether a run can be resumed), a damaged one, or
    one of a later format.
    """
    try:
        data = store.read_bytes(MANIFEST)
    except FileNotFoundError:
        raise _no_manifest(store) from None
    try:
        return parse_manifest(store, data)
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{store.url}/{MANIFEST} is not a manifest: {_first_line(error)}. It was damaged or written by hand; copy "
            "it again from where it was written, or write the dataset again with `dtap-dask run JOB --overwrite`."
        ) from error


def present_manifest(store: Store) -> Manifest | None:
    """The manifest of the present dataset, None where there is none or it is damaged. OutputError for a later format.

    Its files must stay until a new manifest is committed, and are deleted then.
    """
    try:
        return parse_manifest(store, store.read_bytes(MANIFEST))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def parse_manifest(store: Store, data: bytes) -> Manifest:
    """The manifest from a file's bytes.

    ValueError, KeyError or TypeError where they hold none, OutputError for a later format.
    """
    found = parse_json(data)["format_version"]
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise OutputError(
            f"{store.url}/{MANIFEST} has format version {found}; this software reads up to {FORMAT_VERSION}. "
            "Install the dtap-dask that wrote the dataset, or a later one."
        )
    manifest = Manifest.model_validate_json(data)
    _check_sound(manifest.infos, manifest.layout, manifest.shards)
    if manifest.feature_spec != feature_spec(manifest.infos, manifest.layout):
        raise ValueError("feature_spec is not that of the features")
    for feature, place in zip(manifest.features, record_fields(manifest.infos, manifest.layout), strict=True):
        if feature.place != place:  # readers of this package go by the order of the features
            raise ValueError(f"the place of {feature.name!r} is not the one that the order of the features gives it")
    return manifest


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(problems(Manifest, error)[0]).rstrip(".")
    return f"{type(error).__name__} {error}"


def _no_manifest(store: Store) -> OutputError:
    if not store.exists():
        return OutputError(f"There is no folder {store.url}. Check the path, or write it with `dtap-dask run JOB`.")
    if store.list_files(RUNS, follow=False):
        return OutputError(
            f"The dataset in {store.url} is not finished: it has no {MANIFEST}, but a run that was interrupted or is "
            "still running. Let it finish, or continue with `dtap-dask run JOB --resume`."
        )
    return OutputError(
        f"{store.url} holds no dataset: it has no {MANIFEST}. Give the folder that `output.path` of the job names, not "
        "one of its parts; or write it with `dtap-dask run JOB`."
    )


def _check_sound(infos: Sequence[FeatureInfo], layout: Layout, shards: Iterable[ShardInfo]) -> None:
    """ValueError for columns or shards that no writer can have made."""
    values = 0
    for info in infos:
        if any(size is not None and size < 0 for size in info.shape):
            raise ValueError(f"column {info.name!r} has the shape {info.shape}")
        if info.dtype not in (*STORED, "bytes") or (info.dtype == "bytes") != (info.stored == "bytes"):
            raise ValueError(f"column {info.name!r} is {info.dtype}, stored as {info.stored}")
        values += math.prod(size or 0 for size in info.shape)
    if values >= MOST_BYTES:
        raise ValueError(f"a row has {values:,} values, and a record holds at most {MOST_BYTES:,} bytes")
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
