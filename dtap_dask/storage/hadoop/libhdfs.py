"""dtap:// by HPE's jar, and hdfs:// by Hadoop's own client, as a filesystem of fsspec's: pyarrow's libhdfs, in Java.

pyarrow moves the bytes; names go by libhdfs's own calls (libhdfs_names), which tell missing from forbidden.
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

_TRIES = 8  # of replacing a file that others replace at the same time


class LibhdfsFileSystem(HadoopFileSystem):
    """A DataTap, dtap://TAP, through HPE's jar; or a NameNode or name service, hdfs://NAME[:PORT], or viewfs://NAME.

    `jar` is HPE's (else it is looked for, see jvm.JARS). `hadoop_conf` holds Hadoop's keys, which come before
    those of HADOOP_CONF_DIR. `user` is whom Hadoop sees (not with Kerberos). Needs a Java machine, libhdfs and Hadoop's
    jars: see jvm.missing. The first use in a process starts Java, which takes seconds; a forked child cannot use it.

    Kerberos needs a ticket on every worker's host (kinit; or `kerb_ticket`, the path of a ticket cache) and
    hadoop.security.authentication=kerberos in core-site.xml. A tap with Kerberos behind it needs one only where its
    administrator chose passthrough.

    Paths begin with '/' and are relative to the tap's or the NameNode's root; `..` and other authorities are refused.
    Errors are FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError,
    ConnectionError, and OSError with EDQUOT, ENOSPC, ENOTEMPTY, EINVAL, EBUSY (safe mode) or EIO (Java's reason is on
    this process's standard error); all with errno and the URL as filename. StorageError: parts are missing, or a fork.
    A NameNode that is down or silent is told within 15 seconds; `hadoop_conf` can give a slow one more, as by
    ipc.client.rpc-timeout.ms (10000). Times are in seconds since 1970, sizes in bytes.
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
        """The path below the root, of a path or of this filesystem's URLs; StorageError for any other URL, and `..`."""
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
        """The whole URL of a path."""
        return f"{self.url}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        """The same for all that see the same filesystem under the same name."""
        return f"libhdfs_{tokenize(self.url)}"

    def _ask(self, verb: str, path: str, call: Callable[[Names], T]) -> T:
        return connected(self._endpoint).ask(verb, path, call)

    # What is there

    def _info(self, path: str) -> dict[str, Any]:
        return self._ask("inspect", path, lambda names: names.info(path))

    def _children(self, path: str) -> list[dict[str, Any]]:
        return self._ask("list", path, lambda names: names.list(path))

    def walk(self, path: str, *arguments: Any, **kwargs: Any) -> Iterator[Any]:
        """As fsspec's; but only what is missing is passed over, any other failure raises."""
        return cast("Iterator[Any]", super().walk(path, *arguments, **{"on_error": _unless_missing, **kwargs}))

    # Reading and writing

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, *arguments: Any, **kwargs: Any) -> Any:
        """A file; for reading one that closes Java's too."""
        if mode != "rb":
            return super()._open(path, mode, block_size, *arguments, **kwargs)
        bare = self._reader(self._strip_protocol(path))
        if kwargs.get("cache_type") == "none":
            return bare
        return BufferedRange(bare, block_size if isinstance(block_size, int) and block_size > 0 else BUFFER)

    def _reader(self, path: str) -> RangeReader:
        found = self._children(path)  # of a file one call to the NameNode, where libhdfs's look at a path makes two
        if [entry["name"] for entry in found] != [path]:
            raise self._error(IsADirectoryError, errno.EISDIR, path)
        return connected(self._endpoint).reader(path, found[0]["size"])

    def _fetcher(self, path: str) -> tuple[Callable[[int, int], bytes], int]:
        file = cast("Reader", self._reader(path))
        return file.within, file.size

    def _writer(self, path: str, mode: str, autocommit: bool, **options: Any) -> Writer:
        """libhdfs cannot create exclusively: with `x` a file is written aside and gets its name when it is closed.

        So of several writers the first to close wins, the others get FileExistsError, when they open or then.
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
        except (FileExistsError, FileNotFoundError) as error:  # so Hadoop says of a folder, or of a file above
            if self._type(path) == "directory":
                raise self._error(IsADirectoryError, errno.EISDIR, path) from error
            raise self._error(NotADirectoryError, errno.ENOTDIR, path) from error

    def _append(self, path: str) -> LibhdfsSink:
        return connected(self._endpoint).sink(path, append=True)

    # Names

    def publish(self, src: str, dst: str) -> None:
        """Give `src` the name `dst`: FileExistsError where a file or folder has it, FileNotFoundError.

        Of writers that race for a name exactly one wins on HDFS, whose rename refuses a target that is there. Where
        the filesystem behind a DataTap replaces instead (POSIX does; nothing tells), the look at the target just
        before protects it from all but a writer in the same instant.
        """
        super().publish(src, dst)

    def replace(self, src: str, dst: str) -> None:
        """Give `src` the name `dst`, in place of a file there, which libhdfs can only delete first.

        So it is not one step: a reader between the two gets FileNotFoundError, and a process that dies between them
        leaves `src`, whole. IsADirectoryError where `dst` is a folder.
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
                self._info(source)  # raises where it is missing, before anything is lost
                try:
                    self._delete(target, recursive=False)
                except OSError as error:  # a rival may have deleted it first, and put its own there
                    if error.errno != errno.EIO or attempt == _TRIES - 1:
                        raise
        return None

    def _rename_unless_taken(self, source: str, target: str) -> None:
        """Hadoop's rename, which says no without saying why."""
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
