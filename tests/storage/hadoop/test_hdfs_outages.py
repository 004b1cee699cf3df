"""HdfsFileSystem when something is down, full, silent or secured: every error comes in time and says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from compose import free_port
from dtap_dask.errors import StorageError
from dtap_dask.storage.hadoop.namenode import translated
from dtap_dask.storage.hadoop.native import HdfsFileSystem
from hdfs_clients import CONTENT, connect, in_process
from waiting import unhindered

LIMIT = 15.0  # seconds within which an outage must be told


def timed(call: Callable[[], object]) -> tuple[OSError, float]:
    start = unhindered()
    with pytest.raises(OSError, match=".") as caught:
        call()
    return caught.value, unhindered() - start


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(100)
        yield int(hole.getsockname()[1])


@pytest.fixture
def black_hole() -> Iterator[int]:
    with silent_port() as port:
        yield port


def all_calls(fs: HdfsFileSystem) -> list[Callable[[], object]]:
    return [
        *(lambda call=call: call("/a") for call in (fs.info, fs.exists, fs.isdir, fs.ls, fs.find, fs.open, fs.mkdir)),  # type: ignore[misc]
        *(lambda call=call: call("/a") for call in (fs.rm, fs.rm_file, fs.cat_file, fs.touch, fs.du)),  # type: ignore[misc]
        *(lambda mode=mode: fs.open("/a", mode) for mode in ("wb", "xb", "ab")),  # type: ignore[misc]
        *(lambda call=call: call("/a", "/b") for call in (fs.mv, fs.publish, fs.replace, fs.cp_file)),  # type: ignore[misc]
        lambda: fs.makedirs("/a", exist_ok=True),
    ]


@pytest.fixture(scope="module", autouse=True)
def beside() -> Iterator[ThreadPoolExecutor]:
    """Threads for what is mostly waiting, which begins with the first tests and is looked at in the last."""
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture(scope="module", autouse=True)
def down(beside: ThreadPoolExecutor) -> Iterator[Future[None]]:
    with silent_port() as port:
        yield beside.submit(namenodes_that_are_down, port)


@pytest.fixture(scope="module", autouse=True)
def unknown(beside: ThreadPoolExecutor) -> Future[tuple[OSError, float]]:
    return beside.submit(timed, lambda: HdfsFileSystem("no-such-host.invalid", 8020).exists("/"))


@pytest.fixture(scope="module")
def dying(
    beside: ThreadPoolExecutor, start_hdfs: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Future[None]:
    return beside.submit(namenode_that_dies, start_hdfs, tmp_path_factory.mktemp("dying"))


def namenodes_that_are_down(silent: int) -> None:
    systems = {port: HdfsFileSystem("127.0.0.1", port) for port in (free_port(), silent)}
    calls = [(port, call) for port, fs in systems.items() for call in all_calls(fs)]
    with ThreadPoolExecutor(len(calls)) as pool:
        told = list(pool.map(lambda each: (each[0], *timed(each[1])), calls))
    for port, error, seconds in told:
        assert isinstance(error, ConnectionError)
        assert error.errno in (errno.ECONNREFUSED, errno.ETIMEDOUT)
        assert f"hdfs://127.0.0.1:{port} cannot be reached" in str(error)
        assert "Check its host and port" in str(error)
        assert pickle.loads(pickle.dumps(error)).args == error.args
        assert seconds < LIMIT


def test_a_name_service_that_nobody_described() -> None:
    with pytest.raises(StorageError, match="HADOOP_CONF_DIR"):
        HdfsFileSystem("NoSuchService").exists("/")


def site(folder: Path, *places: str) -> str:
    names = [f"n{number}" for number in range(len(places))]
    settings = {f"dfs.namenode.rpc-address.MyNs.{name}": place for name, place in zip(names, places, strict=True)}
    settings |= {"dfs.nameservices": "MyNs", "dfs.ha.namenodes.MyNs": ",".join(names)}
    lines = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in settings.items()]
    (folder / "hdfs-site.xml").write_text(f"<configuration>{''.join(lines)}</configuration>")
    return str(folder)


@pytest.mark.usefixtures("dying")  # which begins here
@pytest.mark.parametrize("kind", ["refuses", "is silent"])
def test_a_name_service_whose_first_namenode_is_dead(
    kind: str, black_hole: int, hdfs: Any, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = free_port() if kind == "refuses" else black_hole
    monkeypatch.setenv("HADOOP_CONF_DIR", site(tmp_path, f"127.0.0.1:{dead}", hdfs.url.removeprefix("hdfs://")))
    fs = HdfsFileSystem("MyNs", skip_instance_cache=True)
    start = unhindered()
    fs.pipe_file(f"{root}/a", b"abc")
    assert fs.cat_file(f"hdfs://MyNs{root}/a") == b"abc"
    assert unhindered() - start < 6


def test_a_name_service_whose_namenodes_are_all_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", site(tmp_path, *(f"127.0.0.1:{free_port()}" for _ in range(2))))
    error, seconds = timed(lambda: HdfsFileSystem("MyNs", skip_instance_cache=True).exists("/"))
    assert isinstance(error, ConnectionError)
    assert seconds < LIMIT


@pytest.fixture(scope="module")
def breakable(hadoop: Any, hdfs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An HDFS of this module's own."""
    running = type(hdfs).start(hadoop, tmp_path_factory.mktemp("own"))
    yield running
    running.stop()


def test_a_datanode_that_stops_and_starts(breakable: Any) -> None:
    fs = connect(breakable.url)
    fs.pipe_file("/a", CONTENT)
    with fs.open("/a", cache_type="none") as file:
        assert file.read(10) == CONTENT[:10]
        breakable.tell("stop")
        for call in (lambda: file.read(10), lambda: fs.cat_file("/a"), lambda: fs.pipe_file("/b", b"x")):
            error, seconds = timed(call)
            assert len(str(error)) < 500
            assert seconds < LIMIT
        assert not fs.exists("/b")
        breakable.tell("start")
        assert file.read(10) == CONTENT[10:20]
        fs.pipe_file("/b", b"x")


def test_a_quota(breakable: Any) -> None:
    fs = connect(breakable.url)
    fs.makedirs("/q")
    breakable.tell("quota /q 1000000")
    error, _ = timed(lambda: fs.pipe_file("/q/a", b"x"))
    assert error.errno == errno.EDQUOT
    assert "quota" in str(error)
    assert fs.ls("/q") == []


def namenode_that_dies(start_hdfs: Callable[..., Any], folder: Path) -> None:
    """While a file is written: silent first, then dead."""
    running = start_hdfs(folder)
    try:
        fs = connect(running.url, timeout=2)
        silent_then_dead(fs, running.process.pid)
    finally:
        running.stop()


def silent_then_dead(fs: HdfsFileSystem, namenode: int) -> None:
    for ending in (signal.SIGSTOP, signal.SIGKILL):
        file = fs.open(f"/{ending.name}", "wb")  # the first one's removal may come through late
        file.write(b"x" * (2 << 20))
        os.kill(namenode, ending)
        error, seconds = timed(file.close)
        assert seconds < LIMIT
        assert isinstance(error, ConnectionError) or "DataNode" in str(error)
        error, seconds = timed(lambda: fs.exists("/"))
        assert isinstance(error, ConnectionError)
        assert seconds < LIMIT
        if ending == signal.SIGSTOP:
            os.kill(namenode, signal.SIGCONT)
            assert fs.exists("/")


@pytest.mark.parametrize(
    ("java", "kind", "number"),
    [
        ("org.apache.hadoop.hdfs.server.namenode.SafeModeException", OSError, errno.EBUSY),
        ("org.apache.hadoop.ipc.StandbyException", ConnectionError, errno.EHOSTUNREACH),
        ("org.apache.hadoop.hdfs.protocol.NSQuotaExceededException", OSError, errno.EDQUOT),
        ("org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException", OSError, errno.ESTALE),
        ("java.io.IOException", OSError, errno.EIO),
    ],
)
def test_errors_that_a_test_cannot_call_up(java: str, kind: type[OSError], number: int) -> None:
    said = r"It's \"so\"\n\tat org.apache.hadoop.Some(Some.java:1)"  # as Rust prints it
    raised = RuntimeError(f'RPCError("{java}", "{said}")')
    error = translated(raised, "hdfs://h:1", "/a")
    assert type(error) is kind
    assert error.errno == number
    assert error.filename == "hdfs://h:1/a"
    assert 'It\'s "so"' in error.strerror
    assert "at org" not in error.strerror


def test_full_datanodes(start_hdfs: Callable[..., Any], tmp_path: Path) -> None:
    running = start_hdfs(tmp_path / "full", "dfs.datanode.du.reserved=100000000000000")
    try:
        fs = connect(running.url)
        error, _ = timed(lambda: fs.pipe_file("/a", b"x"))
        assert error.errno == errno.ENOSPC
        assert "full" in str(error)
        assert fs.ls("/") == []
    finally:
        running.stop()


# Kerberos: a stand-in that asks for it as a secured NameNode does. What follows a ticket is not tried here.


def number(value: int) -> bytes:
    """A varint of protobuf's."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + number(rest) if rest else bytes([low])


def field(place: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(place << 3) + number(value)
    return number(place << 3 | 2) + number(len(value)) + value


def answer_as_secured(client: socket.socket) -> None:
    with client, client.makefile("rb") as said:
        greeting = said.read(7)  # hrpc, version, service class, authentication
        if greeting[6] == 0:
            refused = b"org.apache.hadoop.security.AccessControlException"
            header = field(1, 5) + field(2, 2) + field(3, 9) + field(4, refused) + field(5, b"SIMPLE is not enabled.")
            reply = number(len(header)) + header
        else:
            said.read(struct.unpack(">I", said.read(4))[0])
            header = field(1, 65) + field(2, 0) + field(3, 9)  # call -33, zigzag
            way = field(1, b"KERBEROS") + field(2, b"GSSAPI") + field(3, b"nn") + field(4, b"localhost")
            sasl = field(2, 1) + field(4, way)
            reply = number(len(header)) + header + number(len(sasl)) + sasl
        client.sendall(struct.pack(">I", len(reply)) + reply)
        said.read(1)


@pytest.fixture
def secured() -> Iterator[str]:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=answer_as_secured, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"hdfs://127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


ASK = """
import sys; from dtap_dask.storage.hadoop.native import HdfsFileSystem
options = {"hadoop.security.authentication": "kerberos"}
fs = HdfsFileSystem(**HdfsFileSystem._get_kwargs_from_urls(sys.argv[1]), **options)
try: fs.ls("/")
except OSError as error: print(type(error).__name__, error)
"""


def test_kerberos_without_a_ticket(secured: str, tmp_path: Path) -> None:
    said = in_process(ASK, secured, KRB5CCNAME=str(tmp_path / "none"))
    assert said.startswith("PermissionError")
    assert "klist" in said
    assert str(tmp_path / "none") in said or "libgssapi" in said


def test_kerberos_without_its_library(secured: str, tmp_path: Path) -> None:
    (tmp_path / "libgssapi_krb5.so.2").touch()  # no library, found first
    said = in_process(ASK, secured, LD_LIBRARY_PATH=str(tmp_path))
    assert said.startswith("PermissionError")
    assert "Failed to load libgssapi_krb" in said
    assert "libgssapi-krb5-2" in said


def test_kerberos_that_the_client_was_not_told_of(secured: str) -> None:
    error, seconds = timed(lambda: connect(secured).exists("/"))
    assert "hadoop.security.authentication" in str(error)
    assert seconds < LIMIT


def test_a_namenode_that_is_down_is_told_in_time(down: Future[None]) -> None:
    """One that refuses connections and one that is silent, at the same time."""
    down.result()


def test_a_host_that_has_no_address(unknown: Future[tuple[OSError, float]]) -> None:
    error, seconds = unknown.result()
    assert isinstance(error, ConnectionError)
    assert "lookup" in str(error)
    assert seconds < LIMIT


def test_a_namenode_that_falls_silent_or_dies_while_a_file_is_written(dying: Future[None]) -> None:
    dying.result()
