"""Files of the operating system: durable by fsync, published by link(2), which never replaces."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import BinaryIO

from dtap_dask.storage.files import FileInfo

_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS)  # some mounts do not flush folders at all
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalFiles:
    """`Files` by system calls."""

    def walk(self, root: str, top: str) -> list[FileInfo]:
        found = []
        for folder, folders, names in os.walk(top, onerror=_unless_missing, followlinks=True):
            circles = [name for name in folders if _leads_back(top, os.path.join(folder, name))]
            folders[:] = [name for name in folders if name not in circles]  # os.walk goes into what is left here
            below = os.path.relpath(folder, root).replace(os.sep, "/")
            for name in (*names, *circles):
                full = os.path.join(folder, name)
                found_here = None if name in circles else _stat(full)
                place = name if below == "." else f"{below}/{name}"
                if found_here is not None:
                    found.append(_info(place, found_here))
                elif os.path.islink(full):
                    found.append(FileInfo(place, 0, broken=True))
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
        return open(path, "wb")

    def sync(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())

    def make_folder(self, path: str) -> None:
        try:
            os.makedirs(path, exist_ok=True)
        except FileExistsError as error:  # which is for `publish` to say
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error

    def publish(self, source: str, target: str) -> None:
        """Atomic against every other writer; on a mount without hard links a check comes as near as it can."""
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.exists(target):
                raise FileExistsError(errno.EEXIST, "already published", target) from error
            os.rename(source, target)
        else:
            os.unlink(source)
        _sync_folder(target)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)
        _sync_folder(target)

    def delete(self, path: str) -> None:
        os.unlink(path)

    def delete_empty(self, path: str) -> None:
        os.rmdir(path)

    def delete_tree(self, path: str) -> None:
        mode = _mode(path)
        if os.path.islink(path):
            os.unlink(path)  # what it leads to is not below
        elif mode is not None and stat.S_ISDIR(mode):
            shutil.rmtree(path)
        elif mode is not None:
            os.unlink(path)


def _mode(path: str) -> int | None:
    """Kind and permissions of what a path leads to; None where that is nothing (os.path says so of any failure)."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def _info(path: str, found: os.stat_result) -> FileInfo:
    return FileInfo(path, found.st_size, version=f"mtime={found.st_mtime_ns}")


def _stat(path: str) -> os.stat_result | None:
    """What a path leads to; None for a link that leads nowhere, and a file that is gone meanwhile."""
    try:
        return os.stat(path)
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


def _sync_folder(path: str) -> None:
    """Make a rename durable: the name lives in the folder, which is flushed on its own (POSIX fsync(2))."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(folder)
