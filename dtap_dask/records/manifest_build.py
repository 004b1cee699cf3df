"""The manifest of written shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import blocks, columns, rows
from dtap_dask.records.example import Layout, encoder_of
from dtap_dask.records.manifest import (
    FeatureEntry,
    FittedFrom,
    Manifest,
    ParityEntry,
    ParseFeature,
    RawEntry,
    RecordField,
    SourceTotals,
    SplitEntry,
)
from dtap_dask.records.shard import ShardInfo
from dtap_dask.records.wire import BYTES_LIST, FLOAT_LIST, INT64_LIST

_KINDS = {BYTES_LIST: "string", FLOAT_LIST: "float32", INT64_LIST: "int64"}


def build_manifest(
    *,
    job: Mapping[str, Any],
    fingerprint: str,
    source: SourceTotals,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    splits: Sequence[str],
    shards: Iterable[ShardInfo],
    pairs: Sequence[int] | None = None,
    raw: RawEntry | None = None,
    fitted_from: FittedFrom | None = None,
    parity: ParityEntry | None = None,
    software: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of written shards, which keep their order within each of `splits`. The commit adds the sidecars.

    `pairs` is that of the plan of shards, from which the quality of the mixing is computed. `software` defaults to the
    versions of the packages that make the bytes.
    """
    by_split: dict[str, list[ShardInfo]] = {name: [] for name in splits}
    for shard in shards:
        by_split[shard.split].append(shard)
    paired = dict(zip(by_split, pairs, strict=True)) if pairs is not None else {}
    lowered = encoder_of(infos, layout).rows_per_record
    return Manifest(
        fingerprint=fingerprint,
        job=dict(job),
        source=source,
        layout=Layout(layout.kind, lowered, layout.compression),
        features=tuple(
            FeatureEntry(**vars(info), place=place)
            for info, place in zip(infos, record_fields(infos, layout), strict=True)
        ),
        feature_spec=feature_spec(infos, layout),
        raw=raw,
        fitted_from=fitted_from,
        parity=parity,
        splits={name: _split_entry(found, paired.get(name)) for name, found in by_split.items()},
        software=dict(software or versions()),
    )


def _split_entry(shards: Sequence[ShardInfo], pairs: int | None) -> SplitEntry:
    return SplitEntry(
        rows=sum(shard.rows for shard in shards),
        records=sum(shard.records for shard in shards),
        quality=mixing_quality(shards, pairs),
        shards=tuple(shards),
    )


def mixing_quality(shards: Sequence[ShardInfo], pairs: int | None) -> float | None:
    """How well the row groups of the source are mixed in the shards of a split, at most 1.

    The probability that two different rows of the split are of one row group, of which `pairs` is the number of ordered
    pairs, divided by the probability that two neighbours in a shard are. None where either is not known, where no row
    has a neighbour, and where all rows are of one row group.
    """
    rows = sum(shard.rows for shard in shards)
    neighbours = sum(max(0, shard.rows - 1) for shard in shards)
    same = [shard.same_group for shard in shards if shard.same_group is not None]
    if pairs is None or len(same) < len(shards) or not neighbours or pairs == rows * (rows - 1):
        return None
    drawn, found = pairs / (rows * (rows - 1)), sum(same) / neighbours
    return 1.0 if found <= drawn else round(drawn / found, 4)


def versions(packages: Sequence[str] = ("dtap-dask", "numpy", "pyarrow", "google-crc32c")) -> dict[str, str]:
    """The installed versions of packages."""
    return {name: _version(name) for name in packages}


_version = cache(version)  # takes some milliseconds: it looks through everything that is installed


def record_fields(infos: Sequence[FeatureInfo], layout: Layout) -> list[RecordField]:
    """Where each column is in a record."""
    if layout.kind == "rows":
        return [RecordField(key=info.name) for info in infos]
    found, ends = [], dict[str, int]()
    for info in infos:
        if columns.is_fixed(info):
            offset = ends.get(info.stored, 0)
            ends[info.stored] = offset + columns.width(info)
            found.append(RecordField(key=info.stored, offset=offset, width=columns.width(info)))
        else:
            found.append(RecordField.model_validate({key.rpartition("/")[2]: key for key in blocks.keys(info)}))
    return found


def feature_spec(infos: Sequence[FeatureInfo], layout: Layout) -> dict[str, ParseFeature]:
    """The argument of tf.io.parse_example for a record, by key."""
    if layout.kind == "rows":
        return {info.name: _row_feature(info) for info in infos}
    keys = [*blocks.matrices(infos), *(key for info in blocks.variable(infos) for key in blocks.keys(info))]
    raw = ParseFeature(kind="FixedLenFeature", dtype="string", shape=())
    spec = {blocks.ROWS: ParseFeature(kind="FixedLenFeature", dtype="int64", shape=()), **dict.fromkeys(keys, raw)}
    return spec | dict.fromkeys(blocks.text_keys(infos), ParseFeature(kind="RaggedFeature", dtype="string"))


def _row_feature(info: FeatureInfo) -> ParseFeature:
    dtype: Any = _KINDS[rows.kind_of(info)]
    if None in info.shape:
        return ParseFeature(kind="RaggedFeature", dtype=dtype)
    return ParseFeature(kind="FixedLenFeature", dtype=dtype, shape=tuple(size or 0 for size in info.shape))
