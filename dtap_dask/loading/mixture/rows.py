"""The rows of a mixture: those of each component window by window, and chunks of all of them in the order drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.feed import FeedMeter, FeedTotals
from dtap_dask.loading.mixture.columns import Rearrangement
from dtap_dask.loading.mixture.draws import Choices, DrawnRows, EpochDraws
from dtap_dask.loading.order.position import Position
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.reading.source import RowSource
from dtap_dask.loading.shards.decode import Decoder
from dtap_dask.records import columns

MOST = 4  # windows of a component that are decoded ahead


@dataclass(frozen=True)
class Member:
    """A component with what it reads. `options` are those of batches of one row, so that batches are rows."""

    name: str
    weight: float
    repeat: bool
    source: RowSource
    options: BatchOptions

    def left(self, position: Position) -> int:
        """The rows that are left of an epoch for each reader, padding included."""
        return self.source.left(position, self.options)

    def after(self, position: Position, rows: int) -> Position:
        """The position `rows` of each reader later; without `repeat` it remains in the epoch."""
        if self.repeat:
            return self.source.after(position, self.options, rows)
        return position.after(self.source.readers.count, rows)


class ComponentRows:
    """The packed rows of a component from a position on, epoch after epoch where it is repeated."""

    def __init__(
        self,
        member: Member,
        position: Position,
        decoder: Decoder,
        rearrange: Callable[[Rows], Rows],
        *,
        pool: ThreadPoolExecutor,
        ahead: int,
    ):
        """Windows are decoded ahead until these, and what is left of the present one, have `ahead` rows."""
        self._member, self._position, self._decoder, self._rearrange = member, position, decoder, rearrange
        self._pool, self._ahead = pool, ahead
        self._pass = member.source.reader_pass(position, member.options)
        self._piece = 0  # of the pass, the next to decode
        self._pending = deque[Future[Rows]]()
        self._window: Rows = {}
        self._at = 0

    def take(self, rows: int) -> list[Rows]:
        """The next rows, in parts."""
        found = []
        while rows:
            size = columns.row_count(self._window)
            if self._at == size:
                self.decode_one()
                self._window, self._at = self._pending.popleft().result(), 0
                continue
            stop = min(size, self._at + rows)
            found.append(columns.cut(self._window, self._at, stop))
            rows, self._at = rows - (stop - self._at), stop
        return found

    def decode_ahead(self) -> None:
        """Begin to decode windows until there are enough."""
        size = columns.row_count(self._window)
        while len(self._pending) < MOST and size - self._at + len(self._pending) * size < self._ahead:
            if not self._decode():
                return

    def decode_one(self) -> None:
        """Begin to decode a window, if none is being decoded."""
        if not self._pending:
            self._decode()

    def _decode(self) -> bool:
        """Begin to decode the next window. False where there is none."""
        while self._piece == len(self._pass):
            if not self._member.repeat:
                return False
            if self._member.source.cache is not None:
                wait(self._pending)  # two passes at a time would need twice the space in the cache
            self._pass.close()
            self._position = self._member.source.next_epoch(self._position)
            self._pass, self._piece = self._member.source.reader_pass(self._position, self._member.options), 0
        self._pending.append(self._pool.submit(self._pass.rows, self._piece, self._decoder, self._rearrange))
        self._piece += 1
        return True

    def close(self) -> None:
        """Close the files, once nothing reads them."""
        for each in self._pending:
            each.cancel()
        wait(self._pending)
        self._pass.close()


def mixed_rows(
    members: Sequence[Member],
    bases: Sequence[Position],
    draws: EpochDraws,
    row: int,
    rows: int | None,
    *,
    decoder: Decoder,
    options: BatchOptions,
    threads: int,
    feed: FeedMeter,
    then: Callable[[Rows], Rows],
) -> Iterator[Rows]:
    """What `then` makes of chunks of packed rows, which are as `decoder` describes them.

    There are `rows` from number `row` of the epoch on, None for all.

    `bases` are the components' positions where the draws begin.
    """
    place, within = draws.located(row)
    drawn = place.drawn + _counts(draws.choices(place)[:within], len(members))
    decoders = [
        Decoder(each.source.split, options.dtypes.keys(), weighted=options.weighted, narrowed=each.options.narrowed)
        for each in members
    ]
    total = sum(each.weight for each in members)
    pending, ready = deque[Future[Rows]](), 0  # chunks mixed ahead: none of them before the first is given
    with ThreadPoolExecutor(threads, thread_name_prefix="dtap_dask loading") as pool, ExitStack() as stack:
        parts = list[ComponentRows]()
        for each, base, count, own in zip(members, bases, drawn.tolist(), decoders, strict=True):
            begin, rearrange = each.after(base, count), Rearrangement(own, decoder)
            parts.append(
                ComponentRows(
                    each, begin, own, rearrange, pool=pool, ahead=int(2 * draws.chunk * (each.weight / total))
                )
            )
            stack.callback(parts[-1].close)
        for part in parts:
            part.decode_one()
        while rows is None or rows > 0:
            choices = draws.choices(place)[within:][:rows]
            counts = _counts(choices, len(members)).tolist()
            taken = [part.take(count) for part, count in zip(parts, counts, strict=True)]
            pending.append(pool.submit(_mixed, taken, choices, feed, then))
            for part in parts:
                part.decode_ahead()
            if len(pending) > ready:
                ready = threads
                yield pending.popleft().result()
            place, within, rows = draws.after(place), 0, None if rows is None else rows - len(choices)
        while pending:
            yield pending.popleft().result()


def _counts(choices: Choices, members: int) -> DrawnRows:
    return np.bincount(choices, minlength=members)


def _mixed(parts: Sequence[Sequence[Rows]], choices: Choices, feed: FeedMeter, then: Callable[[Rows], Rows]) -> Rows:
    """What `then` makes of the components' rows in the order of `choices`."""
    begin = perf_counter()
    each = [part for mine in parts for part in mine]
    places = [np.flatnonzero(choices == number) for number in range(len(parts))]
    order = np.empty(len(choices), np.int64)
    order[np.concatenate(places)] = np.arange(len(choices))
    found = then(columns.take(columns.join(each), order))
    feed.add(FeedTotals(shuffle=perf_counter() - begin))
    return found
