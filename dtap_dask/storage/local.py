"""Files of the operating system: durable by fsync, published by link(2), which never replaces.

Operations that change files go through open folders (below.py), so that they stay below the store's root whatever
links it contains. Reading follows links, as programs usually do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from typing import BinaryIO

from dtap_dask.storage import below
from dtap_dask.storage.files import FileInfo

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class LocalFiles:
    """`Files` on top of system calls; `root` is the store's folder."""

    def __init__(self, root: str):
        self._root = root

    def walk(self, root: str, top: str, *, follow: bool = True) -> list[FileInfo]:
        if not follow:
            return self._own(root, top)
        found = []
        for folder, folders, names in os.walk(top, onerror=_unless_missing, followlinks=True):
            circles = [name for name in folders if _leads_back(top, os.path.join(folder, name))]
            folders[:] = [
                name for name in folders if name not in circles
            ]  # os.walk enters the folders left in this list
            prefix = _prefix(root, folder)
            for name in (*names, *circles):
                full = os.path.join(folder, name)
                found_here = None if name in circles else _stat(full)
                if found_here is not None:
                    found.append(_info(prefix + name, found_here))
                elif os.path.islink(full):
                    found.append(FileInfo(prefix + name, 0, broken=True))
        return found

    def _own(self, root: str, top: str) -> list[FileInfo]:
        found = []
        if not below.leads_through_link(root, top):
            for folder, _, names in os.walk(top, onerror=_unless_missing):
                prefix = _prefix(root, folder)
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # deleted in the meantime
                        status = os.lstat(os.path.join(folder, name))
                        if stat.S_ISREG(status.st_mode):
                            found.append(_info(prefix + name, status))
        return found

    def is_file(self, path: str) -> bool:
        mode = _mode(path)
        return mode is not None and stat.S_ISREG(mode)

    def exists(self, path: str) -> bool:
        return _mode(path) is not None

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def info(self, path: str) -> FileInfo:
        return _info(path, os.stat(path))

    def version(self, file: BinaryIO, path: str) -> str | None:
        return _info(path, os.fstat(file.fileno())).version

    def open_input(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def open_output(self, path: str) -> BinaryIO:
        with self._folder_of(path) as (folder, name):
            try:
                file = os.open(name, _NEW, 0o666, dir_fd=folder)
            except FileExistsError:
                os.unlink(name, dir_fd=folder)  # writing would follow a link, and change the file under its other names
                file = os.open(name, _NEW, 0o666, dir_fd=folder)
        return os.fdopen(file, "wb")

    def sync(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())

    def sync_folder(self, path: str) -> None:
        nothing = (FileNotFoundError, NotADirectoryError, below.LinkedFolder)
        with contextlib.suppress(*nothing), below.opened(self._root, self._parts(path)) as folder:
            below.sync(folder)

    def make_folder(self, path: str) -> None:
        parts = self._parts(path)
        try:
            with below.opened(self._root, parts, make=True):
                return
        except FileNotFoundError:
            below.make_root(self._root)
        with below.opened(self._root, parts, make=True):
            pass

    def publish(self, source: str, target: str) -> None:
        """Atomic, except on mounts without hard links: there it is a check followed by a rename."""
        with self._folder_of(source) as (old, draft), self._folder_of(target) as (new, name):
            try:
                os.link(draft, name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if _is_there(new, name):
                    raise FileExistsError(errno.EEXIST, "already published", target) from error
                os.rename(draft, name, src_dir_fd=old, dst_dir_fd=new)
            else:
                os.unlink(draft, dir_fd=old)
            below.sync(new)

    def replace(self, source: str, target: str) -> None:
        self.move(source, target)
        self.sync_folder(target.rpartition("/")[0])

    def move(self, source: str, target: str) -> None:
        with self._folder_of(source) as (old, draft), self._folder_of(target) as (new, name):
            os.replace(draft, name, src_dir_fd=old, dst_dir_fd=new)

    def delete(self, path: str) -> None:
        with self._unlinked(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def delete_empty(self, path: str) -> None:
        with self._unlinked(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def delete_tree(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._unlinked(path) as (folder, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)  # a link's target is not below the root

    def _parts(self, path: str) -> list[str]:
        return below.parts_of(self._root, path)

    @contextlib.contextmanager
    def _folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """The open folder that holds a path, and the path's name in it."""
        parts = self._parts(path)
        root = self._root if parts else os.path.dirname(self._root.rstrip("/")) or "/"
        with below.opened(root, parts[:-1]) as folder:
            yield folder, parts[-1] if parts else os.path.basename(self._root.rstrip("/"))

    @contextlib.contextmanager
    def _unlinked(self, path: str) -> Iterator[tuple[int, str]]:
        """As `_folder_of`, for paths to delete. Raises FileNotFoundError behind a link: that is not in this store."""
        with contextlib.ExitStack() as stack:
            try:
                place = stack.enter_context(self._folder_of(path))
            except below.LinkedFolder as error:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            yield place


def _prefix(root: str, folder: str) -> str:
    """The prefix that makes names in a folder relative to the root."""
    around = os.path.relpath(folder, root).replace(os.sep, "/")
    return "" if around == "." else f"{around}/"


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _mode(path: str) -> int | None:
    """Type and permissions of a path's target; None if it is missing. (os.path reports any failure as missing.)"""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def _info(path: str, found: os.stat_result) -> FileInfo:
    return FileInfo(path, found.st_size, version=f"mtime={found.st_mtime_ns}")


def _stat(path: str) -> os.stat_result | None:
    """The status of a path's target; None for a broken link, and for a file deleted in the meantime."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return None


def _leads_back(top: str, path: str) -> bool:
    """Whether a folder below `top` is a link to one of its own parents, directly or through other links."""
    if not os.path.islink(path):
        return False
    target, around = os.path.realpath(path), path
    while len(around) > len(top):
        around = os.path.dirname(around)
        if f"{os.path.realpath(around)}/".startswith(f"{target}/"):
            return True
    return False


def _unless_missing(error: OSError) -> None:
    """Raise an error of os.walk, unless the folder is missing and so contains no files."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
