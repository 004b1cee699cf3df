"""One folder on one filesystem: list, read with counting, write durably, publish atomically."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dtap_dask.errors import StorageError
from dtap_dask.storage import dtap
from dtap_dask.storage.counting import Counters, CountingReader, CountingWriter


@dataclass(frozen=True)
class FileInfo:
    """One file: its path relative to the store's root, '/'-separated, and its size in bytes.

    `broken` is a symbolic link that leads nowhere or back to a folder around it; its size is 0.
    """

    path: str
    size: int
    broken: bool = False


def open_store(url: str, settings: Mapping[str, Any] | None = None) -> Store:
    """The store of the folder at `url` (a path, dtap://, or any fsspec URL), which need not exist yet.

    `settings` is the job's `storage` section: `dtap` says what taps stand for, any other key gives fsspec's
    options for the protocol of that name. Raises StorageError where the URL cannot be understood.
    """
    return Store(url, settings)


class Store:
    """A folder on a filesystem; every path a method takes is relative to it.

    `url` is as written, for messages; `address` and `settings` mean the same place in any process, whatever its
    current folder and environment: relative paths and what the environment maps are resolved here, and travel so.
    """

    def __init__(self, url: str, settings: Mapping[str, Any] | None = None):
        self.url = url.rstrip("/") if url.strip("/") else url
        self.settings = dtap.resolved(settings or {})
        self.counters = Counters()
        target = dtap.resolve(url, self.settings) if url.startswith("dtap://") else _absolute(url)
        protocol = target.split("://", 1)[0] if "://" in target else "file"
        try:
            options = {} if protocol == "file" else {"use_listings_cache": False, **(self.settings.get(protocol) or {})}
            self._fs, self.root = fsspec.core.url_to_fs(target, **options)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"{url} cannot be opened: {error}. Check the part before '://' and install the package it needs."
            ) from error
        self._local = isinstance(self._fs, LocalFileSystem)
        self.address = self.url if "://" in url else self.root

    def __reduce__(self) -> tuple[type[Store], tuple[str, dict[str, Any]]]:
        return type(self), (self.address, self.settings)

    def same_filesystem(self, other: Store) -> bool:
        """Whether both stores lie on one filesystem, so that their roots can be compared."""
        return type(self._fs) is type(other._fs) and self._fs.storage_options == other._fs.storage_options

    def list_files(self, path: str = "") -> list[FileInfo]:
        """Every file below `path`, hidden and broken ones too, sorted by path; empty when there is no such folder.

        Files that are deleted while the listing goes on are left out.
        """
        with self._speaking("list", path):
            found = self._walk_local(path) if self._local else self._walk(path)
        return sorted(found, key=lambda info: info.path)

    def _walk_local(self, path: str) -> list[FileInfo]:
        found = []
        top = self._full(path)
        for folder, folders, names in os.walk(top, onerror=_unless_missing, followlinks=True):
            circles = [name for name in folders if _leads_back(top, os.path.join(folder, name))]
            folders[:] = [name for name in folders if name not in circles]  # os.walk goes into what is left here
            for name in (*names, *circles):
                full = os.path.join(folder, name)
                size = None if name in circles else _size(full)
                if size is not None or os.path.islink(full):
                    place = os.path.relpath(full, self.root).replace(os.sep, "/")
                    found.append(FileInfo(place, size or 0, broken=size is None))
        return found

    def _walk(self, path: str) -> list[FileInfo]:
        start = len(self.root.rstrip("/")) + 1
        full = self._full(path)
        if not self._fs.isdir(full):
            return []
        found = self._fs.find(full, detail=True)
        return [FileInfo(name[start:], info["size"]) for name, info in found.items() if info["type"] == "file"]

    def is_file(self, path: str) -> bool:
        """Whether `path` is a file."""
        with self._speaking("look at", path):
            return bool(self._fs.isfile(self._full(path)))

    def exists(self, path: str = "") -> bool:
        """Whether there is a file or folder at `path`."""
        with self._speaking("look at", path):
            return bool(self._fs.exists(self._full(path)))

    def size(self, path: str) -> int:
        """The size of a file in bytes; FileNotFoundError where there is none."""
        with self._speaking("look at", path):
            return int(self._fs.size(self._full(path)))

    def open_input(self, path: str) -> BinaryIO:
        """The file at `path`, seekable, its reads counted in `counters`. FileNotFoundError where there is none."""
        with self._speaking("open", path):
            file = open(self._full(path), "rb") if self._local else self._fs.open(self._full(path), "rb")
        return cast("BinaryIO", CountingReader(file, self.counters))

    def read_bytes(self, path: str) -> bytes:
        """The whole file at `path`."""
        with self.open_input(path) as file, self._speaking("read", path):
            return file.read()

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[CountingWriter]:
        """A new file to write to. It is on stable storage when the block ends; an exception leaves no file."""
        full = self._full(path)
        with self._speaking("write", path):
            self._make_parent(full)
            file = open(full, "wb") if self._local else self._fs.open(full, "wb")
            try:
                yield CountingWriter(file, self.counters)
                if self._local:
                    file.flush()
                    os.fsync(file.fileno())
                file.close()
            except BaseException:
                with contextlib.suppress(OSError):
                    file.close()
                self.delete(path)
                raise

    def publish(self, src: str, dst: str) -> None:
        """Give the finished file `src` the name `dst` in one step, never replacing: FileExistsError if it is taken.

        On a local filesystem the step is atomic against every other writer. Elsewhere the check and the rename
        are two calls, so of two writers at the same instant the later may win; both hold the same bytes here.
        """
        source, target = self._full(src), self._full(dst)
        with self._speaking("publish", dst):
            self._make_parent(target)
            if self._local:
                _rename_unless_taken(source, target)
                _sync_folder(target)
            elif self._fs.exists(target):
                raise FileExistsError(errno.EEXIST, "already published", target)
            else:
                self._fs.mv(source, target)

    def replace(self, src: str, dst: str) -> None:
        """Give the finished file `src` the name `dst`, replacing what was there; atomic where the store can."""
        source, target = self._full(src), self._full(dst)
        with self._speaking("replace", dst):
            self._make_parent(target)
            if self._local:
                os.replace(source, target)
                _sync_folder(target)
            else:
                if self._fs.exists(target):
                    self._fs.rm_file(target)
                self._fs.mv(source, target)

    def write_atomic(self, path: str, data: bytes) -> None:
        """Write a small file so that a reader sees the old bytes or the new ones, nothing between."""
        folder, _, name = path.rpartition("/")
        draft = f"{folder}/.{name}.{uuid.uuid4().hex}" if folder else f".{name}.{uuid.uuid4().hex}"
        with self.create(draft) as file:
            file.write(data)
        self.replace(draft, path)

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is fine."""
        with self._speaking("delete", path), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def delete_tree(self, path: str) -> None:
        """Remove a folder and all below it, or a file; a missing one is fine."""
        full = self._full(path)
        with self._speaking("delete", path):
            if self._local and os.path.isdir(full):
                shutil.rmtree(full)
            elif self._fs.exists(full):
                self._fs.rm(full, recursive=True)

    def local_path(self, path: str = "") -> str | None:
        """The path for other programs to open, when the store is on a local filesystem; else None."""
        return self._full(path) if self._local else None

    def _full(self, path: str) -> str:
        if ".." in path.split("/"):
            raise StorageError(f"{path!r} leaves the folder {self.url}: paths with '..' are refused.")
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    def _make_parent(self, full: str) -> None:
        try:
            self._fs.makedirs(self._fs._parent(full), exist_ok=True)
        except FileExistsError as error:  # which is for `publish` to say
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), full) from error

    @contextlib.contextmanager
    def _speaking(self, verb: str, path: str) -> Iterator[None]:
        """Turn the failures that a user can mend into one paragraph; missing and existing files stay as they are."""
        place = f"{self.url}/{path}" if path else self.url
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except PermissionError as error:
            raise StorageError(
                f"No permission to {verb} {place}. Ask for access, or check which user runs this process."
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(f"No space left to {verb} {place}. Free some, then go on with --resume.") from error
            if error.errno == errno.EROFS:
                raise StorageError(f"{place} is read-only. Choose another output.path.") from error
            if _may_pass(error):
                raise  # whoever called may try again
            remedy = _REMEDIES.get(error.errno or 0, "Check the path and its filesystem, then run again.")
            raise StorageError(f"Cannot {verb} {place}: {error.strerror}. {remedy}") from error


_PASSING = (  # ConnectionError and TimeoutError are passing by themselves
    *(errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.EPIPE, errno.ENOTCONN),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
_REMEDIES = {
    errno.ENOTDIR: "A part of this path is a file where a folder is meant: correct the path.",
    errno.EISDIR: "This is a folder where a file is meant: correct the path.",
    errno.ELOOP: "Symbolic links on this path lead in a circle: repair or remove them.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
    errno.EMFILE: "Raise the limit of open files, `ulimit -n`, and run again.",
}


def _may_pass(error: OSError) -> bool:
    """Whether trying again may help; so it may where a filesystem's client does not say what is wrong."""
    return error.errno is None or error.errno in _PASSING or isinstance(error, ConnectionError | TimeoutError)


def _size(path: str) -> int | None:
    """The size of a file in bytes; None for a link that leads nowhere, and a file that is gone meanwhile."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return None


def _leads_back(top: str, path: str) -> bool:
    """Whether a folder below `top` is a link to a folder that it lies in, by name or through other links."""
    if not os.path.islink(path):
        return False
    target, around = os.path.realpath(path), path
    while len(around) > len(top):
        around = os.path.dirname(around)
        if f"{os.path.realpath(around)}/".startswith(f"{target}/"):
            return True
    return False


def _unless_missing(error: OSError) -> None:
    """os.walk passes errors here: a folder that is not there holds no files, any other failure is one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _rename_unless_taken(source: str, target: str) -> None:
    """rename(2) replaces, link(2) does not; on a mount without hard links a check comes as near as it can."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if os.path.exists(target):
            raise FileExistsError(errno.EEXIST, "already published", target) from error
        os.rename(source, target)
    else:
        os.unlink(source)


def _absolute(url: str) -> str:
    """A local path without `~`, `.` and `..`; a URL as it is."""
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))


def _sync_folder(path: str) -> None:
    """Make a rename durable: the name lives in the folder, which is flushed on its own (POSIX fsync(2))."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
