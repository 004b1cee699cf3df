"""Sizes of decoded batches: how many rows stay within a number of bytes, even if the footer does not show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FIRST_ROWS = 512  # of the first batch, where values may be longer than the footer shows
GROWTH = 8  # at most, from one batch to the next


class BatchSizer:
    """The number of rows of the next batch, so that it takes about `most` bytes at most.

    If `known`, it is always `rows`; otherwise it follows from earlier batches, and only a sudden growth of values can
    exceed `most`.
    """

    def __init__(self, rows: int, most: int, known: bool):
        self._rows, self._most, self.known = rows, most, known
        self.rows = rows if known else min(rows, FIRST_ROWS)

    def observe(self, batch: pa.RecordBatch) -> None:
        """Take a decoded batch as an example of the next one; dictionary columns are cut later."""
        if not self.known and batch.num_rows:
            plain = sum(column.nbytes for column in batch.columns if not pa.types.is_dictionary(column.type))
            each = max(1, plain // batch.num_rows)
            self.rows = max(1, min(self._rows, GROWTH * self.rows, self._most // each))


def split_by_bytes(columns: Sequence[pa.Array], rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Parts [start, stop) of `rows` rows whose dictionary columns take at most `most` bytes when expanded.

    A row that exceeds `most` is a part of its own.
    """
    coded = [column for column in columns if pa.types.is_dictionary(column.type)]
    if rows * sum(map(longest_entry, coded)) <= most:
        yield 0, rows
        return
    end = np.cumsum(sum(map(_decoded_bytes, coded)))
    start = 0
    while start < rows:
        before = int(end[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(end, before + most, "right")))
        yield start, stop
        start = stop


def longest_entry(column: pa.DictionaryArray) -> int:
    """The bytes of the longest entry of a column's dictionary."""
    return int(_word_bytes(column).max(initial=0))


def _decoded_bytes(column: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """The bytes of each row's word, 0 for null; int64 [n]."""
    codes = column.indices.fill_null(0).to_numpy()
    found = _word_bytes(column)[codes] if len(column.dictionary) else np.zeros(len(codes), np.int64)
    return np.where(column.is_null().to_numpy(zero_copy_only=False), 0, found) if column.null_count else found


def _word_bytes(column: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """The bytes of each entry of a column's dictionary, text or binary; int64 [entries]."""
    words = column.dictionary
    if not len(words):
        return np.zeros(0, np.int64)
    offsets = np.frombuffer(words.buffers()[1], np.int32, len(words) + 1, words.offset * 4)
    return np.diff(offsets).astype(np.int64)
