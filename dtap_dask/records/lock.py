"""One run at a time in an output folder: a lock file that names its holder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dtap_dask.errors import OutputError
from dtap_dask.storage import Store

_LOCK = "_run/lock"


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


@dataclass(frozen=True)
class Held:
    """A lock that this process has taken."""

    store: Store
    holder: Holder

    def is_mine(self) -> bool:
        """Whether nobody has taken it over since."""
        return _read(self.store, _LOCK) == self.holder


@contextlib.contextmanager
def lock(store: Store, *, steal: bool = False, run: str = "") -> Iterator[Held]:
    """Hold `_run/lock` for the length of a block: it keeps every other run, of any job, out of this folder.

    The lock of a process that is gone from this host is taken over; that of another host only with `steal`, as
    nobody can tell from here whether it lives. That of the same `run` is taken over from wherever it is: whoever
    begins a run again knows that its earlier attempt is gone. OutputError names a holder that lives, or may live.
    Folders that this block made and left empty are removed.
    """
    made = [folder for folder in ("_run", "") if not store.exists(folder)]
    path = _LOCK
    mine = Holder(socket.gethostname(), os.getpid(), _born(os.getpid()), _now(), uuid.uuid4().hex, run)
    draft = f"{path}.{mine.token}"
    try:
        with store.create(draft) as file:
            file.write(json.dumps(asdict(mine)).encode())
        _take(store, draft, mine, steal)
    except OSError as error:  # whoever got the lock a moment ago has swept our draft away, maybe while it was written
        if error.errno not in (errno.ENOENT, errno.ESTALE, errno.EEXIST):
            raise
        raise _held(store, path, _read(store, path)) from error
    finally:
        store.delete(draft)
    _sweep(store, path)
    try:
        yield Held(store, mine)
    finally:
        if _read(store, path) == mine:
            store.delete(path)
            for folder in made:
                store.delete_empty(folder)


def left_behind(store: Store, run: str) -> bool:
    """Whether the process of a run is surely gone: it holds no lock, or did so on this host and has ended."""
    found = _read(store, _LOCK)
    return found is None or found.run != run or _gone(found)


def _take(store: Store, draft: str, mine: Holder, steal: bool) -> None:
    path = _LOCK
    try:
        store.publish(draft, path)
    except FileExistsError:
        pass
    else:
        return
    theirs = _read(store, path)
    if theirs is not None:
        same = bool(mine.run) and theirs.run == mine.run
        if not (_gone(theirs) or same or (steal and theirs.host != mine.host)):
            raise _held(store, path, theirs)
        _remove(store, path, theirs)
    try:
        store.publish(draft, path)
    except FileExistsError as error:
        raise _held(store, path, _read(store, path)) from error


def _remove(store: Store, path: str, stale: Holder) -> None:
    """Take away a stale lock. Of several processes that try, one gets it; a fresh lock moved by mistake goes back."""
    aside = f"{path}.{uuid.uuid4().hex}"
    try:
        store.publish(path, aside)
    except FileNotFoundError:
        return
    found = _read(store, aside)
    if found != stale:
        store.publish(aside, path)
        raise _held(store, path, found)
    store.delete(aside)


def _sweep(store: Store, path: str) -> None:
    """Remove the drafts of processes that died, or that come too late."""
    for file in store.list_files(path.rpartition("/")[0]):
        if file.path.startswith(f"{path}."):
            store.delete(file.path)


def _read(store: Store, path: str) -> Holder | None:
    try:
        return Holder(**json.loads(store.read_bytes(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise OutputError(
            f"{store.url}/{path} is no lock of this software ({error}). If no run is writing there, delete that file, "
            "then go on with `dtap-dask run JOB --resume`."
        ) from error


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
