"""Parquet files and their footers as they are opened: what is wrong with a file is said in one error."""

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
TAIL = 8  # behind the footer: its length and the magic
FIRST_READ = 64 << 10  # bytes at the end of a file, enough for most footers; pyarrow reads as many
FOOTER_CACHE_BYTES = 4 << 20
_ARROW_SCHEMA, _NO_SCHEMA = b"\x0cARROW:schema", b"\x0cschema:ARROW"  # a key, behind its length
# Bytes of a value by its physical type.
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


@contextlib.contextmanager
def open_checked(store: Store, path: str, size: int, version: str | None = None) -> Iterator[Any]:
    """The file at `path` for reading, of the size and version that were listed.

    SourceError when it is gone or was replaced, on a local filesystem also while it was read.
    """
    try:
        source = store.open_input(path)
    except FileNotFoundError as error:
        raise SourceError(
            f"{path} is gone from {store.url} since the source was listed. Run the job again, so that it plans with "
            "the files of now, once the job that writes the source has finished."
        ) from error
    with source:
        source.seek(0, 2)
        now = source.tell()
        source.seek(0)
        if now != size:
            raise changed_error(path, f"it had {size:,} bytes then, {now:,} now")
        _refuse_replaced(store, path, source, version)
        yield source
        if store.local_path() is not None:  # elsewhere that would be one more request, or tell nothing new
            _refuse_replaced(store, path, source, version)


def _refuse_replaced(store: Store, path: str, source: Any, version: str | None) -> None:
    now = store.version(path, source) if version is not None else None
    if replaced(version, now):
        raise changed_error(path, f"it was written anew ({version} then, {now} now)")


def changed_error(path: str, how: str) -> SourceError:
    """The error for a file that is not what the plan was made from."""
    return SourceError(
        f"{path} has changed since the source was listed: {how}. Run the job again, so that it plans with the files "
        "of now, once the job that writes the source has finished."
    )


def damaged_error(path: str, why: str, place: str = "") -> SourceError:
    """The error for a file that is no sound Parquet."""
    return SourceError(
        f"{path} cannot be read{place}: {why}. The file is damaged, or holds what pyarrow does not read. Run the job "
        "that writes it again, or move it into a folder whose name begins with `_`."
    )


def one_line(error: Exception) -> str:
    """What pyarrow says, without its line breaks and full stop."""
    return " ".join(str(error).split()).rstrip(".")


@contextlib.contextmanager
def errors_explained(source: Any, path: str, size: int) -> Iterator[None]:
    """Whatever pyarrow raises here about a file becomes a SourceError that says what is wrong with it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the filesystem failed, not the file
        raise SourceError(_what_is_wrong(source, path, size, error)) from error


def open_parquet(source: Any, path: str, size: int, **options: Any) -> pq.ParquetFile:
    """`source` as a ParquetFile with `options`; SourceError that says what is wrong with the file.

    INT96 timestamps are taken as microseconds (as nanoseconds they overflow outside 1677-2262).
    """
    with errors_explained(source, path, size):
        return pq.ParquetFile(source, coerce_int96_timestamp_unit="us", **options)


def read_tail(source: Any, path: str, size: int) -> bytes:
    """The footer of a file of `size` bytes, with its length and the magic behind it; in one read if it is small."""
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
    """A file's footer alone, as `read_tail` gives it: schema and metadata, no rows. Raises what pyarrow raises."""
    return pq.ParquetFile(pa.BufferReader(MAGIC + tail), coerce_int96_timestamp_unit="us")


def _footer_length(tail: bytes) -> int:
    return int.from_bytes(tail[-TAIL : -len(MAGIC)], "little")


@dataclass(frozen=True)
class Leaf:
    """A leaf column: its dotted path, whether it lies below another or in lists, and the bytes of a value.

    `text`: whether it is of text or binary of any length; `width` is that of a code then.
    """

    path: str
    nested: bool
    repeated: bool
    text: bool
    width: int

    @classmethod
    def of(cls, column: pq.ColumnSchema) -> Leaf:
        """The leaf that a file's schema describes."""
        path, kind = column.path, column.physical_type
        width = column.length if kind == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[kind]
        return cls(path, path != column.name, column.max_repetition_level > 0, kind == "BYTE_ARRAY", width)


class ParsedFooter:
    """A file's footer as its row groups are read by, with what follows from its schema.

    `metadata` describes INT96 columns as binary of 12 bytes: `int96.timestamps` makes timestamps of them. `leaves` are
    all leaf columns in the file's order, `flat` has the place of each that is a column of its own.
    """

    def __init__(self, metadata: pq.FileMetaData):
        self.metadata = metadata
        self.leaves = tuple(Leaf.of(metadata.schema.column(place)) for place in range(metadata.num_columns))
        self.flat = {leaf.path: place for place, leaf in enumerate(self.leaves) if not leaf.nested}
        self._places: dict[tuple[str, ...], tuple[int, ...]] = {}

    def has(self, column: str) -> bool:
        """Whether there is a top-level column of this name."""
        return column in self.flat or any(leaf.path.startswith(f"{column}.") for leaf in self.leaves if leaf.nested)

    def places(self, columns: tuple[str, ...]) -> tuple[int, ...]:
        """The places of the leaf columns below top-level columns, in the file's order."""
        found = self._places.get(columns)
        if found is None:
            found = tuple(leaf_indices(self.metadata, columns))
            self._places = {columns: found}  # a task asks for the same ones each time
        return found


class _FooterCache:
    """Parsed footers by their bytes, so that the many tasks of one large file do not each parse it again.

    The largest make up for most of the cost, and hold some ten times their bytes; REMEMBERED_BYTES are kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[ParsedFooter, int]] = OrderedDict()

    def footer(self, tail: bytes) -> ParsedFooter:
        """What `tail`, as `read_tail` gives it, holds; raises what pyarrow raises."""
        key = hashlib.sha256(tail).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key][0]
        # Without Arrow's own schema, pyarrow decodes what the file holds: it would make dictionaries of plain pages.
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
    """The footer of a file that was planned, in one read of just its bytes: pyarrow alone would fetch 64 KiB.

    SourceError where the footer is none any more, or another one (by its CRC32C).
    """
    source.seek(size - footer_bytes)
    tail = bytes(source.read(footer_bytes))
    if not tail.endswith(MAGIC) or _footer_length(tail) + TAIL != footer_bytes:
        tail = read_tail(source, path, size)
    with errors_explained(source, path, size):
        footer = _FOOTER_CACHE.footer(tail)
    if google_crc32c.value(tail) != footer_crc:
        raise changed_error(path, "its footer is another one, so that other rows may lie there")
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
    """What the name of the column of a nested leaf may be: names may hold dots, too."""
    parts = path.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


def leaf_indices(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[int]:
    """The places of the leaf columns below top-level columns, in the file's order."""
    wanted, needed = set(columns), []
    for place in range(metadata.num_columns):
        leaf = metadata.schema.column(place)
        flat = leaf.path == leaf.name  # a nested leaf has a longer path than its own name
        if leaf.path in wanted if flat else any(top in wanted for top in _prefixes(leaf.path)):
            needed.append(place)
    return needed
