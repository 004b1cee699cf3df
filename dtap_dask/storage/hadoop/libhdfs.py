"""An fsspec filesystem for dtap:// (HPE's jar) and hdfs:// (Hadoop's Java client), both through libhdfs.

pyarrow moves bytes. Names are handled by libhdfs's own calls (names.py), which distinguish missing from forbidden.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from fsspec.utils import tokenize

from dtap_dask.errors import StorageError
from dtap_dask.storage.hadoop.connection import Endpoint, LibhdfsSink, Reader, connected
from dtap_dask.storage.hadoop.filesystem import HadoopFileSystem
from dtap_dask.storage.hadoop.handles import BUFFER, BufferedRange, RangeReader, Writer
from dtap_dask.storage.hadoop.names import Names

T = TypeVar("T")

_TRIES = 8  # attempts to replace a file that others replace at the same time


class LibhdfsFileSystem(HadoopFileSystem):
    """A DataTap, dtap://TAP, through HPE's jar; or a NameNode or name service, hdfs://NAME[:PORT], or viewfs://NAME.

    `jar` is the path of HPE's jar (searched for by default, see jvm.JARS). `hadoop_conf` holds keys of Hadoop's
    configuration, which take precedence over those of HADOOP_CONF_DIR. `user` is the user name sent to Hadoop (ignored
    with Kerberos). Requires a Java machine, libhdfs and Hadoop's jars: see jvm.missing. The first use in a process
    starts Java, which takes seconds; a forked child cannot use it.

    Kerberos needs a ticket on every worker's host (kinit; or `kerb_ticket`, the path of a ticket cache) and
    hadoop.security.authentication=kerberos in core-site.xml. A tap backed by a cluster with Kerberos needs a ticket
    only if its administrator chose passthrough.

    Paths start with '/' and are relative to the root of the tap or NameNode; `..` and other authorities are refused.
    Raises FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError, ConnectionError,
    and OSError with EDQUOT, ENOSPC, ENOTEMPTY, EINVAL, EBUSY (safe mode) or EIO (Java's reason is on this process's
    standard error), all with errno and the URL as filename. Raises StorageError if a component is missing or the
    process was forked. A NameNode that is down or does not answer is reported within 15 seconds; for a slow one, raise
    ipc.client.rpc-timeout.ms (10000) in `hadoop_conf`. Times are in seconds since 1970, sizes in bytes.
    """

    protocol = "libhdfs"

    def __init__(
        self,
        url: str,
        user: str | None = None,
        kerb_ticket: str | None = None,
        jar: str | None = None,
        hadoop_conf: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        scheme, found, rest = url.partition("://")
        login, _, place = rest.partition("/")[0].rpartition("@")
        if not found or scheme not in ("dtap", "hdfs", "viewfs") or not place:
            raise StorageError(f"{url!r} is not of the form dtap://Tap, hdfs://NameNode:8020 or hdfs://nameservice.")
        self.url = f"{scheme}://{place}"
        conf = tuple((key, _word(value)) for key, value in sorted((hadoop_conf or {}).items()))
        self._endpoint = Endpoint(self.url, user or login or None, kerb_ticket, jar, conf)

    def _strip_protocol(self, path: Any) -> Any:
        """The path of a path or a URL of this filesystem. Raises StorageError for any other URL, and for `..`."""
        if isinstance(path, list | tuple):
            return [self._strip_protocol(one) for one in path]
        path = os.fspath(path)
        if "://" in path and not f"{path}/".startswith(f"{self.url}/"):
            raise StorageError(f"{path} is not on {self.url}.")
        parts = path.removeprefix(self.url).split("/")
        if ".." in parts:
            raise StorageError(f"{path} contains '..', which could leave {self.url}. Write the path without it.")
        return "/" + "/".join(part for part in parts if part not in ("", "."))

    def _parent(self, path: str) -> str:
        return str(self._strip_protocol(path)).rpartition("/")[0] or "/"

    def unstrip_protocol(self, name: str) -> str:
        """The full URL of a path."""
        return f"{self.url}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        """An identifier shared by all instances for the same URL."""
        return f"libhdfs_{tokenize(self.url)}"

    def _ask(self, verb: str, path: str, call: Callable[[Names], T]) -> T:
        return connected(self._endpoint).ask(verb, path, call)

    # Inspecting

    def _info(self, path: str) -> dict[str, Any]:
        return self._ask("inspect", path, lambda names: names.info(path))

    def _children(self, path: str) -> list[dict[str, Any]]:
        return self._ask("list", path, lambda names: names.list(path))

    def walk(self, path: str, *arguments: Any, **kwargs: Any) -> Iterator[Any]:
        """As in fsspec, but only missing folders are ignored; any other failure raises."""
        return cast("Iterator[Any]", super().walk(path, *arguments, **{"on_error": _unless_missing, **kwargs}))

    # Reading and writing

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, *arguments: Any, **kwargs: Any) -> Any:
        """Open a file. One opened for reading closes the Java file too."""
        if mode != "rb":
            return super()._open(path, mode, block_size, *arguments, **kwargs)
        bare = self._reader(self._strip_protocol(path))
        if kwargs.get("cache_type") == "none":
            return bare
        return BufferedRange(bare, block_size if isinstance(block_size, int) and block_size > 0 else BUFFER)

    def _reader(self, path: str) -> RangeReader:
        found = self._children(path)  # one call to the NameNode for a file; libhdfs's own inspection makes two
        if [entry["name"] for entry in found] != [path]:
            raise self._error(IsADirectoryError, errno.EISDIR, path)
        return connected(self._endpoint).reader(path, found[0]["size"])

    def _fetcher(self, path: str) -> tuple[Callable[[int, int], bytes], int]:
        file = cast("Reader", self._reader(path))
        return file.within, file.size

    def _writer(self, path: str, mode: str, autocommit: bool, **options: Any) -> Writer:
        """A Writer. With `x` it writes a draft that is renamed on close, as libhdfs cannot create a file exclusively.

        Of several writers the first to close wins; the others get FileExistsError when they open or close the file.
        """
        if mode == "xb" and self.exists(path):
            raise self._error(FileExistsError, errno.EEXIST, path)
        if mode == "wb" and autocommit:
            sink = self._create(path, overwrite=True)
            return Writer(sink, sink.remove, mode=mode)
        draft = self._draft(path)
        sink = self._create(draft, overwrite=True)
        rename = partial(self._rename, draft, path, overwrite=mode == "wb")
        if autocommit:
            sink.finish = rename
        return Writer(sink, sink.remove, None if autocommit else rename, mode=mode)

    def _create(self, path: str, overwrite: bool, **options: Any) -> LibhdfsSink:
        if not overwrite and self.exists(path):
            raise self._error(FileExistsError, errno.EEXIST, path)
        try:
            return connected(self._endpoint).sink(path)
        except (FileExistsError, FileNotFoundError) as error:  # raised if the path is a folder, or a parent is a file
            if self._type(path) == "directory":
                raise self._error(IsADirectoryError, errno.EISDIR, path) from error
            raise self._error(NotADirectoryError, errno.ENOTDIR, path) from error

    def _append(self, path: str) -> LibhdfsSink:
        return connected(self._endpoint).sink(path, append=True)

    # Names

    def publish(self, src: str, dst: str) -> None:
        """Rename `src` to `dst`. Raises FileExistsError if `dst` exists, FileNotFoundError if `src` does not.

        Of writers that race for a name exactly one wins on HDFS, whose rename refuses an existing target. If the
        filesystem behind a DataTap replaces targets instead (POSIX does; there is no way to find out), a check just
        before the rename protects the target except from a writer at the same instant.
        """
        super().publish(src, dst)

    def replace(self, src: str, dst: str) -> None:
        """Rename `src` to `dst`, replacing an existing file, which libhdfs has to delete first.

        These are two steps: a reader between them gets FileNotFoundError, and a process that dies between them leaves
        `src` complete. Raises IsADirectoryError if `dst` is a folder.
        """
        super().replace(src, dst)

    def _rename(self, source: str, target: str, overwrite: bool) -> None:
        for attempt in range(_TRIES):
            there = self._type(target)
            if there is None:
                try:
                    return self._rename_unless_taken(source, target)
                except FileExistsError:
                    if not overwrite or attempt == _TRIES - 1:
                        raise
            elif not overwrite:
                raise self._error(FileExistsError, errno.EEXIST, target)
            elif there == "directory":  # Hadoop would move the file into it
                raise self._error(IsADirectoryError, errno.EISDIR, target)
            elif source != target:
                self._info(source)  # raises if it is missing, before anything is deleted
                try:
                    self._delete(target, recursive=False)
                except OSError as error:  # another writer may have replaced it in the meantime
                    if error.errno != errno.EIO or attempt == _TRIES - 1:
                        raise
        return None

    def _rename_unless_taken(self, source: str, target: str) -> None:
        """Hadoop's rename, with the reason added if it is refused, which Hadoop does not give."""
        try:
            self._ask("rename", source, lambda names: names.rename(source, target))
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                raise
            self._info(source)
            if self.exists(target):
                raise self._error(FileExistsError, errno.EEXIST, target) from error
            self._info(self._parent(target))
            raise

    def _mkdirs(self, path: str, permission: int, parents: bool) -> None:
        if not parents:
            self._info(self._parent(path))
        self._ask("make", path, lambda names: names.make_folder(path))

    def _delete(self, path: str, recursive: bool) -> bool:
        try:
            self._ask("delete", path, lambda names: names.delete(path, recursive=recursive))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            there = self._type(path)
            if there is None:
                return False
            if there == "directory" and not recursive and self._children(path):
                raise self._error(OSError, errno.ENOTEMPTY, path) from error
            raise
        return True


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unless_missing(error: OSError) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        raise error
