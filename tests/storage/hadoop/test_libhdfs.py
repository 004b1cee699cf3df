"""libhdfs: hdfs:// by Hadoop's own client, and dtap:// by a STAND-IN for HPE's class (Bdfs.java, not HPE's jar).

A process with a Java machine must not fork, so none is started here: the functions below named `..._in_java` run in
other processes. What they need of this module is `SHARED`.
"""

from __future__ import annotations

import base64
import errno
import inspect
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import StorageError
from dtap_dask.storage.hadoop import jvm
from dtap_dask.storage.hadoop.errors import Attempt, explained
from dtap_dask.storage.hadoop.libhdfs import LibhdfsFileSystem
from dtap_dask.storage.hadoop.names import java, text
from dtap_dask.storage.hadoop.native import HdfsFileSystem
from waiting import HANG, unhindered

ONE_COPY = {"dfs.replication": "1"}  # there is one DataNode


def failure(call: Callable[[], object]) -> tuple[str, int | None, str]:
    """The class, errno and text of what `call` raises; it must survive pickling."""
    try:
        result = call()
    except Exception as error:
        again = pickle.loads(pickle.dumps(error))
        if (type(again), str(again)) == (type(error), str(error)):
            return type(error).__name__, getattr(error, "errno", None), str(error)
        raise
    raise AssertionError(f"no error, but {result!r}")


def open_place(url: str, **options: Any) -> tuple[LibhdfsFileSystem, str]:
    """A filesystem and an empty folder's path on it, from a URL of both."""
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    fs = LibhdfsFileSystem(f"{scheme}://{place}", hadoop_conf=ONE_COPY, **options)
    fs.makedirs(f"/{path}", exist_ok=True)
    return fs, f"/{path}"


SHARED = f"""
import errno, json, os, pickle, signal, sys, threading, time
from typing import Any
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dtap_dask.storage.hadoop.libhdfs import LibhdfsFileSystem
ONE_COPY = {ONE_COPY!r}
{inspect.getsource(failure)}
{inspect.getsource(open_place)}
"""
SERVING = """
for line in sys.stdin:
    code, name, arguments = json.loads(line)
    try:
        exec(code, globals())
        answer = [globals()[name](*arguments), None]
    except BaseException:
        import traceback
        answer = [None, traceback.format_exc()]
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Java:
    """A Python process with a Java machine in it; calling this calls a function there."""

    process: subprocess.Popen[str]
    errors: Path

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        code = textwrap.dedent(inspect.getsource(function))
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(
            json.dumps([f"from __future__ import annotations\n{code}", function.__name__, arguments])
        )
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()[-3000:]
        result, problem = json.loads(line)
        assert problem is None, problem + self.errors.read_text()[-1000:]
        return result


def once(function: Callable[..., Any], *arguments: Any, environment: dict[str, str]) -> Any:
    """Call a function in a process of its own."""
    code = textwrap.dedent(inspect.getsource(function))
    call = f"{SHARED}\n{code}\nprint('RESULT', json.dumps({function.__name__}(*{arguments!r})), flush=True)"
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-c", f"from __future__ import annotations\n{call}"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=HANG, env={**os.environ, **environment}
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(found[-1].removeprefix("RESULT "))


@pytest.fixture(scope="module")
def environment(hadoop: Any, hdfs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of processes with Java: the stand-in's taps, good ones and worse ones."""
    folder = tmp_path_factory.mktemp("taps")
    (folder / "kept").write_bytes(b"kept")
    other = tmp_path_factory.mktemp("other")
    taps = {
        "Tap": str(folder),
        "Other": str(other),
        "OnHdfs": f"{hdfs.url}/tap",
        "Posix": f"posix:{folder}",
        "ReadOnly": f"readonly:{folder}",
        "Refusing": f"refusing:{folder}",
        "Forbidden": f"forbidden:{folder}",
        "Down": f"down:{folder}",
        "NoNameNode": "hdfs://127.0.0.1:1/x",
    }
    HdfsFileSystem(host="127.0.0.1", port=hdfs.url.rpartition(":")[2]).makedirs("/tap", exist_ok=True)
    text = ",".join(f"{tap}={target}" for tap, target in taps.items())
    return {**hadoop.environment(), "BDFS_TEST_TAPS": text, "LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="module")
def in_java(
    environment: dict[str, str], unreachable: Future[Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Java]:
    """One such process for the tests that need none of their own."""
    errors = tmp_path_factory.mktemp("java") / "stderr"
    command = [sys.executable, "-W", "error", "-c", f"from __future__ import annotations\n{SHARED}\n{SERVING}"]
    with (
        errors.open("w") as sink,
        subprocess.Popen(
            command, stdin=-1, stdout=-1, stderr=sink, text=True, env={**os.environ, **environment}
        ) as process,
    ):
        yield Java(process, errors)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(HANG) == 0


def outages(environment: dict[str, str]) -> tuple[dict[str, list[Any]], float]:
    """What is raised for NameNodes that are down or silent, when, and the seconds that a loaded machine added."""

    def unreachable_in_java(places: list[str], ha: dict[str, str]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}

        def ask(url: str) -> None:
            fs = LibhdfsFileSystem(url, hadoop_conf=ha)
            calls = {"exists": lambda: fs.exists("/x"), "write": lambda: fs.open("/x", "wb")}
            for name, call in calls.items():
                began = time.monotonic()
                found[f"{name} {url}"] = [*failure(call)[:2], time.monotonic() - began]

        ask("hdfs://127.0.0.1:1")  # starts Java
        with ThreadPoolExecutor() as pool:
            list(pool.map(ask, places))
        return found

    with socket.socket() as dark, socket.socket() as silent:
        dark.bind(("127.0.0.1", 0))
        dark.listen(0)
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        waiting = [socket.socket() for _ in range(4)]  # a full queue: the kernel answers no more
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(dark.getsockname())
        ha = {
            "dfs.nameservices": "ns",
            "dfs.ha.namenodes.ns": "a,b",
            "dfs.client.failover.proxy.provider.ns": (
                "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
            ),
            "dfs.namenode.rpc-address.ns.a": f"127.0.0.1:{dark.getsockname()[1]}",
            "dfs.namenode.rpc-address.ns.b": "127.0.0.1:1",
        }
        ports = (1, dark.getsockname()[1], silent.getsockname()[1])
        places = [*(f"hdfs://127.0.0.1:{port}" for port in ports), "hdfs://ns"]
        hindered = time.monotonic() - unhindered()
        found = once(unreachable_in_java, places, ha, environment=environment)
        hindered = time.monotonic() - unhindered() - hindered
        for one in waiting:
            one.close()
    return found, hindered


@pytest.fixture(scope="module")
def unreachable(environment: dict[str, str]) -> Iterator[Future[tuple[dict[str, list[Any]], float]]]:
    """The same, begun with the first process of Java, as most of it is waiting."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(outages, environment)


PLACES = ["hdfs", "standin_not_hpes_jar_on_a_folder", "standin_not_hpes_jar_on_hdfs"]


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, hdfs: Any) -> str:
    """A folder of the test's own, by each way."""
    name = re.sub(r"\W", "-", request.node.name)
    start = dict(zip(PLACES, [hdfs.url, "dtap://Tap", "dtap://OnHdfs"], strict=True))[request.param]
    return f"{start}/{name}"


class TestFiles:
    """On HDFS itself, and through the stand-in, which is not HPE's jar."""

    def test_names_and_bytes(self, in_java: Java, url: str) -> None:
        def names_and_bytes_in_java(url: str) -> None:
            fs, top = open_place(url)
            names = ["a", "b c/d", "é/%20 #1?&=+", "日本/😀 x", "[x]/y*", "z/z/z"]
            for name in names:
                fs.pipe_file(f"{top}/{name}", name.encode())
            assert fs.find(top) == sorted(f"{top}/{name}" for name in names)
            assert {fs.cat_file(path).decode() for path in fs.find(top)} == set(names)
            listed = fs.ls(top, detail=False)
            assert listed == sorted(listed) == [f"{top}/{name}" for name in ["[x]", "a", "b c", "z", "é", "日本"]]
            assert fs.ls(f"{top}/a") == [fs.info(f"{top}/a")]
            assert fs.info(fs.unstrip_protocol(f"{top}/b c/d"))["size"] == 5
            assert abs(fs.modified(f"{top}/a").timestamp() - time.time()) < 60
            assert fs.isdir(f"{top}/日本")
            assert fs.glob(f"{top}/b*/*") == [f"{top}/b c/d"]
            fs.rm([f"{top}/a", f"{top}/z"], recursive=True)
            assert not fs.exists(f"{top}/a")
            assert not fs.exists(f"{top}/z/z/z")

        in_java(names_and_bytes_in_java, url)

    def test_ranges_by_16_threads(self, in_java: Java, url: str) -> None:
        def ranges_in_java(url: str) -> None:
            import random

            fs, top = open_place(url)
            data = random.Random(1).randbytes(11_000_003)
            with fs.open(f"{top}/big", "wb") as file:
                for at in range(0, len(data), 3_000_001):
                    file.write(memoryview(data)[at : at + 3_000_001])
            assert fs.cat_file(f"{top}/big") == data
            with fs.open(f"{top}/big", "rb", cache_type="none") as shared:
                assert shared.size == len(data)

                def read(seed: int) -> bool:
                    dice = random.Random(seed)
                    for _ in range(4):
                        start = dice.randrange(len(data))
                        size = dice.choice([1, 100_000, 9_000_000])
                        size = min(size, len(data) - start)
                        if shared.within(start, size) != data[start : start + size]:
                            return False
                        if fs.cat_file(f"{top}/big", start, start + size) != data[start : start + size]:
                            return False
                    return True

                with ThreadPoolExecutor(16) as pool:
                    assert all(pool.map(read, range(16)))
            with fs.open(f"{top}/big", "rb") as file:
                file.seek(-3, 2)
                assert file.read() == data[-3:]
            fs.pipe_file(f"{top}/lines", b"a\n\nb\n")
            with fs.open(f"{top}/lines", "r") as lines:
                assert list(lines) == ["a\n", "\n", "b\n"]

        in_java(ranges_in_java, url)

    def test_modes_and_exceptions(self, in_java: Java, url: str) -> None:
        def modes_in_java(url: str) -> None:
            fs, top = open_place(url)
            for problem in (ValueError, KeyboardInterrupt, GeneratorExit):
                for mode in ("wb", "xb", "w"):
                    try:
                        with fs.open(f"{top}/partial", mode) as file:
                            file.write(b"x" * 3_000_000 if "b" in mode else "x" * 3_000_000)
                            raise problem
                    except problem:
                        assert fs.ls(top) == []
            fs.pipe_file(f"{top}/a", b"one")
            with fs.open(f"{top}/a", "ab") as file:
                file.write(b" two")
            assert fs.cat_file(f"{top}/a") == b"one two"
            first, second = fs.open(f"{top}/x", "xb"), fs.open(f"{top}/x", "xb")
            first.write(b"first")
            second.write(b"second")
            first.close()
            assert failure(second.close)[0] == "FileExistsError"
            assert failure(lambda: fs.open(f"{top}/x", "xb"))[:2] == ("FileExistsError", errno.EEXIST)
            assert (fs.cat_file(f"{top}/x"), fs.ls(top, detail=False)) == (b"first", [f"{top}/a", f"{top}/x"])

        in_java(modes_in_java, url)

    def test_errors(self, in_java: Java, url: str) -> None:
        def errors_in_java(url: str) -> dict[str, tuple[str, int]]:
            fs, top = open_place(url)
            fs.pipe_file(f"{top}/file", b"")
            fs.pipe_file(f"{top}/folder/file", b"")
            calls = {
                "info": lambda: fs.info(f"{top}/no"),
                "list": lambda: fs.ls(f"{top}/no"),
                "open": lambda: fs.open(f"{top}/no"),
                "append nothing": lambda: fs._append(f"{top}/no"),
                "remove": lambda: fs.rm_file(f"{top}/no"),
                "remove tree": lambda: fs.rm(f"{top}/no", recursive=True),
                "open folder": lambda: fs.open(top),
                "write folder": lambda: fs.open(f"{top}/folder", "wb"),
                "remove folder as file": lambda: fs.rm_file(f"{top}/folder"),
                "remove full folder": lambda: fs.rmdir(f"{top}/folder"),
                "write below file": lambda: fs.open(f"{top}/file/x", "wb"),
                "folder below file": lambda: fs.makedirs(f"{top}/file/x"),
                "folder over file": lambda: fs.makedirs(f"{top}/file", exist_ok=True),
                "folder again": lambda: fs.mkdir(f"{top}/folder"),
                "root": lambda: fs.rm("/", recursive=True),
                "dots": lambda: fs.info(f"{top}/../x"),
                "elsewhere": lambda: fs.info("dtap://Elsewhere/x"),
            }
            assert (fs.exists(f"{top}/no"), fs.exists(f"{top}/file/x"), fs.find(f"{top}/no")) == (False, False, [])
            found = {name: failure(call) for name, call in calls.items()}
            for name, (kind, _, message) in found.items():
                assert kind == "StorageError" or name == "root" or fs.unstrip_protocol(top) in message
            return {name: (kind, code) for name, (kind, code, _) in found.items()}

        answers = {
            ("FileNotFoundError", errno.ENOENT): ["info", "list", "open", "append nothing", "remove", "remove tree"],
            ("IsADirectoryError", errno.EISDIR): ["open folder", "write folder", "remove folder as file"],
            ("FileExistsError", errno.EEXIST): ["folder over file", "folder again"],
            ("NotADirectoryError", errno.ENOTDIR): ["write below file", "folder below file"],
            ("OSError", errno.ENOTEMPTY): ["remove full folder"],
            ("PermissionError", errno.EPERM): ["root"],
            ("StorageError", None): ["dots", "elsewhere"],
        }
        expected = {name: list(answer) for answer, names in answers.items() for name in names}
        assert in_java(errors_in_java, url) == expected


class TestRenaming:
    """On HDFS itself, and through the stand-in, which is not HPE's jar."""

    def test_publish_and_replace(self, in_java: Java, url: str) -> None:
        def renames_in_java(url: str) -> None:
            fs, top = open_place(url)
            fs.pipe_file(f"{top}/new", b"new")
            fs.pipe_file(f"{top}/old", b"old")
            fs.makedirs(f"{top}/folder")
            for target in ("old", "folder", "new"):
                assert failure(lambda t=target: fs.publish(f"{top}/new", f"{top}/{t}"))[0] == "FileExistsError"
            assert failure(lambda: fs.publish(f"{top}/no", f"{top}/x"))[0] == "FileNotFoundError"
            assert failure(lambda: fs.publish(f"{top}/new", f"{top}/no/x"))[0] == "FileNotFoundError"
            assert failure(lambda: fs.replace(f"{top}/new", f"{top}/folder"))[0] == "IsADirectoryError"
            assert failure(lambda: fs.replace(f"{top}/no", f"{top}/old"))[0] == "FileNotFoundError"
            assert fs.find(top) == [f"{top}/new", f"{top}/old"]
            fs.replace(f"{top}/new", f"{top}/old")
            fs.publish(f"{top}/old", f"{top}/folder/name")
            fs.mv(f"{top}/folder", f"{top}/moved")
            assert (fs.find(top), fs.cat_file(f"{top}/moved/name")) == ([f"{top}/moved/name"], b"new")
            fs.cp_file(f"{top}/moved/name", f"{top}/copy")
            assert fs.cat_file(f"{top}/copy") == b"new"

        in_java(renames_in_java, url)

    def test_of_16_threads_one_publishes(self, in_java: Java, url: str) -> None:
        def race_in_java(url: str) -> None:
            fs, top = open_place(url)
            for turn in range(4):
                with ThreadPoolExecutor(16) as pool:
                    drafts = range(16)
                    list(pool.map(lambda i: fs.pipe_file(f"{top}/draft{i}", str(i).encode()), drafts))
                start, won, lost = threading.Barrier(16), [], []

                def publish(writer: int, turn: int, start: Any, won: list[int], lost: list[str]) -> None:
                    start.wait()
                    try:
                        fs.publish(f"{top}/draft{writer}", f"{top}/name{turn}")
                        won.append(writer)
                    except OSError as error:
                        lost.append(type(error).__name__)

                threads = [threading.Thread(target=publish, args=(i, turn, start, won, lost)) for i in range(16)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert (len(won), lost) == (1, ["FileExistsError"] * 15)
                assert fs.cat_file(f"{top}/name{turn}") == str(won[0]).encode()

        in_java(race_in_java, url)

    def test_of_3_processes_one_publishes_each_name(
        self, in_java: Java, environment: dict[str, str], tmp_path: Path
    ) -> None:
        """In a folder behind the stand-in; the contract has the same on HDFS."""

        def publish_in_java(url: str, writer: str, gate: str) -> int:
            fs, top = open_place(url)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda name: fs.pipe_file(f"{top}/{writer}-{name}", b""), range(40)))
            open(f"{gate}/{writer}", "w").close()
            while len(os.listdir(gate)) < 3:
                time.sleep(0.001)
            won = 0
            for name in range(40):
                try:
                    fs.publish(f"{top}/{writer}-{name}", f"{top}/name{name}")
                    won += 1
                except FileExistsError:
                    pass
            return won

        won: list[int] = []

        def run(writer: str) -> None:
            won.append(once(publish_in_java, "dtap://Tap/processes", writer, str(tmp_path), environment=environment))

        threads = [threading.Thread(target=run, args=(writer,)) for writer in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), sum(won)) == (3, 40)

    def test_standin_not_hpes_jar_whose_rename_replaces(self, in_java: Java) -> None:
        def posix_in_java() -> None:
            """Nothing can tell the winners apart here, but what was there before is safe."""
            fs, top = open_place("dtap://Posix/replacing")
            fs.pipe_file(f"{top}/new", b"new")
            fs.pipe_file(f"{top}/old", b"old")
            assert failure(lambda: fs.publish(f"{top}/new", f"{top}/old"))[0] == "FileExistsError"
            assert fs.cat_file(f"{top}/old") == b"old"
            fs.replace(f"{top}/new", f"{top}/old")
            assert fs.cat_file(f"{top}/old") == b"new"

        in_java(posix_in_java)


class TestStandInNotHpesJar:
    """What Hadoop's filesystem class for dtap may do, by a stand-in: this is NOT HPE's jar."""

    def test_taps_that_refuse(self, in_java: Java) -> None:
        def refusals_in_java() -> dict[str, list[Any]]:
            found = {}
            for tap in ("ReadOnly", "Refusing", "Forbidden", "Down", "NoNameNode", "NoSuchTap"):
                fs = LibhdfsFileSystem(f"dtap://{tap}", user="eve")
                reading = fs.cat_file("/kept").decode() if tap in ("ReadOnly", "Refusing") else fs.url
                looking = [reading] if reading != fs.url else [failure(lambda fs=fs: fs.exists("/kept"))]
                writing = failure(lambda fs=fs: fs.open("/new", "wb").close())
                found[tap] = [*looking, writing, failure(lambda fs=fs: fs.makedirs("/folder"))]
            return found

        found = in_java(refusals_in_java)
        for tap in ("ReadOnly", "Refusing"):
            reading, *others = found[tap]
            assert reading == "kept"
            for kind, code, message in others:
                assert (kind, code) == ("PermissionError", errno.EACCES)
                assert "DataTap may be read-only, or user eve lacks permission" in message
                assert f"dtap://{tap}/" in message
                assert "standard error" in message
        assert [kind for kind, _, _ in found["Forbidden"]] == ["PermissionError"] * 3
        assert "read-only" not in found["Forbidden"][0][2]
        for tap in ("Down", "NoNameNode", "NoSuchTap"):
            for kind, code, message in found[tap]:
                assert (kind, code) == ("ConnectionError", errno.ENOTCONN)
                assert f"Is {tap} a DataTap of this tenant" in message
                assert "hadoop2 or hadoop3" in message

    def test_two_taps_and_hdfs_in_one_process_and_pyarrow_datasets(self, in_java: Java, hdfs: Any) -> None:
        def several_in_java(url: str) -> None:
            import pyarrow as pa
            import pyarrow.dataset as ds
            from pyarrow.fs import FSSpecHandler, PyFileSystem

            table = pa.table({"part": [1, 1, 2], "value": ["a", "b", "c"]})
            for start in ("dtap://Tap", "dtap://Other", url):
                fs, top = open_place(f"{start}/several")
                fs.pipe_file(f"{top}/name", start.encode())
                handle = PyFileSystem(FSSpecHandler(fs))
                parts = ds.partitioning(pa.schema([("part", pa.int64())]), flavor="hive")
                ds.write_dataset(table, f"{top}/lake", filesystem=handle, format="parquet", partitioning=parts)
                lake = ds.dataset(f"{top}/lake", filesystem=handle, format="parquet", partitioning=parts)
                assert lake.to_table(filter=ds.field("part") == 1)["value"].to_pylist() == ["a", "b"]
            for start in ("dtap://Tap", "dtap://Other", url):
                fs, top = open_place(f"{start}/several")
                assert fs.cat_file(f"{top}/name") == start.encode()

        in_java(several_in_java, hdfs.url)

    def test_options_travel_to_a_spawned_process(self, in_java: Java, environment: dict[str, str]) -> None:
        def read_pickled_in_java(pickled: str) -> list[str]:
            import base64

            fs = pickle.loads(base64.b64decode(pickled))
            again = pickle.loads(pickle.dumps(fs))  # after its connection was opened
            return [fs.url, fs.cat_file("/kept").decode(), again.cat_file("/kept").decode()]

        def pickle_used_in_java() -> str:
            import base64

            fs = LibhdfsFileSystem("dtap://Tap", hadoop_conf={"a.b": True})
            fs.ls("/")
            return base64.b64encode(pickle.dumps(fs)).decode()

        used = in_java(pickle_used_in_java)
        fresh = LibhdfsFileSystem("dtap://Tap", hadoop_conf={"a.b": True})
        assert pickle.loads(base64.b64decode(used)) == fresh
        assert once(read_pickled_in_java, used, environment=environment) == ["dtap://Tap", "kept", "kept"]

    def test_a_jar_joins_the_classpath_and_a_running_java_takes_no_other(
        self, hadoop: Any, environment: dict[str, str], hdfs: Any, tmp_path: Path
    ) -> None:
        def jars_in_java(jar: str, url: str) -> list[Any]:
            fs = LibhdfsFileSystem("dtap://Tap", jar=jar)
            read = fs.cat_file("/kept").decode()
            other = LibhdfsFileSystem("dtap://Tap", jar=jar + ".other")
            return [read, LibhdfsFileSystem(url).exists("/"), failure(lambda: other.ls("/"))]

        classes, _, jars = hadoop.classpath.partition(os.pathsep)
        jar = tmp_path / "bluedata-dtap.jar"
        with zipfile.ZipFile(jar, "w") as archive:
            for path in Path(classes).glob("com/**/*.class"):
                archive.write(path, path.relative_to(classes))
        Path(f"{jar}.other").write_bytes(jar.read_bytes())
        bare = {**environment, "CLASSPATH": jars}
        read, reached, (kind, _, message) = once(jars_in_java, str(jar), hdfs.url, environment=bare)
        assert (read, reached, kind) == ("kept", True, "StorageError")
        assert "A Java machine is already running" in message
        assert f"lacks {jar}.other" in message


class TestHdfs:
    """On HDFS itself."""

    def test_forbidden_is_not_missing(self, in_java: Java, hdfs: Any) -> None:
        def forbidden_in_java(url: str) -> list[Any]:
            fs = LibhdfsFileSystem(url, user="eve")
            calls = [
                lambda: fs.exists("/private/file"),
                lambda: fs.isfile("/private/file"),
                lambda: fs.find("/private"),
                lambda: list(fs.walk("/private")),
                lambda: fs.open("/private/file"),
                lambda: fs.open("/private/new", "wb"),
                lambda: fs.rm("/private", recursive=True),
            ]
            assert not fs.exists("/nothing")
            return [failure(call) for call in calls]

        host, _, port = hdfs.url.removeprefix("hdfs://").partition(":")
        fs = HdfsFileSystem(host=host, port=port)
        fs.mkdir("/private", permission=0o700)
        fs.pipe_file("/private/file", b"secret")
        found = in_java(forbidden_in_java, hdfs.url)
        assert {(kind, code) for kind, code, _ in found} == {("PermissionError", errno.EACCES)}
        assert all("user eve" in message and "/private" in message for _, _, message in found)

    def test_two_calls_to_the_namenode_for_a_file_read(self, in_java: Java, hdfs: Any) -> None:
        def read_in_java(url: str) -> None:
            fs, top = open_place(url)
            fs.pipe_file(f"{top}/data", bytes(9_000_000))

        def reread_in_java(url: str) -> None:
            fs, top = open_place(url)
            with fs.open(f"{top}/data", "rb", cache_type="none") as file:
                for at in range(5):
                    file.seek(at * 1_000_000)
                    assert len(file.read(1000)) == 1000
            assert len(fs.find(top)) == 1

        in_java(read_in_java, f"{hdfs.url}/counted")
        before = len(hdfs.calls())
        in_java(reread_in_java, f"{hdfs.url}/counted")
        assert [call for call in hdfs.calls()[before:] if call[1].startswith("/counted")] == [
            ("mkdirs", "/counted"),
            ("listStatus", "/counted/data"),
            ("open", "/counted/data"),
            ("listStatus", "/counted"),
        ]

    def test_a_quota_leaves_no_partial_file(self, in_java: Java, hdfs: Any) -> None:
        def fill_in_java(url: str) -> list[Any]:
            fs, top = open_place(url)
            found = failure(lambda: fs.pipe_file(f"{top}/data", bytes(3_000_000)))
            return [found, fs.ls(top)]

        HdfsFileSystem(host="127.0.0.1", port=hdfs.url.rpartition(":")[2]).mkdir("/small")
        hdfs.tell("quota /small 1000000")
        (kind, code, message), left = in_java(fill_in_java, f"{hdfs.url}/small")
        assert (kind, left) == ("OSError", [])
        assert code in (errno.EIO, errno.EDQUOT)  # a libhdfs of Hadoop 2, as here, does not tell the cause
        assert "quota" in message

    def test_a_namenode_that_is_down_or_silent_is_told_in_15_seconds(
        self, unreachable: Future[tuple[dict[str, list[Any]], float]]
    ) -> None:
        found, hindered = unreachable.result()
        assert len(found) == 8
        for case, (kind, code, took) in found.items():
            assert (kind, code) == ("ConnectionError", errno.ENOTCONN), case
            assert took - hindered < 15, case


class TestProcess:
    """What a Java machine in a process means for the process. Through the stand-in, which is not HPE's jar."""

    def test_a_forked_child_says_so_and_python_keeps_its_signals(self, environment: dict[str, str]) -> None:
        def signals_and_forks_in_java() -> list[str]:
            fs = LibhdfsFileSystem("dtap://Tap")
            heard = []
            signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
            file = fs.open("/kept", "rb", cache_type="none")
            os.kill(os.getpid(), signal.SIGTERM)
            while not heard:
                time.sleep(0.01)
            try:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                time.sleep(600)
            except KeyboardInterrupt:
                heard.append("KeyboardInterrupt")
            ours, theirs = os.pipe()
            import warnings

            warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads, which is what is tried
            if os.fork() == 0:
                calls = [lambda: fs.ls("/"), file.read, lambda: LibhdfsFileSystem("dtap://Other").ls("/")]
                os.write(theirs, json.dumps([failure(call) for call in calls]).encode())
                os._exit(0)
            os.wait()
            return [*heard, fs.cat_file("/kept").decode(), os.read(ours, 10_000).decode()]

        *heard, answer = once(signals_and_forks_in_java, environment=environment)
        assert heard == ["SIGTERM", "KeyboardInterrupt", "kept"]
        for kind, _, message in json.loads(answer):
            assert kind == "StorageError"
            assert "'spawn' or 'forkserver'" in message

    def test_none_runs_in_the_tests_own_process(self) -> None:
        assert not jvm._jvm_runs()


class TestWords:
    """Without Java."""

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    def test_names_go_to_java_and_back(self, name: str) -> None:
        assert text(java(name)) == name
        assert all(byte < 0xF0 for byte in java(name))  # no character of four bytes, which Java does not know

    def test_no_nul(self) -> None:
        with pytest.raises(ValueError, match="NUL"):
            java("a\0b")

    @pytest.mark.parametrize(
        ("cause", "kind", "code"),
        [
            ("DSQuotaExceededException: The DiskSpace quota of /x is exceeded", OSError, errno.EDQUOT),
            (
                "RemoteException: File /x could only be written to 0 of the 1 minReplication nodes",
                OSError,
                errno.ENOSPC,
            ),
            ("AccessControlException: SIMPLE authentication is not enabled", PermissionError, errno.EACCES),
            ("GSSException: No valid credentials provided (Mechanism level: no Kerberos tgt)", PermissionError, 13),
            ("SafeModeException: Cannot create file. Name node is in safe mode.", OSError, errno.EBUSY),
            ("ConnectException: Connection refused", ConnectionError, errno.ENOTCONN),
            ("PathIsNotEmptyDirectoryException: /x is non empty", OSError, errno.EIO),
        ],
    )
    def test_the_cause_that_newer_libhdfs_tells(self, cause: str, kind: type[OSError], code: int) -> None:
        class Names:
            def cause(self) -> str:
                return cause

            def info(self, path: str) -> None:
                assert path == "/"

        found = explained(OSError(255, "?"), Attempt("write", "hdfs://ns", "/x", None), Names(), 0.0)  # type: ignore[arg-type]
        assert (type(found), found.errno, found.filename) == (kind, code, "hdfs://ns/x")
        assert cause in str(found)

    @pytest.mark.parametrize("url", ["TenantStorage", "s3://x", "dtap://", "dtap:///x"])
    def test_urls_that_it_does_not_take(self, url: str) -> None:
        with pytest.raises(StorageError, match="not of the form"):
            LibhdfsFileSystem(url)
