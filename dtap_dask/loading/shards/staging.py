"""Fetching of one epoch's shards to local disk, while others are being read."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from dtap_dask.errors import DtapError, StorageError
from dtap_dask.loading.feed import FeedMeter, FeedTotals
from dtap_dask.storage import Store
from dtap_dask.storage.cache import Cache, Held
from dtap_dask.storage.fetch import Shard, Stopped

FETCHERS = 3  # threads of one epoch
_JOIN = 10.0  # seconds that `close` waits for reads to end
_LAST_JOIN = 2.0  # seconds that the end of the program does
open_sessions: set[StagingSession] = set()
_ending = threading.Event()  # the program is ending: TensorFlow's threads must no longer wait for Python


class StagingSession:
    """Threads fetch `shards` in order, never holding more bytes than they reserved: `most`, or at worst `least`.

    A shard is held from its fetch until `done`. `path` cannot wait for ever as long as the reader asks for shards in
    order, and those that it uses at the same time fit in `least` together with the next one.
    """

    def __init__(self, cache: Cache, store: Store, shards: Sequence[Shard], least: int, most: int, *, feed: FeedMeter):
        self._cache, self._store, self._shards, self._feed = cache, store, shards, feed
        self._changed = threading.Condition()
        self._fetched: dict[int, Held | DtapError] = {}
        self._done = set[int]()
        self._next = self._bytes = 0
        self._reserved: Held | None = None
        self._failure: DtapError | None = None
        self._stopped = _ending.is_set()
        self._threads: list[threading.Thread] = []
        open_sessions.add(self)
        if shards and not self._stopped:
            self._start(least, most)

    def _start(self, least: int, most: int) -> None:
        try:
            self._reserved = self._cache.reserve(least, most)
        except DtapError as error:
            self._failure = error
            return
        names = [f"staging {self._store.url} {number}" for number in range(min(FETCHERS, len(self._shards)))]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def path(self, at: int, timeout: float) -> str | None:
        """The local path of shard `at` of the order, None if it has not arrived within `timeout` seconds.

        Raises the error of its fetch: StorageError or OutputError.
        """
        with self._changed:
            self._changed.wait_for(lambda: at in self._fetched or self._failure or self._stopped, timeout)
            found = self._failure or self._fetched.get(at)
            if found is None and (self._stopped or _ending.is_set()):
                found = StorageError("Reading was stopped: this program is ending.")
        if isinstance(found, DtapError):
            raise found
        return None if found is None else found.path

    def done(self, at: int) -> None:
        """Release shard `at`, which has been read or is no longer needed."""
        with self._changed:
            self._done.add(at)
            self._release(at)
            while self._next in self._done:  # they need not be fetched
                self._next += 1
            self._changed.notify_all()

    def _release(self, at: int) -> None:
        """Release shard `at` if it has arrived, or the bytes of one that could not be fetched."""
        found = self._fetched.pop(at, None)
        if found is not None:
            self._bytes -= self._shards[at].bytes
        if isinstance(found, Held):
            found.release()

    def stop(self) -> None:
        """Ask the threads to end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self, until: float) -> None:
        """Wait for the threads to end, at most until that time of time.monotonic."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """End the threads and release all shards."""
        self.stop()
        if not _ending.is_set():  # otherwise `stop_all` waits, so that TensorFlow, which calls this, need not
            self.join(time.monotonic() + _JOIN)
        for at in list(self._fetched):
            self.done(at)
        if self._reserved is not None:
            self._reserved.release()
        open_sessions.discard(self)

    def _work(self) -> None:
        while (at := self._take()) is not None:
            found: Held | DtapError
            try:
                found = self._cache.stage(self._store, self._shards[at], lambda: self._stopped)
                self._feed.add(FeedTotals(hits=not found.fetched, fetched=found.fetched))
            except Stopped:
                return
            except DtapError as error:
                found = error
            except Exception as error:  # of any storage client: if the thread died in silence, training would hang
                url = f"{self._store.url}/{self._shards[at].path}"
                found = StorageError(f"{url} could not be fetched: {type(error).__name__}: {error}.")
            with self._changed:
                self._fetched[at] = found
                if at in self._done:
                    self._release(at)
                self._changed.notify_all()

    def _take(self) -> int | None:
        """The next shard to fetch, once it fits in the reserved bytes; None when there is none or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._next == len(self._shards) or self._fits())
            if self._stopped or self._next == len(self._shards):
                return None
            at = self._next
            self._next += 1
            self._bytes += self._shards[at].bytes
            return at

    def _fits(self) -> bool:
        return self._reserved is not None and self._bytes + self._shards[self._next].bytes <= self._reserved.bytes


def stop_all() -> None:
    """Stop all sessions because the program is ending, also later ones. Open sessions must still be closed."""
    _ending.set()
    sessions, until = list(open_sessions), time.monotonic() + _LAST_JOIN
    for session in sessions:
        session.stop()
    for session in sessions:
        session.join(until)
