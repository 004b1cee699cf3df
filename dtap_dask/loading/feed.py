"""How fast a loop is fed, what it waits for, and which stage of reading that is.

Every piece of a pass is read by one thread from beginning to end. While it is, `spent` adds to that piece's times,
so that functions deep below need not know for whom they read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, Literal, NamedTuple, Self, get_args

from dtap_dask.features.engine.transform import Rows
from dtap_dask.records import columns

FeedStage = Literal["disk", "remote", "decode", "shuffle"]
STAGES: tuple[FeedStage, ...] = get_args(FeedStage)
MUCH = 0.1  # the share of its time that a loop may wait for data before a stage is the bottleneck


class FeedTotals(NamedTuple):
    """What reading has taken since a loader was made: seconds of each stage over all threads, and what was read.

    `reading` is the number of windows that are being read or decoded; `hits` and `fetched` count staged shards.
    """

    disk: float = 0.0
    remote: float = 0.0
    decode: float = 0.0
    shuffle: float = 0.0
    bytes: int = 0
    rows: int = 0
    reading: int = 0
    hits: int = 0
    fetched: int = 0

    def plus(self, other: FeedTotals) -> FeedTotals:
        """The sums."""
        return FeedTotals._make(a + b for a, b in zip(self, other, strict=True))

    def since(self, other: FeedTotals) -> FeedTotals:
        """The differences."""
        return FeedTotals._make(a - b for a, b in zip(self, other, strict=True))


class FeedMeter:
    """Adds up what the threads of a loader read."""

    def __init__(self) -> None:
        self._totals = FeedTotals()
        self._lock = threading.Lock()

    @property
    def totals(self) -> FeedTotals:
        """What was read so far."""
        return self._totals

    def add(self, totals: FeedTotals) -> None:
        """Add what a thread has read."""
        with self._lock:
            self._totals = self._totals.plus(totals)

    def piece(self) -> PieceMeter:
        """Measures one piece, which the calling thread reads within `with`."""
        return PieceMeter(self)


class PieceMeter:
    """The times of one piece. What is spent on no other stage is decoding."""

    def __init__(self, feed: FeedMeter):
        self._feed = feed
        self.seconds: dict[FeedStage, float] = dict.fromkeys(STAGES, 0.0)
        self.bytes = self.rows = 0

    def __enter__(self) -> Self:
        self._feed.add(FeedTotals(reading=1))
        self._begin = perf_counter()
        _thread.piece = self
        return self

    def __exit__(self, *error: object) -> None:
        _thread.piece = None
        others = sum(self.seconds.values())
        self.seconds["decode"] += perf_counter() - self._begin - others
        self._feed.add(FeedTotals._make([*self.seconds.values(), self.bytes, self.rows, -1, 0, 0]))


class _Thread(threading.local):
    piece: PieceMeter | None = None


_thread = _Thread()


def spent(stage: FeedStage, begin: float, read: int = 0) -> None:
    """This thread has spent the time since `begin` (of perf_counter) on a stage of its piece, and read bytes."""
    piece = _thread.piece
    if piece is not None:
        piece.seconds[stage] += perf_counter() - begin
        piece.bytes += read


class LoopTimes(NamedTuple):
    """The batches that a loop took; since it got the first, the seconds, and those of them that it waited for the next.

    `own` are those of the latter in which no thread read for it, but batches were made of what had been read.
    """

    batches: int
    seconds: float
    waited: float
    own: float = 0.0


class LoopMeter:
    """What one loop takes and waits for. Its first batch, for which reading has to start, is no part of the times."""

    def __init__(self, totals: Callable[[], FeedTotals]):
        """`totals`: what the loader has read so far."""
        self._totals = totals
        self._begun = self._base = totals()
        self._first = self._last = self._waited = self._blocked = 0.0
        self._batches = 0
        self._received: int | None = None  # rows that came to its thread, if that is known

    def took(self, begin: float) -> None:
        """The loop has got a batch for which it had asked at `begin`."""
        self._last = perf_counter()
        self._batches += 1
        if self._batches == 1:
            self._first = self._last
            self.first()
        else:
            self._waited += self._last - begin

    def first(self) -> None:
        """The loop has got its first batch: stages are measured from now on."""
        self._base = self._totals()
        self._blocked = 0.0

    def received(self, parts: Iterable[Rows]) -> Iterator[Rows]:
        """The parts, which other threads read for the loop."""
        self._received, waiting = 0, iter(parts)
        while True:
            begin = perf_counter()
            part = next(waiting, None)
            self._blocked += perf_counter() - begin
            if part is None:
                return
            self._received += columns.row_count(part)
            yield part

    def came(self) -> tuple[int | None, float]:
        """The rows that came to the loop's thread, if that is known, and the seconds that it waited for such.

        The latter are since its first batch.
        """
        return self._received, self._blocked

    @property
    def times(self) -> LoopTimes | None:
        """What the loop took; None before the first batch."""
        received, blocked = self.came()
        own = 0.0 if received is None else max(0.0, self._waited - blocked)
        return LoopTimes(self._batches, self._last - self._first, self._waited, own) if self._batches else None

    def stats(
        self, times: LoopTimes | None, size: int | None, out: int | None = None, threads: int = 0
    ) -> dict[str, Any]:
        """See `Batches.stats`: for a loop with these times over batches of `size` rows, None if that is unknown.

        `out` are the rows that were read for this loop, if it is not all that were read since it began. `threads` read
        and make batches by turns, where that is not seen: while the loop waits, they do what they do not read.
        """
        now = self._totals()
        read, stages = now.since(self._begun), now.since(self._base)
        seconds: dict[FeedStage, float] = {stage: getattr(stages, stage) for stage in STAGES}
        if times and threads:
            times = times._replace(own=max(0.0, times.waited - sum(seconds.values()) / threads))
        seconds["decode"] += times.own * max(1, threads) if times else 0.0
        out = read.rows if out is None else out
        rows = min(times.batches * size, out) if times and size else None
        waiting = times.waited / times.seconds if times and times.seconds else None
        per_second = (rows - min(size, rows)) / times.seconds if rows and size and times and times.seconds else None
        row_bytes = read.bytes / read.rows if read.rows else 0.0
        received, _ = self.came()
        return {
            "batches": times.batches if times else None,
            "rows": rows,
            "bytes": None if rows is None else round(rows * row_bytes),
            "seconds": times.seconds if times else None,
            "rows_per_second": per_second,
            "bytes_per_second": None if per_second is None else per_second * row_bytes,
            "waiting": waiting,
            "bottleneck": _bottleneck(stages, times) if waiting is not None and waiting > MUCH else None,
            "stages": seconds,
            "queues": {
                "records": now.reading,
                "decoded": None if rows is None else out - (rows if received is None else received),
                "ready": None if rows is None or received is None else max(0, received - rows),
            },
            "staging": {"hits": read.hits, "fetched": read.fetched},
        }


def _bottleneck(stages: FeedTotals, times: LoopTimes | None) -> FeedStage | None:
    """The stage of reading with the most seconds, unless the loop waited longer for batches made of what was read."""
    if times is not None and times.own > times.waited / 2:
        return "decode"
    longest = max(STAGES, key=lambda stage: float(getattr(stages, stage)))
    return longest if getattr(stages, longest) > 0 else None
