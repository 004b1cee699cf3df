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
from dtap_dask.storage.safe_json import parse_json

_LOG = logging.getLogger("dtap_dask.records")


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    `born` distinguishes a process from a later one with the same number; None where there is no /proc. `run` is the id
    by which the user knows the run; empty where it has none.
    """

    host: str
    pid: int
    born: str | None
    since: str
    token: str
    run: str = ""

    def to_bytes(self) -> bytes:
        """The contents of the lock file."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class HeldLock:
    """A lock that this process holds."""

    store: Store
    holder: Holder

    def is_mine(self) -> bool:
        """Whether no other process has taken it over since."""
        return _bytes(self.store, LOCK) == self.holder.to_bytes()


@contextlib.contextmanager
def lock(store: Store, *, steal: bool = False, run: str = "", overwrite: bool = False) -> Iterator[HeldLock]:
    """Hold the lock file for the length of a block: it keeps every other run, of any job, out of this folder.

    The lock of a process of this host that has ended is taken over; one of another host only with `steal`, because that
    process cannot be checked from here. A lock of the same `run` is always taken over: a run is started again only when
    its earlier attempt is known to have ended. A file that is not a lock is replaced only with `overwrite`. OutputError
    names a holder that is or may be alive. Folders that this block made and left empty are removed.
    """
    created = [folder for folder in (RUNS, "") if not store.exists(folder)]
    mine = Holder(socket.gethostname(), os.getpid(), _born(os.getpid()), _now(), uuid.uuid4().hex, run)
    draft = f"{LOCK}.{mine.token}"
    try:
        with store.create(draft) as file:
            file.write(mine.to_bytes())
        _take(store, draft, mine, steal=steal, overwrite=overwrite)
    except OSError as error:  # the process that just got the lock swept our draft away, maybe while it was written
        if error.errno not in (errno.ENOENT, errno.ESTALE, errno.EEXIST):
            raise
        raise _held_by(store, _read(store, LOCK)) from error
    finally:
        store.delete(draft)
    _sweep(store)
    held = HeldLock(store, mine)
    try:
        yield held
    finally:
        try:
            _release(held, created)
        except (OSError, OutputError, StorageError) as error:
            # An error of the block matters more, and the next run takes over the lock of a process that has ended.
            _LOG.warning("The lock %s/%s could not be removed: %s", store.url, LOCK, error)


def _release(held: HeldLock, created: Sequence[str]) -> None:
    if held.is_mine():
        held.store.delete(LOCK)
        for folder in created:
            held.store.delete_empty(folder)


def has_ended(store: Store, run: str) -> bool:
    """Whether the process of a run has certainly ended: it holds no lock, or it was on this host and has ended."""
    found = _read(store, LOCK)
    return found is None or found.run != run or _gone(found)


def _take(store: Store, draft: str, mine: Holder, *, steal: bool, overwrite: bool) -> None:
    try:
        store.publish(draft, LOCK)
    except FileExistsError:
        pass
    else:
        return
    found = _bytes(store, LOCK)
    if found is not None:
        try:
            theirs = _holder(store, LOCK, found)
        except OutputError:
            if not overwrite:
                raise
        else:
            same = bool(mine.run) and theirs.run == mine.run
            if not (_gone(theirs) or same or (steal and theirs.host != mine.host)):
                raise _held_by(store, theirs)
        _remove(store, found)
    try:
        store.publish(draft, LOCK)
    except FileExistsError as error:
        raise _held_by(store, _read(store, LOCK)) from error


def _remove(store: Store, stale: bytes) -> None:
    """Remove a stale lock. Of several processes that try, one succeeds; a fresh lock moved by mistake is put back."""
    aside = f"{LOCK}.{uuid.uuid4().hex}"
    try:
        store.publish(LOCK, aside)
    except FileNotFoundError:
        return
    if _bytes(store, aside) != stale:
        found = _read(store, aside)
        store.publish(aside, LOCK)
        raise _held_by(store, found)
    store.delete(aside)


def _sweep(store: Store) -> None:
    """Remove what processes left that died or came too late."""
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
            raise ValueError("no process id")
    except (ValueError, TypeError) as error:
        raise OutputError(
            f"{store.url}/{path} is not a lock of this software: it is damaged, or belongs to another program. If no "
            "run is writing there, delete that file and continue with `dtap-dask run JOB --resume`, or start again "
            "with --overwrite, which replaces it."
        ) from error
    return holder


def _gone(holder: Holder) -> bool:
    """Whether the holder has certainly ended: it ran on this host, and its number is free or another process's."""
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
    """The start of a process, in clock ticks since boot: field 22 of /proc/<pid>/stat (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _held_by(store: Store, theirs: Holder | None) -> OutputError:
    who = f"process {theirs.pid} on {theirs.host} since {theirs.since}" if theirs else "a process that just ended"
    run = f" ({theirs.run})" if theirs and theirs.run else ""
    return OutputError(
        f"Another run{run} is writing {store.url}: {who} holds {LOCK}. Wait until it has finished, or stop it; if it "
        "ran on another host and has certainly ended, continue with `dtap-dask run JOB --resume` (in Python "
        "resume=True)."
    )
