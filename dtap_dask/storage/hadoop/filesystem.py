"""The base class of the fsspec filesystems for Hadoop, independent of the client that they use."""

from __future__ import annotations

import errno
import os
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from fsspec import AbstractFileSystem
from fsspec.compression import compr as compressions
from fsspec.core import get_compression, has_magic

from dtap_dask.storage.hadoop.handles import (
    BufferedRange,
    CompressedWriter,
    RangeReader,
    Sink,
    TextWriter,
    Writer,
    reader,
)

PIECE = 4 << 20  # bytes copied at a time
LISTERS = 8  # folders listed at a time


class HadoopFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """fsspec's interface on top of a few client operations, which raise OSErrors with errno and filename.

    Paths start with '/'. `publish` and `replace` rename in one step; `publish` never overwrites. Every failure other
    than a missing path raises, also in exists, isfile, isdir and find.
    """

    root_marker = "/"
    sep = "/"

    # Operations of the client; their paths have no protocol

    @abstractmethod
    def _info(self, path: str) -> dict[str, Any]:
        """name, size, type ('file' or 'directory') and mtime of a path. Raises FileNotFoundError."""

    @abstractmethod
    def _children(self, path: str) -> list[dict[str, Any]]:
        """The entries of a folder, or the single entry of a file. Raises FileNotFoundError."""

    @abstractmethod
    def _fetcher(self, path: str) -> tuple[Callable[[int, int], bytes], int]:
        """A thread-safe function from (offset, size) within a file to its bytes, and the file's size."""

    @abstractmethod
    def _create(self, path: str, overwrite: bool, **options: Any) -> Sink:
        """Create a file and missing parent folders. Raises FileExistsError if it exists, unless `overwrite`."""

    @abstractmethod
    def _append(self, path: str) -> Sink:
        """Open an existing file at its end. Raises FileNotFoundError."""

    @abstractmethod
    def _delete(self, path: str, recursive: bool) -> bool:
        """Remove a path; False if it is missing. Raises OSError with ENOTEMPTY for a folder that is not empty."""

    @abstractmethod
    def _rename(self, source: str, target: str, overwrite: bool) -> None:
        """Rename in one step. Raises FileExistsError if `target` exists, unless `overwrite`."""

    @abstractmethod
    def _mkdirs(self, path: str, permission: int, parents: bool) -> None:
        """Create a folder; an existing one is fine. Raises FileExistsError if the path is a file."""

    # Inspecting

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """name, size in bytes, type ('file' or 'directory'), mtime in seconds since 1970, and keys of the client."""
        return self._info(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """A folder's entries sorted by name, or the file itself; one call to the NameNode per 1000 entries."""
        path = self._strip_protocol(path)
        found = sorted(self._children(path), key=lambda entry: cast("str", entry["name"]))
        return found if detail else [entry["name"] for entry in found]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        """Every file below `path` sorted by name, with `withdirs` folders too; empty if nothing exists there.

        Makes one call to the NameNode per folder, and per 1000 entries in it. Folders deleted in the meantime are left
        out; any other failure raises, whereas fsspec's own `find` ignores it.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        found = {entry["name"]: entry for entry in self._below(path, maxdepth) if withdirs or entry["type"] == "file"}
        if withdirs and path not in found and self.isdir(path):
            found[path] = self.info(path)
        ordered = {name: found[name] for name in sorted(found)}
        return ordered if detail else list(ordered)

    def _below(self, path: str, depth: int | None) -> Iterator[dict[str, Any]]:
        folders = [path]
        with ThreadPoolExecutor(LISTERS) as pool:
            while folders and depth != 0:
                lists = (
                    pool.map(self._children_if_there, folders)
                    if len(folders) > 1
                    else [self._children_if_there(folders[0])]
                )
                found = [entry for entries in lists for entry in entries]
                yield from found
                folders = [entry["name"] for entry in found if entry["type"] == "directory"]
                depth = None if depth is None else depth - 1

    def _children_if_there(self, path: str) -> list[dict[str, Any]]:
        try:
            return self._children(path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether the path exists. Every failure other than a missing path raises."""
        return self._type(path) is not None

    def isfile(self, path: str) -> bool:
        """Whether the path is a file. Every failure other than a missing path raises."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """Whether the path is a folder. Every failure other than a missing path raises."""
        return self._type(path) == "directory"

    def _type(self, path: str) -> str | None:
        try:
            return cast("str", self.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def modified(self, path: str) -> datetime:
        """The time of a file's last change, in UTC."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def created(self, path: str) -> datetime:
        """Raises NotImplementedError: HDFS does not record creation times."""
        raise NotImplementedError("HDFS keeps no time of creation; modified() says when a file was last written.")

    # Reading and writing

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a file in mode r, w, x or a. If a `with` block raises, the file is removed (but appended data stays).

        With `cache_type="none"` exactly the requested ranges are read; otherwise `block_size` bytes (1 MiB) are read
        ahead. Other arguments are passed to `_create`.
        """
        if "b" in mode and (compression is None or "r" in mode):
            return super().open(path, mode, block_size, cache_options, compression, **kwargs)
        if "b" in mode:
            inner = self.open(path, mode, block_size, cache_options, **kwargs)
            outer = compressions[get_compression(path, compression)]
            return CompressedWriter(outer(inner, mode=mode[0]), inner) if outer else inner
        text = {key: kwargs.pop(key) for key in ("encoding", "errors", "newline") if key in kwargs}
        binary = self.open(path, mode.replace("t", "") + "b", block_size, cache_options, compression, **kwargs)
        return TextWriter(binary, **text)

    def _open(  # noqa: PLR0917 (fsspec's signature)
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str | None = None,
        **kwargs: Any,
    ) -> RangeReader | BufferedRange | Writer:
        path = self._strip_protocol(path)
        if mode == "rb":
            return reader(*self._fetcher(path), block_size, cache_type)
        if mode == "ab" and autocommit:
            size = self._size(path)
            if size is not None:
                sink = self._append(path)
                return Writer(sink, sink.close, mode=mode, start=size)  # if it stayed open, it would read as empty
            return self._writer(path, "xb", autocommit, **kwargs)
        if mode not in ("wb", "xb"):
            refused = "in a transaction" if mode == "ab" else "here, only rb, wb, xb and ab are"
            raise ValueError(f"Mode {mode!r} is not supported {refused}.")
        return self._writer(path, mode, autocommit, **kwargs)

    def _writer(self, path: str, mode: str, autocommit: bool, **options: Any) -> Writer:
        if autocommit:
            sink = self._create(path, overwrite=mode == "wb", **options)
            return Writer(sink, partial(self._abandon, path), mode=mode)
        if mode == "xb" and self.exists(path):
            raise self._error(FileExistsError, errno.EEXIST, path)
        draft = self._draft(path)
        sink = self._create(draft, overwrite=False, **options)
        rename = partial(self._rename, draft, path, overwrite=mode == "wb")
        return Writer(sink, partial(self._abandon, draft), rename, mode=mode)

    def _abandon(self, path: str) -> None:
        """Remove what a failed write has left, if anything."""
        self._delete(path, recursive=False)

    def _draft(self, path: str) -> str:
        return f"{self._parent(path).rstrip('/')}/.{uuid.uuid4().hex}"

    def _size(self, path: str) -> int | None:
        try:
            return cast("int", self._info(path)["size"])
        except FileNotFoundError:
            return None

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """A file's bytes, or those of a range; negative bounds count from the end of the file."""
        with self.open(path, "rb", cache_type="none") as file:
            first, last, _ = slice(start, end).indices(file.size)
            file.seek(first)
            return cast("bytes", file.read(max(0, last - first)))

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Create an empty file; with `truncate` an existing one is emptied."""
        if truncate or not self.exists(path):
            self.open(path, "wb", **kwargs).close()

    # Changing

    def mkdir(self, path: str, create_parents: bool = True, permission: int = 0o755, **kwargs: Any) -> None:
        """Create a folder. Raises FileExistsError if the path exists, FileNotFoundError if the parent does not."""
        path = self._strip_protocol(path)
        if self.exists(path):
            raise self._error(FileExistsError, errno.EEXIST, path)
        self._mkdirs(path, permission, create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Create a folder and its parents, in one call with `exist_ok`. Raises FileExistsError for a file."""
        if exist_ok:
            self._mkdirs(self._strip_protocol(path), 0o755, parents=True)
        else:
            self.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder. Raises NotADirectoryError for a file, OSError with ENOTEMPTY if it is not empty."""
        path = self._strip_protocol(path)
        if self.info(path)["type"] != "directory":
            raise self._error(NotADirectoryError, errno.ENOTDIR, path)
        self._delete(path, recursive=False)

    def rm_file(self, path: str) -> None:
        """Remove a file. Raises FileNotFoundError if it is missing, IsADirectoryError for a folder."""
        path = self._strip_protocol(path)
        if self.info(path)["type"] == "directory":
            raise self._error(IsADirectoryError, errno.EISDIR, path)
        if not self._delete(path, recursive=False):
            raise self._error(FileNotFoundError, errno.ENOENT, path)

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove a path or each path of a list, with `*` as in glob. A whole tree takes one call.

        Raises FileNotFoundError for a missing path, OSError with ENOTEMPTY for a folder that is not empty, unless
        `recursive`.
        """
        if maxdepth is not None:
            raise ValueError("maxdepth is not supported: HDFS deletes a tree at once.")
        for one in [path] if isinstance(path, str) else path:
            name = self._strip_protocol(one)
            for each in self._matching(name):
                if each == "/":
                    raise PermissionError(errno.EPERM, "The root of HDFS cannot be removed", self.url)
                if not self._delete(each, recursive):
                    raise self._error(FileNotFoundError, errno.ENOENT, each)

    def _matching(self, path: str) -> list[str]:
        """The paths that match `path`; the path itself if it exists or is not a pattern."""
        if not has_magic(path) or self.exists(path):
            return [path]
        found = self.glob(path)
        if not found:
            raise self._error(FileNotFoundError, errno.ENOENT, path)
        return cast("list[str]", found)

    def mv(self, path1: str, path2: str, overwrite: bool = False, **kwargs: Any) -> None:
        """Rename a file or folder in one step. Raises FileExistsError if `path2` exists, unless `overwrite`."""
        self._rename(self._strip_protocol(path1), self._strip_protocol(path2), overwrite)

    def publish(self, src: str, dst: str) -> None:
        """Rename `src` to `dst` in one step, never overwriting. Raises FileExistsError if `dst` exists."""
        self.mv(src, dst)

    def replace(self, src: str, dst: str) -> None:
        """Rename `src` to `dst` in one step, replacing an existing file."""
        self.mv(src, dst, overwrite=True)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file through this process; an existing target is replaced once the copy is complete.

        For a folder, only the folder itself is created.
        """
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(source):
            self.makedirs(target, exist_ok=True)
            return
        draft = self._draft(target)
        with self.open(source, "rb", cache_type="none") as file, self.open(draft, "wb") as copy:
            while piece := file.read(PIECE):
                copy.write(piece)
        try:
            self.replace(draft, target)
        except BaseException:
            self._delete(draft, recursive=False)
            raise

    def _error(self, kind: type[OSError], number: int, path: str) -> OSError:
        return kind(number, os.strerror(number), self.unstrip_protocol(path))
