"""One pass of a reader over its rows of an epoch, window by window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple

import numpy as np

from dtap_dask.errors import DamagedError
from dtap_dask.features.columns.column import Mask
from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.choice.rows import EpochRows, Weights
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.feed import FeedMeter, spent
from dtap_dask.loading.order.epoch_order import EpochOrder, Window
from dtap_dask.loading.order.position import Span
from dtap_dask.loading.order.runs import RowNumbers, Runs
from dtap_dask.loading.shards.damage import Repair, named, separate, together
from dtap_dask.loading.shards.decode import PADDING_WEIGHT, Decoder
from dtap_dask.loading.shards.files import ShardFiles
from dtap_dask.loading.shards.open_shard import RecordBytes
from dtap_dask.records import columns


class Piece(NamedTuple):
    """The records of a window, and rows as places among theirs.

    `weight` is that of each row of the records, float32: 0 where its record is damaged; None: 1 for all.
    """

    records: list[RecordBytes]
    places: RowNumbers
    weight: Weights | None


FilesOf = Callable[[EpochOrder, Sequence[int]], ShardFiles]  # for the groups of pieces, in order


class SpansPass:
    """The rows of some spans of an epoch, in pieces of one window each, which any of several threads may read."""

    def __init__(
        self,
        split: DatasetSplit,
        runs: Runs,
        order: EpochOrder,
        spans: Sequence[Span],
        files: FilesOf,
        *,
        repair: Repair,
        chosen: EpochRows | None = None,
    ):
        """`files` opens the shards for pieces of windows of these groups; `chosen`: None for all rows."""
        self._split, self._runs, self._order, self._repair = split, runs, order, repair
        self._chosen = chosen
        self._pieces = order.pieces(spans)
        self._files = files(order, order.groups(self._pieces[:, 0]).tolist())

    def __len__(self) -> int:
        return len(self._pieces)

    def read(self, piece: int) -> Piece:
        """A piece whose records have the right checksums."""
        if self._chosen is not None and self._chosen.decoder is not None:
            return self.decoded(piece, self._chosen.decoder)[0]
        window = self._window(piece)
        records = self._records(piece, window)
        lost = self._lost(window, records)
        places = None if self._chosen is None else self._chosen.places(window, None, {}, lost)
        return Piece(records, self._places(piece, window, places), _weight(None, lost))

    def decoded(self, piece: int, decoder: Decoder, *, keep: bool = True) -> tuple[Piece, Rows]:
        """A piece whose records hold the manifest's columns, and all rows of these records, packed.

        The records are without their data unless one is to `keep` it.
        """
        window = self._window(piece)
        records, packed = self._streamed(piece, window, decoder, keep=keep or self._decoded_twice(decoder))
        if self._chosen is None:
            lost = self._lost(window, records)
            return Piece(records, self._places(piece, window, None), _weight(None, lost)), packed
        source, values, own = decoder, packed, self._chosen.decoder
        if own is not None and self._decoded_twice(decoder):
            source = own
            records, values = self._sound(window, records, own)
        lost = self._lost(window, records)
        places = self._chosen.places(window, own and source, values, lost)
        weight = _weight(self._chosen.weight(source, values), lost)
        return Piece(records, self._places(piece, window, places), weight), packed

    def decoded_window(self, piece: int, decoder: Decoder) -> tuple[Window, Mask | None, Rows]:
        """The window of a piece, its rows of damaged records, and all rows of its records, packed."""
        window = self._window(piece)
        records, packed = self._streamed(piece, window, decoder, keep=False)
        return window, self._lost(window, records), packed

    def _decoded_twice(self, decoder: Decoder) -> bool:
        """Whether the choice of rows needs columns that the decoder does not have."""
        own = None if self._chosen is None else self._chosen.decoder
        return own is not None and not own.is_part_of(decoder)

    def _window(self, piece: int) -> Window:
        return self._order.window(int(self._pieces[piece, 0]))

    def _decoded_rows(self, window: Window) -> int:
        return int(self._runs.rows[window.runs].sum())

    def _records(self, piece: int, window: Window) -> list[RecordBytes]:
        records = [self._run(piece, run) for run in window.runs.tolist()]
        self._files.was_read(piece)
        return records

    def _streamed(self, piece: int, window: Window, decoder: Decoder, *, keep: bool) -> tuple[list[RecordBytes], Rows]:
        """The sound records of a window, and their rows, packed; each run is decoded before the next one is read.

        Without `keep` the records are returned without their data.
        """
        records, unreadable = list[RecordBytes](), list[DamagedError]()

        def read() -> Iterator[RecordBytes]:
            for run in window.runs.tolist():
                try:
                    found = self._run(piece, run)
                except DamagedError as error:
                    unreadable.append(error)
                    raise
                records.append(found if keep else found.released())
                yield found

        try:
            packed = decoder.decode(read(), self._decoded_rows(window))
        except DamagedError:
            if unreadable:
                raise
            return self._sound(window, self._records(piece, window), decoder)
        self._files.was_read(piece)
        return records, packed

    def _sound(self, window: Window, records: list[RecordBytes], decoder: Decoder) -> tuple[list[RecordBytes], Rows]:
        """The records, with zeros in place of those that do not hold the manifest's columns, and their rows, packed."""
        rows = self._decoded_rows(window)
        try:
            return records, decoder.decode(records, rows)
        except DamagedError:
            records = [self._of_schema(*each, decoder) for each in zip(window.runs.tolist(), records, strict=True)]
        return records, decoder.decode(records, rows)

    def _places(self, piece: int, window: Window, chosen: RowNumbers | None) -> RowNumbers:
        """The places of a piece's rows, in order, where `chosen` are those of the window's rows; None: each once."""
        _, start, stop = self._pieces[piece].tolist()
        rows = slice(start, window.rows if stop < 0 else stop)
        order = self._order.permutation(window)
        if chosen is None:
            return np.arange(window.rows)[rows] if order is None else order[rows]
        return chosen[rows] if order is None else chosen[order[rows]]

    def _lost(self, window: Window, records: list[RecordBytes]) -> Mask | None:
        """Which of the rows of the records are of damaged ones; None if none is."""
        if not any(each.lost for each in records):
            return None
        rows = [
            np.repeat(np.isin(np.arange(len(each)), each.lost), self._rows(run, each))
            for run, each in zip(window.runs.tolist(), records, strict=True)
        ]
        return np.concatenate(rows)

    def _rows(self, run: int, records: RecordBytes) -> int:
        """The rows of each record of a run, which is one block or records of one row."""
        return int(self._runs.rows[run]) // len(records)

    def _run(self, piece: int, run: int) -> RecordBytes:
        shard = int(self._runs.shard[run])
        start, stop = self._runs.record_span(run, self._split.shards[shard])
        try:
            return self._files.opened(piece, shard).read(start, stop)
        except DamagedError as error:
            self._repair.refuse(error)
        found, rows = list[RecordBytes](), int(self._runs.rows[run]) // (stop - start)
        for number in range(start, stop):
            try:
                found.append(self._files.opened(piece, shard).read(number, number + 1))
            except DamagedError as error:
                found.append(self._repair.zeros(error, shard, number, rows))
        return together(found)

    def _of_schema(self, run: int, records: RecordBytes, decoder: Decoder) -> RecordBytes:
        """A run with zeros in place of the records that do not hold the manifest's columns."""
        shard, rows = int(self._runs.shard[run]), self._rows(run, records)
        start, _ = self._runs.record_span(run, self._split.shards[shard])
        found = list[RecordBytes]()
        for number, each in enumerate(separate(records), start):
            try:
                decoder.decode([each], rows)
                found.append(each)
            except DamagedError as error:
                placed = named(self._split, error, shard, number, each)
                found.append(self._repair.zeros(placed, shard, number, rows))
        return together(found)

    def close(self) -> None:
        """Close all files, and stop fetching."""
        self._files.close()


def _weight(weight: Weights | None, lost: Mask | None) -> Weights | None:
    """The weight of each row of records, 0 for those of damaged ones; None: 1 for all."""
    if lost is None:
        return weight
    return (~lost if weight is None else np.where(lost, 0, weight)).astype(np.float32)


class ReaderPass:
    """What a reader gets of an epoch: its rows, and where batches must be full some of them again, or rows of zeros."""

    def __init__(self, of: SpansPass, padding: int, feed: FeedMeter):
        self._of, self.padding, self._feed = of, padding, feed

    def __len__(self) -> int:
        """The number of pieces, one of them for the padding if there is any."""
        return len(self._of) + (self.padding > 0)

    def read(self, piece: int, decoder: Decoder | None = None) -> Piece | None:
        """A piece, or None for the padding. With a decoder its records are known to hold the manifest's columns."""
        with self._feed.piece() as meter:
            if piece == len(self._of):
                meter.rows = self.padding
                return None
            if decoder is None:
                read = self._of.read(piece)
            else:
                read, packed = self._of.decoded(piece, decoder)
                decoder.checked(columns.take(packed, read.places))
            meter.rows = len(read.places)
            return read

    def rows(self, piece: int, decoder: Decoder, then: Callable[[Rows], Rows]) -> Rows:
        """What `then` makes of the rows of a piece, packed."""
        with self._feed.piece() as meter:
            if piece == len(self._of):
                meter.rows = self.padding
                return then(decoder.zeros(self.padding))
            (_, places, weight), packed = self._of.decoded(piece, decoder, keep=False)
            if weight is not None and PADDING_WEIGHT in packed:
                packed[PADDING_WEIGHT] = weight
            meter.rows = len(places)
            begin = perf_counter()
            taken = columns.take(packed, places)
            spent("shuffle", begin)
            return then(decoder.checked(taken))

    def ahead(self, decoder: Decoder, threads: int, then: Callable[[Rows], Rows]) -> Iterator[Rows]:
        """`rows` of all pieces in order; `threads` pieces are decoded ahead. Closes the pass at the end."""
        pending: deque[Future[Rows]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="dtap_dask loading") as pool:
            try:
                for piece in range(len(self)):
                    pending.append(pool.submit(self.rows, piece, decoder, then))
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
        self._of.close()
