"""Copies one file of a store to local disk: resumes an earlier fetch and verifies the CRC32C."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from typing import Protocol

import google_crc32c

from dtap_dask.errors import DamagedError, OutputError, StorageError
from dtap_dask.storage.store import Store

CHUNK = 4 << 20  # bytes per read; a fetch can be stopped between two reads
TRIES = 4  # consecutive failed reads after which a fetch gives up
WAIT = 0.25  # seconds to wait after the first failure, doubled each time
_TICK = 0.05


class Shard(Protocol):
    """A file to fetch: its path in the store, its size in bytes and its CRC32C."""

    @property
    def path(self) -> str:
        """The path relative to the store, '/'-separated."""

    @property
    def bytes(self) -> int:
        """The size of the file in bytes."""

    @property
    def crc32c(self) -> int:
        """The CRC32C of the whole file."""


class Stopped(Exception):
    """The fetch was stopped; the bytes fetched so far are kept for the next one."""


def fetch(store: Store, shard: Shard, file: int, stopped: Callable[[], bool]) -> None:
    """Copy `shard` to the open file descriptor `file`, which may already hold its beginning.

    If the CRC is wrong, the file is fetched once more from the start. Raises DamagedError if the CRC is wrong again,
    OutputError if the store's file is missing or too short, StorageError if it cannot be read, OSError if the local
    disk fails, and Stopped.
    """
    for _ in range(2):
        found = _filled(store, shard, file, stopped)
        if found == shard.crc32c:
            return
        os.ftruncate(file, 0)
    raise DamagedError(
        f"{store.url}/{shard.path} is damaged: its CRC32C is {found:08x}, the manifest states {shard.crc32c:08x} "
        "(fetched twice). Run `dtap-dask verify` on the dataset; copy the file again, or write the dataset again with "
        "`dtap-dask run JOB --overwrite`."
    )


def crc_of(file: int, stopped: Callable[[], bool]) -> int:
    """The CRC32C of all bytes of an open file."""
    crc = at = 0
    while data := os.pread(file, CHUNK, at):
        if stopped():
            raise Stopped
        crc, at = google_crc32c.extend(crc, data), at + len(data)
    return int(crc)


def pause(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleep for `seconds`. Raises Stopped as soon as `stopped` returns True."""
    end = time.monotonic() + seconds
    while not stopped():
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _TICK))
    raise Stopped


def _filled(store: Store, shard: Shard, file: int, stopped: Callable[[], bool]) -> int:
    """Append the missing bytes to the file; returns the CRC32C of the whole file."""
    if os.fstat(file).st_size > shard.bytes:
        os.ftruncate(file, 0)
    crc, at, failed = crc_of(file, stopped), os.fstat(file).st_size, 0
    while at < shard.bytes:
        try:
            with contextlib.closing(_pieces(store, shard, at)) as pieces:
                for data in pieces:
                    _write(file, data, at)
                    crc, at, failed = google_crc32c.extend(crc, data), at + len(data), 0
                    if stopped():
                        raise Stopped
        except _Unread as error:
            failed += 1
            if failed == TRIES:
                raise StorageError(
                    f"{store.url}/{shard.path} could not be read, {TRIES} times in a row: {error}. Check that its "
                    "storage can be reached from this host, then try again: what was fetched is kept."
                ) from error
            pause(WAIT * 2 ** (failed - 1), stopped)
    return crc


class _Unread(Exception):
    """A transient failure of the store."""


def _pieces(store: Store, shard: Shard, at: int) -> Generator[bytes, None, None]:
    """The bytes of the store's file from the offset `at` to the end."""
    place = f"{store.url}/{shard.path}"
    try:
        with store.open_input(shard.path) as source:
            source.seek(at)
            while at < shard.bytes:
                data = source.read(min(CHUNK, shard.bytes - at))
                if not data:
                    raise OutputError(f"{place} ends after {at:,} of its {shard.bytes:,} bytes. {_CHANGED}")
                yield data
                at += len(data)
    except FileNotFoundError as error:
        raise OutputError(f"{place} is missing. {_CHANGED}") from error
    except OSError as error:
        raise _Unread(str(error)) from error


def _write(file: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written


_CHANGED = (
    "The dataset was changed or removed while it was being read: load it again, or write it again with `dtap-dask run "
    "JOB`."
)
