"""A file that fetches exactly the column chunks it is told of, neighbours in one read, and serves them from memory.

pyarrow's own pre-buffering (26.0) reads gaps of up to 8 KiB along, however small the chunks on both sides of them
are, and ParquetFile takes no options for it. Without it pyarrow asks for each column chunk in one read, which this
file answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

GAP_BYTES = 8 << 10  # one read more costs about as much as these bytes
GAP_SHARE = 0.1  # of the needed bytes, all gaps together

Range = tuple[int, int]


def chunk_ranges(group: pq.RowGroupMetaData, places: Sequence[int]) -> list[Range]:
    """Where the column chunks at these leaf places lie in the file: [start, end) in bytes."""
    found = []
    for place in places:
        chunk = group.column(place)
        start = chunk.dictionary_page_offset or chunk.data_page_offset  # never 0: the file begins with its magic
        found.append((start, start + chunk.total_compressed_size))
    return found


def merge_ranges(ranges: Sequence[Range]) -> list[Range]:
    """`ranges` with neighbours joined, the smallest gaps first, as far as GAP_BYTES and GAP_SHARE allow."""
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
    """A seekable binary file over `source`. Reads within the ranges of `expect` come from memory, each range fetched
    once, when it is first touched; any other read goes to `source`, which several of these may share."""

    def __init__(self, source: Any):
        self._source = source
        self._place = 0
        self._ranges: list[Range] = []
        self._held: dict[Range, memoryview] = {}

    def expect(self, ranges: Sequence[Range]) -> None:
        """What will be read from now on; what is held of earlier ranges is let go."""
        self._ranges = merge_ranges(ranges)
        self._held.clear()

    def read(self, size: int = -1) -> bytes | memoryview:
        """Up to `size` bytes from the current position, as in io.RawIOBase; all that is left when negative."""
        start, end = self._place, self._place + size
        whole = next((one for one in self._ranges if one[0] <= start < end <= one[1]), None)
        if whole is None:
            self._source.seek(start)
            data: bytes | memoryview = self._source.read(size)
        else:
            if whole not in self._held:
                self._source.seek(whole[0])
                self._held[whole] = memoryview(self._source.read(whole[1] - whole[0]))
            data = self._held[whole][start - whole[0] : end - whole[0]]
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, as in io.IOBase."""
        self._place = offset if whence == 0 else self._place + offset if whence == 1 else self._source.seek(offset, 2)
        return self._place

    def tell(self) -> int:
        """The current position in bytes."""
        return self._place

    @property
    def closed(self) -> bool:
        """Whether the file below is closed."""
        return bool(self._source.closed)

    def close(self) -> None:
        """Let go of what is held; the file below stays open."""
        self.expect(())

    def readable(self) -> bool:
        """True: this is for reading only."""
        return True

    def writable(self) -> bool:
        """False: this is for reading only."""
        return False

    def seekable(self) -> bool:
        """True, as every file of a store."""
        return True
