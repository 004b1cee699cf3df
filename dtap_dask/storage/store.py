"""One folder on one filesystem: list it, count reads, write durably, publish atomically."""

from __future__ import annotations

import contextlib
import errno
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO, TypeVar, cast

from fsspec.implementations.local import LocalFileSystem

from dtap_dask.errors import StorageError
from dtap_dask.storage.counting import Counters, CountingReader, CountingWriter
from dtap_dask.storage.files import FileInfo, Files
from dtap_dask.storage.local import LocalFiles
from dtap_dask.storage.locations import locate
from dtap_dask.storage.os_errors import explaining
from dtap_dask.storage.remote import RemoteFiles

WRITING = 16  # small files written at a time
T = TypeVar("T")
R = TypeVar("R")


def open_store(url: str, settings: Mapping[str, Any] | None = None) -> Store:
    """The store of the folder at `url` (a path, dtap://, hdfs://, or any fsspec URL), which need not exist yet.

    `settings` is the job's `storage` section: `dtap` defines the taps, any other key holds the options of the protocol
    of that name. Raises StorageError if the URL is invalid or its filesystem cannot be opened.
    """
    return Store(url, settings)


class Store:
    """A folder on a filesystem. All methods take paths relative to it.

    `url` is the URL as given, for messages; `way` describes how it is reached. `address` and `settings` lead to the
    same folder in any process, whatever its current folder and environment; they are what is pickled.
    """

    def __init__(self, url: str, settings: Mapping[str, Any] | None = None):
        self.url = url.rstrip("/") if url.strip("/") else url
        self.counters = Counters()
        location = locate(url, settings or {})
        self.root, self.way, self.settings = location.root, location.way, dict(location.settings)
        self._fs = location.fs
        self._local = isinstance(location.fs, LocalFileSystem)
        self._files: Files = LocalFiles(self.root) if self._local else RemoteFiles(location.fs, self.root)
        self.address = self.url if "://" in url else self.root

    def __reduce__(self) -> tuple[type[Store], tuple[str, dict[str, Any]]]:
        return type(self), (self.address, self.settings)

    def same_filesystem(self, other: Store) -> bool:
        """Whether both stores are on one filesystem, so that their roots can be compared."""
        return (self._local and other._local) or self._fs == other._fs

    def list_files(self, path: str = "", *, follow: bool = True) -> list[FileInfo]:
        """Every file below `path`, including hidden files and broken links, sorted by path; empty if it is no folder.

        Without `follow`, symbolic links and everything behind them are left out. Files that are deleted during the
        listing are left out too.
        """
        with self._explaining("list", path):
            found = self._files.walk(self.root, self._full(path), follow=follow)
        return sorted(found, key=lambda info: info.path)

    def is_file(self, path: str) -> bool:
        """Whether `path` is a file."""
        with self._explaining("inspect", path):
            return self._files.is_file(self._full(path))

    def exists(self, path: str = "") -> bool:
        """Whether there is a file or folder at `path`."""
        with self._explaining("inspect", path):
            return self._files.exists(self._full(path))

    def size(self, path: str) -> int:
        """The size of a file in bytes. Raises FileNotFoundError if it does not exist."""
        with self._explaining("inspect", path):
            return self._files.size(self._full(path))

    def info(self, path: str) -> FileInfo:
        """Size and version of a file. Raises FileNotFoundError if it does not exist."""
        with self._explaining("inspect", path):
            return replace(self._files.info(self._full(path)), path=path)

    def version(self, path: str, file: BinaryIO) -> str | None:
        """The version (see FileInfo) of the file at `path`, which `open_input` has opened as `file`."""
        below = getattr(file, "below", file)
        with self._explaining("inspect", path):
            return self._files.version(below, self._full(path))

    def open_input(self, path: str) -> BinaryIO:
        """Open the file at `path`: seekable, reads counted in `counters`. Raises FileNotFoundError."""
        with self._explaining("open", path):
            file = self._files.open_input(self._full(path))
        return cast("BinaryIO", CountingReader(file, self.counters))

    def read_bytes(self, path: str) -> bytes:
        """The whole file at `path`."""
        with self.open_input(path) as file, self._explaining("read", path):
            return file.read()

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[CountingWriter]:
        """Create a file for writing. After the block it is on stable storage; if the block raises, no file is left."""
        full = self._full(path)
        with self._explaining("write", path):
            self._make_parent(full)
            file = self._files.open_output(full)
            try:
                yield CountingWriter(file, self.counters)
                self._files.sync(file)
                file.close()
            except BaseException:
                with contextlib.suppress(OSError):
                    file.close()
                with contextlib.suppress(OSError, StorageError):  # the first failure matters, not this one
                    self.delete(path)
                raise

    def publish(self, src: str, dst: str) -> None:
        """Rename the finished file `src` to `dst`, never overwriting. Raises FileExistsError if `dst` exists.

        On local filesystems and HDFS this is atomic. On other stores the check and the rename are two calls, so of two
        simultaneous writers the later may win; here both write the same bytes.
        """
        source, target = self._full(src), self._full(dst)
        with self._explaining("publish", dst):
            self._make_parent(target)
            self._files.publish(source, target)

    def replace(self, src: str, dst: str) -> None:
        """Rename the finished file `src` to `dst`, replacing an existing file; atomic if the store supports it."""
        self._replace(self._files.replace, src, dst)

    def move_all(self, moves: Mapping[str, str]) -> None:
        """`replace` many files concurrently; missing ones are skipped. Durable only after `sync_folders`."""

        def move(pair: tuple[str, str]) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._replace(self._files.move, *pair)

        self.at_once(move, moves.items())

    def _replace(self, how: Callable[[str, str], None], src: str, dst: str) -> None:
        source, target = self._full(src), self._full(dst)
        with self._explaining("replace", dst):
            self._make_parent(target)
            how(source, target)

    def write_atomic(self, path: str, data: bytes) -> None:
        """Write a small file atomically: a reader sees either the old bytes or the new ones."""
        folder, _, name = path.rpartition("/")
        draft = f"{folder}/.{name}.{uuid.uuid4().hex}" if folder else f".{name}.{uuid.uuid4().hex}"
        with self.create(draft) as file:
            file.write(data)
        self.replace(draft, path)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """`write_atomic` for many small files concurrently: making one durable takes half a second on HDFS."""
        self.at_once(lambda one: self.write_atomic(*one), files.items())

    def at_once(self, act: Callable[[T], R], on: Iterable[T]) -> list[R]:
        """The results of `act` for each item of `on`, in order; WRITING calls run concurrently."""
        with ThreadPoolExecutor(WRITING) as pool:
            return list(pool.map(act, on))

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is fine."""
        with self._explaining("delete", path), contextlib.suppress(FileNotFoundError):
            self._files.delete(self._full(path))

    def delete_all(self, paths: Iterable[str]) -> None:
        """`delete` many files concurrently. Durable only after `sync_folders`."""
        self.at_once(self.delete, paths)

    def sync_folders(self, paths: Iterable[str]) -> None:
        """Put the names in these folders on stable storage; needed after many files were created, moved or deleted."""
        for path in sorted(paths):
            with self._explaining("flush", path):
                self._files.sync_folder(self._full(path))

    def delete_empty(self, path: str) -> None:
        """Remove a folder if it is empty. One that is missing or not empty is not an error."""
        with self._explaining("delete", path):
            try:
                self._files.delete_empty(self._full(path))
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def delete_tree(self, path: str) -> None:
        """Remove a folder and all below it, or a file; a missing one is fine."""
        with self._explaining("delete", path):
            self._files.delete_tree(self._full(path))

    def local_path(self, path: str = "") -> str | None:
        """The path under which other programs can open a file of a local store; None for other stores."""
        return self._full(path) if self._local else None

    def _full(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise StorageError(f"{path!r} leaves the folder {self.url}: absolute paths and '..' are refused.")
        if "\0" in path:
            raise StorageError(f"{path!r} is not a path in {self.url}: it holds a NUL character.")
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    def _make_parent(self, full: str) -> None:
        self._files.make_folder(full.rpartition("/")[0] or "/")

    def _explaining(self, verb: str, path: str) -> contextlib.AbstractContextManager[None]:
        return explaining(verb, f"{self.url}/{path}" if path else self.url)
