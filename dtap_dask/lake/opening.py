"""Parquet files and their footers as they are opened: what is wrong with a file is said in one error."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.errors import SourceError
from dtap_dask.lake import int96
from dtap_dask.storage import Store, replaced

MAGIC, MAGIC_ENCRYPTED = b"PAR1", b"PARE"
TAIL = 8  # behind the footer: its length and the magic
FIRST_READ = 64 << 10  # bytes at the end of a file, enough for most footers; pyarrow reads as many
REMEMBERED_BYTES = 4 << 20


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
            raise changed(path, f"it had {size:,} bytes then, {now:,} now")
        _refuse_replaced(store, path, source, version)
        yield source
        if store.local_path() is not None:  # elsewhere that would be one more request, or tell nothing new
            _refuse_replaced(store, path, source, version)


def _refuse_replaced(store: Store, path: str, source: Any, version: str | None) -> None:
    now = store.version(path, source) if version is not None else None
    if replaced(version, now):
        raise changed(path, f"it was written anew ({version} then, {now} now)")


def changed(path: str, how: str) -> SourceError:
    """The error for a file that is not what the plan was made from."""
    return SourceError(
        f"{path} has changed since the source was listed: {how}. Run the job again, so that it plans with the files "
        "of now, once the job that writes the source has finished."
    )


def damaged(path: str, why: str, place: str = "") -> SourceError:
    """The error for a file that is no sound Parquet."""
    return SourceError(
        f"{path} cannot be read{place}: {why}. The file is damaged, or holds what pyarrow does not read. Run the job "
        "that writes it again, or move it into a folder whose name begins with `_`."
    )


def one_line(error: Exception) -> str:
    """What pyarrow says, without its line breaks and full stop."""
    return " ".join(str(error).split()).rstrip(".")


@contextlib.contextmanager
def explained(source: Any, path: str, size: int) -> Iterator[None]:
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
    with explained(source, path, size):
        return pq.ParquetFile(source, coerce_int96_timestamp_unit="us", **options)


def read_tail(source: Any, path: str, size: int) -> bytes:
    """The footer of a file of `size` bytes, with its length and the magic behind it; in one read if it is small."""
    start = max(size - FIRST_READ, 0)
    source.seek(start)
    tail = bytes(source.read(size - start))
    length = _footer_length(tail) if tail.endswith(MAGIC) else None
    if length is None or length + TAIL + len(MAGIC) > size:
        with explained(source, path, size):
            raise ValueError("its length is missing or too large")
    if length + TAIL <= len(tail):
        return tail[-length - TAIL :]
    source.seek(size - length - TAIL)
    return bytes(source.read(start - (size - length - TAIL))) + tail


def parsed(tail: bytes) -> pq.ParquetFile:
    """A file's footer alone, as `read_tail` gives it: schema and metadata, no rows. Raises what pyarrow raises."""
    return pq.ParquetFile(pa.BufferReader(MAGIC + tail), coerce_int96_timestamp_unit="us")


def _footer_length(tail: bytes) -> int:
    return int.from_bytes(tail[-TAIL : -len(MAGIC)], "little")


class _Remembered:
    """Parsed footers by their bytes, so that the many tasks of one large file do not each parse it again.

    The largest make up for most of the cost, and hold some ten times their bytes; REMEMBERED_BYTES are kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[pq.FileMetaData, int]] = OrderedDict()

    def metadata(self, tail: bytes) -> pq.FileMetaData:
        """The metadata in `tail`, with INT96 columns as `int96.timestamps` takes them; raises what pyarrow raises."""
        key = hashlib.sha256(tail).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key][0]
        metadata = parsed(tail).metadata
        if int96.has_int96(metadata.schema):
            footer = int96.as_bytes(tail[:-TAIL])
            metadata = parsed(footer + len(footer).to_bytes(4, "little") + MAGIC).metadata
        with self._lock:
            self._known[key] = metadata, len(tail)
            while len(self._known) > 1 and sum(held for _, held in self._known.values()) > REMEMBERED_BYTES:
                self._known.popitem(last=False)
        return metadata


_REMEMBERED = _Remembered()


def known_footer(source: Any, path: str, size: int, footer_bytes: int, footer_crc: int) -> pq.FileMetaData:
    """The footer of a file that was planned, in one read of just its bytes: pyarrow alone would fetch 64 KiB.

    INT96 columns are described as binary of 12 bytes: `int96.timestamps` makes timestamps of them. SourceError where
    the footer is none any more, or another one (by its CRC32C).
    """
    source.seek(size - footer_bytes)
    tail = bytes(source.read(footer_bytes))
    if not tail.endswith(MAGIC) or _footer_length(tail) + TAIL != footer_bytes:
        tail = read_tail(source, path, size)
    with explained(source, path, size):
        metadata = _REMEMBERED.metadata(tail)
    if google_crc32c.value(tail) != footer_crc:
        raise changed(path, "its footer is another one, so that other rows may lie there")
    return metadata


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
