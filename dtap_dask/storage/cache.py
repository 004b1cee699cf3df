"""A size-limited folder on a local disk that caches files of other stores, shared by a user's processes on a host.

`<key>-<bytes>.shard` is a complete file, `.part` one whose fetch is in progress or was interrupted; the next fetch
resumes it. The key is a hash of address, path, size and CRC, so changed files get other names. Processes coordinate by
flock(2); the kernel releases these locks when a process ends:
- `.part` files are locked during a fetch, so that no file is fetched twice at the same time;
- a shared lock on a `.shard` pins it: it is not evicted while it is read. The others are evicted by last use, oldest
  first;
- a locked file in `reserved/` is an iterator's reservation: it will pin no more bytes than the file's name states. As
  all reservations together never exceed the size of the cache, an iterator that keeps to its own never has to wait;
- the file `lock` is held briefly while space is counted and freed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dtap_dask.errors import StorageError
from dtap_dask.storage.fetch import Shard, crc_of, fetch, pause
from dtap_dask.storage.store import Store

POLL = 0.05  # seconds between two attempts to take a lock that another process holds
PATIENCE = 10.0  # seconds to wait for space that others may be about to release
_NAME = re.compile(r"[0-9a-f]{32}-(\d+)\.(shard|part)")
_PROMISE = re.compile(r"(\d+)-[0-9a-f]{32}")
_SET = "storage.cache.path (or DTAP_CACHE)"
# Files (path, inode) whose CRC this process has verified; each file is verified once per process.
_sound: set[tuple[str, int]] = set()


class Held:
    """A lock on a staged file or a reservation until `release`, which deletes the file if it is `passing`.

    `fetched`: the file was not in the cache, and was fetched for this.
    """

    fetched = False

    def __init__(self, file: int, path: str, size: int, *, passing: bool = False):
        self._file, self.path, self.bytes, self._passing = file, path, size, passing
        self._lock = threading.Lock()

    def release(self) -> None:
        """Release the lock; repeated calls do nothing."""
        with self._lock:
            file, self._file = self._file, -1
        if file >= 0:
            if self._passing:
                with contextlib.suppress(OSError):
                    os.unlink(self.path)
            os.close(file)


@dataclass(frozen=True)
class _Entry:
    path: str
    size: int  # the final size, for a part too
    used: int  # time of last use, nanoseconds since 1970


class Cache:
    """The cache in the folder `path`, of at most `size` bytes. Raises StorageError if its disk fails."""

    def __init__(self, path: str, size: int):
        self.path, self.size = path, size
        with self._explaining():
            os.makedirs(self._in("reserved"), mode=0o700, exist_ok=True)
            with self._alone():
                pass  # checks that files can be created and locked here

    def check_fits(self, size: int, what: str) -> None:
        """Raise StorageError if `size` bytes are more than the whole cache. `what` describes them in the message."""
        if size > self.size:
            raise StorageError(
                f"The cache {self.path} of {self.size:,} bytes is too small: {what} take {size:,} bytes. Set "
                f"storage.cache.size to {size:,} or more (or DTAP_CACHE_SIZE)."
            )

    def reserve(self, least: int, most: int) -> Held:
        """Reserve space for pinned files until released: `least` to `most` bytes, at most half of the free space.

        The minimum `least` is reserved even if it is more than half. Raises StorageError if other iterators hold so
        much that `least` bytes do not become free within PATIENCE.
        """
        end = time.monotonic() + PATIENCE
        with self._explaining():
            while True:
                with self._alone():
                    taken = self._reserved()
                    free = self.size - taken
                    if free >= least:
                        return self._promise(max(least, min(most, free // 2)))
                if time.monotonic() > end:
                    break
                time.sleep(POLL)
        raise StorageError(
            f"The cache {self.path} of {self.size:,} bytes is in use: others that are reading now hold {taken:,} bytes "
            f"of it, and {least:,} more are needed at once. Set storage.cache.size to {taken + least:,} or more (or "
            "DTAP_CACHE_SIZE), or let them finish first."
        )

    def stage(self, store: Store, shard: Shard, stopped: Callable[[], bool]) -> Held:
        """The shard as a local file, pinned until released. It is fetched and verified unless the cache has it.

        On its first use in a process, a cached file is verified too, and fetched again if its CRC is wrong. Raises
        OutputError if the source differs from the manifest, StorageError if the store or the disk fails, and Stopped.
        """
        name = f"{_key(store, shard)}-{shard.bytes}"
        path, damaged, fetched = self._in(f"{name}.shard"), None, False
        with self._explaining():
            while True:
                pin = _pinned(path)
                if pin is not None:
                    if _is_sound(pin, shard, stopped):
                        pin.fetched = fetched
                        return pin
                    damaged = _inode(path)
                    pin.release()
                with _exclusive(self._in(f"{name}.part"), stopped) as part:
                    if _inode(path) not in (None, damaged):  # another process was faster
                        os.unlink(self._in(f"{name}.part"))  # empty, and locked by this process alone
                        continue
                    self._make_room(name, shard.bytes, stopped)
                    fetch(store, shard, part, stopped)
                    fetched = True
                    with self._alone():  # otherwise a process counting space could miss the file under both names
                        os.rename(self._in(f"{name}.part"), path)
                    _sound.add((path, os.fstat(part).st_ino))

    def _make_room(self, name: str, size: int, stopped: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not self._evict_for(name, size):
            if time.monotonic() > end:
                raise StorageError(
                    f"The cache {self.path} of {self.size:,} bytes is full of files that are being read: there is no "
                    f"space for {size:,} more bytes. Set storage.cache.size (or DTAP_CACHE_SIZE) higher."
                )
            pause(POLL, stopped)

    def _evict_for(self, name: str, size: int) -> bool:
        """Delete unused files, least recently used first, until `size` bytes fit; returns whether they do."""
        with self._alone():
            entries = [entry for entry in self._entries() if os.path.basename(entry.path).partition(".")[0] != name]
            excess = sum(entry.size for entry in entries) + size - self.size
            for entry in sorted(entries, key=lambda entry: (entry.used, entry.path)):
                if excess <= 0:
                    break
                excess -= entry.size if _evicted(entry.path) else 0
        return excess <= 0

    def _entries(self) -> Iterator[_Entry]:
        with os.scandir(self.path) as files:
            for file in files:
                found = _NAME.fullmatch(file.name)
                with contextlib.suppress(FileNotFoundError):  # deleted in the meantime
                    if found:
                        yield _Entry(file.path, int(found[1]), file.stat().st_mtime_ns)

    def _reserved(self) -> int:
        """Bytes reserved by live iterators; reservations of dead processes are removed."""
        total = 0
        with os.scandir(self._in("reserved")) as files:
            for file in files:
                found = _PROMISE.fullmatch(file.name)  # NFS lists deleted files that are open under other names
                if found and not _evicted(file.path):
                    total += int(found[1])
        return total

    def _promise(self, size: int) -> Held:
        path = self._in(f"reserved/{size}-{uuid.uuid4().hex}")
        file = _opened(path, os.O_CREAT)
        fcntl.flock(file, fcntl.LOCK_EX)
        return Held(file, path, size, passing=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        file = _opened(self._in("lock"), os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _in(self, name: str) -> str:
        return os.path.join(self.path, name)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(
                    f"No space left on the disk of the cache {self.path}, which may take {self.size:,} bytes. Free "
                    f"some, set storage.cache.size (or DTAP_CACHE_SIZE) lower, or {_SET} to another disk."
                ) from error
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise StorageError(
                    f"The cache {self.path} cannot be used: this program has as many open files as it may have. Raise "
                    "the limit (`ulimit -n`)."
                ) from error
            raise StorageError(
                f"The cache {self.path} cannot be used: {error.strerror or error}. Set {_SET} to a folder on a local "
                "disk that this user may write."
            ) from error


def _key(store: Store, shard: Shard) -> str:
    identity = "\n".join((store.address, shard.path, f"{shard.crc32c:08x}", str(shard.bytes)))
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _opened(path: str, more: int = 0) -> int:
    """Open a file of the cache. A symbolic link in its place is removed; the link's target is not touched."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | more, 0o600)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            os.unlink(path)


def _inode(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


def _pinned(path: str) -> Held | None:
    """The file, locked against eviction and marked as used now; None if it does not exist."""
    while True:
        try:
            file = _opened(path)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)  # an evicting process holds its lock only briefly
        found = os.fstat(file)
        if found.st_ino == _inode(path):  # otherwise it was evicted between the two calls
            now = time.time_ns()  # the kernel's own timestamp may be a few milliseconds old
            os.utime(file, ns=(now, now))
            return Held(file, path, found.st_size)
        os.close(file)


def _is_sound(pin: Held, shard: Shard, stopped: Callable[[], bool]) -> bool:
    known = (pin.path, os.fstat(pin._file).st_ino)
    if pin.bytes != shard.bytes:
        return False
    if known not in _sound and crc_of(pin._file, stopped) != shard.crc32c:
        return False
    _sound.add(known)
    return True


def _evicted(path: str) -> bool:
    """Delete a file unless another process has it locked; returns whether it is gone."""
    try:
        file = _opened(path)
    except FileNotFoundError:
        return True
    try:
        if not _alone_with(file, path):
            return False
        os.unlink(path)
    finally:
        os.close(file)
    return True


@contextlib.contextmanager
def _exclusive(path: str, stopped: Callable[[], bool]) -> Iterator[int]:
    """The file at `path`, created if necessary, under an exclusive lock."""
    while True:
        file = _opened(path, os.O_CREAT)
        if _alone_with(file, path):
            break
        os.close(file)
        pause(POLL, stopped)
    try:
        yield file
    finally:
        os.close(file)


def _alone_with(file: int, path: str) -> bool:
    """Try to lock an open file exclusively; returns whether it is locked and still the file at `path`."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file).st_ino == _inode(path)
