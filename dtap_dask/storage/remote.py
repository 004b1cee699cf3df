"""Files of any fsspec filesystem. Filesystems of this package rename atomically; others need a check and a move."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from dtap_dask.storage.below import LinkedFolder, ways_to
from dtap_dask.storage.files import FileInfo

# What fsspec itself takes as options of any filesystem.
FSSPEC_OPTIONS = frozenset(
    ("asynchronous", "listings_expiry_time", "loop", "max_paths", "skip_instance_cache", "use_listings_cache")
)
# Makes check and move one step for all threads of this process, the only users of a filesystem in memory.
_MOVING = threading.Lock()


# Keys under which filesystems report the version of a file's content; the first one present is used.
_VERSIONS = (
    *("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "modificationTime", "modified"),
    *("updated", "created"),
)


def _version(info: Mapping[str, Any]) -> str | None:
    key = next((key for key in _VERSIONS if info.get(key) is not None), None)
    if key is None:
        return None
    value = info[key]  # some filesystems give times of different types in listings and in `info`
    return f"{key}={value.timestamp() if isinstance(value, datetime) else value}"


def _info(path: str, info: Mapping[str, Any]) -> FileInfo:
    return FileInfo(path, info["size"], version=_version(info))


@runtime_checkable
class Renaming(Protocol):
    """A filesystem that can rename atomically."""

    def publish(self, source: str, target: str) -> None:
        """Rename a file. Raises FileExistsError if `target` exists."""

    def replace(self, source: str, target: str) -> None:
        """Rename a file, replacing an existing one."""


def reads_patterns(fs: AbstractFileSystem, path: str) -> bool:
    """Whether the filesystem's `rm` and `mv` would treat the path as a pattern and affect files of other names."""
    return has_magic(path) and not isinstance(fs, LocalFileSystem | Renaming)


def remove(fs: AbstractFileSystem, path: str, *, recursive: bool) -> None:
    """Remove the file or folder with exactly this name."""
    if not reads_patterns(fs, path):
        fs.rm(path, recursive=recursive)
    elif not fs.isdir(path):
        fs.rm_file(path)
    else:
        below = fs.find(path, withdirs=True, detail=True) if recursive else {}
        for name in sorted(below, reverse=True):  # the content of a folder before the folder
            if below[name]["type"] != "directory":
                fs.rm_file(name)
            elif name != path:
                _remove_folder(fs, name)
        _remove_folder(fs, path)


def _remove_folder(fs: AbstractFileSystem, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # on object stores a folder disappears with its last file
        fs.rmdir(path)


def _has_links(fs: AbstractFileSystem) -> bool:
    """Whether a filesystem can have symbolic links. HDFS (Hadoop disables them) and object stores cannot."""
    protocols = [fs.protocol] if isinstance(fs.protocol, str) else fs.protocol
    return not {"sftp", "ssh", "dir", "file", "local", "arrow_local"}.isdisjoint(protocols)


def _is_link(fs: AbstractFileSystem, path: str) -> bool:
    lstat = getattr(getattr(fs, "ftp", None), "lstat", None)  # of SFTP, whose `info` follows links
    try:
        if lstat is not None:
            return stat.S_ISLNK(lstat(path).st_mode)
        info: dict[str, Any] = fs.info(path)
    except FileNotFoundError:
        return False
    return bool(info.get("islink")) or info["type"] == "link"


class RemoteFiles:
    """`Files` on an fsspec filesystem. `root` is the store's folder; if it is None, links are followed."""

    def __init__(self, fs: AbstractFileSystem, root: str | None):
        self._fs, self._root = fs, root

    def walk(self, root: str, top: str, *, follow: bool = True) -> list[FileInfo]:
        if not self._fs.isdir(top) or (not follow and self._link_on(top)):
            return []
        start = len(root.rstrip("/")) + 1
        found: dict[str, dict[str, Any]] = self._fs.find(top, detail=True)
        return [
            _info(name[start:], info)
            for name, info in found.items()
            if info["type"] == "file" and (follow or not info.get("islink"))
        ]

    def is_file(self, path: str) -> bool:
        return bool(self._fs.isfile(path))

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(path))

    def size(self, path: str) -> int:
        return int(self._fs.size(path))

    def info(self, path: str) -> FileInfo:
        return _info(path, self._fs.info(path))

    def version(self, file: BinaryIO, path: str) -> str | None:
        """From the open file's own details if it has any, as on object stores; otherwise by another request."""
        known = getattr(file, "details", None)
        return _version(known if isinstance(known, Mapping) else self._fs.info(path))

    def open_input(self, path: str) -> BinaryIO:
        # fsspec's caches read ahead by up to megabytes; dtap_dask requests exactly what it needs, in large pieces.
        return self._open(path, "rb", cache_type="none")

    def open_output(self, path: str) -> BinaryIO:
        self._refuse_links(path)
        return self._open(path, "wb")

    def sync(self, file: BinaryIO) -> None:
        """Nothing to do: these stores make a file durable when it is closed."""

    def sync_folder(self, path: str) -> None:
        """Nothing to do: these stores keep names durable by themselves."""

    def make_folder(self, path: str) -> None:
        self._refuse_links(path)
        try:
            self._fs.makedirs(path, exist_ok=True)
        except FileExistsError as error:  # reserved for `publish`
            raise NotADirectoryError(errno.ENOTDIR, "a part of this path is a file", path) from error

    def _open(self, path: str, mode: str, **options: Any) -> BinaryIO:
        try:
            return cast("BinaryIO", self._fs.open(path, mode, **options))
        except FileExistsError as error:  # raised by fsspec's memory filesystem if a parent is a file
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error

    def publish(self, source: str, target: str) -> None:
        """Atomic if the filesystem is `Renaming`; otherwise only among the threads of this process."""
        self._refuse_links(source, target)
        if isinstance(self._fs, Renaming):
            self._fs.publish(source, target)
            return
        with _MOVING:
            if self._fs.exists(target):
                raise FileExistsError(errno.EEXIST, "already published", target)
            self._move(source, target)

    def replace(self, source: str, target: str) -> None:
        """Atomic if the filesystem is `Renaming`; otherwise the old file is overwritten, as on object stores."""
        self._refuse_links(source, target)
        if isinstance(self._fs, Renaming):
            self._fs.replace(source, target)
            return
        with _MOVING:
            if self._fs.isdir(target):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
            try:
                self._move(source, target)
            except FileExistsError:
                self._fs.rm_file(target)
                self._move(source, target)

    def move(self, source: str, target: str) -> None:
        self.replace(source, target)

    def delete(self, path: str) -> None:
        self._find_no_links(path)
        self._fs.rm_file(path)

    def delete_empty(self, path: str) -> None:
        self._find_no_links(path)
        self._fs.rmdir(path)

    def delete_tree(self, path: str) -> None:
        if self._fs.exists(path) and not self._link_on(path.rpartition("/")[0]):
            remove(self._fs, path, recursive=True)

    def _link_on(self, path: str) -> str | None:
        """The first symbolic link on the way from the root to a path, itself included; None without one."""
        if self._root is None or not _has_links(self._fs):
            return None
        return next((way for way in ways_to(self._root, path) if _is_link(self._fs, way)), None)

    def _refuse_links(self, *paths: str) -> None:
        for path in paths:
            link = self._link_on(path.rpartition("/")[0]) or self._link_on(path)
            if link is not None:
                raise LinkedFolder(link)

    def _find_no_links(self, path: str) -> None:
        if self._link_on(path.rpartition("/")[0]) is not None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _move(self, source: str, target: str) -> None:
        if reads_patterns(self._fs, source):
            self._fs.cp_file(source, target)
            self._fs.rm_file(source)
        else:
            self._fs.mv(source, target)
