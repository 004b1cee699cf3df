"""manifest.json: what a finished dataset is, complete enough for any program to read it.

It is written last and atomically; a folder without it holds no dataset. Paths in it are relative to its folder. All
fields are those of `Manifest`; how records lie in a file is told in tfrecord.py, how rows lie in a record in blocks.py
and rows.py, and where a column is in `features[].place`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dtap_dask.errors import OutputError
from dtap_dask.features.info import FeatureInfo, Role
from dtap_dask.records import blocks, columns, rows
from dtap_dask.records.example import Layout, encoder_of
from dtap_dask.records.folder import MANIFEST, RUNS, may_be_of_dataset
from dtap_dask.records.shard import ShardInfo
from dtap_dask.records.sound import check_sound
from dtap_dask.records.tfrecord import Compression
from dtap_dask.records.wire import BYTES_LIST, FLOAT_LIST, INT64_LIST
from dtap_dask.storage import Store
from dtap_dask.storage.parse import parse_json
from dtap_dask.words import as_html, count, human, visible

FORMAT_VERSION = 1
_KINDS = {BYTES_LIST: "string", FLOAT_LIST: "float32", INT64_LIST: "int64"}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Amounts(_Model):
    """How many of something the source has, how many of those were pruned, and how many were read."""

    found: int = 0
    pruned: int = 0
    read: int = 0

    @classmethod
    def of(cls, found: int, read: int) -> Amounts:
        """All that were not read were pruned."""
        return cls(found=found, pruned=found - read, read=read)


class SourceTotals(_Model):
    """The source in numbers; bytes are those of the needed columns, compressed as in the files.

    Row groups, rows and bytes are those of files that were not pruned by their folders: no other footer is read.
    """

    files: Amounts = Amounts()
    row_groups: Amounts = Amounts()
    rows: Amounts = Amounts()
    bytes: Amounts = Amounts()


class RecordField(_Model):
    """Where a column is in a record. rows: the feature `key`.

    blocks, fixed width: columns offset to offset + width of the matrix in the bytes feature `key`. blocks, text: the
    feature `values`, a bytes_list with one text a row. blocks, lists: `values` has the elements of all rows (texts as a
    bytes_list, numbers raw in one bytes value), and the bytes feature `lengths` the elements per row (int32).
    """

    key: str | None = None
    offset: int | None = None
    width: int | None = None
    values: str | None = None
    lengths: str | None = None


class FeatureEntry(_Model):
    """One output column: the fields of FeatureInfo, and its place in a record."""

    name: str
    role: Role
    dtype: str
    stored: str
    shape: tuple[int | None, ...]
    columns: tuple[str, ...]
    ids: int | None = None
    vocabulary: str | None = None
    classes: tuple[str, ...] | None = None
    place: RecordField

    @property
    def info(self) -> FeatureInfo:
        """The column as the encoder and the decoder know it."""
        return FeatureInfo(**{key: value for key, value in self if key != "place"})


class ParseFeature(_Model):
    """An argument-for-argument description of tf.io.FixedLenFeature or tf.io.RaggedFeature."""

    kind: Literal["FixedLenFeature", "RaggedFeature"]
    dtype: Literal["string", "float32", "int64"]
    shape: tuple[int, ...] | None = None


class SplitEntry(_Model):
    """One part of the dataset and its shards."""

    rows: int
    records: int
    shards: tuple[ShardInfo, ...]


class Sidecar(_Model):
    """A file beside the manifest: sources, fitted state, vocabularies."""

    path: str
    bytes: int
    crc32c: int


class Manifest(_Model):
    """manifest.json.

    `job` is the job file as run. `layout.rows_per_record` is the largest number of rows in a block. `feature_spec` is
    what tf.io.parse_example needs; for blocks its strings still go through tf.io.decode_raw, but for the texts of a
    RaggedFeature. `byte_order` and `memory_order` ("rows": a row's values are neighbours) say how matrices lie.
    """

    format_version: int = FORMAT_VERSION
    fingerprint: str
    job: dict[str, Any]
    source: SourceTotals
    layout: Layout
    byte_order: Literal["little"] = "little"
    memory_order: Literal["rows"] = "rows"
    features: tuple[FeatureEntry, ...]
    feature_spec: dict[str, ParseFeature]
    splits: dict[str, SplitEntry]
    sidecars: tuple[Sidecar, ...] = ()
    software: dict[str, str]

    @model_validator(mode="after")
    def _files_lie_beside_it(self) -> Manifest:
        """One by hand may name any file: what is read must be of the dataset, and so must what a later run removes."""
        for path in self.files:
            if not may_be_of_dataset(path):
                raise ValueError(f"{path!r} is no path of a shard or sidecar")
        return self

    @property
    def infos(self) -> tuple[FeatureInfo, ...]:
        """The columns, in the order of the records."""
        return tuple(feature.info for feature in self.features)

    @property
    def compression(self) -> Compression:
        """The compression of every shard."""
        return self.layout.compression

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        """All shards, split after split."""
        return tuple(shard for split in self.splits.values() for shard in split.shards)

    @property
    def files(self) -> frozenset[str]:
        """Every file that belongs to the dataset, besides the manifest and _SUCCESS."""
        return frozenset(shard.path for shard in self.shards) | {sidecar.path for sidecar in self.sidecars}

    def in_words(self, path: str = "Dataset") -> str:
        """Its main numbers as lines for a person, as `dtap-dask show PATH` begins."""
        head = f"{count(len(self.features), 'column')}, layout {self.layout.kind}, compression {self.compression}"
        lines = [f"{path}: {head}"]
        for name, split in self.splits.items():
            size = human(sum(shard.bytes for shard in split.shards))
            rows, shards = count(split.rows, "row"), count(len(split.shards), "shard")
            lines.append(f"  {name}: {rows} in {shards}, {size}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return visible(self.in_words(f"Dataset {self.fingerprint[:8]}"))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return as_html(repr(self))

    def to_bytes(self) -> bytes:
        """The file's bytes: the same for equal manifests."""
        return (json.dumps(self.model_dump(mode="json"), indent=1) + "\n").encode()


def build_manifest(
    *,
    job: Mapping[str, Any],
    fingerprint: str,
    source: SourceTotals,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    splits: Sequence[str],
    shards: Iterable[ShardInfo],
    software: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of written shards, which keep their order within each of `splits`. Sidecars come with the commit.

    `software` defaults to the versions of the packages that make the bytes.
    """
    by_split: dict[str, list[ShardInfo]] = {name: [] for name in splits}
    for shard in shards:
        by_split[shard.split].append(shard)
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
        splits={
            name: SplitEntry(
                rows=sum(shard.rows for shard in found),
                records=sum(shard.records for shard in found),
                shards=tuple(found),
            )
            for name, found in by_split.items()
        },
        software=dict(software or versions()),
    )


def versions(packages: Sequence[str] = ("dtap-dask", "numpy", "pyarrow", "google-crc32c")) -> dict[str, str]:
    """The installed versions of packages."""
    return {name: _version(name) for name in packages}


_version = cache(version)  # which looks through all that is installed: some milliseconds each


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
    """What tf.io.parse_example needs to parse a record."""
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


def read_manifest(store: Store) -> Manifest:
    """The manifest of the dataset in a folder.

    Raises OutputError where there is no folder, no manifest (and whether a run can go on), a broken one, or one of a
    later format.
    """
    try:
        data = store.read_bytes(MANIFEST)
    except FileNotFoundError:
        raise _no_manifest(store) from None
    try:
        return parse_manifest(store, data)
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{store.url}/{MANIFEST} is no manifest: {_first_line(error)}. It was damaged or written by hand; copy it "
            "again from where it was written, or write the dataset again with `dtap-dask run JOB --overwrite`."
        ) from error


def standing_manifest(store: Store) -> Manifest | None:
    """The manifest of the dataset that stands, if it can be read: what a new generation must leave alone, and remove.

    A damaged one is no dataset. OutputError for one of a later format.
    """
    try:
        return parse_manifest(store, store.read_bytes(MANIFEST))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def parse_manifest(store: Store, data: bytes) -> Manifest:
    """The manifest in a file's bytes.

    ValueError, KeyError or TypeError for other bytes, OutputError for a later format.
    """
    found = parse_json(data)["format_version"]
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise OutputError(
            f"{store.url}/{MANIFEST} has format version {found}, this software reads up to {FORMAT_VERSION}. "
            "Install the dtap-dask that wrote the dataset, or a later one."
        )
    manifest = Manifest.model_validate_json(data)
    check_sound(manifest.infos, manifest.layout, manifest.shards)
    if manifest.feature_spec != feature_spec(manifest.infos, manifest.layout):
        raise ValueError("feature_spec is not that of the features")
    return manifest


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__} {error}"


def _no_manifest(store: Store) -> OutputError:
    if not store.exists():
        return OutputError(f"There is no folder {store.url}. Check the path, or write it with `dtap-dask run JOB`.")
    if store.list_files(RUNS, follow=False):
        return OutputError(
            f"The dataset in {store.url} is not finished: it has no {MANIFEST}, but a run that was interrupted or is "
            "still going. Let it finish, or go on with `dtap-dask run JOB --resume`."
        )
    return OutputError(
        f"{store.url} holds no dataset: it has no {MANIFEST}. Give the folder that `output.path` of the job names, not "
        "one of its parts; or write it with `dtap-dask run JOB`."
    )
