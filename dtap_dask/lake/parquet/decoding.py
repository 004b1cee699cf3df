"""Decodes a row group of an open Parquet file, batch by batch, into the columns that a scan delivers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake.parquet.batch_sizes import BatchSizer, longest_entry, split_by_bytes
from dtap_dask.lake.parquet.column_chunks import ChunkFile, chunk_ranges
from dtap_dask.lake.parquet.conversion import to_delivered_type
from dtap_dask.lake.parquet.footers import is_plain_text
from dtap_dask.lake.parquet.opening import (
    ParsedFooter,
    cached_footer,
    changed_error,
    damaged_error,
    one_line,
    open_parquet,
)
from dtap_dask.lake.parquet.row_group import RowGroup
from dtap_dask.lake.schema import delivered_type, is_empty_group
from dtap_dask.storage import Store

COALESCE_BYTES = 64 << 20  # a row group up to this size is fetched in a few large reads and held until it is decoded
STREAM_BUFFER = 1 << 20  # a larger one is streamed through a buffer of this size per column
# Encodings of chunks that pyarrow decodes as dictionaries; RLE and BIT_PACKED encode levels.
DICTIONARY_ENCODINGS = frozenset(("PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"))
SMALL_BYTES = 8 << 20  # text columns up to this size are decoded without estimating the length of words
# Encodings of text that takes no more bytes decoded than in the chunk.
EXACT_ENCODINGS = frozenset(("PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "RLE", "BIT_PACKED"))


@dataclass(frozen=True)
class RowGroupSlice:
    """Consecutive rows of a row group, as delivered columns.

    `position` is that of the group in the task, `first_row` the number of the first row in the file.
    """

    position: int
    first_row: int
    rows: int
    columns: tuple[pa.Array, ...]


Slices = Generator[RowGroupSlice, None, None]


def coalesced(group: RowGroup) -> bool:
    """Whether a row group is fetched in a few large reads."""
    return group.bytes <= COALESCE_BYTES


class OpenFile:
    """Reads row groups of an open Parquet file; the caller closes `source`.

    `verify`: whether to verify the checksums of pages that have one.
    """

    def __init__(
        self, store: Store, group: RowGroup, source: Any, footer: ParsedFooter | None = None, *, verify: bool = True
    ):
        self.path = group.file
        self._size, self._verify = group.file_size, verify
        self._readers: dict[tuple[bool, tuple[str, ...]], pq.ParquetFile] = {}
        self._source = ChunkFile(source)
        with store.counters.reading_footer():
            self.footer = footer or cached_footer(
                self._source, group.file, group.file_size, group.footer_bytes, group.footer_crc
            )
        self._metadata = self.footer.metadata

    def read(self, schema: pa.Schema, group: RowGroup, position: int, rows: int, most_bytes: int) -> Slices:
        """The columns of `schema` of one row group, in slices of at most `rows` rows.

        A slice has fewer rows where it would exceed `most_bytes` decoded, by what the footer and dictionaries show.
        """
        known = self._metadata.num_row_groups > group.index
        found = self._metadata.row_group(group.index).num_rows if known else 0
        if found != group.rows:
            raise changed_error(group.file, f"row group {group.index} had {group.rows:,} rows then, {found:,} now")
        stored = [field.name for field in schema if not is_empty_group(field.type) and self.footer.has(field.name)]
        if not stored:  # nothing to decode: only partition columns are wanted, say
            for start in range(0, group.rows, rows):
                size = min(rows, group.rows - start)
                yield RowGroupSlice(
                    position, group.first_row + start, size, tuple(_nulls(field, size) for field in schema)
                )
            return
        leaves = self.footer.indices(tuple(stored))
        chunks = self._metadata.row_group(group.index)
        self._source.expect(chunk_ranges(chunks, leaves) if coalesced(group) else [])
        texts = (name for name in stored if pa.types.is_dictionary(delivered_type(schema.field(name).type)))
        by_dictionary = [name for name in texts if self._by_dictionary(name, group)]
        sizer = self._batch_sizer(group, leaves, by_dictionary, rows, most_bytes)
        reader = self._reader(by_dictionary, coalesce=coalesced(group))
        first = group.first_row
        for batch in self._batches(reader, group, stored, sizer):
            columns = tuple(_column(batch, field, group) for field in schema)
            for start, stop in split_by_bytes(columns, batch.num_rows, most_bytes):
                whole = stop - start == batch.num_rows
                part = columns if whole else tuple(column.slice(start, stop - start) for column in columns)
                yield RowGroupSlice(position, first + start, stop - start, part)
            first += batch.num_rows
        if first - group.first_row != group.rows:
            raise _broken(group, f"{first - group.first_row:,} rows came out of it, its footer says {group.rows:,}")

    def _batches(
        self, reader: pq.ParquetFile, group: RowGroup, columns: Sequence[str], sizer: BatchSizer
    ) -> Iterator[pa.RecordBatch]:
        """A row group in batches sized by `sizer`; SourceError that names a column that cannot be read."""
        batches = reader.iter_batches(sizer.rows, row_groups=[group.index], columns=columns, use_threads=False)
        try:
            for batch in batches:
                yield batch
                if not sizer.known:
                    sizer.observe(batch)
                    reader.reader.set_batch_size(sizer.rows)  # of the next batch
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the filesystem failed, not the file
            raise _broken(group, one_line(error), self._damaged_column(reader, group, columns)) from error

    def _damaged_column(self, reader: pq.ParquetFile, group: RowGroup, columns: Sequence[str]) -> str | None:
        """The first column that cannot be read on its own."""
        for name in columns:
            try:
                for _ in reader.iter_batches(1024, row_groups=[group.index], columns=[name], use_threads=False):
                    pass
            except (pa.ArrowException, OSError):
                return name
        return None

    def _reader(self, by_dictionary: Sequence[str], *, coalesce: bool) -> pq.ParquetFile:
        key = coalesce, tuple(by_dictionary)
        if key not in self._readers:
            self._readers.clear()  # only one is in use at a time
            self._readers[key] = open_parquet(
                self._source,
                self.path,
                self._size,
                metadata=self._metadata,
                read_dictionary=by_dictionary,
                pre_buffer=False,  # ChunkFile does this without reading gaps
                page_checksum_verification=self._verify,
                buffer_size=0 if coalesce else STREAM_BUFFER,
            )
        return self._readers[key]

    def _batch_sizer(
        self, group: RowGroup, leaves: Sequence[int], by_dictionary: Sequence[str], rows: int, most: int
    ) -> BatchSizer:
        """Batches within `most` bytes, by the footer and by the dictionaries of text that is decoded without them."""
        known, chunks = True, self._metadata.row_group(group.index)
        for index in leaves:
            leaf = self.footer.leaves[index]
            if not (leaf.text or leaf.repeated) or leaf.path in by_dictionary:
                continue
            chunk = chunks.column(index)
            if leaf.repeated:
                each = chunk.num_values * leaf.width // max(group.rows, 1)
                rows = min(rows, max(1, most // max(each, 1)))
            # No word is longer than its whole chunk.
            if not leaf.text or chunk.num_values * chunk.total_uncompressed_size <= max(most, SMALL_BYTES):
                continue
            if not EXACT_ENCODINGS.issuperset(chunk.encodings):
                if leaf.repeated or leaf.nested or "DELTA_BYTE_ARRAY" in chunk.encodings:
                    known = False
                else:
                    rows = min(rows, max(1, most // max(self._longest_entry(group, leaf.path), 1)))
        return BatchSizer(rows, most, known)

    def _longest_entry(self, group: RowGroup, column: str) -> int:
        """The bytes of the longest entry in the dictionary of a text column's chunk."""
        reader = self._reader([column], coalesce=coalesced(group))
        first = next(self._batches(reader, group, [column], BatchSizer(1, 1, known=True)), None)
        return longest_entry(first.column(0)) if first is not None else 0

    def _by_dictionary(self, column: str, group: RowGroup) -> bool:
        """Whether to decode a text column as dictionaries: only if the file stores it as such.

        From plain pages pyarrow (26.0) would collect all words of the row group in memory, in six times their size.
        """
        leaf = self.footer.flat.get(column)
        if leaf is None or not self.footer.leaves[leaf].text:
            return False
        chunk = self._metadata.row_group(group.index).column(leaf)
        return DICTIONARY_ENCODINGS.issuperset(chunk.encodings) and not is_plain_text(chunk, group.rows)


def _broken(group: RowGroup, why: str, column: str | None = None) -> SourceError:
    return damaged_error(group.file, why, f" in row group {group.index}{f', column {column!r}' if column else ''}")


def _column(batch: pa.RecordBatch, field: pa.Field, group: RowGroup) -> pa.Array:
    """A column in the type that a scan delivers, however this file stores it."""
    index = batch.schema.get_field_index(field.name)
    if index < 0 or is_empty_group(field.type):  # the file lacks it, as it did at planning
        return _nulls(field, batch.num_rows)
    values = batch.column(index)
    try:
        return to_delivered_type(values, field.type)
    except pa.ArrowException as error:
        raise SourceError(
            f"{group.file}: column {field.name!r} is {values.type} there, and read as {field.type}, as other files "
            f"have it, but not every value can be ({one_line(error)}). Leave the column out of the job, rewrite the "
            "file, or give each kind of file a job of its own."
        ) from error
    except ValueError as error:
        raise _broken(group, one_line(error), field.name) from error


def _nulls(field: pa.Field, rows: int) -> pa.Array:
    return pa.nulls(rows, delivered_type(field.type))
