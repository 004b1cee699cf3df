"""One pass of a reader over its rows of an epoch, window by window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.decode import Decoder
from dtap_dask.loading.files import ShardFiles
from dtap_dask.loading.open_shard import RecordBytes
from dtap_dask.loading.order import EpochOrder
from dtap_dask.loading.position import Span
from dtap_dask.loading.runs import RowNumbers, Runs
from dtap_dask.records import columns

FilesOf = Callable[[EpochOrder, Sequence[int]], ShardFiles]  # for the groups of windows, in order


class SpansPass:
    """The rows of some spans of an epoch, in pieces of one window each, which any of several threads may read."""

    def __init__(self, split: DatasetSplit, runs: Runs, order: EpochOrder, spans: Sequence[Span], files: FilesOf):
        """`spans` are ascending; `files` opens the shards for windows of these groups."""
        self._split, self._runs, self._order = split, runs, order
        self._pieces = order.pieces(spans)
        self._files = files(order, [order.window(number).group for number in self._pieces[:, 0].tolist()])

    def __len__(self) -> int:
        return len(self._pieces)

    def read(self, piece: int) -> tuple[list[RecordBytes], RowNumbers]:
        """The records of a piece's window, and the piece's rows as places among the rows of these records."""
        number, start, stop = self._pieces[piece].tolist()
        window = self._order.window(number)
        order = self._order.permutation(window)
        rows = slice(start, window.rows if stop < 0 else stop)
        records = [self._run(window.group, run) for run in window.runs.tolist()]
        self._files.was_read(window.group)
        return records, np.arange(window.rows)[rows] if order is None else order[rows]

    def _run(self, group: int, run: int) -> RecordBytes:
        shard = int(self._runs.shard[run])
        return self._files.opened(group, shard).read(*self._runs.record_span(run, self._split.shards[shard]))

    def close(self) -> None:
        """Close all files, and stop fetching."""
        self._files.close()


class ReaderPass:
    """What a reader gets of an epoch: its rows, then some of them again or rows of zeros where batches must be full."""

    def __init__(self, passes: Sequence[SpansPass], padding: int):
        self._passes, self.padding = passes, padding
        self._places = [(each, piece) for each in passes for piece in range(len(each))]

    def __len__(self) -> int:
        """The number of pieces, one of them for the padding if there is any."""
        return len(self._places) + (self.padding > 0)

    def read(self, piece: int) -> tuple[list[RecordBytes], RowNumbers] | None:
        """The records of a piece and its rows' places among theirs; None for the padding."""
        if piece == len(self._places):
            return None
        found, number = self._places[piece]
        return found.read(number)

    def rows(self, piece: int, decoder: Decoder) -> Rows:
        """The rows of a piece, packed."""
        found = self.read(piece)
        if found is None:
            return decoder.zeros(self.padding)
        records, places = found
        return columns.take(decoder.decode(records), places)

    def ahead(self, decoder: Decoder, threads: int) -> Iterator[Rows]:
        """The packed rows of all pieces in order; `threads` pieces are decoded ahead. Closes the pass at the end."""
        pending: deque[Future[Rows]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="dtap_dask loading") as pool:
            try:
                for piece in range(len(self)):
                    pending.append(pool.submit(self.rows, piece, decoder))
                    if len(pending) > threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for each in pending:
                    each.cancel()
                self.close()

    def close(self) -> None:
        """Close all files, and stop fetching."""
        for each in self._passes:
            each.close()
