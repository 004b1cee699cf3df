"""Whether pyarrow can look at a footer's column chunks: where it cannot, it ends the process (seen in 26.0)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import pyarrow.parquet as pq


def check_chunks(metadata: pq.FileMetaData, size: int, places: Sequence[int]) -> None:
    """Let pyarrow raise what is wrong with these leaf columns' chunks, of all row groups, in a file of `size` bytes.

    ParquetFile looks at all of them where errors are caught, before it reads the first byte; it gets none to read.
    """
    if not len(places) or not metadata.num_row_groups:
        return
    parquet = pq.ParquetFile(_Unread(size), metadata=metadata, pre_buffer=True)
    with contextlib.suppress(_Asked):
        parquet.reader.read_row_groups(range(metadata.num_row_groups), column_indices=places, use_threads=False)


class _Asked(Exception):
    """A byte was asked for."""


class _Unread(io.RawIOBase):
    """A file of `size` bytes that none can be read of."""

    def __init__(self, size: int):
        self._size, self._place = size, 0

    def read(self, size: int = -1) -> bytes:
        raise _Asked

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = (0, self._place, self._size)[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
