"""manifest.json: what a finished dataset is, complete enough for any program to read it.

It is written last and atomically; a folder without it holds no dataset. Paths in it are relative to its folder. Its
JSON schema, docs/manifest.schema.json, is made from the models here. Framing of records is described in tfrecord.py,
rows within records in blocks.py and rows.py.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dtap_dask.errors import OutputError
from dtap_dask.features.info import FeatureInfo, Role
from dtap_dask.lake.derived import RawColumns
from dtap_dask.records.example import Layout
from dtap_dask.records.folder import may_be_of_dataset
from dtap_dask.records.shard import ShardInfo
from dtap_dask.records.tfrecord import Compression
from dtap_dask.words import VARIABLE, as_html, count, human, visible

FORMAT_VERSION = 1


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Amounts(_Model):
    """How many of something the source has, how many of those were pruned, and how many were read."""

    found: int = Field(default=0, description="all of them")
    pruned: int = Field(default=0, description="left out without being read, by partition folders or statistics")
    read: int = Field(default=0, description="read, once")

    @classmethod
    def of(cls, found: int, read: int) -> Amounts:
        """All that were not read were pruned."""
        return cls(found=found, pruned=found - read, read=read)


class SourceTotals(_Model):
    """The source in numbers.

    Row groups, rows and bytes are those of files that were not pruned by their folders: no other footer is read.
    """

    files: Amounts = Field(default=Amounts(), description="files")
    row_groups: Amounts = Field(
        default=Amounts(), description="row groups of the files that were not left out by their folders"
    )
    rows: Amounts = Field(default=Amounts(), description="rows of these row groups, before the filter")
    bytes: Amounts = Field(
        default=Amounts(), description="bytes of the columns that the job needs in these row groups, compressed"
    )


class RecordField(_Model):
    """Where a column is in a record."""

    key: str | None = Field(
        default=None,
        description="layout `rows`: the key of its feature; `blocks`, fixed width: the key of the matrix, a dtype",
    )
    offset: int | None = Field(
        default=None, description="`blocks`, fixed width: the number of its first value in each row of the matrix"
    )
    width: int | None = Field(default=None, description="`blocks`, fixed width: the number of its values in each row")
    values: str | None = Field(default=None, description="`blocks`, texts and lists: the key of the values")
    lengths: str | None = Field(
        default=None,
        description="`blocks`, lists: the key of the number of elements of each row, raw little-endian int32",
    )


class FeatureEntry(_Model):
    """One column, and where it is in a record."""

    name: str = Field(description="the column's name")
    role: Role = Field(description="what the column is for")
    dtype: str = Field(description="the dtype that `load` yields, a name of NumPy's; `bytes` for text")
    stored: str = Field(description="the dtype in the records, no wider than the values need; `bytes` for text")
    shape: tuple[int | None, ...] = Field(
        description="the shape of one row: `[]` a scalar, `[k]` a vector, `[k, l]` a tensor, `[null]` a list of any "
        "length"
    )
    columns: tuple[str, ...] = Field(description="the source columns that it was made from")
    ids: int | None = Field(
        default=None, description="the number of ids (the largest id plus one), where the column holds ids"
    )
    vocabulary: str | None = Field(default=None, description="the Parquet file of its words, beside the manifest")
    classes: tuple[str, ...] | None = Field(
        default=None, description="the names of a label's classes, or of the values of a one-hot vector"
    )
    place: RecordField = Field(description="where the column is in a record")

    @property
    def info(self) -> FeatureInfo:
        """The column as the encoder and the decoder know it."""
        return FeatureInfo(**{key: value for key, value in self if key != "place"})


class ParseFeature(_Model):
    """An argument-for-argument description of tf.io.FixedLenFeature or tf.io.RaggedFeature."""

    kind: Literal["FixedLenFeature", "RaggedFeature"] = Field(description="the class in `tf.io`")
    dtype: Literal["string", "float32", "int64"] = Field(description="its dtype")
    shape: tuple[int, ...] | None = Field(default=None, description="its shape, for FixedLenFeature")


class RawEntry(_Model):
    """The columns that those of the dataset were computed from; `dtap_dask.transform` needs those of the features."""

    columns: dict[str, str] = Field(description="these columns of the source, and their Arrow types")
    arrow_schema: str = Field(description="the same as an Arrow IPC schema message in base64")
    derive: dict[str, str] = Field(
        description="the derived columns among them and their SQL as in the job; one may use those before it"
    )

    @classmethod
    def of(cls, raw: RawColumns, derive: Mapping[str, str]) -> RawEntry:
        """As it is written; `derive` is that of the job, with `${NAME}` in place of values from the environment."""
        return cls(
            columns={field.name: str(field.type) for field in raw.schema},
            arrow_schema=base64.b64encode(raw.schema.serialize().to_pybytes()).decode(),
            derive={name: derive[name] for name, _ in raw.derive},
        )

    @property
    def raw(self) -> RawColumns:
        """As it is used. OutputError where the environment lacks a variable that the job was run with."""
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.arrow_schema)))
        return RawColumns(schema, tuple((name, _expanded(name, sql)) for name, sql in self.derive.items()))


def _expanded(name: str, sql: str) -> str:
    """The SQL of a derived column with the values of the environment."""

    def value(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise OutputError(
                f"Derived column {name!r} was computed with the environment variable {match[1]}, whose value the "
                "dataset does not hold. Set it to what it was when the job ran."
            ) from None

    return VARIABLE.sub(value, sql)


class FittedFrom(_Model):
    """The earlier dataset whose fitted state encoded the rows."""

    path: str = Field(description="the dataset as `fit.from` of the job names it, with `${NAME}` in place of secrets")
    fingerprint: str = Field(description="its fingerprint; the first eight digits name its run")
    rows: int = Field(description="the number of rows that were fitted")


class ParityEntry(_Model):
    """Rows of the source that the run has compared with their records, and how many of them differ."""

    rows: int = Field(description="rows of the source that `dtap_dask.transform` was given at the end of the run")
    differing: int = Field(description="those of them that have other features in the records")

    def in_words(self) -> str:
        """As `show` says it."""
        if self.differing:
            return f"{self.differing:,} of {count(self.rows, 'row')} of the source differ from their records"
        match = "matches its record" if self.rows == 1 else "match their records"
        return f"{count(self.rows, 'row')} of the source {match}"


class SplitEntry(_Model):
    """One part of the dataset and its shards."""

    rows: int = Field(description="rows of all its shards")
    records: int = Field(description="records of all its shards")
    quality: float | None = Field(
        default=None,
        description="how well the row groups of the source are mixed, at most 1: how often two rows drawn from the "
        "part are of one row group, divided by how often two neighbours in a shard are; null where there is nothing to "
        "mix, and in datasets of releases before 0.2.0",
    )
    shards: tuple[ShardInfo, ...] = Field(description="its shards, in order")


class Sidecar(_Model):
    """A file beside the manifest: sources, fitted state, vocabularies."""

    path: str = Field(description="the file")
    bytes: int = Field(description="its size")
    crc32c: int = Field(description="the CRC32C of the whole file, not masked")


class Manifest(_Model):
    """What a finished dataset of dtap_dask is."""

    format_version: int = Field(default=FORMAT_VERSION, description="1; a reader refuses higher ones")
    fingerprint: str = Field(
        description="64 hexadecimal digits: a hash of what decides the bytes: the job (without `name`, `source.path`, "
        "`source.verify_checksums`, `output.path` and `storage`), where the source is and its files, `--limit`, the "
        "format version, the words of files and datasets that steps name, and the state that `fit` takes from a dataset"
    )
    job: dict[str, Any] = Field(
        description="the job file as run, with `${NAME}` in place of secrets; defaults are not filled in"
    )
    source: SourceTotals = Field(description="the source in numbers")
    layout: Layout = Field(description="how rows are laid out in records")
    byte_order: Literal["little"] = Field(default="little", description="the byte order of raw values")
    memory_order: Literal["rows"] = Field(
        default="rows", description="`rows`: matrices are in C order, the values of a row are next to each other"
    )
    features: tuple[FeatureEntry, ...] = Field(
        description="the columns: features, labels, the weight and kept columns, in the order of `load`"
    )
    feature_spec: dict[str, ParseFeature] = Field(
        description="the argument of `tf.io.parse_example` for these records, by key; in the layout `blocks` strings "
        "of a FixedLenFeature are raw bytes for `tf.io.decode_raw`"
    )
    raw: RawEntry | None = Field(
        default=None,
        description="the columns that those of the dataset were computed from; of new rows only those of the features "
        "are needed. Null in datasets of releases before 0.2.0",
    )
    fitted_from: FittedFrom | None = Field(
        default=None, description="the dataset whose fitted state was taken; null where the job fitted its own"
    )
    parity: ParityEntry | None = Field(
        default=None,
        description="whether `dtap_dask.transform` gives the features of the records; null in datasets of releases "
        "before 0.2.0",
    )
    splits: dict[str, SplitEntry] = Field(
        description="the parts of the dataset, in the job's order; `train` alone where the job has no split"
    )
    sidecars: tuple[Sidecar, ...] = Field(default=(), description="the other files of the dataset")
    software: dict[str, str] = Field(description="the versions of the packages that made the bytes")

    @model_validator(mode="after")
    def _files_are_within_its_folder(self) -> Manifest:
        """Readers open these files and later runs delete them, so a forged manifest must not name any others."""
        for path in self.files:
            if not may_be_of_dataset(path):
                raise ValueError(f"{path!r} is no path of a shard or sidecar")
        return self

    @property
    def source_columns(self) -> RawEntry:
        """What the columns were computed from; OutputError for a dataset of a release before 0.2.0."""
        if self.raw is None:
            raise OutputError(
                "The dataset was written by a release of dtap-dask before 0.2.0 and does not say what its source "
                "columns were. Write it again with `dtap-dask run JOB --overwrite`."
            )
        return self.raw

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
        if self.fitted_from:
            origin = f"{self.fitted_from.path} ({self.fitted_from.fingerprint[:8]})"
            lines.append(f"  fitted on {count(self.fitted_from.rows, 'row')} of {origin}")
        if self.parity is not None and self.parity.rows:
            lines.append(f"  transform: {self.parity.in_words()}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return visible(self.in_words(f"Dataset {self.fingerprint[:8]}"))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return as_html(repr(self))

    def to_bytes(self) -> bytes:
        """The file's bytes: the same for equal manifests."""
        return (json.dumps(self.model_dump(mode="json"), indent=1) + "\n").encode()
