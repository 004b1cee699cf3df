"""A process's connection to a DataTap or HDFS through libhdfs: bytes by pyarrow, names by libhdfs's own calls."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fsspec.utils import tokenize

from dtap_dask.storage.hadoop import jvm
from dtap_dask.storage.hadoop.errors import Attempt, explained
from dtap_dask.storage.hadoop.handles import RangeReader
from dtap_dask.storage.hadoop.names import Address, Names, java

if TYPE_CHECKING:
    from pyarrow import NativeFile

T = TypeVar("T")

PIECE = 4 << 20  # bytes passed to Java at a time: each call allocates an array of that size on Java's heap
_BRIEF = {  # Hadoop's own defaults wait for minutes; callers can retry
    "ipc.client.connect.timeout": "2500",
    "ipc.client.connect.max.retries": "1",
    "ipc.client.connect.max.retries.on.timeouts": "0",
    "ipc.client.rpc-timeout.ms": "10000",
    "dfs.client.failover.max.attempts": "3",
    "dfs.client.failover.sleep.max.millis": "1000",
}
_DTAP = {
    "fs.dtap.impl": "com.bluedata.hadoop.bdfs.Bdfs",
    "fs.AbstractFileSystem.dtap.impl": "com.bluedata.hadoop.bdfs.BdAbstractFS",
}


@dataclass(frozen=True)
class Endpoint:
    """Address, user, ticket, jar and options of a connection, as plain values.

    `url` is scheme://authority; `conf` holds keys of Hadoop's configuration and their values.
    """

    url: str
    user: str | None
    kerb_ticket: str | None
    jar: str | None
    conf: tuple[tuple[str, str], ...]

    def address(self) -> Address:
        """The endpoint in libhdfs's terms. It accepts the scheme dtap only for the default filesystem."""
        scheme, _, place = self.url.partition("://")
        if scheme == "dtap":
            conf = {**_BRIEF, **_DTAP, "fs.defaultFS": self.url, **dict(self.conf)}
            return Address("default", 0, self.user, self.kerb_ticket, conf)
        host, _, port = place.partition(":")
        return Address(f"{scheme}://{host}", int(port or 0), self.user, self.kerb_ticket, {**_BRIEF, **dict(self.conf)})


class Connection:
    """A connection that threads may share. It is never closed, because that would close files others have open."""

    def __init__(self, endpoint: Endpoint):
        from pyarrow.fs import HadoopFileSystem

        self.endpoint = endpoint
        address = endpoint.address()
        # pyarrow requests 3 replicas whatever Hadoop's configuration says. With 0 the configuration decides, but a tap
        # may have none.
        copies = address.conf.get("dfs.replication", "3" if address.host == "default" else "0")
        self._names: Names | None = None
        with self.explaining("connect to", "/"):
            self._bytes = HadoopFileSystem(
                address.host,
                address.port,
                user=address.user,
                replication=int(copies),
                kerb_ticket=address.kerb_ticket,
                extra_conf=dict(address.conf),
            )
            self._names = Names(address)

    def ask(self, verb: str, path: str, call: Callable[[Names], T]) -> T:
        """Run a call about names and return its result. `verb` and `path` are used in error messages."""
        assert self._names is not None
        with self.explaining(verb, path):
            return call(self._names)

    def reader(self, path: str, size: int) -> Reader:
        """Open the file at `path`, which has `size` bytes."""
        with self.explaining("open", path):
            return Reader(self, path, self._bytes.open_input_file(java(path)), size)

    def sink(self, path: str, *, append: bool = False) -> LibhdfsSink:
        """Create or overwrite a file, or with `append` open its end. Hadoop creates missing parent folders."""
        create = self._bytes.open_append_stream if append else self._bytes.open_output_stream
        with self.explaining("append to" if append else "create", path):
            return LibhdfsSink(self, path, create(java(path), compression=None))

    @contextlib.contextmanager
    def explaining(self, verb: str, path: str) -> Iterator[None]:
        """Replace an OSError by one whose message names the operation and a remedy."""
        jvm.check_process()
        began = time.monotonic()
        try:
            yield
        except OSError as error:
            attempt = Attempt(verb, self.endpoint.url, path, self.endpoint.user)
            raise explained(error, attempt, self._names, time.monotonic() - began) from error


class Reader(RangeReader):
    """A file opened for reading. Ranges are read in pieces of at most PIECE bytes."""

    def __init__(self, connection: Connection, path: str, file: NativeFile, size: int):
        super().__init__(self.within, size)
        self._connection, self._path, self._file = connection, path, file

    def within(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer only if the file has become shorter. Thread-safe."""
        end = offset + size
        with self._connection.explaining("read", self._path):
            parts = [self._piece(at, min(at + PIECE, end)) for at in range(offset, end, PIECE)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`. Hadoop may return fewer per call, and none at the end."""
        data: bytes = self._file.read_at(end - start, start)
        while len(data) < end - start:
            more = self._file.read_at(end - start - len(data), start + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        """Close this file and the Java one behind it."""
        if not self.closed:
            super().close()
            with contextlib.suppress(OSError):
                self._file.close()


class LibhdfsSink:
    """The destination of a Writer's bytes. `finish` is called once the file has been closed successfully."""

    def __init__(self, connection: Connection, path: str, stream: NativeFile):
        self._connection, self._path, self._stream = connection, path, stream
        self.finish: Callable[[], object] = lambda: None

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`, in pieces of at most PIECE bytes."""
        view = memoryview(data)
        with self._writing():
            for at in range(0, len(view), PIECE):
                self._stream.write(view[at : at + PIECE])

    def close(self) -> None:
        """Finish the file; after this it is durable."""
        with self._writing():
            self._stream.close()
        self.finish()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise FileNotFoundError if a write failed because the file was deleted in the meantime."""
        try:
            with self._connection.explaining("write", self._path):
                yield
        except OSError as error:
            if error.errno == errno.EIO:
                self._connection.ask("look at", self._path, lambda names: names.info(self._path))
            raise

    def remove(self) -> None:
        """Delete the file. Hadoop cannot abandon a file that is being written, so it is closed first."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._connection.ask("delete", self._path, lambda names: names.delete(self._path, recursive=False))


_CONNECTIONS: dict[str, Connection] = {}
_CONNECTING = threading.Lock()


def connected(endpoint: Endpoint) -> Connection:
    """This process's connection to an endpoint, made on first use.

    Raises StorageError if a component is missing or the process was forked after Java had started, and ConnectionError
    if the filesystem cannot be reached.
    """
    jvm.check_process()
    key = tokenize(endpoint)
    found = _CONNECTIONS.get(key)
    if found is not None:
        return found
    with _CONNECTING:
        if key not in _CONNECTIONS:
            jvm.prepare(endpoint.jar, dtap=endpoint.url.startswith("dtap://"))
            try:
                _CONNECTIONS[key] = Connection(endpoint)
            finally:
                jvm.started()
        return _CONNECTIONS[key]
