"""Checks that pyarrow can access the column chunks of a footer: where it cannot, it aborts the process (26.0)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import pyarrow.parquet as pq


class CheckedFooter:
    """The footer `tail` (see `opening.read_tail`) of a file of `size` bytes. Raises what pyarrow raises.

    INT96 timestamps are read as microseconds.
    """

    def __init__(self, tail: bytes, size: int):
        self._file = _FooterOnly(tail, size)
        self._parquet = pq.ParquetFile(self._file, coerce_int96_timestamp_unit="us", pre_buffer=True)
        self._file.tail = None
        self.schema, self.metadata = self._parquet.schema_arrow, self._parquet.metadata

    def check_chunks(self, leaves: Sequence[int]) -> None:
        """Let pyarrow raise what is wrong with the chunks of these leaf columns, in all row groups.

        pyarrow checks all chunks where it catches errors, before it reads a byte; no byte is given to it.
        """
        groups = range(self.metadata.num_row_groups)
        if len(leaves) and groups:
            with contextlib.suppress(_ReadAttempted):
                self._parquet.reader.read_row_groups(groups, column_indices=leaves, use_threads=False)


class _ReadAttempted(Exception):
    """pyarrow is about to read pages."""


class _FooterOnly(io.RawIOBase):
    """A file of `size` bytes of which only `tail` is known, zeros before it; without `tail` no read is possible."""

    def __init__(self, tail: bytes, size: int):
        self.tail: bytes | None = tail
        self._size, self._position = size, 0

    def read(self, size: int = -1) -> bytes:
        if self.tail is None:
            raise _ReadAttempted
        start, first = self._position, self._size - len(self.tail)
        self._position = end = min(start + size, self._size)
        return bytes(max(0, min(end, first) - start)) + self.tail[max(0, start - first) : max(0, end - first)]

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._size)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
