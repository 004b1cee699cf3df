"""Parquet footers: what a file's row groups hold, known before any column is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.parquet.encryption import encrypted_columns
from dtap_dask.lake.parquet.footer_checks import CheckedFooter
from dtap_dask.lake.parquet.opening import damaged_error, errors_explained, leaf_indices, open_checked, read_tail
from dtap_dask.lake.parquet.row_group import COLUMNS, RowGroups
from dtap_dask.lake.parquet.statistics import StatisticKind, column_stats, null_count
from dtap_dask.lake.schema import canonical_schema
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.storage import Store

DICTIONARY_BYTES = 2 << 20  # writers abandon a dictionary at about half of this
CODE_BYTES = 4  # at most, of a row in a dictionary-encoded column; a word in a plain page takes more


@dataclass(frozen=True)
class Footer:
    """The footer of one file, reduced to what a plan needs.

    - `schema`: canonical types of the requested columns that the file has, in requested order; `every`: those of all
      its columns. A name that occurs twice is in `every` only.
    - `stats`: for each row group, the statistics of the columns of the condition.
    - `plain_text`: uncompressed bytes of needed text columns where the writer gave up dictionary encoding for
      too many distinct words.
    - `nulls`: nulls in the requested columns, by the statistics; zeros are left out.
    """

    path: str
    schema: pa.Schema
    every: pa.Schema
    groups: RowGroups
    stats: tuple[dict[str, ColumnStats], ...]
    plain_text: dict[str, int]
    nulls: dict[str, int]


class FooterReader:
    """Reads footers, reduced to `columns` (None: all), the statistics of `stat_columns` and nulls of `null_columns`.

    Columns that a file lacks count as null. SourceError for a file that is empty, cut off, encrypted or not Parquet.
    Columns of the file that a partition column hides are left out. What follows from a schema is computed once for
    consecutive files that share it.
    """

    def __init__(
        self,
        store: Store,
        columns: Sequence[str] | None = None,
        stat_columns: Iterable[str] = (),
        null_columns: Iterable[str] = (),
    ):
        self._store, self._columns, self._stat_columns = store, columns, frozenset(stat_columns)
        self._null_columns = frozenset(null_columns)
        self._layout: _FileLayout | None = None

    def read(self, file: SourceFile) -> Footer:
        """The footer of one file."""
        store, path, size = self._store, file.path, file.size
        with store.counters.reading_footer(), open_checked(store, path, size, file.version) as source:
            tail = read_tail(source, path, size)
            with errors_explained(source, path, size):
                checked = CheckedFooter(tail, size)
                encrypted = encrypted_columns(tail, checked.metadata)
            layout = self._layout_for(file, checked.schema, checked.metadata, encrypted)
            with errors_explained(source, path, size):
                checked.check_chunks(layout.leaves)
        return self._footer(file, checked.metadata, layout, (len(tail), google_crc32c.value(tail)))

    def _layout_for(
        self, file: SourceFile, found: pa.Schema, metadata: pq.FileMetaData, encrypted: frozenset[int]
    ) -> _FileLayout:
        hive = tuple(name for name, _ in file.partition)
        if self._layout is None or not (found.equals(self._layout.found) and hive == self._layout.hive):
            self._layout = self._layout_of(file, found, hive, metadata)
        if encrypted and self._columns is not None:
            _refuse_encrypted(file, metadata, encrypted.intersection(self._layout.leaves))
        return self._layout.without(encrypted) if encrypted else self._layout

    def _footer(
        self, file: SourceFile, metadata: pq.FileMetaData, layout: _FileLayout, identity: tuple[int, int]
    ) -> Footer:
        numbers, stats, first_row = [], [], 0
        plain_text, nulls = Counter[str](), Counter[str]()
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            rows, packed, raw = group.num_rows, 0, 0
            if rows < 0:
                raise damaged_error(file.path, f"row group {index} has {rows:,} rows")
            for leaf in layout.needed:
                chunk = group.column(leaf)
                packed += chunk.total_compressed_size
                size = chunk.total_uncompressed_size
                raw += size
                if size > DICTIONARY_BYTES and is_plain_text(chunk, rows):
                    plain_text[chunk.path_in_schema] += size
            numbers.append((0, index, rows, first_row, packed, raw, *identity))
            for name, leaf in layout.nulls.items():
                nulls[name] += null_count(group.column(leaf))
            nulls.update(dict.fromkeys(self._null_columns & layout.lacking, rows))
            known = {name: column_stats(group.column(leaf), kind, rows) for name, leaf, kind in layout.stats}
            all_null = ColumnStats(min=None, max=None, null_count=rows, rows=rows)
            stats.append(known | dict.fromkeys(self._stat_columns & layout.lacking, all_null))
            first_row += rows
        groups = RowGroups((file,), np.array(numbers, np.int64).reshape(-1, len(COLUMNS)))
        return Footer(file.path, layout.schema, layout.every, groups, tuple(stats), dict(plain_text), dict(+nulls))

    def _layout_of(
        self, file: SourceFile, found: pa.Schema, hive: tuple[str, ...], metadata: pq.FileMetaData
    ) -> _FileLayout:
        every, times = canonical_schema(found), Counter(found.names)
        requested = [name for name in found.names if name not in hive] if self._columns is None else self._columns
        schema = pa.schema([every.field(name) for name in requested if times[name] == 1])
        present = set(schema.names)
        flat = _flat_leaf_indices(metadata, sorted(self._stat_columns & present))
        stats = [(name, leaf, StatisticKind.of(every.field(name).type)) for name, leaf in flat.items()]
        nulls = _flat_leaf_indices(metadata, sorted(self._null_columns & present))
        lacking = frozenset(name for name in requested if not times[name])
        return _FileLayout(found, hive, schema, every, leaf_indices(metadata, schema.names), stats, nulls, lacking)


@dataclass(frozen=True)
class _FileLayout:
    """What follows from the whole schema `found` of a file and its partition folders `hive`; columns by leaf index.

    `needed`: leaves to be read; `stats`: name, leaf and type of the columns whose statistics are requested; `nulls`:
    leaves whose nulls are; `lacking`: requested columns that the file does not have.
    """

    found: pa.Schema
    hive: tuple[str, ...]
    schema: pa.Schema
    every: pa.Schema
    needed: Sequence[int]
    stats: Sequence[tuple[str, int, StatisticKind]]
    nulls: Mapping[str, int]
    lacking: frozenset[str]

    @property
    def leaves(self) -> Sequence[int]:
        """All leaves that are read or whose statistics are, in the file's order."""
        return sorted({*self.needed, *(leaf for _, leaf, _ in self.stats)})

    def without(self, leaves: Collection[int]) -> _FileLayout:
        """The same without these leaf columns."""
        return replace(
            self,
            needed=[leaf for leaf in self.needed if leaf not in leaves],
            stats=[stat for stat in self.stats if stat[1] not in leaves],
            nulls={name: leaf for name, leaf in self.nulls.items() if leaf not in leaves},
        )


def _refuse_encrypted(file: SourceFile, metadata: pq.FileMetaData, encrypted: Collection[int]) -> None:
    """SourceError if one of the requested columns is encrypted; others do no harm."""
    if encrypted:
        name = metadata.schema.column(min(encrypted)).path
        raise SourceError(
            f"{file.path}: the column {name!r} is encrypted (Parquet modular encryption), and cannot be read here. "
            "Leave it out of the job, or write the file without encryption."
        )


def read_footer(
    store: Store,
    file: SourceFile,
    columns: Sequence[str] | None = None,
    stat_columns: Iterable[str] = (),
) -> Footer:
    """The footer of one file, as a FooterReader reads it."""
    return FooterReader(store, columns, stat_columns).read(file)


def is_plain_text(chunk: Any, rows: int) -> bool:
    """Whether a column chunk holds more text than fits a dictionary: it is larger than a dictionary with its codes."""
    return bool(
        chunk.total_uncompressed_size > max(DICTIONARY_BYTES, CODE_BYTES * rows) and chunk.physical_type == "BYTE_ARRAY"
    )


def read_schema(store: Store, files: Sequence[SourceFile], most: int = 8) -> pa.Schema:
    """The canonical columns of the first file with rows among the first `most` files; if there is none, of the first.

    Hive partition columns and names that occur twice are left out. SourceError as from `read_footer`.
    """
    for file in files[:most]:
        footer = read_footer(store, file)
        if footer.groups.rows.any():
            return footer.schema
    return read_footer(store, files[0]).schema


def _flat_leaf_indices(metadata: pq.FileMetaData, columns: Sequence[str]) -> dict[str, int]:
    """The leaf index of each of `columns` that is neither nested nor repeated."""
    leaves = [metadata.schema.column(index) for index in range(metadata.num_columns)] if columns else []
    flat = {
        leaf.path: index
        for index, leaf in enumerate(leaves)
        if leaf.path == leaf.name and not leaf.max_repetition_level
    }
    return {name: flat[name] for name in columns if name in flat}
