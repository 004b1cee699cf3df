"""The contract of `Store`: what every back end must do, whatever lies below.

conftest.py holds the back ends, and the table of the few tests that some of them cannot have. Where a test needs an
HDFS that is a real NameNode and DataNode.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import OutputError, StorageError
from dtap_dask.storage import FileInfo, Store
from property_tests import examples
from waiting import HANG

HERE = Path(__file__).parent
APART = "test_the_contract_in_a_process_of_its_own"
_BAD = ("failure", "error", "skipped")
NAMES = [
    "plain", "with blank", " leading and trailing ", "a%20b", "a b", "a+b", "hash#tag", "key=value", "a&b",
    "year=2013/day=%2F", "ünï/çødé 数据 🚕", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"),
    "brackets[1]", "{a,b}", "st*r", "wh?t", "quote'd\"", "per%cent", "semi;colon", "back\\slash", "~tilde", "$HOME",
]  # fmt: skip


def put(store: Store, path: str, data: bytes) -> None:
    with store.create(path) as file:
        file.write(data)


def put_all(store: Store, files: Iterable[tuple[str, bytes]]) -> None:
    """Several files at once: closing one on HDFS takes half a second, most of it waiting."""
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda file: put(store, *file), files))


def names(store: Store, path: str = "") -> list[str]:
    return [info.path for info in store.list_files(path)]


@pytest.fixture
def store(place: Any) -> Store:
    """A folder that does not exist yet."""
    opened: Store = place.open("new")
    return opened


class TestContract:
    """One test, one promise."""

    def test_this_is_the_back_end_that_its_name_says(self, backend: str, store: Store) -> None:
        client = {"memory": "MemoryFileSystem", "hdfs-native": "HdfsFileSystem", "dtap-map-to-hdfs": "HdfsFileSystem"}
        expected = "LibhdfsFileSystem" if "libhdfs" in backend else client.get(backend, "LocalFileSystem")
        assert type(store._fs).__name__ == expected
        assert (store.local_path() is None) == (expected != "LocalFileSystem")
        assert ("mount root" in store.way, "mapped to" in store.way) == ("mount" in backend, "map" in backend)

    def test_listing_is_sorted_whole_and_relative(self, store: Store) -> None:
        assert store.list_files() == []
        assert not store.exists()
        paths = ["b/2", "a", "b/1", "b.c", "b/_hidden/x", ".hidden", "_SUCCESS", "b/deep/er/1", "B"]
        put_all(store, [(path, path.encode()) for path in paths])
        assert store.list_files() == [FileInfo(path, len(path)) for path in sorted(paths)]
        assert names(store, "b") == ["b/1", "b/2", "b/_hidden/x", "b/deep/er/1"]
        assert names(store, "b/deep") == ["b/deep/er/1"]
        for nothing in ("nowhere", "b/nowhere", "a", "a/below"):
            assert store.list_files(nothing) == []

    def test_looking_tells_files_from_folders_from_nothing(self, store: Store) -> None:
        put(store, "folder/file", b"123")
        assert [store.exists(path) for path in ("", "folder", "folder/file", "file", "folder/file/x")] == [
            True, True, True, False, False,
        ]  # fmt: skip
        assert [store.is_file(path) for path in ("", "folder", "folder/file", "file")] == [False, False, True, False]
        assert store.size("folder/file") == 3
        for look in (store.size, store.read_bytes, store.open_input):
            with pytest.raises(FileNotFoundError):
                look("nowhere")
            with pytest.raises((FileNotFoundError, StorageError)):
                look("folder/file/below")
        with pytest.raises(StorageError, match="a folder where a file is meant"):
            store.read_bytes("folder")
        with pytest.raises(StorageError, match="a file where a folder is meant"):
            put(store, "folder/file/below", b"")
        assert store.read_bytes("folder/file") == b"123"

    def test_odd_names_are_kept_to_the_byte(self, place: Any, store: Store) -> None:
        put_all(store, [(path, path.encode()) for path in NAMES])
        assert names(store) == sorted(NAMES)
        assert [store.read_bytes(path).decode() for path in NAMES] == NAMES
        assert [store.size(path) for path in NAMES] == [len(path.encode()) for path in NAMES]
        for pattern in ("st*r", "wh?t", "brackets[1]", "{a,b}"):
            near = pattern.replace("*", "ee").replace("?", "a").replace("[1]", "1").replace("{a,b}", "a")
            store.publish(NAMES[0], near)  # what a pattern would match, and a name does not
            store.delete(pattern)
            store.delete_tree(pattern)
            store.publish(near, NAMES[0])
        assert names(store) == sorted(set(NAMES) - {"st*r", "wh?t", "brackets[1]", "{a,b}"})
        odd = place.open("a b%20c+d=e&f/ü")
        put(odd, "x y", b"inside")
        assert names(odd) == ["x y"]
        assert names(place.open("a b%20c+d=e&f")) == ["ü/x y"]

    def test_ranges_are_exact_and_counted(self, store: Store) -> None:
        data = random.Random(7).randbytes(100_000)
        put(store, "data", data)
        assert store.counters.bytes_written == len(data)
        before = store.counters.bytes_read

        with store.open_input("data") as file:

            @examples(0.15)
            @given(st.integers(0, len(data) + 10), st.integers(-1, len(data) + 10))
            def check(start: int, size: int) -> None:
                nonlocal before
                assert file.seek(start) == start
                part = file.read(size)
                assert part == (data[start:] if size < 0 else data[start : start + size])
                assert file.tell() == start + len(part)
                assert store.counters.bytes_read == before + len(part)
                before = store.counters.bytes_read

            check()
            assert file.seek(-5, os.SEEK_END) == len(data) - 5
            assert file.seek(2, os.SEEK_CUR) == len(data) - 3
            assert file.read() == data[-3:]
            assert file.readable()
            assert file.seekable()
            assert not file.writable()
        assert file.closed
        assert store.counters.opens == 1

    def test_a_big_file_in_ranges(self, store: Store) -> None:
        size, piece = 64 << 20, random.Random(1).randbytes((1 << 20) - 1)  # so that no block looks like the one before
        data = (piece * 65)[:size]
        with store.create("big") as file:
            for start in range(0, size, 9_999_999):
                assert file.write(memoryview(data)[start : start + 9_999_999]) == min(9_999_999, size - start)
        assert store.size("big") == size
        draw = random.Random(2)
        with store.open_input("big") as opened:
            for start in [0, size - 1, *(draw.randrange(size) for _ in range(20))]:
                opened.seek(start)
                assert opened.read(300_000) == data[start : start + 300_000]
            opened.seek(0)
            digest = hashlib.sha256()
            while block := opened.read(4 << 20):
                digest.update(block)
        assert digest.digest() == hashlib.sha256(data).digest()
        store.delete("big")

    def test_an_empty_file(self, store: Store) -> None:
        put(store, "empty", b"")
        assert store.is_file("empty")
        assert store.list_files() == [FileInfo("empty", 0)]
        with store.open_input("empty") as file:
            assert file.read() == b""
            assert file.seek(0, os.SEEK_END) == 0

    def test_anything_like_bytes_can_be_written(self, store: Store) -> None:
        with store.create("parts") as file:
            for part in (b"one ", bytearray(b"two "), memoryview(b"xthreex")[1:6], memoryview(b"")):
                assert file.write(part) == len(part)
        assert store.read_bytes("parts") == b"one two three"

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
    def test_an_exception_while_writing_leaves_nothing(self, store: Store, error: type[BaseException]) -> None:
        def fail() -> None:
            with store.create("folder/broken") as file:
                file.write(b"half" * 100_000)
                raise error("the writer failed")

        with pytest.raises(error, match="the writer failed"):
            fail()
        assert store.list_files() == []
        assert not store.exists("folder/broken")
        put(store, "folder/broken", b"again")  # and nothing is in the way of the next attempt
        assert store.read_bytes("folder/broken") == b"again"

    def test_publish_never_replaces(self, store: Store) -> None:
        put_all(store, [("tmp/1", b"first"), ("tmp/2", b"second"), ("taken/by/folder", b"")])
        store.publish("tmp/1", "out/deep/final")
        for taken in ("out/deep/final", "taken/by", "taken", "out"):
            with pytest.raises(FileExistsError):
                store.publish("tmp/2", taken)
        with pytest.raises(FileNotFoundError):
            store.publish("tmp/1", "other")
        assert names(store) == ["out/deep/final", "taken/by/folder", "tmp/2"]
        assert store.read_bytes("out/deep/final") == b"first"
        store.delete("taken/by/folder")
        store.publish("tmp/2", "out/second")
        assert store.read_bytes("out/second") == b"second"

    def test_replace_does(self, store: Store) -> None:
        put_all(store, [("old", b"old"), ("new", b"new"), ("folder/x", b"")])
        store.replace("new", "old")
        assert names(store) == ["folder/x", "old"]
        assert store.read_bytes("old") == b"new"
        store.replace("old", "fresh/name")
        assert names(store) == ["folder/x", "fresh/name"]
        with pytest.raises(FileNotFoundError):
            store.replace("old", "fresh/name")
        with pytest.raises((StorageError, FileExistsError)):
            store.replace("fresh/name", "folder")
        assert names(store) == ["folder/x", "fresh/name"]

    def test_write_atomic_writes_and_replaces(self, store: Store) -> None:
        for version in (b"one", b"", b"three"):
            store.write_atomic("folder/state", version)
            assert store.read_bytes("folder/state") == version
            assert names(store) == ["folder/state"]

    def test_readers_beside_write_atomic_see_old_or_new(self, store: Store) -> None:
        versions = [str(number).encode() * 1000 for number in range(5)]
        store.write_atomic("folder/state", versions[0])
        seen: list[bytes] = []
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                seen.append(store.read_bytes("folder/state"))

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            try:
                for version in versions[1:]:
                    store.write_atomic("folder/state", version)
            finally:
                done.set()
            looking.result()
        assert set(seen) <= set(versions)
        assert seen == sorted(seen)

    def test_deletes(self, store: Store) -> None:
        store.delete("nowhere")
        store.delete("no/where")
        store.delete_tree("nowhere")
        put_all(store, [(path, b"x") for path in ("keep", "folder/1", "folder/deep/er/2", "folders", "one")])
        store.delete("one")
        store.delete("one")
        with pytest.raises(FileNotFoundError):
            store.open_input("one")
        with contextlib.suppress(StorageError):  # an error or nothing; but never a folder
            store.delete("folder")
        assert len(names(store, "folder")) == 2
        store.delete_tree("folder")
        assert names(store) == ["folders", "keep"]
        assert not store.exists("folder")
        store.delete_tree("folders")
        store.delete_tree("")
        assert store.list_files() == []
        assert not store.exists()

    def test_of_many_publishers_exactly_one_wins(self, place: Any, store: Store, rivals: Any) -> None:
        rounds, many = 8, 2 if "libhdfs" in place.backend else 3  # a process with Java takes seconds to start
        drafts = [f"{turn}/{number}" for turn in range(rounds) for number in range(many)]
        put_all(store, [(f"tmp/{draft}", draft.encode()) for draft in drafts])
        for turn in range(rounds):
            calls = [("publish", f"tmp/{turn}/{number}", f"final/{turn}") for number in range(many)]
            outcomes = place.race(rivals, store, *calls)
            winner = store.read_bytes(f"final/{turn}").decode()
            assert [outcomes[number] is None for number in range(many)] == [
                winner == f"{turn}/{number}" for number in range(many)
            ], outcomes
            assert [type(outcome) for outcome in outcomes if outcome is not None] == [FileExistsError] * (many - 1)
            drafts.remove(winner)
        assert names(store, "tmp") == [f"tmp/{draft}" for draft in drafts]

    def test_of_many_who_replace_one_stays_whole(self, place: Any, store: Store, rivals: Any) -> None:
        versions = [str(number).encode() * 100_000 for number in range(2)]
        for _ in range(2):
            outcomes = place.race(rivals, store, *(("write_atomic", "folder/state", version) for version in versions))
            assert outcomes == [None, None]
            assert store.read_bytes("folder/state") in versions
            assert names(store) == ["folder/state"]

    def test_of_two_runs_exactly_one_holds_the_lock(
        self, place: Any, store: Store, rivals: Any, tmp_path: Path
    ) -> None:
        for turn in range(3):
            self._hold_at_once(place, store, rivals, tmp_path / str(turn))

    def test_the_lock_of_a_dead_run_is_taken_over_by_one(
        self, place: Any, store: Store, rivals: Any, mortal: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(EOFError):
            mortal.do(store, "die_holding")
        mortal.process.wait()  # until then it is a zombie, which still has its number
        assert names(store) == ["_run/lock"]
        self._hold_at_once(place, store, rivals, tmp_path / "tried")

    @staticmethod
    def _hold_at_once(place: Any, store: Store, rivals: Any, tried: Path) -> None:
        tried.mkdir()
        outcomes = place.race(rivals, store, ("hold", str(tried), 2), ("hold", str(tried), 2))
        assert "held" in outcomes, outcomes
        outcomes.remove("held")
        assert isinstance(outcomes[0], OutputError), outcomes
        assert str(outcomes[0]).startswith("Another run is writing ")
        assert store.list_files() == []

    def test_a_store_travels(self, store: Store) -> None:
        put(store, "a", b"abc")
        copy = pickle.loads(pickle.dumps(store))
        assert copy.read_bytes("a") == b"abc"
        assert (copy.url, copy.counters.opens, store.counters.opens) == (store.url, 1, 0)

    def test_a_spawned_process_reads_and_writes(self, store: Store) -> None:
        put(store, "a", b"abc")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert pool.submit(store.read_bytes, "a").result(60) == b"abc"
            pool.submit(store.write_atomic, "b", b"from there").result(60)
            with pytest.raises(FileNotFoundError):
                pool.submit(store.read_bytes, "c").result(60)
            with pytest.raises(FileExistsError):
                pool.submit(store.publish, "a", "b").result(60)
        assert store.read_bytes("b") == b"from there"

    def test_sixteen_threads(self, store: Store) -> None:
        shared = random.Random(3).randbytes(1 << 20)
        put(store, "shared", shared)

        def work(number: int) -> bool:
            draw = random.Random(number)
            mine = draw.randbytes(200_000)
            put(store, f"tmp/{number}", mine)
            store.publish(f"tmp/{number}", f"out/{number:02}")
            with store.open_input("shared") as file:
                for _ in range(10):
                    start = draw.randrange(len(shared) - 5000)
                    file.seek(start)
                    assert file.read(5000) == shared[start : start + 5000]
            return store.read_bytes(f"out/{number:02}") == mine and len(store.list_files("out")) > 0

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(work, range(16))) == [True] * 16
        assert names(store, "out") == [f"out/{number:02}" for number in range(16)]
        assert store.counters.bytes_read == 16 * (10 * 5000 + 200_000)

    def test_a_killed_writer_is_in_nobodys_way(self, store: Store, mortal: Any) -> None:
        with pytest.raises(EOFError):
            mortal.do(store, "die", "attempts/1/part", b"half" * 500_000)
        put(store, "attempts/2/part", b"whole")
        store.publish("attempts/2/part", "out/part")
        store.delete_tree("attempts")  # as the sweep of the next run does
        assert names(store) == ["out/part"]
        put(store, "attempts/1/part", b"again")
        assert store.read_bytes("attempts/1/part") == b"again"

    def test_no_permission_is_not_the_same_as_missing(self, place: Any, store: Store, stranger: Any) -> None:
        put_all(store, [("open/file", b"x"), ("secret/file", b"x"), ("unreadable", b"x")])
        place.set_mode("new/secret", 0o700)
        place.set_mode("new/unreadable", 0o600)
        missing = ("exists", "is_file", "list_files", "size", "read_bytes")
        found = [stranger.do(store, verb, "open/nowhere") for verb in missing]
        assert found[:3] == [False, False, []]
        assert [type(error) for error in found[3:]] == [FileNotFoundError] * 2
        denied = [stranger.do(store, verb, "secret/file") for verb in (*missing[:2], *missing[3:])]
        denied += [stranger.do(store, "list_files", path) for path in ("", "secret")]
        denied += [stranger.do(store, "read_bytes", "unreadable")]
        denied += [stranger.do(store, "delete", "secret/file"), stranger.do(store, "delete_tree", "secret")]
        for error in denied:
            assert isinstance(error, StorageError), denied
            assert str(error).startswith("No permission to "), denied
        assert names(store) == ["open/file", "secret/file", "unreadable"]

    def test_read_only(self, place: Any, store: Store, stranger: Any) -> None:
        put_all(store, [("file", b"x"), ("draft", b"y")])
        place.set_mode("new", 0o555)
        outcomes = [
            stranger.do(store, "write", "folder/more", b"x"),
            stranger.do(store, "write", "more", b"x"),
            stranger.do(store, "write_atomic", "file", b"x"),
            stranger.do(store, "publish", "draft", "final"),
            stranger.do(store, "replace", "draft", "file"),
            stranger.do(store, "delete", "file"),
        ]
        for error in outcomes:
            assert isinstance(error, StorageError), outcomes
            assert str(error).startswith("No permission to "), outcomes
            assert store.url in str(error)
        assert stranger.do(store, "read_bytes", "file") == b"x"
        assert names(store) == ["draft", "file"]

    def test_no_space_left(self, place: Any, store: Store) -> None:
        put(store, "full/there", b"x")
        place.make_full("new/full/part")
        says = "No space left to write .*full/part"
        if "libhdfs" in place.backend:  # those before Hadoop 2.10 (3.1) do not tell why: then both reasons are named
            says += "|refused to write .*full/part. A full disk or a quota may be the reason"
        for _ in range(2):
            with pytest.raises((StorageError, OSError), match=says):
                put(store, "full/part", b"x" * 2_000_000)
            assert names(store) == ["full/there"]
            place.make_full("new/full/part")
        store.delete("full/part")
        put(store, "elsewhere", b"x")
        assert names(store) == ["elsewhere", "full/there"]

    def test_out_of_reach_is_neither_missing_nor_forbidden(self, unreachable: Any, rivals: Any) -> None:
        (rival,) = rivals(1)
        calls = [("exists", ("a",)), ("list_files", ("",)), ("read_bytes", ("a",)), ("write", ("a", b"x"))]
        begun = rival.do(unreachable.open(), "each", *calls)
        assert isinstance(begun, list), begun
        for (verb, _), (error, seconds) in zip(calls, begun, strict=True):
            assert isinstance(error, ConnectionError), (verb, error)
            assert "cannot be reached" in str(error)
            assert ("dtap://Down" if "libhdfs-dtap" in unreachable.backend else "127.0.0.1") in str(error)
            assert seconds < 15, verb

    def test_hadoops_own_shell_reads_it_and_is_read(
        self, place: Any, store: Store, hadoop: Any, tmp_path: Path
    ) -> None:
        files = {"a/plain": b"one", "a/with blank": b"two", "ü/%20+=&": b"three", "empty": b""}
        put_all(store, files.items())
        inside = f"{place.folder}/new"
        shell = Shell(hadoop, place.hdfs.url, tmp_path)
        listed = shell("-ls", "-R", inside).decode().splitlines()
        sizes = {line.split(f"{inside}/", 1)[1]: int(line.split()[4]) for line in listed if line.startswith("-")}
        assert sizes == {path: len(data) for path, data in files.items()}
        assert shell("-cat", *(f"{inside}/{path}" for path in files)) == b"".join(files.values())
        big = random.Random(5).randbytes(3_000_000)
        shell("-put", "-", f"{inside}/from hadoop/größe%20", data=big)
        assert names(store, "from hadoop") == ["from hadoop/größe%20"]
        assert store.read_bytes("from hadoop/größe%20") == big


class Shell:
    """Hadoop's own client, as `hdfs dfs` starts it."""

    def __init__(self, hadoop: Any, url: str, folder: Path):
        setting = f"<property><name>fs.defaultFS</name><value>{url}</value></property>"
        (folder / "core-site.xml").write_text(f"<configuration>{setting}</configuration>")
        flags = ["-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8"]
        classpath = f"{folder}{os.pathsep}{hadoop.classpath}"
        self._command = ["java", *flags, "-cp", classpath, "org.apache.hadoop.fs.FsShell"]

    def __call__(self, *arguments: str, data: bytes = b"") -> bytes:
        """What one command prints, with `data` to read."""
        command, environment = [*self._command, *arguments], {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, input=data, capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module", autouse=True)
def other_pytest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The back ends by libhdfs, in a pytest of their own; it runs while the others do: most of it is waiting."""
    if not any(test.name.startswith(APART) for test in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("java")
    options = ["-k", f"libhdfs and not {APART}", "-p", "no:cacheprovider", f"--junitxml={folder}/report.xml"]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", str(HERE), f"--basetemp={folder}/tmp", *options],
            env={**os.environ, "DTAP_CONTRACT": "libhdfs"}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    yield process, folder
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def java_run(hadoop: Any, other_pytest: tuple[subprocess.Popen[bytes], Path]) -> dict[str, str]:
    """What the other pytest says of each of its tests: nothing where it passed."""
    process, folder = other_pytest
    process.wait(HANG)
    report = folder / "report.xml"
    assert report.exists(), (folder / "output").read_text()[-3000:]
    return {
        case.attrib["name"]: "".join(f"{child.tag}: {child.text}" for child in case if child.tag in _BAD)
        for case in ElementTree.parse(report).iter("testcase")
    }


@pytest.mark.parametrize("backend_in_java", ["libhdfs-hdfs", "libhdfs-dtap-standin-not-hpes-jar"])
def test_the_contract_in_a_process_of_its_own(
    backend_in_java: str, java_run: dict[str, str], exceptions: tuple[dict[str, dict[str, str]], set[str]]
) -> None:
    """Java in a process breaks forking; what fails in the other pytest fails here by its name."""
    ran = {name: said for name, said in java_run.items() if f"[{backend_in_java}" in name}
    wanted = {name for name in vars(TestContract) if name.startswith("test_")}
    left_out = {name for name, reasons in exceptions[0].items() if backend_in_java in reasons}
    assert {name.partition("[")[0] for name in ran} == wanted - left_out
    failed = {name: said for name, said in ran.items() if said}
    assert not failed, "\n\n".join(f"{name}\n{said[-3000:]}" for name, said in failed.items())


def test_the_table_of_exceptions_names_what_exists(exceptions: tuple[dict[str, dict[str, str]], set[str]]) -> None:
    table, backends = exceptions
    assert set(table) <= set(vars(TestContract))
    assert all(set(reasons) < backends and all(reasons.values()) for reasons in table.values())
