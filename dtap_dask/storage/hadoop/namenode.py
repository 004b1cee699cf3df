"""Calls to a NameNode with time limits, and HDFS's errors translated into Python's."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import threading
import weakref
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dtap_dask.errors import StorageError

if TYPE_CHECKING:
    from hdfs_native import Client

T = TypeVar("T")

SECONDS = 13.0  # for one call with its retries, so that an outage is reported within 15 s
ROUND, ROUNDS = 4.0, 15  # seconds to wait for a DataNode before checking the NameNode, and how often
PROBE = 3.0  # seconds for each NameNode of a name service to answer
RETRIES = {  # hdfs_native's own retries last minutes; these end after about 4 s
    "dfs.client.failover.max.attempts": "5",
    "dfs.client.failover.sleep.base.millis": "200",
    "dfs.client.failover.sleep.max.millis": "1000",
}
_used_in: list[int] = []  # the id of the process that has hdfs_native's threads, once there are any
_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_kept: list[Client] = []


def _keep() -> None:
    """Keep all clients alive in a forked child: freeing one would wait for threads that only the parent has.

    fsspec drops its filesystems in every child, so even a child that never uses HDFS would hang.
    """
    _kept.extend(_clients)


def _keep_forever() -> None:
    for client in _kept:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))  # otherwise the end of the process frees them


os.register_at_fork(before=_keep, after_in_parent=_kept.clear, after_in_child=_keep_forever)


class NameNode:
    """The service at `url`, hdfs://HOST:PORT or hdfs://NAMESERVICE, queried through hdfs_native.

    `options` are keys of Hadoop's configuration. The first call creates the client. NameNodes of a name service that do
    not answer at that time are tried last: hdfs_native waits forever for a host that accepts packets and sends none.
    """

    def __init__(self, url: str, options: Mapping[str, str], seconds: float = SECONDS):
        self.url = url
        self.seconds = seconds
        self._options = {**RETRIES, **options}
        self._lock = threading.Lock()
        self._client: Client | None = None

    def ask(self, path: str, call: Callable[[Client], T]) -> T:
        """The result of `call` with the client, within `self.seconds`. Raises the matching OSError, about `path`."""
        return self.within(self.seconds, path, lambda: call(self.client()))

    def within(self, seconds: float, path: str, call: Callable[[], T]) -> T:
        """The result of `call`, which uses the network, within `seconds`. Raises the matching OSError."""
        _refuse_fork()
        return self._result(_started(call), seconds, path)

    def with_retries(self, path: str, call: Callable[[], T]) -> T:
        """The result of `call`, which may wait a minute for DataNodes as long as the NameNode answers."""
        _refuse_fork()
        answer = _started(call)
        for _ in range(ROUNDS - 1):
            if wait([answer], ROUND).done:
                break
            self._check_namenode()
        return self._result(answer, ROUND, path)

    def _check_namenode(self) -> None:
        try:
            self.within(ROUND, "/", lambda: self.client().get_file_info("/"))
        except ConnectionError:
            raise
        except OSError:
            return  # a refusal is an answer

    def _result(self, answer: Future[T], seconds: float, path: str) -> T:
        try:
            return answer.result(seconds)
        except TimeoutError as error:
            self._client = None  # the next call checks again which NameNodes answer
            raise _unreachable(self.url, errno.ETIMEDOUT, f"no answer within {seconds:g} s") from error
        except (StorageError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            raise translated(error, self.url, path) from error
        finally:
            del answer  # it refers to the error, which refers to this frame

    def client(self) -> Client:
        """hdfs_native's client, created if necessary. Call it only inside `within`."""
        with self._lock:
            if self._client is None:
                self._client = _made(self.url, {**self._options, **self._answering_first()})
            return self._client

    def _answering_first(self) -> dict[str, str]:
        """The setting that lists the name service's NameNodes, in the order in which to try them."""
        service = self.url.partition("://")[2]
        key = f"dfs.ha.namenodes.{service}"
        settings = {**_site(), **self._options}
        names = [name.strip() for name in settings.get(key, "").split(",") if name.strip()]
        places = [settings.get(f"dfs.namenode.rpc-address.{service}.{name}", "") for name in names]
        if len(names) < 2 or not all(places):
            return {}
        probes = [_started(lambda place=place: _state(place, self._options)) for place in places]  # type: ignore[misc]
        states = [_answer(probe) for probe in probes]
        return {key: ",".join(name for _, name in sorted(zip(states, names, strict=True), key=lambda one: one[0]))}


def _made(url: str, options: Mapping[str, str]) -> Client:
    """A new client. Raises StorageError if the package is missing or the name service is not configured."""
    try:
        from hdfs_native import Client
    except ImportError as error:
        raise StorageError(f"{url} needs the package hdfs-native: pip install hdfs-native.") from error
    _used_in[:] = [os.getpid()]
    try:
        client = Client(url, dict(options))
    except RuntimeError as error:
        if "InvalidArgument" not in str(error):
            raise
        raise StorageError(
            f"{url} names neither a NameNode with its port nor a name service that is described ({_java(error)[1]}). "
            "Write hdfs://HOST:8020/..., or set HADOOP_CONF_DIR to the folder of core-site.xml and hdfs-site.xml."
        ) from error
    _clients.add(client)
    return client


def _started(call: Callable[[], T]) -> Future[T]:
    """Start `call` in a daemon thread, because a call to hdfs_native cannot be cancelled."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # raised in the thread that waits for the result
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="hdfs").start()
    return answer


def _state(place: str, options: Mapping[str, str]) -> int:
    """0 for an active NameNode, 1 for one that answers with a refusal (such as a standby), 2 for no answer."""
    url = f"hdfs://{place if ':' in place else f'{place}:8020'}"
    try:
        _made(url, {**options, "dfs.client.failover.max.attempts": "0"}).get_file_info("/")
    except OSError:
        return 2
    except RuntimeError:
        return 1
    return 0


def _answer(probe: Future[int]) -> int:
    try:
        return probe.result(PROBE)
    except TimeoutError:
        return 2


def _site() -> dict[str, str]:
    """The settings in core-site.xml and hdfs-site.xml, located in the same way as hdfs_native does."""
    folder = os.environ.get("HADOOP_CONF_DIR")
    if folder is None and "HADOOP_HOME" in os.environ:
        folder = os.path.join(os.environ["HADOOP_HOME"], "etc", "hadoop")
    found: dict[str, str] = {}
    for path in (Path(folder or "", name) for name in ("core-site.xml", "hdfs-site.xml")):
        if folder and path.is_file():
            for entry in ET.parse(path).getroot().iter("property"):
                found[(entry.findtext("name") or "").strip()] = (entry.findtext("value") or "").strip()
    return found


def _refuse_fork() -> None:
    if _used_in and _used_in[0] != os.getpid():
        raise StorageError(
            f"HDFS was used in process {_used_in[0]} before it was forked into this one, {os.getpid()}, where its "
            'client would wait forever. Start processes with multiprocessing.get_context("spawn") or "forkserver".'
        )


_ERRORS: dict[str, tuple[type[OSError], int, str]] = {
    "AccessControlException": (PermissionError, errno.EACCES, ""),
    "FileNotFoundException": (FileNotFoundError, errno.ENOENT, ""),
    "FileExistsException": (FileExistsError, errno.EEXIST, ""),
    "ParentNotDirectoryException": (NotADirectoryError, errno.ENOTDIR, ""),
    "PathIsNotDirectoryException": (NotADirectoryError, errno.ENOTDIR, ""),
    "PathIsNotEmptyDirectoryException": (OSError, errno.ENOTEMPTY, ""),
    "InvalidPathException": (OSError, errno.EINVAL, "HDFS takes no ':', '.' or '..' as or in a name."),
    "PathComponentTooLongException": (OSError, errno.ENAMETOOLONG, ""),
    "DSQuotaExceededException": (OSError, errno.EDQUOT, "Delete something there or ask for a larger space quota."),
    "NSQuotaExceededException": (OSError, errno.EDQUOT, "Delete files there or ask for a larger name quota."),
    "QuotaByStorageTypeExceededException": (OSError, errno.EDQUOT, "Ask for a larger quota of this storage type."),
    "SafeModeException": (OSError, errno.EBUSY, "It takes no changes until it leaves safe mode: try again later."),
    "RetriableException": (OSError, errno.EBUSY, "Try again later."),
    "LeaseExpiredException": (OSError, errno.ESTALE, "Someone deleted or overwrote the file while it was written."),
    "StandbyException": (ConnectionError, errno.EHOSTUNREACH, "No NameNode is active: try again later."),
    "ConnectException": (ConnectionError, errno.ECONNREFUSED, "Try again later."),
    "SaslException": (PermissionError, errno.EACCES, "Check the Kerberos ticket with klist."),
    "AuthorizationException": (PermissionError, errno.EACCES, ""),
}
_KERBEROS = (
    "Its NameNode asks for Kerberos, and {why}. Check that libgssapi_krb5 is installed (Debian: libgssapi-krb5-2), "
    "that core-site.xml in HADOOP_CONF_DIR has hadoop.security.authentication=kerberos, and that `klist` shows a "
    "ticket that has not expired (kinit, or KRB5CCNAME for a ticket elsewhere)."
)


def translated(error: BaseException, url: str, path: str) -> OSError:
    """The OSError, with errno and filename, for an hdfs_native error about `path` on the filesystem `url`."""
    place = f"{url}{path}"
    name, said = _java(error)
    if isinstance(error, FileExistsError | FileNotFoundError):
        name = type(error).__name__.replace("Error", "Exception")
    if said.startswith("Path is not a file"):
        return IsADirectoryError(errno.EISDIR, "Is a folder", place)
    if name in _ERRORS:
        python, number, remedy = _ERRORS[name]
        said = os.strerror(number) if said in ("", path) else said.rstrip(".")
        return python(number, ". ".join(filter(None, (said, remedy.rstrip(".")))), place)
    if re.search(r"SASL|GSSAPI|gssapi|[Kk]erberos", f"{name} {said}"):
        return PermissionError(errno.EACCES, _KERBEROS.format(why=f"the client says: {said or name}"), place)
    if isinstance(error, OSError):
        found = re.search(r"\(os error (\d+)\)", said)
        return _unreachable(url, int(found[1]) if found else errno.ECONNABORTED, said)
    return _other(name, said or str(error), place)


def _other(name: str, said: str, place: str) -> OSError:
    """The OSError for an error without a name, or with one of Rust's."""
    if name == "DataTransferError":
        why = "No DataNode could read or write the block: see that they run, then try again"
        return OSError(errno.EIO, f"{why}. {said.partition(': [')[0]}", place)
    counts = re.search(r"could only be written to 0 of.* There are (\d+) datanode.*? and (\w+) node", said)
    if counts and counts[1] != "0" and counts[2] in ("no", counts[1]):
        cause = f"All {counts[1]} DataNodes that run refuse the block: they are full, or refuse this host"
        return OSError(errno.ENOSPC, f"{cause}. {said}", place)
    return OSError(errno.EIO, f"{name}: {said}" if name else said, place)


def _java(error: BaseException) -> tuple[str, str]:
    """The last part of the Java (or else Rust) class's name, and the first line of its message."""
    text = str(error)
    kind, _, rest = text.partition("(")
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', rest) if kind.isidentifier() else []
    if not parts:
        return "", text.strip().splitlines()[0] if text.strip() else ""
    name = re.split(r"[.$]", parts[0])[-1] if len(parts) > 1 else kind
    said = parts[-1].replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'").replace("\\\\", "\\")
    return name, said.splitlines()[0] if said else ""


def _unreachable(url: str, number: int, said: str) -> ConnectionError:
    """A ConnectionError, of the subclass for the errno `number`."""
    if said == "RPC listener disconnected":
        said += " (a NameNode that asks for Kerberos does so too, see hadoop.security.authentication in core-site.xml)"
    kinds = {errno.ECONNREFUSED: ConnectionRefusedError, errno.ECONNRESET: ConnectionResetError}
    kind = kinds.get(number, ConnectionError)
    return kind(
        number,
        f"The NameNode or a DataNode of {url} cannot be reached: {said}. Check its host and port, that it runs and "
        "that no firewall is between, then try again",
        url,
    )
