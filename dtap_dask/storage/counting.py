"""Files that count what is read from them, so that a run can report how often it read each byte."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO


@dataclass
class Counters:
    """Opens, reads and bytes of one store in this process. Thread-safe, as pyarrow reads ahead in threads.

    `footer_bytes` is the part of `bytes_read` that belongs to Parquet footers.
    """

    opens: int = 0
    reads: int = 0
    bytes_read: int = 0
    footer_bytes: int = 0
    bytes_written: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def opened(self) -> None:
        """Count one opened file."""
        with self._lock:
            self.opens += 1

    def read(self, size: int) -> None:
        """Count one read of `size` bytes."""
        with self._lock:
            self.reads += 1
            self.bytes_read += size

    @contextmanager
    def reading_footer(self) -> Iterator[None]:
        """Count reads of this thread within the block as reads of footers."""
        before = self.bytes_read
        yield
        with self._lock:
            self.footer_bytes += self.bytes_read - before

    def written(self, size: int) -> None:
        """Count `size` bytes written."""
        with self._lock:
            self.bytes_written += size


class CountingReader:
    """A seekable binary file that counts reads, usable by pyarrow, gzip and plain Python."""

    def __init__(self, file: BinaryIO, counters: Counters):
        self._file = file
        self._counters = counters
        self._closed = False
        counters.opened()

    @property
    def below(self) -> BinaryIO:
        """The filesystem's own file."""
        return self._file

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from the current position; everything that is left if negative."""
        data = self._file.read(size)
        self._counters.read(len(data))
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, as in io.IOBase."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The current position in bytes."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file below."""
        self._closed = True
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called (fsspec's in-memory files never report it)."""
        return self._closed

    def readable(self) -> bool:
        """True: the file is read-only."""
        return True

    def writable(self) -> bool:
        """False: the file is read-only."""
        return False

    def seekable(self) -> bool:
        """True: files of every store can be read at any position."""
        return True

    def __enter__(self) -> CountingReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CountingWriter:
    """A binary file for writing that counts the bytes written; accepts any bytes-like object."""

    def __init__(self, file: BinaryIO, counters: Counters):
        self._file = file
        self._counters = counters

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append `data`; returns its size in bytes."""
        size = memoryview(data).nbytes
        self._file.write(data)
        self._counters.written(size)
        return size
