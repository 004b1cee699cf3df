"""Parquet footers: what a file's row groups hold, before any of their columns is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.parquet.encryption import encrypted_columns
from dtap_dask.lake.parquet.footer_checks import CheckedFooter
from dtap_dask.lake.parquet.opening import damaged_error, errors_explained, leaf_indices, open_checked, read_tail
from dtap_dask.lake.parquet.statistics import StatisticKind, column_stats, null_count
from dtap_dask.lake.schema import canonical_schema
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.storage import Store

DICTIONARY_BYTES = 2 << 20  # writers give dictionaries up at about half of this
CODE_BYTES = 4  # a row of a dictionary-encoded column takes no more, a word in a plain page does


@dataclass(frozen=True)
class RowGroup:
    """One row group as planned: where it is, and what the job's columns of it weigh.

    `first_row` is the number of rows before it in its file. `bytes` (compressed) and `raw_bytes` (uncompressed, as
    encoded) count the needed columns only. `file_size` and `version` (see FileInfo) are the whole file's, to notice
    that it was replaced; so are `footer_bytes`, to be read at its end, and their CRC32C, `footer_crc`.
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
    footer_crc: int
    version: str | None


_COLUMNS = ("file", "index", "rows", "first_row", "bytes", "raw_bytes", "footer_bytes", "footer_crc")


@dataclass(frozen=True, eq=False)
class RowGroups(Sequence[RowGroup]):
    """Many row groups in little memory: a million take 64 MB beside their files; a RowGroup is made when asked for.

    `numbers` has a row for each: the place of its file in `files`, then RowGroup's fields index, rows, first_row,
    bytes, raw_bytes, footer_bytes and footer_crc; int64, shape [groups, 8].
    """

    files: Sequence[SourceFile]
    numbers: npt.NDArray[np.int64]

    @classmethod
    def concat(cls, parts: Sequence[RowGroups]) -> RowGroups:
        """The row groups of all parts, in order."""
        first = np.cumsum([0, *(len(part.files) for part in parts)])
        numbers = np.concatenate([np.empty((0, len(_COLUMNS)), np.int64), *(part.numbers for part in parts)])
        numbers[:, 0] += np.repeat(first[:-1], [len(part) for part in parts])
        return cls([file for part in parts for file in part.files], numbers)

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """One field of all; `file` is the place in `files`."""
        return self.numbers[:, _COLUMNS.index(name)]

    @property
    def file_count(self) -> int:
        """How many files they lie in."""
        return len(np.unique(self.column("file")))

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The rows of each."""
        return self.column("rows")

    @property
    def bytes(self) -> npt.NDArray[np.int64]:
        """The compressed bytes of each, of the needed columns."""
        return self.column("bytes")

    @property
    def raw_bytes(self) -> npt.NDArray[np.int64]:
        """The uncompressed bytes of each, of the needed columns."""
        return self.column("raw_bytes")

    def take(self, chosen: npt.ArrayLike) -> RowGroups:
        """Some of them, by a mask or by their positions."""
        return RowGroups(self.files, self.numbers[np.asarray(chosen)])

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> RowGroup: ...
    @overload
    def __getitem__(self, at: slice) -> RowGroups: ...
    def __getitem__(self, at: int | slice) -> RowGroup | RowGroups:
        if isinstance(at, slice):
            return RowGroups(self.files, self.numbers[at])
        place, index, rows, first_row, size, raw, footer, crc = self.numbers[at].tolist()
        file = self.files[place]
        partition = tuple(value for _, value in file.partition)
        return RowGroup(
            file.path, file.key, index, rows, first_row, size, raw, partition, file.size, footer, crc, file.version
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowGroups) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Footer:
    """One file's footer, cut down to what a plan needs.

    `schema` has the canonical types of the needed columns that it has, in the order asked for, and `every` those of
    all columns; a name that occurs twice is in the latter only. `stats` holds, for each row group, the statistics of
    the columns that a predicate looks at. `plain_text` has the bytes (uncompressed) of each needed text column that the
    writer kept as they are, without a dictionary, as there are too many distinct words. `nulls` has how many nulls the
    statistics count in columns that were asked for, where they count any.
    """

    path: str
    schema: pa.Schema
    every: pa.Schema
    groups: RowGroups
    stats: tuple[dict[str, ColumnStats], ...]
    plain_text: dict[str, int]
    nulls: dict[str, int]


class FooterReader:
    """Reads footers, reduced to `columns` (None: all), to the statistics of `stat_columns`, and to the null counts of
    `null_columns`.

    Columns that a file lacks are null there. SourceError for a file that is empty, cut off, encrypted or not Parquet.
    Hive partition columns are no columns of the files here. What follows from a file's schema is worked out once for
    files that follow each other and have the same.
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
        self._shape: _Shape | None = None

    def read(self, file: SourceFile) -> Footer:
        """The footer of one file."""
        store, path, size = self._store, file.path, file.size
        with store.counters.reading_footer(), open_checked(store, path, size, file.version) as source:
            tail = read_tail(source, path, size)
            with errors_explained(source, path, size):
                checked = CheckedFooter(tail, size)
                encrypted = encrypted_columns(tail, checked.metadata)
            shape = self._shape_for(file, checked.schema, checked.metadata, encrypted)
            with errors_explained(source, path, size):
                checked.check_chunks(shape.places)
        return self._footer(file, checked.metadata, shape, (len(tail), google_crc32c.value(tail)))

    def _shape_for(
        self, file: SourceFile, found: pa.Schema, metadata: pq.FileMetaData, encrypted: frozenset[int]
    ) -> _Shape:
        hive = tuple(name for name, _ in file.partition)
        if self._shape is None or not (found.equals(self._shape.found) and hive == self._shape.hive):
            self._shape = self._shape_of(file, found, hive, metadata)
        if encrypted and self._columns is not None:
            _refuse_encrypted(file, metadata, encrypted.intersection(self._shape.places))
        return self._shape.without(encrypted) if encrypted else self._shape

    def _footer(self, file: SourceFile, metadata: pq.FileMetaData, shape: _Shape, known_by: tuple[int, int]) -> Footer:
        numbers, stats, first_row = [], [], 0
        plain_text, nulls = Counter[str](), Counter[str]()
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            rows, packed, raw = group.num_rows, 0, 0
            if rows < 0:
                raise damaged_error(file.path, f"row group {index} has {rows:,} rows")
            for place in shape.needed:
                chunk = group.column(place)
                packed += chunk.total_compressed_size
                size = chunk.total_uncompressed_size
                raw += size
                if size > DICTIONARY_BYTES and is_plain_text(chunk, rows):
                    plain_text[chunk.path_in_schema] += size
            numbers.append((0, index, rows, first_row, packed, raw, *known_by))
            for name, place in shape.nulls.items():
                nulls[name] += null_count(group.column(place))
            nulls.update(dict.fromkeys(self._null_columns & shape.lacking, rows))
            known = {name: column_stats(group.column(p), kind, rows) for name, p, kind in shape.stats}
            nothing = ColumnStats(min=None, max=None, null_count=rows, rows=rows)
            stats.append(known | dict.fromkeys(self._stat_columns & shape.lacking, nothing))
            first_row += rows
        groups = RowGroups((file,), np.array(numbers, np.int64).reshape(-1, len(_COLUMNS)))
        return Footer(file.path, shape.schema, shape.every, groups, tuple(stats), dict(plain_text), dict(+nulls))

    def _shape_of(self, file: SourceFile, found: pa.Schema, hive: tuple[str, ...], metadata: pq.FileMetaData) -> _Shape:
        every, times = canonical_schema(found), Counter(found.names)
        asked = [name for name in found.names if name not in hive] if self._columns is None else self._columns
        schema = pa.schema([every.field(name) for name in asked if times[name] == 1])
        there = set(schema.names)
        places = _flat_leaf_indices(metadata, sorted(self._stat_columns & there))
        stats = [(name, place, StatisticKind.of(every.field(name).type)) for name, place in places.items()]
        nulls = _flat_leaf_indices(metadata, sorted(self._null_columns & there))
        lacking = frozenset(name for name in asked if not times[name])
        return _Shape(found, hive, schema, every, leaf_indices(metadata, schema.names), stats, nulls, lacking)


@dataclass(frozen=True)
class _Shape:
    """What follows from the whole schema `found` of a file and its partition folders `hive`.

    `needed`: the place of each leaf column to be read; `stats`: name, place and type of each column whose statistics
    are asked for; `nulls`: the place of each column whose null count is; `lacking`: needed columns that there are not.
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
    def places(self) -> Sequence[int]:
        """The places of all that is looked at, in the file's order."""
        return sorted({*self.needed, *(place for _, place, _ in self.stats)})

    def without(self, places: Collection[int]) -> _Shape:
        """The same without these leaf columns."""
        needed = [place for place in self.needed if place not in places]
        nulls = {name: place for name, place in self.nulls.items() if place not in places}
        return replace(self, needed=needed, stats=[one for one in self.stats if one[1] not in places], nulls=nulls)


def _refuse_encrypted(file: SourceFile, metadata: pq.FileMetaData, encrypted: Collection[int]) -> None:
    """SourceError if an encrypted column is among those that are asked for; any other does no harm."""
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
    """Whether a column chunk is of texts, more of them than a dictionary holds: it is larger than one and its codes."""
    return bool(
        chunk.total_uncompressed_size > max(DICTIONARY_BYTES, CODE_BYTES * rows) and chunk.physical_type == "BYTE_ARRAY"
    )


def read_schema(store: Store, files: Sequence[SourceFile], most: int = 8) -> pa.Schema:
    """The canonical types of the columns of the first file that has rows, if it is among the first `most`.

    Hive partition columns and names that occur twice are left out. SourceError as from `read_footer`.
    """
    for file in files[:most]:
        footer = read_footer(store, file)
        if footer.groups.rows.any():
            return footer.schema
    return read_footer(store, files[0]).schema


def _flat_leaf_indices(metadata: pq.FileMetaData, columns: Sequence[str]) -> dict[str, int]:
    """The place of each flat column among `columns`."""
    leaves = [metadata.schema.column(place) for place in range(metadata.num_columns)] if columns else []
    flat = {leaf.path: at for at, leaf in enumerate(leaves) if leaf.path == leaf.name and not leaf.max_repetition_level}
    return {name: flat[name] for name in columns if name in flat}
