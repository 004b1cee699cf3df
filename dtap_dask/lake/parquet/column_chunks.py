"""A file that fetches exactly the expected column chunks, neighbours in one read, and serves them from memory.

pyarrow's own pre-buffering (26.0) also reads gaps of up to 8 KiB, however small the chunks beside them are, and
ParquetFile has no option for it. Without pre-buffering pyarrow requests each column chunk in one read, which this file
answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

GAP_BYTES = 8 << 10  # an additional read costs about as much as reading these bytes
GAP_SHARE = 0.1  # all gaps together, as a share of the needed bytes

Range = tuple[int, int]


def chunk_ranges(group: pq.RowGroupMetaData, leaves: Sequence[int]) -> list[Range]:
    """The ranges of bytes [start, end) of the column chunks with these leaf indices."""
    found = []
    for leaf in leaves:
        chunk = group.column(leaf)
        start = chunk.dictionary_page_offset or chunk.data_page_offset  # never 0: the file begins with its magic
        found.append((start, start + chunk.total_compressed_size))
    return found


def merge_ranges(ranges: Sequence[Range]) -> list[Range]:
    """`ranges` with neighbours merged, smallest gaps first, within GAP_BYTES and GAP_SHARE."""
    ranges = sorted(ranges)
    left = GAP_SHARE * sum(end - start for start, end in ranges)
    joined = set()
    for gap, start in sorted((start - end, start) for (_, end), (start, _) in itertools.pairwise(ranges)):
        if gap > min(GAP_BYTES, left):
            break
        left -= gap
        joined.add(start)
    found: list[Range] = []
    for start, end in ranges:
        if start in joined:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found


class ChunkFile:
    """A seekable binary file over `source`, which several ChunkFiles may share.

    Reads within the ranges of `expect` are served from memory: a range is fetched once, when it is first touched. All
    other reads go to `source`.
    """

    def __init__(self, source: Any):
        self._source = source
        self._position = 0
        self._ranges: list[Range] = []
        self._held: dict[Range, memoryview] = {}

    def expect(self, ranges: Sequence[Range]) -> None:
        """Set the ranges that will be read; those held so far are released."""
        self._ranges = merge_ranges(ranges)
        self._held.clear()

    def read(self, size: int = -1) -> bytes | memoryview:
        """Up to `size` bytes from the current position, as in io.RawIOBase; everything left if negative."""
        start, end = self._position, self._position + size
        whole = next((range_ for range_ in self._ranges if range_[0] <= start < end <= range_[1]), None)
        if whole is None:
            self._source.seek(start)
            data: bytes | memoryview = self._source.read(size)
        else:
            if whole not in self._held:
                self._source.seek(whole[0])
                self._held[whole] = memoryview(self._source.read(whole[1] - whole[0]))
            data = self._held[whole][start - whole[0] : end - whole[0]]
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, as in io.IOBase."""
        if whence == 2:
            self._position = self._source.seek(offset, 2)
        else:
            self._position = offset + (self._position if whence == 1 else 0)
        return self._position

    def tell(self) -> int:
        """The current position in bytes."""
        return self._position

    @property
    def closed(self) -> bool:
        """Whether the file below is closed."""
        return bool(self._source.closed)

    def close(self) -> None:
        """Release what is held; the file below stays open."""
        self.expect(())

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """False."""
        return False

    def seekable(self) -> bool:
        """True."""
        return True
