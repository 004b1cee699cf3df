"""Whether pyarrow can look at a footer's column chunks: where it cannot, it ends the process (seen in 26.0)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import pyarrow.parquet as pq


class CheckedFooter:
    """A footer, as `opening.read_tail` gives it, of a file of `size` bytes. Raises what pyarrow raises.

    INT96 timestamps are taken as microseconds.
    """

    def __init__(self, tail: bytes, size: int):
        self._file = _FooterOnly(tail, size)
        self._parquet = pq.ParquetFile(self._file, coerce_int96_timestamp_unit="us", pre_buffer=True)
        self._file.tail = None
        self.schema, self.metadata = self._parquet.schema_arrow, self._parquet.metadata

    def check_chunks(self, places: Sequence[int]) -> None:
        """Let pyarrow raise what is wrong with these leaf columns' chunks, of all row groups.

        It looks at all of them where errors are caught, before it reads the first byte; it gets none to read.
        """
        groups = range(self.metadata.num_row_groups)
        if len(places) and groups:
            with contextlib.suppress(_ReadAttempted):
                self._parquet.reader.read_row_groups(groups, column_indices=places, use_threads=False)


class _ReadAttempted(Exception):
    """A byte was asked for."""


class _FooterOnly(io.RawIOBase):
    """A file of `size` bytes of which only the `tail` can be read, until that is taken away; zeros before it."""

    def __init__(self, tail: bytes, size: int):
        self.tail: bytes | None = tail
        self._size, self._place = size, 0

    def read(self, size: int = -1) -> bytes:
        if self.tail is None:
            raise _ReadAttempted
        start, first = self._place, self._size - len(self.tail)
        self._place = end = min(start + size, self._size)
        return bytes(max(0, min(end, first) - start)) + self.tail[max(0, start - first) : max(0, end - first)]

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = (0, self._place, self._size)[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
