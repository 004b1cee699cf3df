"""Folders below a root, opened one name at a time: a symbolic link among them is never followed.

The root itself and the folders above it may be links, as the user has chosen that path. Below it a link could lead
anywhere, and files written, replaced or deleted through it would be outside the store.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from dtap_dask.errors import StorageError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS)  # some mounts cannot flush folders


class LinkedFolder(StorageError):
    """A path contains a symbolic link below the root."""

    def __init__(self, path: str):
        super().__init__(
            f"{path} is a symbolic link. Nothing is written, replaced or deleted through links below an output "
            "folder: put a real folder or file in its place, or give the folder that it leads to as the output."
        )


def parts_of(root: str, path: str) -> list[str]:
    """The names between the root and a path below it; empty for the root itself."""
    return [part for part in path[len(root.rstrip("/")) :].split("/") if part]


def ways_to(root: str, path: str) -> Iterator[str]:
    """The path of each folder between the root and a path below it, and the path itself at the end."""
    way = root.rstrip("/")
    for part in parts_of(root, path):
        way = f"{way}/{part}" if way or root else part
        yield way


@contextlib.contextmanager
def opened(root: str, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """The descriptor of a folder below `root`; with `make`, missing folders below it are created.

    Raises LinkedFolder if one of the names is a symbolic link, and the OSErrors of open(2).
    """
    folder = os.open(root, _FOLDER)
    try:
        for count, part in enumerate(parts):
            below = _open(folder, part, "/".join((root.rstrip("/"), *parts[: count + 1])), make)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _open(folder: int, name: str, shown: str, make: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and is_link(folder, name):
            raise LinkedFolder(shown) from error
        raise
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.mkdir(name, dir_fd=folder)
    return _open(folder, name, shown, False)


def is_link(folder: int, name: str) -> bool:
    """Whether a name in an open folder is a symbolic link."""
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def leads_through_link(root: str, path: str) -> bool:
    """Whether a folder, or a folder between it and the root, is a symbolic link."""
    return any(map(os.path.islink, ways_to(root, path)))


def make_root(path: str) -> None:
    """Create a root and its parents, durably. Raises NotADirectoryError if one of them is a file."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path) or "/"
    make_root(parent)
    try:
        os.mkdir(path)
    except FileExistsError as error:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
    with (
        contextlib.suppress(PermissionError),
        opened(parent, ()) as folder,
    ):  # it may be allowed to create folders but not to open the parent
        sync(folder)


def sync(folder: int) -> None:
    """Put the names in an open folder on stable storage. They need their own fsync, see fsync(2)."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
