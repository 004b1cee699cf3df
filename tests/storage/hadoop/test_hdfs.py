"""HdfsFileSystem on a real HDFS: fsspec's surface, each trap of hdfs_native's, and outages that end in time."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dtap_dask.storage.hadoop.native import HdfsFileSystem, ViewfsFileSystem
from hdfs_clients import CONTENT, connect, in_process
from property_tests import examples


def new_calls(hdfs: Any, before: int) -> list[str]:
    return [operation for operation, _ in hdfs.calls()[before:]]


# What is there


def test_an_entry_says_what_fsspec_wants(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a", b"12345")
    (entry,) = fs.ls(root)
    assert (entry["name"], entry["size"], entry["type"]) == (f"{root}/a", 5, "file")
    assert abs(entry["mtime"] - time.time()) < 60
    assert fs.info(root)["type"] == "directory"
    assert fs.ls(f"{root}/a", detail=False) == [f"{root}/a"]
    assert fs.modified(f"{root}/a").timestamp() == entry["mtime"]


@pytest.mark.parametrize("name", ["a b", "ü", "a#b", "a?b=c", "50%", "a%20b", "[x]", "a+b", "'q'"])
def test_odd_names_are_names(fs: HdfsFileSystem, root: str, name: str) -> None:
    fs.pipe_file(f"{root}/{name}", b"x")
    assert fs.ls(root, detail=False) == [f"{root}/{name}"]
    assert fs.cat_file(fs.unstrip_protocol(f"{root}/{name}")) == b"x"
    fs.rm(f"{root}/{name}")
    assert fs.ls(root) == []


def test_missing_is_told_at_once(fs: HdfsFileSystem, root: str) -> None:
    for call in (fs.ls, fs.info, fs.open, fs.cat_file, fs.rm, fs.rm_file, fs.rmdir, fs.du, fs.modified):
        with pytest.raises(FileNotFoundError) as caught:
            call(f"{root}/none")
        assert caught.value.errno == errno.ENOENT
        assert caught.value.filename == fs.unstrip_protocol(f"{root}/none")
    assert fs.find(f"{root}/none") == []
    assert [call(f"{root}/none") for call in (fs.exists, fs.isfile, fs.isdir)] == [False] * 3


def test_find_asks_once_for_each_folder(fs: HdfsFileSystem, root: str, hdfs: Any) -> None:
    for name in ("b/c/2", "b/1", "a"):
        fs.pipe_file(f"{root}/{name}", b"x")
    fs.makedirs(f"{root}/empty", exist_ok=True)
    before = len(hdfs.calls())
    assert fs.find(root) == [f"{root}/a", f"{root}/b/1", f"{root}/b/c/2"]
    assert new_calls(hdfs, before) == ["listStatus"] * 4
    assert fs.find(root, maxdepth=1, withdirs=True) == [root, f"{root}/a", f"{root}/b", f"{root}/empty"]
    assert fs.find(f"{root}/a", detail=True)[f"{root}/a"]["size"] == 1
    assert fs.glob(f"{root}/b/*") == [f"{root}/b/1", f"{root}/b/c"]
    assert fs.du(root) == 3


def test_listing_of_more_than_the_namenode_gives_at_once(fs: HdfsFileSystem, root: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: fs.makedirs(f"{root}/{number:04}", exist_ok=True), range(1100)))
    assert fs.ls(root, detail=False) == [f"{root}/{number:04}" for number in range(1100)]


def test_find_does_not_hide_what_may_not_be_seen(fs: HdfsFileSystem, root: str, hdfs: Any) -> None:
    fs.pipe_file(f"{root}/secret/a", b"x")
    fs._names.client().set_permission(f"{root}/secret", 0o700)
    for verb in ("fs.find(root)", "fs.exists(root + '/secret/a')", "fs.open(root + '/new', 'wb')", "fs.rm(root, True)"):
        said = as_other_user(hdfs.url, root, verb)
        assert said.startswith("PermissionError 13 "), said
        assert "bob" in said


def as_other_user(url: str, root: str, verb: str) -> str:
    code = (
        "import sys; from dtap_dask.storage.hadoop.native import HdfsFileSystem\n"
        "fs = HdfsFileSystem(**HdfsFileSystem._get_kwargs_from_urls(sys.argv[1])); root = sys.argv[2]\n"
        f"try: print({verb})\n"
        "except OSError as error: print(type(error).__name__, error.errno, error)"
    )
    return in_process(code, url, root, HADOOP_USER_NAME="bob")


# Reading

LENGTH = 3 * 4096 + 17
MOVES = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 2 * LENGTH)),
    st.tuples(st.just("set"), st.integers(0, LENGTH + 50)),
    st.tuples(st.just("move"), st.integers(-LENGTH, LENGTH)),
    st.tuples(st.just("end"), st.integers(-LENGTH, 50)),
    st.tuples(st.just("line"), st.integers(-1, 300)),
    st.tuples(st.just("into"), st.integers(0, 5000)),
)


def play(file: Any, moves: list[tuple[str, int]]) -> list[Any]:
    said: list[Any] = []
    for move, number in moves:
        if move == "read":
            said.append(file.read(number))
        elif move == "line":
            said.append(file.readline(number))
        elif move == "into":
            buffer = bytearray(number)
            said.append((file.readinto(buffer), bytes(buffer)))
        else:
            try:
                said.append(file.seek(number, {"set": 0, "move": 1, "end": 2}[move]))
            except (ValueError, OSError):
                said.append("before the start")
        said.append(file.tell())
    return said


class Strict(io.BytesIO):
    """io.BytesIO goes to 0 where a move from elsewhere would lead before the start; files refuse."""

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset + (0, self.tell(), len(self.getvalue()))[whence] < 0:
            raise ValueError
        return super().seek(offset, whence)


@pytest.fixture(scope="module")
def content(hdfs: Any) -> Iterator[tuple[HdfsFileSystem, str]]:
    fs = connect(hdfs.url)
    fs.pipe_file("/content", CONTENT[:LENGTH])
    yield fs, "/content"
    fs.rm("/content")


@examples(0.2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(MOVES, max_size=12), cache=st.sampled_from(["none", "readahead"]), block=st.sampled_from([7, 4096])
)
def test_reading_is_that_of_any_file(
    content: tuple[HdfsFileSystem, str], moves: list[tuple[str, int]], cache: str, block: int
) -> None:
    fs, path = content
    with fs.open(path, cache_type=cache, block_size=block) as file:
        assert play(file, moves) == play(Strict(CONTENT[:LENGTH]), moves)


def test_a_bare_file_asks_for_exact_ranges(fs: HdfsFileSystem, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.pipe_file(f"{root}/a", CONTENT)
    fetch, size = fs._fetcher(f"{root}/a")
    asked: list[tuple[int, int]] = []

    def counted(offset: int, count: int) -> bytes:
        asked.append((offset, count))
        return fetch(offset, count)

    monkeypatch.setattr(fs, "_fetcher", lambda path: (counted, size))
    with fs.open(f"{root}/a", cache_type="none") as file:
        file.seek(1000)
        assert file.read(10) == CONTENT[1000:1010]
        file.seek(-5, 2)
        assert file.read(100) == CONTENT[-5:]
        assert file.read(1) == b""
    assert asked == [(1000, 10), (len(CONTENT) - 5, 5)]


def test_two_calls_at_most_for_a_file(fs: HdfsFileSystem, root: str, hdfs: Any) -> None:
    before = len(hdfs.calls())
    with fs.open(f"{root}/a", "wb") as file:
        file.write(b"x" * 100_000)
    assert new_calls(hdfs, before) == ["create"]  # that of blocks and the last one are not in the log
    before = len(hdfs.calls())
    with fs.open(f"{root}/a") as file:
        for _ in range(10):
            file.seek(0)
            file.read(5000)
    assert new_calls(hdfs, before) == ["open"]


def test_lines(fs: HdfsFileSystem, root: str) -> None:
    lines = [f"{number} äöü\n" for number in range(50_000)]
    fs.write_text(f"{root}/t", "".join(lines), encoding="utf-8")
    with fs.open(f"{root}/t", "r", encoding="utf-8") as file:
        assert list(file) == lines
    with fs.open(f"{root}/t") as file:
        assert file.size == fs.size(f"{root}/t")
        assert list(file) == [line.encode() for line in lines]


def test_ranges_of_a_file(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a", b"0123456789")
    for start, end in ((None, None), (2, 5), (-3, None), (None, -3), (-5, -2), (5, 2), (8, 100), (100, 200)):
        assert fs.cat_file(f"{root}/a", start, end) == b"0123456789"[start:end]
    assert fs.cat_ranges([f"{root}/a"] * 2, [0, 5], [2, 7]) == [b"01", b"56"]
    assert (fs.head(f"{root}/a", 3), fs.tail(f"{root}/a", 3)) == (b"012", b"789")


def test_sixteen_threads(fs: HdfsFileSystem, root: str) -> None:
    def work(number: int) -> bool:
        data = os.urandom(300_000 + number)
        fs.pipe_file(f"{root}/{number}", data)
        return bool(fs.cat_file(f"{root}/{number}") == data and fs.size(f"{root}/{number}") == len(data))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(32)))
    assert len(fs.find(root)) == 32


# Writing


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (9 << 20) + 3])
def test_every_size_and_every_kind_of_buffer(fs: HdfsFileSystem, root: str, size: int) -> None:
    data = os.urandom(size)
    with fs.open(f"{root}/a", "wb") as file:
        assert file.write(memoryview(data)[: size // 2]) == size // 2
        file.write(bytearray(data[size // 2 :]))
        assert file.tell() == size
    file.close()
    assert fs.cat_file(f"{root}/a") == data


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize(
    "options", [{"mode": "wb"}, {"mode": "w"}, {"mode": "xb"}, {"mode": "wb", "compression": "gzip"}]
)
def test_an_exception_leaves_no_file(
    fs: HdfsFileSystem, root: str, error: type[BaseException], options: dict[str, str]
) -> None:
    def write() -> None:
        with fs.open(f"{root}/a", **options) as file:
            file.write("half" if options["mode"] == "w" else b"half")
            raise error

    with pytest.raises(error):
        write()
    assert fs.ls(root) == []


def test_a_generator_that_is_dropped_leaves_no_file(fs: HdfsFileSystem, root: str) -> None:
    def half() -> Iterator[None]:
        with fs.open(f"{root}/a", "wb") as file:
            file.write(b"half")
            yield

    going = half()
    next(going)
    assert fs.exists(f"{root}/a")
    going.close()
    assert not fs.exists(f"{root}/a")


def test_modes(fs: HdfsFileSystem, root: str) -> None:
    with fs.open(f"{root}/a", "xb") as file:
        file.write(b"1")
    with pytest.raises(FileExistsError):
        fs.open(f"{root}/a", "xb")
    with fs.open(f"{root}/a", "ab") as file:
        assert file.tell() == 1
        file.write(b"2")
    with fs.open(f"{root}/new", "ab") as file:
        file.write(b"3")
    assert fs.cat(fs.find(root)) == {f"{root}/a": b"12", f"{root}/new": b"3"}
    with pytest.raises(ValueError, match="r\\+b"):
        fs.open(f"{root}/a", "r+b")
    with pytest.raises(IsADirectoryError):
        fs.open(root)
    with pytest.raises(FileExistsError):
        fs.open(root, "wb")
    with pytest.raises(NotADirectoryError):
        fs.open(f"{root}/a/b", "wb")
    with pytest.raises(OSError, match="Invalid path name") as caught:
        fs.open(f"{root}/a:b", "wb")
    assert caught.value.errno == errno.EINVAL


def test_what_was_appended_stays_after_an_exception(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a", b"1")

    def append() -> None:
        with fs.open(f"{root}/a", "ab") as file:
            file.write(b"2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        append()
    assert fs.cat_file(f"{root}/a").startswith(b"1")
    with fs.open(f"{root}/a", "ab") as file:
        file.write(b"3")
    assert fs.cat_file(f"{root}/a").endswith(b"3")


def test_compression(fs: HdfsFileSystem, root: str) -> None:
    with fs.open(f"{root}/a.gz", "wb", compression="infer") as file:
        file.write(b"abc" * 1000)
    assert fs.size(f"{root}/a.gz") < 200
    with fs.open(f"{root}/a.gz", "r", compression="infer") as file:
        assert file.read() == "abc" * 1000


def test_a_transaction_gives_all_names_at_its_end_or_none(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a", b"old")
    with fs.transaction:
        fs.pipe_file(f"{root}/a", b"new")
        fs.pipe_file(f"{root}/b", b"b")
        assert fs.cat_file(f"{root}/a") == b"old"
        with pytest.raises(ValueError, match="transaction"):
            fs.open(f"{root}/a", "ab")
    assert fs.cat(fs.find(root)) == {f"{root}/a": b"new", f"{root}/b": b"b"}

    def fail() -> None:
        with fs.transaction:
            fs.pipe_file(f"{root}/c", b"c")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert fs.find(root) == [f"{root}/a", f"{root}/b"]


# Changing what is there


def test_publish_never_replaces(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe({f"{root}/a": b"a", f"{root}/b": b"b", f"{root}/full/c": b"c"})
    fs.mkdir(f"{root}/empty")
    for taken in ("b", "empty", "full", "a"):
        with pytest.raises(FileExistsError) as caught:
            fs.publish(f"{root}/a", f"{root}/{taken}")
        assert caught.value.filename == fs.unstrip_protocol(f"{root}/{taken}")
    assert fs.find(root) == [f"{root}/a", f"{root}/b", f"{root}/full/c"]
    with pytest.raises(FileNotFoundError):
        fs.publish(f"{root}/none", f"{root}/d")
    fs.publish(f"{root}/full", f"{root}/moved")
    fs.replace(f"{root}/a", f"{root}/b")
    assert fs.cat(fs.find(root)) == {f"{root}/b": b"a", f"{root}/moved/c": b"c"}


def test_of_many_publishers_one_wins(fs: HdfsFileSystem, root: str) -> None:
    for number in range(16):
        fs.touch(f"{root}/{number}")

    def publish(number: int) -> bool:
        try:
            fs.publish(f"{root}/{number}", f"{root}/taken")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(publish, range(16))) == 1


def test_copies_with_absolute_paths(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe({f"{root}/from/a": b"a", f"{root}/from/b/c": b"c"})
    fs.cp_file(f"{root}/from/a", f"{root}/a")
    fs.copy(f"{root}/from/", f"{root}/to/", recursive=True)
    assert fs.cat(fs.find(f"{root}/to")) == {f"{root}/to/a": b"a", f"{root}/to/b/c": b"c"}
    assert fs.ls(root, detail=False) == [f"{root}/a", f"{root}/from", f"{root}/to"]


def test_removing(fs: HdfsFileSystem, root: str) -> None:
    names = [f"{root}/{name}" for name in ("a", "b", "x1", "x2", "d/e")]
    fs.pipe(dict.fromkeys(names, b""))
    fs.rm(names[:2])
    fs.rm(f"{root}/x*")
    assert fs.find(root) == [f"{root}/d/e"]
    for call in (fs.rm, fs.rmdir):
        with pytest.raises(OSError, match="not empty") as caught:
            call(f"{root}/d")
        assert caught.value.errno == errno.ENOTEMPTY
    with pytest.raises(IsADirectoryError):
        fs.rm_file(f"{root}/d")
    with pytest.raises(NotADirectoryError):
        fs.rmdir(f"{root}/d/e")
    with pytest.raises(FileNotFoundError):
        fs.rm([f"{root}/none"])
    with pytest.raises(PermissionError):
        fs.rm("/", recursive=True)
    fs.rm(f"{root}/d", recursive=True)
    assert fs.ls(root) == []


def test_folders(fs: HdfsFileSystem, root: str) -> None:
    fs.makedirs(f"{root}/a/b/c", exist_ok=True)
    fs.makedirs(f"{root}/a/b/c", exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.makedirs(f"{root}/a/b")
    with pytest.raises(FileExistsError):
        fs.mkdir(f"{root}/a")
    with pytest.raises(FileNotFoundError):
        fs.mkdir(f"{root}/1/2", create_parents=False)
    fs.touch(f"{root}/file")
    with pytest.raises(FileExistsError):
        fs.makedirs(f"{root}/file", exist_ok=True)
    with pytest.raises(NotADirectoryError):
        fs.makedirs(f"{root}/file/x", exist_ok=True)
    with pytest.raises(NotImplementedError, match="no time of creation"):
        fs.created(f"{root}/file")


def test_touch(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a", b"a")
    before = fs.modified(f"{root}/a")
    time.sleep(0.01)
    fs.touch(f"{root}/a", truncate=False)
    assert fs.modified(f"{root}/a") > before
    assert fs.size(f"{root}/a") == 1
    fs.touch(f"{root}/a")
    assert fs.size(f"{root}/a") == 0


def test_put_and_get(fs: HdfsFileSystem, root: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(CONTENT)
    fs.put(str(tmp_path / "in"), f"{root}/up", recursive=True)
    fs.get(f"{root}/up", str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out" / "a").read_bytes() == CONTENT


# Names, options, processes


@pytest.mark.parametrize(
    ("url", "options", "path"),
    [
        ("hdfs://h:8020/a/b/", {"host": "h", "port": 8020}, "/a/b"),
        ("hdfs://MyNs/a#b?c", {"host": "MyNs"}, "/a#b?c"),
        ("hdfs://my_ns", {"host": "my_ns"}, "/"),
        ("hdfs:///a//b", {}, "/a/b"),
        ("hdfs://me@h:1/a", {"host": "h", "port": 1, "user": "me"}, "/a"),
        ("hdfs://me:secret@h:1/a", {"host": "h", "port": 1, "user": "me"}, "/a"),
        ("hdfs://[::1]:8020/a", {"host": "[::1]", "port": 8020}, "/a"),
        ("hdfs://[::1]/a", {"host": "[::1]"}, "/a"),
    ],
)
def test_urls(url: str, options: dict[str, Any], path: str) -> None:
    assert HdfsFileSystem._get_kwargs_from_urls(url) == options
    assert HdfsFileSystem._strip_protocol(url) == path


def test_two_namenodes_are_two_filesystems() -> None:
    one, other = HdfsFileSystem("MyNs"), HdfsFileSystem("myns")
    assert one is HdfsFileSystem("MyNs")
    assert one is not other
    assert one.fsid != other.fsid
    assert one.unstrip_protocol("/a") == "hdfs://MyNs/a"
    assert ViewfsFileSystem("table").unstrip_protocol("/a") == "viewfs://table/a"


def test_options(hdfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspecs = {"use_listings_cache": False, "skip_instance_cache": True}
    fs = connect(hdfs.url, **fsspecs, **{"dfs.client.use.datanode.hostname": False, "dfs.client.x": 3})
    assert fs.exists("/")
    with pytest.raises(ValueError, match="'prot' .* Did you mean 'port'"):
        HdfsFileSystem("h", prot=1)
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    assert HdfsFileSystem("h", user="alice").host == "h"
    with pytest.raises(ValueError, match="HADOOP_USER_NAME=carol"):
        HdfsFileSystem("h", user="carol")


def test_a_spawned_process(fs: HdfsFileSystem, root: str) -> None:
    fs.pipe_file(f"{root}/a", b"abc")
    assert pickle.loads(pickle.dumps(fs)) is fs
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(fs.cat_file, (f"{root}/a",)).get(60) == b"abc"


FORK = """
import multiprocessing, os, sys
from dtap_dask.storage.hadoop.native import HdfsFileSystem
def use(): return HdfsFileSystem(**HdfsFileSystem._get_kwargs_from_urls(sys.argv[1])).exists("/")
def child():
    if sys.argv[2] == "use":
        try: use()
        except Exception as error: print(type(error).__name__, error, flush=True)
    else:
        print("alive", flush=True)
use()
for ending in (os._exit, sys.exit):
    process = os.fork()
    if process == 0:
        child()
        ending(0)
    os.waitpid(process, 0)
"""


def test_a_forked_process_is_told_so(hdfs: Any) -> None:
    first, second = in_process(FORK, hdfs.url, "use").splitlines()
    for line in (first, second):
        assert line.startswith("StorageError HDFS was used in process")
        assert "spawn" in line


def test_a_forked_process_that_does_not_use_hdfs_lives(hdfs: Any) -> None:
    """fsspec drops its filesystems in a child, and a client that is freed there waits for ever."""
    assert in_process(FORK, hdfs.url, "live").splitlines() == ["alive", "alive"]


def test_a_child_that_forked_before_use_may_use_it(hdfs: Any) -> None:
    code = FORK.replace("\nuse()\n", "\n").replace("try: use()", "try: print(use(), flush=True)")
    assert in_process(code, hdfs.url, "use").splitlines() == ["True", "True"]


# Others' tools, with the class passed


def test_pyarrow_and_pandas(fs: HdfsFileSystem, root: str) -> None:
    table = pa.table({"x": range(10_000), "k": ["a", "b"] * 5000})
    pq.write_table(table, f"{root}/one.parquet", filesystem=fs)
    assert pq.read_table(f"{root}/one.parquet", filesystem=fs) == table
    pq.write_to_dataset(table, f"{root}/lake", partition_cols=["k"], filesystem=fs)
    read = pq.read_table(f"{root}/lake", filesystem=fs, filters=[("k", "=", "a")])
    assert read["x"].to_pylist() == list(range(0, 10_000, 2))
    frame = table.to_pandas()
    frame.to_parquet(f"{root}/pandas.parquet", filesystem=fs)
    pd.testing.assert_frame_equal(pd.read_parquet(f"{root}/pandas.parquet", filesystem=fs), frame)


def test_fsspec_open(hdfs_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hdfs", HdfsFileSystem)
    with fsspec.open(f"{hdfs_url}/a.csv", "w") as file:
        file.write("x,y\n1,2\n")
    fs, path = fsspec.core.url_to_fs(f"{hdfs_url}/a.csv")
    assert isinstance(fs, HdfsFileSystem)
    assert fs.info(path)["name"] == path
    assert pd.read_csv(f"{hdfs_url}/a.csv").to_dict("list") == {"x": [1], "y": [2]}
