"""Opens Parquet files and parses their footers; whatever is wrong with a file becomes one clear SourceError."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake.parquet import int96
from dtap_dask.storage import Store, replaced

MAGIC, MAGIC_ENCRYPTED = b"PAR1", b"PARE"
TAIL = 8  # bytes behind the footer: its length and the magic
FIRST_READ = 64 << 10  # bytes at the end of a file, enough for most footers; pyarrow reads as much
FOOTER_CACHE_BYTES = 4 << 20
_ARROW_SCHEMA, _NO_SCHEMA = b"\x0cARROW:schema", b"\x0cschema:ARROW"  # a key with its length
# Bytes of a value by its physical type.
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


@contextlib.contextmanager
def open_checked(store: Store, path: str, size: int, version: str | None = None) -> Iterator[Any]:
    """Open the file at `path` for reading; SourceError if it is missing, or not of the `size` and `version` listed.

    On a local filesystem the version is compared once more after reading.
    """
    try:
        source = store.open_input(path)
    except FileNotFoundError as error:
        raise SourceError(
            f"{path} is gone from {store.url} since the source was listed. Run the job again, so that it plans with "
            "the current files, once the job that writes the source has finished."
        ) from error
    with source:
        source.seek(0, 2)
        now = source.tell()
        source.seek(0)
        if now != size:
            raise changed_error(path, f"it had {size:,} bytes then, {now:,} now")
        _refuse_replaced(store, path, source, version)
        yield source
        if store.local_path() is not None:  # elsewhere it costs a request, or gives nothing new
            _refuse_replaced(store, path, source, version)


def _refuse_replaced(store: Store, path: str, source: Any, version: str | None) -> None:
    now = store.version(path, source) if version is not None else None
    if replaced(version, now):
        raise changed_error(path, f"it was rewritten ({version} then, {now} now)")


def changed_error(path: str, how: str) -> SourceError:
    """The error for a file that has changed since planning."""
    return SourceError(
        f"{path} has changed since the source was listed: {how}. Run the job again, so that it plans with the "
        "current files, once the job that writes the source has finished."
    )


def damaged_error(path: str, why: str, place: str = "") -> SourceError:
    """The error for a file that is not valid Parquet."""
    return SourceError(
        f"{path} cannot be read{place}: {why}. The file is damaged, or holds what pyarrow does not read. Run the job "
        "that writes it again, or move it into a folder whose name begins with `_`."
    )


def one_line(error: Exception) -> str:
    """The message of an error of pyarrow, without line breaks and full stop."""
    return " ".join(str(error).split()).rstrip(".")


@contextlib.contextmanager
def errors_explained(source: Any, path: str, size: int) -> Iterator[None]:
    """Turn what pyarrow raises about a file into a SourceError that says what is wrong with the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the filesystem failed, not the file
        raise SourceError(_what_is_wrong(source, path, size, error)) from error


def open_parquet(source: Any, path: str, size: int, **options: Any) -> pq.ParquetFile:
    """`source` as a ParquetFile with `options`; SourceError if it cannot be opened.

    INT96 timestamps are taken as microseconds (as nanoseconds they overflow outside 1677-2262).
    """
    with errors_explained(source, path, size):
        return pq.ParquetFile(source, coerce_int96_timestamp_unit="us", **options)


def read_tail(source: Any, path: str, size: int) -> bytes:
    """The footer of a file of `size` bytes, including its length and the magic; one read if it is small."""
    start = max(size - FIRST_READ, 0)
    source.seek(start)
    tail = bytes(source.read(size - start))
    length = _footer_length(tail) if tail.endswith(MAGIC) else None
    if length is None or length + TAIL + len(MAGIC) > size:
        with errors_explained(source, path, size):
            raise ValueError("its length is missing or too large")
    if length + TAIL <= len(tail):
        return tail[-length - TAIL :]
    source.seek(size - length - TAIL)
    return bytes(source.read(start - (size - length - TAIL))) + tail


def parse_footer(tail: bytes) -> pq.ParquetFile:
    """A footer as `read_tail` returns it: schema and metadata, no rows. Raises what pyarrow raises."""
    return pq.ParquetFile(pa.BufferReader(MAGIC + tail), coerce_int96_timestamp_unit="us")


def _footer_length(tail: bytes) -> int:
    return int.from_bytes(tail[-TAIL : -len(MAGIC)], "little")


@dataclass(frozen=True)
class Leaf:
    """A leaf column: its dotted path, whether it is nested or in lists, and the bytes of a value.

    `text`: whether it holds text or binary of variable length; `width` is then that of a dictionary code.
    """

    path: str
    nested: bool
    repeated: bool
    text: bool
    width: int

    @classmethod
    def of(cls, column: pq.ColumnSchema) -> Leaf:
        """The leaf that a column of a file's schema describes."""
        path, kind = column.path, column.physical_type
        width = column.length if kind == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[kind]
        return cls(path, path != column.name, column.max_repetition_level > 0, kind == "BYTE_ARRAY", width)


class ParsedFooter:
    """The footer that row groups are read with, and what follows from its schema.

    `metadata` describes INT96 columns as binary of 12 bytes, for `int96.timestamps`. `leaves` are all leaf columns in
    the file's order, `flat` the leaf indices of columns that are not nested.
    """

    def __init__(self, metadata: pq.FileMetaData):
        self.metadata = metadata
        self.leaves = tuple(Leaf.of(metadata.schema.column(index)) for index in range(metadata.num_columns))
        self.flat = {leaf.path: index for index, leaf in enumerate(self.leaves) if not leaf.nested}
        self._indices: dict[tuple[str, ...], tuple[int, ...]] = {}

    def has(self, column: str) -> bool:
        """Whether there is a top-level column of this name."""
        return column in self.flat or any(leaf.path.startswith(f"{column}.") for leaf in self.leaves if leaf.nested)

    def indices(self, columns: tuple[str, ...]) -> tuple[int, ...]:
        """`leaf_indices` of these columns; the last answer is kept, as a task asks for the same columns each time."""
        if columns not in self._indices:
            self._indices = {columns: tuple(leaf_indices(self.metadata, columns))}
        return self._indices[columns]


class _FooterCache:
    """Parsed footers by their bytes, so that the many tasks of a large file need not each parse its footer.

    Large footers cost most, and take about ten times their bytes in memory; FOOTER_CACHE_BYTES of footers are kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[ParsedFooter, int]] = OrderedDict()

    def footer(self, tail: bytes) -> ParsedFooter:
        """The parsed footer `tail` (see `read_tail`). Raises what pyarrow raises."""
        key = hashlib.sha256(tail).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key][0]
        # With Arrow's own schema pyarrow would make dictionaries of plain pages; without it, it decodes what is stored.
        metadata = parse_footer(tail.replace(_ARROW_SCHEMA, _NO_SCHEMA)).metadata
        if int96.has_int96(metadata.schema):
            described = int96.as_bytes(tail[:-TAIL]).replace(_ARROW_SCHEMA, _NO_SCHEMA)
            metadata = parse_footer(described + len(described).to_bytes(4, "little") + MAGIC).metadata
        footer = ParsedFooter(metadata)
        with self._lock:
            self._known[key] = footer, len(tail)
            while len(self._known) > 1 and sum(held for _, held in self._known.values()) > FOOTER_CACHE_BYTES:
                self._known.popitem(last=False)
        return footer


_FOOTER_CACHE = _FooterCache()


def cached_footer(source: Any, path: str, size: int, footer_bytes: int, footer_crc: int) -> ParsedFooter:
    """The footer of a planned file, in one read of just its bytes (pyarrow would fetch 64 KiB).

    SourceError if it is no longer a footer, or not the same one (by its CRC32C).
    """
    source.seek(size - footer_bytes)
    tail = bytes(source.read(footer_bytes))
    if not tail.endswith(MAGIC) or _footer_length(tail) + TAIL != footer_bytes:
        tail = read_tail(source, path, size)
    with errors_explained(source, path, size):
        footer = _FOOTER_CACHE.footer(tail)
    if google_crc32c.value(tail) != footer_crc:
        raise changed_error(path, "its footer is different, so its rows may be, too")
    return footer


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


def _prefixes(path: str) -> Iterator[str]:
    """Possible names of the top-level column of a nested leaf: names may contain dots."""
    parts = path.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def leaf_indices(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[int]:
    """The indices of the leaf columns of top-level `columns`, in the file's order."""
    wanted, needed = set(columns), []
    for index in range(metadata.num_columns):
        leaf = metadata.schema.column(index)
        flat = leaf.path == leaf.name  # a nested leaf has a longer path than its own name
        if leaf.path in wanted if flat else any(top in wanted for top in _prefixes(leaf.path)):
            needed.append(index)
    return needed
