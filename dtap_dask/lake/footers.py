"""Parquet footers: what a file's row groups hold, before any of their columns is read."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake.discover import SourceFile
from dtap_dask.lake.predicate import ColumnStats
from dtap_dask.lake.schema import canonical_type, check_schema, select_columns
from dtap_dask.storage import Store

DICTIONARY_BYTES = 2 << 20  # writers give dictionaries up at about half of this
CODE_BYTES = 4  # a row of a dictionary-encoded column takes no more, a word in a plain page does
MAGIC, MAGIC_ENCRYPTED = b"PAR1", b"PARE"
TAIL = 8  # behind the footer: its length and the magic
_KEPT_AS_INTEGERS = (pa.types.is_integer, pa.types.is_date32, pa.types.is_timestamp, pa.types.is_time)


@dataclass(frozen=True)
class RowGroup:
    """One row group as planned: where it is, and what the job's columns of it weigh.

    `first_row` is the number of rows before it in its file. `bytes` (compressed) and `raw_bytes` (uncompressed, as
    encoded) count the needed columns only; `file_size` is the whole file's, to notice that it was replaced, and
    `footer_bytes` is what to read at its end to know it again.
    `partition` holds the raw hive values, in the order of the partition schema.
    """

    file: str
    key: str
    index: int
    rows: int
    first_row: int
    bytes: int
    raw_bytes: int
    partition: tuple[str | None, ...]
    file_size: int
    footer_bytes: int


@dataclass(frozen=True)
class Footer:
    """One file's footer, cut down to what a plan needs.

    `schema` has the canonical types of the needed columns, in the order asked for; `stats` holds, for each row
    group, the statistics of the columns that a predicate looks at. `plain_text` has the bytes (uncompressed) of each
    needed text column that the writer kept as they are, without a dictionary, as there are too many distinct words.
    """

    path: str
    schema: pa.Schema
    groups: tuple[RowGroup, ...]
    stats: tuple[dict[str, ColumnStats], ...]
    plain_text: dict[str, int]


def read_footer(
    store: Store,
    file: SourceFile,
    columns: Sequence[str] | None = None,
    expected: pa.Schema | None = None,
    stat_columns: Sequence[str] = (),
) -> Footer:
    """The footer of one file, reduced to `columns` (None: all) and to the statistics of `stat_columns`.

    With `expected`, SourceError unless the file has all of its columns in these types. SourceError also for a file
    that is empty, cut off, encrypted or not Parquet. Hive partition columns are no columns of the files here.
    """
    hive = {name for name, _ in file.partition}
    with store.counters.reading_footer(), open_checked(store, file.path, file.size) as source:
        parquet = open_parquet(source, file.path, file.size)
        found, metadata = parquet.schema_arrow, parquet.metadata
    if expected is not None:
        check_schema(file, found, expected)
    if columns is None:
        found = pa.schema([field for field in found if field.name not in hive])
    schema = select_columns(file, found, columns)
    needed = leaf_places(metadata, schema.names)
    stat_places = _stat_places(metadata, [name for name in stat_columns if name in found.names])
    groups, stats, first_row = [], [], 0
    plain_text: dict[str, int] = {}
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        chunks = [group.column(place) for place in needed]
        groups.append(
            RowGroup(
                file.path, file.key, index, group.num_rows, first_row,
                sum(chunk.total_compressed_size for chunk in chunks),
                sum(chunk.total_uncompressed_size for chunk in chunks),
                tuple(value for _, value in file.partition), file.size, metadata.serialized_size + TAIL,
            )
        )  # fmt: skip
        for chunk in chunks:
            if is_plain_text(chunk, group.num_rows):
                plain_text[chunk.path_in_schema] = (
                    plain_text.get(chunk.path_in_schema, 0) + chunk.total_uncompressed_size
                )
        kinds = {name: canonical_type(found.field(name).type) for name in stat_places}
        stats.append(
            {name: _column_stats(group.column(p), kinds[name], group.num_rows) for name, p in stat_places.items()}
        )
        first_row += group.num_rows
    return Footer(file.path, schema, tuple(groups), tuple(stats), plain_text)


def is_plain_text(chunk: Any, rows: int) -> bool:
    """Whether a column chunk is of texts, more of them than a dictionary holds: it is larger than one and its codes."""
    return bool(
        chunk.physical_type == "BYTE_ARRAY" and chunk.total_uncompressed_size > max(DICTIONARY_BYTES, CODE_BYTES * rows)
    )


def read_schema(store: Store, files: Sequence[SourceFile], most: int = 50) -> pa.Schema:
    """The canonical types of the first file's columns, without hive partition columns; reads as few footers as it can.

    A column of Arrow's null type (a file that holds no value of it, as pandas writes one) takes its type from the
    next file that has another, among the first `most`; it stays null where none of them has. Columns that only later
    files have are left out. SourceError as from `read_footer`.
    """
    fields: dict[str, pa.Field] = {}
    for file in files[:most]:
        found = read_footer(store, file).schema
        fields = fields or {field.name: field for field in found}
        fields.update({field.name: field for field in found if field.name in fields and _is_null(fields[field.name])})
        if not any(map(_is_null, fields.values())):
            break
    return pa.schema(list(fields.values()))


def _is_null(field: pa.Field) -> bool:
    return bool(pa.types.is_null(field.type))


def open_checked(store: Store, path: str, size: int) -> Any:
    """The file at `path` for reading, of the size that was listed; SourceError when it is gone or was replaced."""
    try:
        source = store.open_input(path)
    except FileNotFoundError as error:
        raise SourceError(
            f"{path} is gone from {store.url} since the source was listed. Run the job again, so that it plans with "
            "the files of now, once the job that writes the source has finished."
        ) from error
    source.seek(0, 2)
    now = source.tell()
    source.seek(0)
    if now != size:
        source.close()
        raise changed(path, f"it had {size:,} bytes then, {now:,} now")
    return source


def changed(path: str, how: str) -> SourceError:
    """The error for a file that is not what the plan was made from."""
    return SourceError(
        f"{path} has changed since the source was listed: {how}. Run the job again, so that it plans with the files "
        "of now, once the job that writes the source has finished."
    )


def one_line(error: Exception) -> str:
    """What pyarrow says, without its line breaks and full stop."""
    return " ".join(str(error).split()).rstrip(".")


def open_parquet(source: Any, path: str, size: int, **options: Any) -> pq.ParquetFile:
    """`source` as a ParquetFile with `options`; SourceError that says what is wrong with the file.

    Spark's and Hive's old INT96 timestamps are read as microseconds (as nanoseconds they overflow outside 1677-2262).
    """
    try:
        return pq.ParquetFile(source, coerce_int96_timestamp_unit="us", **options)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the filesystem failed, not the file
        raise SourceError(_what_is_wrong(source, path, size, error)) from error


def known_footer(source: Any, group: RowGroup) -> pq.FileMetaData:
    """The footer of a file that was planned, in one read of just its bytes: pyarrow alone would fetch 64 KiB.

    SourceError where it is none any more.
    """
    source.seek(group.file_size - group.footer_bytes)
    tail = bytes(source.read(group.footer_bytes))
    length = int.from_bytes(tail[-TAIL : -len(MAGIC)], "little")
    if length + TAIL == group.footer_bytes and tail.endswith(MAGIC):
        with contextlib.suppress(pa.ArrowException, OSError):
            return pq.read_metadata(pa.BufferReader(MAGIC + tail))
    return open_parquet(source, group.file, group.file_size).metadata  # which says what is wrong


def _what_is_wrong(source: Any, path: str, size: int, error: Exception) -> str:
    remedy = "Run the job that writes it again, or move it into a folder whose name begins with `_` to leave it out."
    if size == 0:
        return f"{path} is empty (0 bytes), so it is no Parquet file. {remedy}"
    source.seek(0)
    head = source.read(4)
    source.seek(max(size - 4, 0))
    tail = source.read(4)
    if MAGIC_ENCRYPTED in (head, tail):
        return (
            f"{path} ({size:,} bytes) is an encrypted Parquet file, which cannot be read here. Write it without "
            "encryption, or move it into a folder whose name begins with `_` to leave it out."
        )
    if head == MAGIC and tail != MAGIC:
        return (
            f"{path} ({size:,} bytes) begins as Parquet but has no footer: it is cut off, or still being written. "
            f"{remedy}"
        )
    if head != MAGIC:
        return f"{path} ({size:,} bytes) is not a Parquet file: it begins with {head!r}. {remedy}"
    return f"{path} ({size:,} bytes) has a Parquet footer that cannot be read ({one_line(error)}). {remedy}"


def leaf_places(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[int]:
    """The places of the leaf columns below top-level columns, in the file's order."""
    wanted, needed = set(columns), []
    for place in range(metadata.num_columns):
        leaf = metadata.schema.column(place)
        flat = leaf.path == leaf.name  # a nested leaf has a longer path than its own name
        if leaf.path in wanted if flat else any(leaf.path.startswith(f"{name}.") for name in wanted):
            needed.append(place)
    return needed


def _stat_places(metadata: pq.FileMetaData, columns: Sequence[str]) -> dict[str, int]:
    """The place of each flat column among `columns`."""
    leaves = [metadata.schema.column(place) for place in range(metadata.num_columns)] if columns else []
    flat = {leaf.path: at for at, leaf in enumerate(leaves) if leaf.path == leaf.name and not leaf.max_repetition_level}
    return {name: flat[name] for name in columns if name in flat}


def _column_stats(chunk: Any, kind: pa.DataType, rows: int) -> ColumnStats:
    stats = chunk.statistics if chunk.is_stats_set else None
    if stats is None:
        return ColumnStats(min=None, max=None, null_count=None, rows=rows)
    nulls = stats.null_count if stats.has_null_count else None
    if pa.types.is_floating(kind) and nulls != rows:
        nulls = None  # NaN counts as null here, and Parquet does not count NaNs
    low, high = _bound(stats, kind, "min"), _bound(stats, kind, "max")
    if low is None or high is None:
        low = high = None
    return ColumnStats(min=low, max=high, null_count=nulls, rows=rows)


def _bound(stats: Any, kind: pa.DataType, side: str) -> pa.Scalar | None:
    """A minimum or maximum as a scalar of the column's type; None when it is unknown."""
    if not stats.has_min_max:
        return None
    types, raw = pa.types, getattr(stats, f"{side}_raw")
    value: Any = None
    if any(is_kind(kind) for is_kind in _KEPT_AS_INTEGERS):
        return _from_integer(raw, kind) if stats.physical_type in ("INT32", "INT64") else None
    if types.is_boolean(kind):
        value = raw
    elif types.is_float32(kind) or types.is_float64(kind):
        value = None if math.isnan(raw) else raw
    elif types.is_string(kind):
        value = _decoded(raw)
    elif types.is_binary(kind) and stats.physical_type == "BYTE_ARRAY":
        value = raw
    elif types.is_decimal128(kind):
        value = getattr(stats, side)
    return None if value is None else pa.scalar(value, kind)


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None  # a bound that was shortened within a character


def _from_integer(raw: int, kind: pa.DataType) -> pa.Scalar:
    """Parquet keeps small and unsigned integers, dates and times in signed 32 or 64 bits."""
    if pa.types.is_unsigned_integer(kind):
        raw &= (1 << kind.bit_width) - 1
        return pa.scalar(raw, kind)
    if pa.types.is_integer(kind):
        return pa.scalar(raw, kind)
    storage = np.array([raw], np.int32 if kind.bit_width == 32 else np.int64)
    return pa.array(storage).view(kind)[0]
