"""Row groups as a stream of record batches: one after the other, or several in turns, within a fixed memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake.chunks import ChunkFile, chunk_ranges
from dtap_dask.lake.delivered import delivered
from dtap_dask.lake.footers import RowGroup, is_plain_text, leaf_places
from dtap_dask.lake.opening import changed, damaged, known_footer, one_line, open_checked, open_parquet
from dtap_dask.lake.schema import delivered_type, is_empty_group
from dtap_dask.storage import Store

MIB = 1 << 20
COALESCE_BYTES = 64 * MIB  # a row group up to this is fetched in a few large reads, held until it is decoded
STREAM_BUFFER = MIB  # a larger one is read through a buffer of this size for each column
BATCH_BYTES = 32 * MIB  # no batch is planned larger than this
OPEN_BYTES = 256 * MIB  # what all row groups open at once may hold
# Of pages that pyarrow decodes as dictionaries; RLE and BIT_PACKED are of levels.
DICTIONARY_ENCODINGS = frozenset(("PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"))
T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one row group: `position` in the task's groups, `first_row` in the file."""

    position: int
    first_row: int
    rows: int
    columns: tuple[pa.Array, ...]


Pieces = Generator[Piece, None, None]


def row_bytes(schema: pa.Schema, group: RowGroup) -> int:
    """The bytes one row of a group takes decoded, as far as the plan knows them: never less than the types' widths."""
    width = sum(_width(field.type) for field in schema)
    return max(width, -(-group.raw_bytes // max(group.rows, 1)), 1)


def planned_rows(schema: pa.Schema, group: RowGroup, batch_rows: int) -> int:
    """How many rows of a group a batch holds: `batch_rows`, or fewer so that it stays within BATCH_BYTES."""
    return max(1, min(batch_rows, BATCH_BYTES // row_bytes(schema, group)))


def in_order(store: Store, schema: pa.Schema, groups: Sequence[RowGroup], batch_rows: int) -> Pieces:
    """All rows of the groups, group after group. Each file is opened once per run of its groups."""
    opened: _File | None = None
    with contextlib.ExitStack() as stack:
        for position, group in enumerate(groups):
            if opened is None or opened.path != group.file:
                stack.close()
                source = stack.enter_context(open_checked(store, group.file, group.file_size, group.version))
                opened = _File(store, group, source)
            yield from opened.read(schema, group, position, planned_rows(schema, group, batch_rows))


def in_turns(
    store: Store,
    schema: pa.Schema,
    groups: Sequence[RowGroup],
    batch_rows: int,
    each: Callable[[Piece, int], Iterable[T]],
    *,
    made_bytes: int = 0,
) -> Generator[T, None, None]:
    """What `each` makes of all rows of the groups, several groups open at once, each giving one result a turn.

    `each(piece, turns)` gives about `turns` results for a piece; one stands for `batch_rows` / (groups open) rows. As
    many groups are open as OPEN_BYTES allows by what the plan knows of them and of a result, which takes `made_bytes`
    a row (at least one group); the next one opens when one has ended. Pieces are of so many turns as
    what is left of that allows. Each file is opened once, its footer read once. The sequence depends on the arguments
    only.
    """
    turn_rows, read_rows = _rows_at_once(schema, groups, batch_rows, made_bytes)
    costs = [_cost(schema, group, read_rows, made_bytes) for group in groups]
    waiting = list(range(len(groups)))[::-1]
    running: dict[int, Iterator[T]] = {}
    sources: dict[str, tuple[Any, pq.FileMetaData]] = {}

    def results(pieces: Pieces) -> Iterator[T]:
        for piece in pieces:
            yield from each(piece, -(-piece.rows // turn_rows))

    with contextlib.ExitStack() as stack:
        while running or waiting:
            while waiting and (not running or sum(costs[i] for i in (*running, waiting[-1])) <= OPEN_BYTES):
                position = waiting.pop()
                group = groups[position]
                if group.file in sources:
                    opened = _File(store, group, *sources[group.file])
                else:
                    source = stack.enter_context(open_checked(store, group.file, group.file_size, group.version))
                    opened = _File(store, group, source)
                    sources[group.file] = source, opened.metadata
                rows = planned_rows(schema, group, read_rows)
                running[position] = results(opened.read(schema, group, position, rows))
            for position, reading in list(running.items()):
                try:
                    result = next(reading)
                except StopIteration:
                    del running[position]
                else:
                    yield result


def _rows_at_once(schema: pa.Schema, groups: Sequence[RowGroup], batch_rows: int, made_bytes: int) -> tuple[int, int]:
    """Rows of a turn, and rows to decode at once: as many turns as the groups open at first leave memory for.

    No more than `batch_rows` either way.
    """
    held = count = 0
    for group in groups:
        more = _cost(schema, group, batch_rows // (count + 1), made_bytes)
        if held + more > OPEN_BYTES:
            break
        held += more
        count += 1
    turn_rows = max(1, batch_rows // max(count, 1))
    held = sum(_cost(schema, group, turn_rows, made_bytes) for group in groups[:count])
    widest = max((row_bytes(schema, group) + made_bytes for group in groups[:count]), default=1)
    more_turns = max(0, OPEN_BYTES - held) // max(count, 1) // (widest * turn_rows)
    return turn_rows, turn_rows * min(1 + more_turns, max(1, batch_rows // turn_rows))


def _cost(schema: pa.Schema, group: RowGroup, rows: int, made_bytes: int = 0) -> int:
    """Bytes that an open row group holds: what is fetched of it, and the batch being decoded with what comes of it."""
    fetched = group.bytes if _coalesce(group) else STREAM_BUFFER * max(len(schema), 1)
    rows = min(planned_rows(schema, group, max(rows, 1)), max(group.rows, 1))
    return fetched + rows * (row_bytes(schema, group) + made_bytes)


def _coalesce(group: RowGroup) -> bool:
    return group.bytes <= COALESCE_BYTES


class _File:
    """An open Parquet file, as far as its row groups are concerned. `source` is for whoever opened it to close."""

    def __init__(self, store: Store, group: RowGroup, source: Any, footer: pq.FileMetaData | None = None):
        self.path = group.file
        self._size = group.file_size
        self._readers: dict[tuple[bool, tuple[str, ...]], pq.ParquetFile] = {}
        self._source = ChunkFile(source)
        with store.counters.reading_footer():
            self.metadata = footer or known_footer(
                self._source, group.file, group.file_size, group.footer_bytes, group.footer_crc
            )
        leaves = [self.metadata.schema.column(place) for place in range(self.metadata.num_columns)]
        self._places = {leaf.path: place for place, leaf in enumerate(leaves) if leaf.path == leaf.name}

    def read(self, schema: pa.Schema, group: RowGroup, position: int, rows: int) -> Pieces:
        """The columns of `schema` of one row group, at most `rows` rows at a time."""
        found = self.metadata.row_group(group.index).num_rows if group.index < self.metadata.num_row_groups else 0
        if found != group.rows:
            raise changed(group.file, f"row group {group.index} had {group.rows:,} rows then, {found:,} now")
        stored = [field.name for field in schema if not is_empty_group(field.type)]
        if not stored:  # only partition columns are wanted, say: nothing to decode
            for start in range(0, group.rows, rows):
                size = min(rows, group.rows - start)
                yield Piece(position, group.first_row + start, size, tuple(pa.nulls(size, f.type) for f in schema))
            return
        first, reader = group.first_row, self._reader(schema, group)
        needed = leaf_places(self.metadata, schema.names) if _coalesce(group) else []
        self._source.expect(chunk_ranges(self.metadata.row_group(group.index), needed))
        batches = reader.iter_batches(rows, row_groups=[group.index], columns=stored, use_threads=False)
        while (batch := _next(batches, group)) is not None:
            yield Piece(position, first, batch.num_rows, tuple(_column(batch, field, group) for field in schema))
            first += batch.num_rows
        if first - group.first_row != group.rows:
            raise _broken(group, f"{first - group.first_row:,} rows came out of it, its footer says {group.rows:,}")

    def _reader(self, schema: pa.Schema, group: RowGroup) -> pq.ParquetFile:
        coalesce = _coalesce(group)
        text = tuple(field.name for field in schema if self._by_dictionary(field, group))
        if (coalesce, text) not in self._readers:
            self._readers.clear()  # one at a time is in use
            self._readers[coalesce, text] = open_parquet(
                self._source,
                self.path,
                self._size,
                metadata=self.metadata,
                read_dictionary=text,
                pre_buffer=False,  # ChunkFile does that, and reads no gaps along
                buffer_size=0 if coalesce else STREAM_BUFFER,
            )
        return self._readers[coalesce, text]

    def _by_dictionary(self, field: pa.Field, group: RowGroup) -> bool:
        """Whether to decode a text column as dictionaries: only where the file keeps it so.

        pyarrow (seen in 26.0) collects all words of a row group's plain pages in memory, six times their size.
        """
        place = self._places.get(field.name)
        if place is None or not pa.types.is_dictionary(delivered_type(field.type)):
            return False
        chunk = self.metadata.row_group(group.index).column(place)
        if chunk.physical_type != "BYTE_ARRAY" or not DICTIONARY_ENCODINGS.issuperset(chunk.encodings):
            return False
        return not is_plain_text(chunk, group.rows)


def _next(batches: Iterator[pa.RecordBatch], group: RowGroup) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the filesystem failed, not the file
        raise _broken(group, one_line(error)) from error


def _broken(group: RowGroup, why: str) -> SourceError:
    return damaged(group.file, why, f" in row group {group.index}")


def _column(batch: pa.RecordBatch, field: pa.Field, group: RowGroup) -> pa.Array:
    """One column in the type that a scan delivers, whatever way this file stores it."""
    index = batch.schema.get_field_index(field.name)
    if is_empty_group(field.type):
        return pa.nulls(batch.num_rows, field.type)
    if index < 0:
        raise changed(group.file, f"column {field.name!r} is gone")
    values = batch.column(index)
    try:
        return delivered(values, field.type)
    except pa.ArrowException as error:
        raise changed(group.file, f"column {field.name!r} is {values.type}, expected {field.type}") from error
    except ValueError as error:
        raise _broken(group, f"column {field.name!r}: {error}") from error


def _width(kind: pa.DataType) -> int:
    """Bytes of one value: exact for fixed widths; codes for text; what offsets and one number take for a list."""
    if pa.types.is_struct(kind):
        return sum(_width(field.type) for field in kind)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 4 if pa.types.is_dictionary(delivered_type(kind)) else 8
