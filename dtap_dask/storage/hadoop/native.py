"""An fsspec filesystem for hdfs:// on top of hdfs_native, without Java."""

from __future__ import annotations

import errno
import getpass
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fsspec.utils import tokenize

from dtap_dask.errors import did_you_mean
from dtap_dask.storage.hadoop.filesystem import HadoopFileSystem
from dtap_dask.storage.hadoop.namenode import SECONDS, NameNode
from dtap_dask.storage.remote import FSSPEC_OPTIONS

if TYPE_CHECKING:
    from hdfs_native import Client, FileReader, FileStatus
    from hdfs_native._internal import RawFileWriter

T = TypeVar("T")

PIECE = 4 << 20  # bytes requested from a DataNode at a time; 64 MiB is slower, as the buffer is zeroed first
ABANDON = 5.0  # seconds to remove what a failed write has left
PATIENCE = 60.0  # seconds for a DataNode to send one piece


class HdfsFileSystem(HadoopFileSystem):
    """A NameNode, hdfs://HOST:PORT, or a name service, hdfs://NAME (case-sensitive).

    A name service (several NameNodes) is configured in HADOOP_CONF_DIR's hdfs-site.xml, or by options. Options are keys
    of Hadoop's configuration (they contain a dot; True is written `true`), which take precedence over HADOOP_CONF_DIR;
    `timeout`, the seconds that a call to the NameNode may take with its retries; and `user`, which must be the user of
    this process (HADOOP_USER_NAME, otherwise the login name), because a process cannot act as two users.

    Kerberos needs libgssapi_krb5 at run time (Debian: libgssapi-krb5-2), a ticket on every process's host (kinit;
    KRB5CCNAME if it is not in the default location), and hadoop.security.authentication=kerberos in core-site.xml.

    Raises FileNotFoundError, FileExistsError, PermissionError (also for Kerberos), NotADirectoryError,
    IsADirectoryError, ConnectionError for a NameNode that cannot be reached, and OSError with EDQUOT, ENOSPC,
    ENOTEMPTY or EBUSY (safe mode); all with errno and the URL as filename. Raises StorageError after a fork,
    and for a name service that is not configured. Times are in seconds since 1970, sizes in bytes.
    """

    protocol = "hdfs"
    _schemes: ClassVar[tuple[str, ...]] = ("hdfs", "viewfs")

    def __init__(
        self,
        host: str | None = None,
        port: int | str | None = None,
        user: str | None = None,
        timeout: float = SECONDS,
        **options: Any,
    ):
        super().__init__(**{key: value for key, value in options.items() if key in FSSPEC_OPTIONS})
        hadoop = {key: value for key, value in options.items() if key not in FSSPEC_OPTIONS}
        for key in hadoop:
            if "." not in key:
                known = ["host", "port", "user", "timeout", *sorted(FSSPEC_OPTIONS)]
                raise ValueError(
                    f"{key!r} is neither an option of this filesystem nor a key of Hadoop's.{did_you_mean(key, known)}"
                )
        _same_user(user)
        self.host, self.port = host, port
        self.url = f"{self.protocol}://{host or ''}{f':{port}' if port else ''}"
        self._names = NameNode(self.url, {key: _text(value) for key, value in hadoop.items()}, timeout)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list | tuple):
            return [cls._strip_protocol(one) for one in path]
        path = os.fspath(path)
        scheme, found, rest = path.partition("://")
        if found and scheme in cls._schemes:
            path = rest.partition("/")[2]
        return "/" + "/".join(part for part in path.split("/") if part)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        place = path.partition("://")[2].partition("/")[0]
        user, _, place = place.rpartition("@")
        host, colon, port = place.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = place, ""
        if port and not 0 < int(port) < 65536:
            raise ValueError(f"{port} is not a port")
        user = user.partition(":")[0]  # the rest would be a password, which HDFS does not use
        found = {"host": host or None, "port": int(port) if port else None, "user": user or None}
        return {key: value for key, value in found.items() if value is not None}

    def unstrip_protocol(self, name: str) -> str:
        """The full URL of a path."""
        return f"{self.url}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        """An identifier shared by all instances for the same URL."""
        return f"hdfs_{tokenize(self.url)}"

    def _ask(self, path: str, call: Callable[[Client], T]) -> T:
        return self._names.ask(path, call)

    def _info(self, path: str) -> dict[str, Any]:
        return _entry(self._ask(path, lambda client: client.get_file_info(path)))

    def _children(self, path: str) -> list[dict[str, Any]]:
        return self._ask(path, lambda client: [_entry(status) for status in client.list_status(path)])

    def _fetcher(self, path: str) -> tuple[Callable[[int, int], bytes], int]:
        file: FileReader = self._ask(path, lambda client: client.read(path))

        def piece(start: int, end: int) -> bytes:
            data: bytes = self._names.within(PATIENCE, path, lambda: file.read_range(start, end - start))
            return data

        def fetch(offset: int, size: int) -> bytes:
            end = offset + size
            if size <= PIECE:
                return piece(offset, end)
            return b"".join(piece(at, min(at + PIECE, end)) for at in range(offset, end, PIECE))

        return fetch, len(file)

    def _create(
        self, path: str, overwrite: bool, replication: int | None = None, hdfs_block_size: int | None = None, **_: Any
    ) -> _Sink:
        def create(client: Client) -> RawFileWriter:
            from hdfs_native import WriteOptions

            options = WriteOptions(hdfs_block_size, replication, overwrite=overwrite)
            file: RawFileWriter = client.inner.create(path, options)
            return file

        return _Sink(self._ask(path, create), self._names, path)

    def _append(self, path: str) -> _Sink:
        return _Sink(self._ask(path, lambda client: client.inner.append(path)), self._names, path)

    def _delete(self, path: str, recursive: bool) -> bool:
        deleted: bool = self._ask(path, lambda client: client.delete(path, recursive))
        return deleted

    def _abandon(self, path: str) -> None:
        self._names.within(ABANDON, path, lambda: self._names.client().delete(path, False))

    def _rename(self, source: str, target: str, overwrite: bool) -> None:
        try:
            self._ask(source, lambda client: client.rename(source, target, overwrite))
        except OSError as error:
            said = error.strerror or ""
            if isinstance(error, FileExistsError) or "must both be directories" in said:  # a folder has that name
                raise FileExistsError(errno.EEXIST, said, self.unstrip_protocol(target)) from error
            raise

    def _mkdirs(self, path: str, permission: int, parents: bool) -> None:
        self._ask(path, lambda client: client.mkdirs(path, permission, parents))

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Create an empty file; with `truncate=False` only set the times of an existing one."""
        path = self._strip_protocol(path)
        if truncate or not self.exists(path):
            self.open(path, "wb", **kwargs).close()
        else:
            now = int(datetime.now(UTC).timestamp() * 1000)
            self._ask(path, lambda client: client.set_times(path, now, now))

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        """The size in bytes of all files below `path`, in one call; with `total=False` the size of each by name."""
        if not total or maxdepth is not None:
            return super().du(path, total=total, maxdepth=maxdepth, withdirs=withdirs, **kwargs)
        path = self._strip_protocol(path)
        return self._ask(path, lambda client: client.get_content_summary(path).length)


class ViewfsFileSystem(HdfsFileSystem):
    """A mount table, viewfs://NAME, configured in HADOOP_CONF_DIR or by options. Otherwise as HdfsFileSystem."""

    protocol = "viewfs"


class _Sink:
    """hdfs_native's raw writer with time limits. (Its other writer would close the file when it is freed.)"""

    def __init__(self, file: RawFileWriter, names: NameNode, path: str):
        self._file = file
        self._names = names
        self._path = path

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = bytes(view[start : start + PIECE])  # hdfs_native accepts other buffers, but at a tenth of the speed
            self._names.with_retries(self._path, partial(self._file.write, piece))

    def close(self) -> None:
        """Finish the file: afterwards all replicas have the bytes, and the NameNode lists it as complete."""
        self._names.with_retries(self._path, self._file.close)


def _entry(status: FileStatus) -> dict[str, Any]:
    return {
        "name": status.path,
        "size": status.length,
        "type": "directory" if status.isdir else "file",
        "mtime": status.modification_time / 1000,
        "atime": status.access_time / 1000,
        "owner": status.owner,
        "group": status.group,
        "mode": status.permission,
        "replication": status.replication,
        "block_size": status.blocksize,
    }


def _text(value: object) -> str:
    """A value in the notation of Hadoop's configuration."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same_user(user: str | None) -> None:
    me = os.environ.get("HADOOP_PROXY_USER") or os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    if user is not None and user != me:
        raise ValueError(
            f"The user {user!r} was given for HDFS, but this process runs as {me!r}. Set HADOOP_USER_NAME={user} "
            "before it starts."
        )
