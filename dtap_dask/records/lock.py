"""One run at a time in an output folder: a lock file that names its holder."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dtap_dask.errors import OutputError, StorageError
from dtap_dask.records.folder import LOCK, LOCK_LEFTOVER, RUNS
from dtap_dask.storage import Store
from dtap_dask.storage.parse import parse_json

_LOG = logging.getLogger("dtap_dask.records")


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. `born` tells a process from a later one with its number (None where /proc is missing).

    `run` is the id under which the user knows the run; empty where it has none.
    """

    host: str
    pid: int
    born: str | None
    since: str
    token: str
    run: str = ""

    def to_bytes(self) -> bytes:
        """The lock file."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class HeldLock:
    """A lock that this process has taken."""

    store: Store
    holder: Holder

    def is_mine(self) -> bool:
        """Whether nobody has taken it over since."""
        return _bytes(self.store, LOCK) == self.holder.to_bytes()


@contextlib.contextmanager
def lock(store: Store, *, steal: bool = False, run: str = "", anew: bool = False) -> Iterator[HeldLock]:
    """Hold the lock file for the length of a block: it keeps every other run, of any job, out of this folder.

    The lock of a process that is gone from this host is taken over; that of another host only with `steal`, as
    nobody can tell from here whether it lives. That of the same `run` is taken over from wherever it is: whoever
    begins a run again knows that its earlier attempt is gone. A file that is no lock is taken over only by who begins
    `anew`. OutputError names a holder that lives, or may live. Folders that this block made and left empty are removed.
    """
    made = [folder for folder in (RUNS, "") if not store.exists(folder)]
    path = LOCK
    mine = Holder(socket.gethostname(), os.getpid(), _born(os.getpid()), _now(), uuid.uuid4().hex, run)
    draft = f"{path}.{mine.token}"
    try:
        with store.create(draft) as file:
            file.write(mine.to_bytes())
        _take(store, draft, mine, steal=steal, anew=anew)
    except OSError as error:  # whoever got the lock a moment ago has swept our draft away, maybe while it was written
        if error.errno not in (errno.ENOENT, errno.ESTALE, errno.EEXIST):
            raise
        raise _held(store, path, _read(store, path)) from error
    finally:
        store.delete(draft)
    _sweep(store)
    held = HeldLock(store, mine)
    try:
        yield held
    finally:
        try:
            _release(held, made)
        except (OSError, OutputError, StorageError) as error:
            # What ended the block matters more; and whoever comes next takes over the lock of a process that is gone.
            _LOG.warning("The lock %s/%s could not be removed: %s", store.url, LOCK, error)


def _release(held: HeldLock, made: Sequence[str]) -> None:
    if held.is_mine():
        held.store.delete(LOCK)
        for folder in made:
            held.store.delete_empty(folder)


def left_behind(store: Store, run: str) -> bool:
    """Whether the process of a run is surely gone: it holds no lock, or did so on this host and has ended."""
    found = _read(store, LOCK)
    return found is None or found.run != run or _gone(found)


def _take(store: Store, draft: str, mine: Holder, *, steal: bool, anew: bool) -> None:
    path = LOCK
    try:
        store.publish(draft, path)
    except FileExistsError:
        pass
    else:
        return
    found = _bytes(store, path)
    if found is not None:
        try:
            theirs = _holder(store, path, found)
        except OutputError:
            if not anew:
                raise
        else:
            same = bool(mine.run) and theirs.run == mine.run
            if not (_gone(theirs) or same or (steal and theirs.host != mine.host)):
                raise _held(store, path, theirs)
        _remove(store, path, found)
    try:
        store.publish(draft, path)
    except FileExistsError as error:
        raise _held(store, path, _read(store, path)) from error


def _remove(store: Store, path: str, stale: bytes) -> None:
    """Take away a stale lock. Of several processes that try, one gets it; a fresh lock moved by mistake goes back."""
    aside = f"{path}.{uuid.uuid4().hex}"
    try:
        store.publish(path, aside)
    except FileNotFoundError:
        return
    if _bytes(store, aside) != stale:
        found = _read(store, aside)
        store.publish(aside, path)
        raise _held(store, path, found)
    store.delete(aside)


def _sweep(store: Store) -> None:
    """Remove what processes left that died, or that come too late."""
    for file in store.list_files(RUNS, follow=False):
        if LOCK_LEFTOVER.fullmatch(file.path):
            store.delete(file.path)


def _bytes(store: Store, path: str) -> bytes | None:
    try:
        return store.read_bytes(path)
    except FileNotFoundError:
        return None


def _read(store: Store, path: str) -> Holder | None:
    found = _bytes(store, path)
    return None if found is None else _holder(store, path, found)


def _holder(store: Store, path: str, found: bytes) -> Holder:
    try:
        holder = Holder(**parse_json(found))
        if not isinstance(holder.pid, int) or not 0 < holder.pid < 2**31:
            raise ValueError("it names no process")
    except (ValueError, TypeError) as error:
        raise OutputError(
            f"{store.url}/{path} is no lock of this software: it was damaged, or is another program's. If no run is "
            "writing there, delete that file and go on with `dtap-dask run JOB --resume`, or begin anew with "
            "--overwrite, which replaces it."
        ) from error
    return holder


def _gone(holder: Holder) -> bool:
    """Whether the holder surely ended: it ran on this host, and its number is free or another process's."""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _born(holder.pid) != holder.born


def _born(pid: int) -> str | None:
    """When a process started, in clock ticks since boot: field 22 of /proc/<pid>/stat (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _held(store: Store, path: str, theirs: Holder | None) -> OutputError:
    who = f"process {theirs.pid} on {theirs.host} since {theirs.since}" if theirs else "a process that just ended"
    run = f" ({theirs.run})" if theirs and theirs.run else ""
    return OutputError(
        f"Another run{run} is writing {store.url}: {who} holds {path}. Wait until it has finished, or stop it; if it "
        "ran on another host and is gone for sure, go on with `dtap-dask run JOB --resume` (in Python resume=True)."
    )
