"""The back ends of the contract: how each is reached, and how to make trouble on it.

Those by libhdfs start a Java machine in the process that uses them, which is no good for a process that forks or for
other tests' patience: they run in a pytest of their own, where DTAP_CONTRACT is `libhdfs` (see test_contract.py).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import other_process
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.local import LocalFiles
from needs import lacking
from waiting import HANG

WITH_JAVA = os.environ.get("DTAP_CONTRACT") == "libhdfs"
NOBODY = 65534
BACKENDS = {  # and what lies below: that decides how its files are got at behind the store's back
    "local": "folder",
    "memory": "memory",
    "dtap-map-to-folder": "folder",
    "dtap-mount-root": "folder",
    "dtap-map-to-hdfs": "hdfs",
    "hdfs-native": "hdfs",
}
JAVA_BACKENDS = {"libhdfs-hdfs": "hdfs", "libhdfs-dtap-standin-not-hpes-jar": "hdfs"}
ALL = {**BACKENDS, **JAVA_BACKENDS}

_ALONE = "files in memory are this process's own: no other sees them, and they have neither permissions nor limits"
_KERNEL = "there is no server between this process and a folder of its own machine, so none can be out of reach"
_FOLDERS = {name: _KERNEL for name, below in ALL.items() if below == "folder"}
_SAME_FILES = {  # what a process that dies leaves behind is the business of the client below
    "dtap-map-to-folder": "these files are written as those of local are, by the same code to the same kernel",
    "dtap-mount-root": "these files are written as those of local are, by the same code to the same kernel",
    "dtap-map-to-hdfs": "these files are written as hdfs-native's are, by the same client to the same HDFS",
    "libhdfs-dtap-standin-not-hpes-jar": "these files are written as those of libhdfs-hdfs are, to the same HDFS",
}
# Every test of the contract that does not run on every back end, and why.
NOT_FOR: dict[str, dict[str, str]] = {
    "test_a_spawned_process_reads_and_writes": {"memory": _ALONE},
    "test_the_lock_of_a_dead_run_is_taken_over_by_one": {"memory": _ALONE, **_SAME_FILES},
    "test_a_killed_writer_is_in_nobodys_way": {"memory": _ALONE, **_SAME_FILES},
    "test_no_permission_is_not_the_same_as_missing": {"memory": _ALONE},
    "test_read_only": {"memory": _ALONE},
    "test_no_space_left": {"memory": _ALONE},
    "test_readers_beside_write_atomic_see_old_or_new": dict.fromkeys(
        JAVA_BACKENDS,
        "libhdfs has no rename that replaces: the old file is deleted first, and for a moment none is there",
    ),
    "test_hadoops_own_shell_reads_it_and_is_read": {
        **_SAME_FILES,
        **{name: "Hadoop has no part in its files" for name, below in ALL.items() if below != "hdfs"},
    },
    "test_out_of_reach_is_neither_missing_nor_forbidden": {"memory": _ALONE, **_FOLDERS},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The back ends of this process for every test that has one."""
    if "backend" in metafunc.fixturenames:
        left_out = NOT_FOR.get(metafunc.function.__name__, {})
        metafunc.parametrize("backend", [name for name in chosen() if name not in left_out])


@pytest.fixture
def exceptions() -> tuple[dict[str, dict[str, str]], set[str]]:
    """The table above, and the names of all back ends."""
    return NOT_FOR, set(ALL)


def chosen() -> dict[str, str]:
    """The back ends that this process runs."""
    return JAVA_BACKENDS if WITH_JAVA else BACKENDS


class Rival:
    """Another process, here or as another user."""

    def __init__(self, *arguments: str, **environment: str):
        self._line, theirs = Pipe()
        command = [sys.executable, str(other_process.__file__), str(theirs.fileno()), *arguments]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, **environment})
        theirs.close()

    def prepare(self, store: Store, verb: str, *arguments: Any) -> None:
        """Say what is to do; returns when everything but that is done."""
        self._line.send((store, verb, arguments))
        assert self._line.poll(HANG), "the other process did not open the store"
        assert self._line.recv() == "ready"

    def go(self) -> None:
        """Let it be done."""
        self._line.send("go")

    def outcome(self) -> Any:
        """What came of it: a value or an exception. EOFError where the process died of it."""
        assert self._line.poll(HANG), "the other process did not answer"
        return self._line.recv()

    def do(self, store: Store, verb: str, *arguments: Any) -> Any:
        """All of these."""
        self.prepare(store, verb, *arguments)
        self.go()
        return self.outcome()

    def stop(self) -> None:
        """End it."""
        self._line.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def rivals() -> Iterator[Callable[[int], list[Rival]]]:
    """So many other processes, which serve test after test."""
    running: list[Rival] = []

    def some(number: int) -> list[Rival]:
        running.extend(Rival() for _ in range(number - len(running)))
        return running[:number]

    yield some
    for rival in running:
        rival.stop()


@pytest.fixture(scope="session")
def strangers() -> Iterator[Callable[[str], Rival]]:
    """A process of a user who owns nothing here (nor can read where Python's packages may be), or nothing on HDFS."""
    running: dict[str, Rival] = {}

    def stranger(below: str) -> Rival:
        if below == "folder" and os.geteuid() != 0:
            lacking("only root can start a process of another user")
        if below not in running:
            running[below] = Rival(str(NOBODY)) if below == "folder" else Rival(HADOOP_USER_NAME="stranger")
        return running[below]

    yield stranger
    for rival in running.values():
        rival.stop()


@pytest.fixture
def stranger(place: Place, strangers: Callable[[str], Rival]) -> Rival:
    """The one for a place."""
    return strangers(place.below)


@pytest.fixture
def mortal() -> Iterator[Rival]:
    """A process to be killed."""
    rival = Rival()
    yield rival
    rival.stop()


@dataclass(frozen=True)
class Place:
    """A place of the test's own on one back end.

    `url` and `settings` lead there; `folder` is where it lies below, on disk or on the HDFS at `namenode`.
    """

    backend: str
    url: str
    settings: dict[str, Any]
    folder: str
    hdfs: Any = None  # the running one, tests/helpers/mini_hdfs.py

    @property
    def below(self) -> str:
        """folder, memory or hdfs."""
        return ALL[self.backend]

    def open(self, path: str = "") -> Store:
        """The store of a folder here."""
        return open_store(f"{self.url}/{path}" if path else self.url, self.settings)

    def set_mode(self, path: str, mode: int) -> None:
        """Permissions of a file or folder, by the owner of everything here."""
        if self.below == "folder":
            os.chmod(f"{self.folder}/{path}", mode)
        else:
            _client(self.hdfs).set_permission(f"{self.folder}/{path}", mode)

    def make_full(self, path: str) -> None:
        """From now on there is no space for a file of this name."""
        if self.below == "folder":
            full, write = f"{self.folder}/{path}", LocalFiles.open_output

            def open_output(files: LocalFiles, path: str) -> BinaryIO:
                return open("/dev/full", "wb") if path == full else write(files, path)  # the kernel answers ENOSPC

            LocalFiles.open_output = open_output  # type: ignore[method-assign]
        else:
            parent = f"{self.folder}/{path}".rpartition("/")[0]
            self.hdfs.tell(f"quota {parent} 1000000")

    def race(self, rivals: Callable[[int], list[Rival]], store: Store, *calls: tuple[Any, ...]) -> list[Any]:
        """What comes of several calls made at one instant, each by a process of its own; by a thread, in memory."""
        if self.below == "memory":
            start = threading.Barrier(len(calls))

            def call(wanted: tuple[Any, ...]) -> Any:
                start.wait(HANG)
                return other_process.outcome(lambda: other_process.perform(store, wanted[0], wanted[1:]))

            with ThreadPoolExecutor(len(calls)) as pool:
                return list(pool.map(call, calls))
        others = rivals(len(calls))
        for rival, (verb, *arguments) in zip(others, calls, strict=True):
            rival.prepare(store, verb, *arguments)
        for rival in others:
            rival.go()
        return [rival.outcome() for rival in others]


@pytest.fixture
def place(backend: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place that nothing lies in."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    if ALL[backend] == "memory":
        yield Place(backend, f"memory://{name}", {}, name)
    elif ALL[backend] == "folder":
        top = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
        top.chmod(0o755)
        (top / name).mkdir()
        (top / name).chmod(0o755)
        open_output = LocalFiles.open_output
        yield _in_folder(backend, top / name)
        LocalFiles.open_output = open_output  # type: ignore[method-assign]
        for folder, folders, _ in os.walk(top):
            for inside in folders:
                os.chmod(f"{folder}/{inside}", 0o755)
        shutil.rmtree(top)
    else:
        hdfs = request.getfixturevalue("hdfs_of_contract")
        _client(hdfs).mkdirs(f"/contract/{name}", 0o755, True)
        yield replace(_on_hdfs(backend, hdfs.url, name), hdfs=hdfs)


def _in_folder(backend: str, folder: Path) -> Place:
    settings: dict[str, Any] = {
        "local": {},
        "dtap-map-to-folder": {"dtap": {"map": {folder.name: str(folder)}}},
        "dtap-mount-root": {"dtap": {"mount_root": str(folder.parent)}},
    }[backend]
    return Place(backend, f"dtap://{folder.name}" if settings else str(folder), settings, str(folder))


def _on_hdfs(backend: str, url: str, name: str, tap: str = "Contract") -> Place:
    there, tapped = f"{url}/contract/{name}", f"dtap://{tap}/{name}"
    address, settings = {
        "dtap-map-to-hdfs": (tapped, {"dtap": {"map": {tap: f"{url}/contract"}}}),
        "hdfs-native": (there, {}),
        "libhdfs-hdfs": (there, {"hdfs": {"backend": "libhdfs"}}),
        "libhdfs-dtap-standin-not-hpes-jar": (
            tapped,
            {"dtap": {"backend": "libhdfs", "jar": os.environ.get("CONTRACT_JAR", "")}},
        ),
    }[backend]
    return Place(backend, address, settings, f"/contract/{name}")


@pytest.fixture
def unreachable(backend: str, hdfs_of_contract: Any) -> Place:
    """A place behind a NameNode that is not there."""
    place = _on_hdfs(backend, f"hdfs://127.0.0.1:{_closed_port()}", "x", tap="Down")
    if backend == "dtap-map-to-hdfs":  # nothing is new here but that HDFS's settings count behind a tap; so be quick
        place.settings["hdfs"] = {"dfs.client.failover.max.attempts": "1"}
    return place


@pytest.fixture(scope="session")
def hdfs_of_contract(hdfs: Any, hadoop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shared HDFS; where libhdfs runs, with the environment it needs and the stand-in's jar and taps."""
    if WITH_JAVA:
        jar = tmp_path_factory.mktemp("jar") / "standin-not-hpes.jar"
        classes = Path(hadoop.classpath.split(os.pathsep)[0])
        with zipfile.ZipFile(jar, "w") as archive:
            for path in (classes / "com").rglob("*.class"):
                archive.write(path, path.relative_to(classes))
        taps = f"Contract={hdfs.url}/contract,Down=hdfs://127.0.0.1:{_closed_port()}/x"
        os.environ.update({**hadoop.environment(), "CONTRACT_JAR": str(jar), "BDFS_TEST_TAPS": taps})
        os.environ["CLASSPATH"] += f"{os.pathsep}{jar}"  # Java reads it once, and hdfs:// may come before the tap
    return hdfs


def _closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _client(hdfs: Any) -> Any:
    """A client of HDFS's own protocol, to get at files behind the store's back."""
    from hdfs_native import Client

    return Client(hdfs.url)
