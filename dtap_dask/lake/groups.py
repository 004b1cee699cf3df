"""Row groups as a stream of record batches: one after the other, or several in turns, within a fixed memory."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake.footers import RowGroup, changed, one_line, open_checked, open_parquet
from dtap_dask.lake.schema import delivered_type
from dtap_dask.storage import Store

MIB = 1 << 20
COALESCE_BYTES = 64 * MIB  # a row group up to this is fetched in a few large reads, held until it is decoded
STREAM_BUFFER = MIB  # a larger one is read through a buffer of this size for each column
BATCH_BYTES = 32 * MIB  # no batch is planned larger than this
OPEN_BYTES = 256 * MIB  # what all row groups open at once may hold


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one row group: `position` in the task's groups, `first_row` in the file."""

    position: int
    first_row: int
    rows: int
    columns: tuple[pa.Array, ...]


Pieces = Generator[Piece, None, None]


@dataclass
class _Opened:
    """The Parquet file that was opened last, for the next row group if that lies in it."""

    key: tuple[str, bool]
    source: Any
    parquet: pq.ParquetFile


def row_bytes(schema: pa.Schema, group: RowGroup) -> int:
    """The bytes one row of a group takes decoded, as far as the plan knows them: never less than the types' widths."""
    width = sum(_width(field.type) for field in schema)
    return max(width, -(-group.raw_bytes // max(group.rows, 1)), 1)


def planned_rows(schema: pa.Schema, group: RowGroup, batch_rows: int) -> int:
    """How many rows of a group a batch holds: `batch_rows`, or fewer so that it stays within BATCH_BYTES."""
    return max(1, min(batch_rows, BATCH_BYTES // row_bytes(schema, group)))


def in_order(store: Store, schema: pa.Schema, groups: Sequence[RowGroup], batch_rows: int) -> Pieces:
    """All rows of the groups, group after group. Each file is opened once per run of its groups."""
    opened: _Opened | None = None
    try:
        for position, group in enumerate(groups):
            key = (group.file, _coalesce(group))
            if opened is None or opened.key != key:
                if opened is not None:
                    opened.source.close()
                opened = _open(store, schema, group, None)
            yield from _read(opened.parquet, schema, group, position, planned_rows(schema, group, batch_rows))
    finally:
        if opened is not None:
            opened.source.close()


def in_turns(store: Store, schema: pa.Schema, groups: Sequence[RowGroup], batch_rows: int) -> Pieces:
    """All rows of the groups, several groups open at once, each giving `batch_rows` / (groups open) rows a turn.

    As many are open as OPEN_BYTES allows by what the plan knows of them (at least one); the next one opens when
    one has ended. The sequence depends on the arguments only.
    """
    turn_rows = max(1, batch_rows // _open_at_first(schema, groups, batch_rows))
    waiting = list(enumerate(groups))[::-1]
    running: list[tuple[int, Pieces]] = []
    footers: dict[str, pq.FileMetaData] = {}
    held = 0
    with contextlib.ExitStack() as stack:
        while running or waiting:
            while waiting and (not running or held + _cost(schema, waiting[-1][1], turn_rows) <= OPEN_BYTES):
                position, group = waiting.pop()
                opened = _open(store, schema, group, footers.get(group.file))
                footers[group.file] = opened.parquet.metadata
                stack.callback(opened.source.close)
                reading = _read(opened.parquet, schema, group, position, planned_rows(schema, group, turn_rows))
                held += _cost(schema, group, turn_rows)
                running.append((position, reading))
            still = []
            for position, reading in running:
                piece = next(reading, None)
                if piece is None:
                    held -= _cost(schema, groups[position], turn_rows)
                else:
                    still.append((position, reading))
                    yield piece
            running = still


def _open_at_first(schema: pa.Schema, groups: Sequence[RowGroup], batch_rows: int) -> int:
    held = count = 0
    for group in groups:
        held += _cost(schema, group, batch_rows // (count + 1))
        if held > OPEN_BYTES:
            break
        count += 1
    return max(count, 1)


def _cost(schema: pa.Schema, group: RowGroup, rows: int) -> int:
    """Bytes that an open row group holds: what is fetched of it, and the batch being decoded."""
    fetched = group.bytes if _coalesce(group) else STREAM_BUFFER * max(len(schema), 1)
    return fetched + planned_rows(schema, group, max(rows, 1)) * row_bytes(schema, group)


def _coalesce(group: RowGroup) -> bool:
    return group.bytes <= COALESCE_BYTES


def _open(store: Store, schema: pa.Schema, group: RowGroup, footer: pq.FileMetaData | None) -> _Opened:
    source = open_checked(store, group.file, group.file_size)
    text = [field.name for field in schema if pa.types.is_dictionary(delivered_type(field.type))]
    coalesce = _coalesce(group)
    try:
        parquet = open_parquet(
            source,
            group.file,
            group.file_size,
            metadata=footer,
            read_dictionary=text,
            pre_buffer=coalesce,
            buffer_size=0 if coalesce else STREAM_BUFFER,
        )
    except KeyError as error:
        source.close()
        raise changed(group.file, f"column {error} is gone") from error
    except BaseException:
        source.close()
        raise
    return _Opened((group.file, coalesce), source, parquet)


def _read(parquet: pq.ParquetFile, schema: pa.Schema, group: RowGroup, position: int, rows: int) -> Pieces:
    metadata = parquet.metadata
    found = metadata.row_group(group.index).num_rows if group.index < metadata.num_row_groups else 0
    if found != group.rows:
        raise changed(group.file, f"row group {group.index} had {group.rows:,} rows then, {found:,} now")
    first = group.first_row
    if not len(schema):  # only partition columns are wanted: nothing to decode
        for start in range(0, group.rows, rows):
            yield Piece(position, first + start, min(rows, group.rows - start), ())
        return
    batches = parquet.iter_batches(rows, row_groups=[group.index], columns=schema.names, use_threads=False)
    while (batch := _next(batches, group)) is not None:
        yield Piece(position, first, batch.num_rows, tuple(_column(batch, field, group) for field in schema))
        first += batch.num_rows
    if first - group.first_row != group.rows:
        raise _broken(group, f"{first - group.first_row:,} rows came out of it, its footer says {group.rows:,}")


def _next(batches: Iterator[pa.RecordBatch], group: RowGroup) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the filesystem failed, not the file
        raise _broken(group, one_line(error)) from error


def _broken(group: RowGroup, why: str) -> SourceError:
    return SourceError(
        f"{group.file} cannot be read in row group {group.index}: {why}. The file is damaged, or holds what pyarrow "
        "does not read. Run the job that writes it again, or move it into a folder whose name begins with `_`."
    )


def _column(batch: pa.RecordBatch, field: pa.Field, group: RowGroup) -> pa.Array:
    """One column in the type that a scan delivers, whatever way this file stores it."""
    index = batch.schema.get_field_index(field.name)
    if index < 0:
        raise changed(group.file, f"column {field.name!r} is gone")
    values, wanted = batch.column(index), delivered_type(field.type)
    if values.type == wanted:
        return values
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    try:
        if pa.types.is_dictionary(wanted) and not pa.types.is_dictionary(values.type):
            values = values.cast(field.type)
        return values.cast(wanted)
    except pa.ArrowException as error:
        raise changed(group.file, f"column {field.name!r} is {values.type}, expected {field.type}") from error


def _width(kind: pa.DataType) -> int:
    """Bytes of one value: exact for fixed widths; codes for text; what offsets and one number take for a list."""
    if pa.types.is_struct(kind):
        return sum(_width(field.type) for field in kind)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 4 if pa.types.is_dictionary(delivered_type(kind)) else 8
