"""`dtap://` for fsspec and all that builds on it: fsspec's own conventions, pandas, pyarrow, Dask; two taps at once."""

from __future__ import annotations

import errno
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.bytes
import dask.dataframe as dd
import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from dask.base import tokenize
from distributed import Client
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract

from dtap_dask.errors import StorageError
from dtap_dask.job.taps import DtapFileSystem
from dtap_dask.storage import dtap
from waiting import HANG

Taps = dict[str, str]


@pytest.fixture(autouse=True)
def empty_memory(registered: None) -> Iterator[None]:
    yield
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def taps(tmp_path: Path) -> Taps:
    """Two taps on one filesystem, one on another."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return {"A": f"{tmp_path}/a", "B": f"{tmp_path}/b", "Mem": "memory://base"}


@pytest.fixture
def fs(taps: Taps) -> DtapFileSystem:
    return DtapFileSystem(map=taps)


class Conventions(abstract.AbstractFixtures):
    """fsspec's own suites."""

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)


class OnFolder(Conventions):
    @pytest.fixture
    def fs(self, tmp_path: Path) -> DtapFileSystem:
        return DtapFileSystem(map={"Tap": str(tmp_path)})

    @pytest.fixture
    def fs_path(self) -> str:
        return "Tap"


class OnMemory(Conventions):
    @pytest.fixture
    def fs(self) -> DtapFileSystem:
        return DtapFileSystem(map={"Tap": "memory://base"})

    @pytest.fixture
    def fs_path(self) -> str:
        return "Tap/deeper"


class TestCopyOnFolder(abstract.AbstractCopyTests, OnFolder):
    pass


class TestGetOnFolder(abstract.AbstractGetTests, OnFolder):
    pass


class TestPutOnFolder(abstract.AbstractPutTests, OnFolder):
    pass


class TestPipeOnFolder(abstract.AbstractPipeTests, OnFolder):
    pass


class TestOpenOnFolder(abstract.AbstractOpenTests, OnFolder):
    pass


class TestCopyOnMemory(abstract.AbstractCopyTests, OnMemory):
    pass


class TestPutOnMemory(abstract.AbstractPutTests, OnMemory):
    pass


# Names


def test_names_are_those_of_the_tap_whatever_lies_behind(fs: DtapFileSystem) -> None:
    for tap in ("A", "B", "Mem"):
        fs.pipe({f"{tap}/x/2 ü": b"22", f"dtap://{tap}/x/1": b"1", f"{tap}/x/y/z": b""})
        assert fs.ls(f"dtap://{tap}/x", detail=False) == [f"{tap}/x/1", f"{tap}/x/2 ü", f"{tap}/x/y"]
        assert [info["name"] for info in fs.ls(f"{tap}/x")] == [f"{tap}/x/1", f"{tap}/x/2 ü", f"{tap}/x/y"]
        assert fs.info(f"dtap://{tap}/x/1/")["name"] == f"{tap}/x/1"
        assert fs.info(tap)["name"] == tap
        assert fs.find(tap) == [f"{tap}/x/1", f"{tap}/x/2 ü", f"{tap}/x/y/z"]
        assert fs.glob(f"dtap://{tap}/*/[12]*") == [f"{tap}/x/1", f"{tap}/x/2 ü"]
        assert [(place, sorted(files)) for place, _, files in fs.walk(f"{tap}/x/y")] == [(f"{tap}/x/y", ["z"])]
        assert fs.du(tap) == 3
    assert fs.ls("dtap://", detail=False) == ["A", "B", "Mem"] == fs.ls("/", detail=False)
    assert fs.glob("*/x/1") == ["A/x/1", "B/x/1", "Mem/x/1"]
    assert len(fs.find("")) == 9
    assert fs.isdir("")
    assert fs.unstrip_protocol("A/x") == "dtap://A/x" == fs.unstrip_protocol("dtap://A/x")


def test_the_default_tap_has_its_name_in_what_comes_back(taps: Taps) -> None:
    with fsspec.open("dtap:///x/f", "wb", map=taps, default_tap="A") as file:
        file.write(b"1")
    fs = DtapFileSystem(map=taps, default_tap="A")
    assert fs.glob("dtap:///x/*") == ["A/x/f"] == fs.find("/x")
    assert fs.cat("/x/f") == b"1" == fs.cat("A/x/f")
    assert fs.mv("/x/f", "dtap:///x/g") is None
    assert fs.ls("dtap:///x", detail=False) == ["A/x/g"]
    with pytest.raises(StorageError, match="can be read in two ways"):
        DtapFileSystem(map=taps).cat("dtap:///x/g")


@pytest.mark.parametrize("path", ["A/../b/x", "dtap://A/x/%2e%2e/%2e%2e/b", "dtap://A/..", "A/x\\..\\..\\b"])
def test_nothing_outside_of_a_tap_is_touched(fs: DtapFileSystem, path: str) -> None:
    for call in (fs.info, fs.exists, fs.ls, fs.find, fs.cat, fs.rm, fs.mkdir, fs.touch, fs.glob):
        with pytest.raises(StorageError, match=r"contains '\.\.'"):
            call(path)
    for call in (fs.mv, fs.copy, fs.publish):
        with pytest.raises(StorageError, match=r"contains '\.\.'"):
            call("A/x", path)


def test_a_listing_that_names_another_place_is_refused(fs: DtapFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = [{"name": "/etc/passwd", "size": 1, "type": "file"}]
    monkeypatch.setattr(LocalFileSystem, "ls", lambda self, path, detail=True: stranger)
    with pytest.raises(StorageError, match=r"A listing of dtap://A/x names /etc/passwd, which is outside"):
        fs.ls("A/x")


def test_an_unknown_tap_is_no_missing_file(fs: DtapFileSystem) -> None:
    for call in (fs.exists, fs.isdir, fs.isfile, fs.find, fs.ls, fs.open):
        with pytest.raises(StorageError, match=r"'Other' of dtap://Other is not mapped.*DTAP_MAP=Other="):
            call("dtap://Other/x")


# What is there, and what cannot be told


def test_only_what_is_not_there_does_not_exist(fs: DtapFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.touch("A/file")
    assert fs.exists("A/file")
    assert fs.isfile("A/file")
    assert fs.isdir("A")
    for path in ("A/no", "A/file/below", "Mem/no"):
        assert not fs.exists(path)
        assert not fs.isfile(path)
        assert not fs.isdir(path)

    def refuse(self: Any, path: str, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(LocalFileSystem, "info", refuse)
    for call in (fs.exists, fs.isfile, fs.isdir):
        with pytest.raises(PermissionError):
            call("A/file")


def test_a_folder_that_may_not_be_read_is_not_left_out(fs: DtapFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of the tests may be root, who may read everything: the refusal is made up."""
    fs.pipe({"A/x/open/f": b"1", "A/x/secret/f": b"2"})
    listed = LocalFileSystem.ls

    def ls(self: LocalFileSystem, path: str, detail: bool = False, **kwargs: Any) -> Any:
        if path.endswith("/secret"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(self, path, detail=detail, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    for call in (fs.find, fs.du, lambda path: fs.glob(f"{path}/**")):
        with pytest.raises(PermissionError):
            call("A/x")
    assert fs.find("A/no") == []


# Moving, copying, deleting


@pytest.mark.parametrize(("one", "two"), [("A", "A"), ("A", "B"), ("A", "Mem"), ("Mem", "B")])
def test_files_and_folders_move_within_and_between_taps(fs: DtapFileSystem, one: str, two: str) -> None:
    fs.pipe({f"{one}/from/f": b"1", f"{one}/from/deep/g": b"22", f"{one}/single": b"333"})
    fs.cp_file(f"{one}/single", f"dtap://{two}/new/copy")
    assert fs.cat(f"{two}/new/copy") == b"333" == fs.cat(f"{one}/single")
    fs.mv(f"dtap://{one}/single", f"dtap://{two}/new/moved")
    assert not fs.exists(f"{one}/single")
    fs.mv(f"{one}/from", f"{two}/to", recursive=True)
    assert {name: fs.cat(name) for name in fs.find(f"{two}/to")} == {f"{two}/to/deep/g": b"22", f"{two}/to/f": b"1"}
    assert not fs.exists(f"{one}/from")
    fs.rename(f"{two}/to/f", f"{two}/new")
    assert fs.find(f"{two}/new") == [f"{two}/new/copy", f"{two}/new/f", f"{two}/new/moved"]
    with pytest.raises(FileNotFoundError):
        fs.mv(f"{one}/nothing", f"{two}/x")


def test_a_copy_between_taps_that_fails_leaves_no_part(fs: DtapFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.pipe("A/x", b"1" * 100)

    def fail(reading: Any, writing: Any, piece: int) -> None:
        writing.write(reading.read(10))
        raise KeyboardInterrupt

    monkeypatch.setattr(dtap.shutil, "copyfileobj", fail)
    with pytest.raises(KeyboardInterrupt):
        fs.cp_file("A/x", "Mem/x")
    assert fs.find("Mem") == []
    assert fs.cat("A/x") == b"1" * 100


def test_deleting(fs: DtapFileSystem, tmp_path: Path) -> None:
    for tap in ("A", "Mem"):
        fs.pipe({f"{tap}/{name}": b"1" for name in ("x/1", "x/2", "y/1", "y/2", "z", "w")})
        fs.rm([f"{tap}/z", f"dtap://{tap}/w"])
        fs.rm(f"{tap}/x/*")
        fs.rm(f"{tap}/y", recursive=True)
        assert fs.find(tap) == []
        with pytest.raises(FileNotFoundError):
            fs.rm(f"{tap}/z")
        with pytest.raises(FileNotFoundError):
            fs.rm_file(f"{tap}/z")
    fs.mkdir("A/empty")
    fs.rmdir("A/empty")
    assert not fs.exists("A/empty")
    for call in (lambda: fs.rm("A", recursive=True), lambda: fs.rmdir("dtap://A/"), lambda: fs.mv("A", "B/x")):
        with pytest.raises(PermissionError, match="The root of a DataTap cannot be deleted"):
            call()
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize("tap", ["A", "Mem"])
def test_a_name_that_looks_like_a_pattern_is_that_name(fs: DtapFileSystem, tap: str) -> None:
    for one, other in (("x[1]", "x1"), ("a*b", "axb"), ("d[1]/f", "d1/f"), ("e[1]/f", "e1/f")):
        with fs.open(f"{tap}/{one}", "wb") as file:
            file.write(b"mine")
        fs.pipe_file(f"{tap}/{other}", b"theirs")
    fs.rm(f"{tap}/x[1]")
    fs.rm(f"{tap}/d[1]", recursive=True)
    fs.mv(f"{tap}/a*b", "B/moved")
    fs.mv(f"{tap}/e[1]", f"{tap}/new", recursive=True)
    assert fs.find(tap) == [f"{tap}/{name}" for name in ("axb", "d1/f", "e1/f", "new/f", "x1")]
    assert fs.cat("B/moved") == b"mine" == fs.cat(f"{tap}/new/f")
    fs.rm(f"{tap}/x*")
    assert not fs.exists(f"{tap}/x1")


@pytest.mark.parametrize("tap", ["A", "Mem"])
def test_publishing_never_replaces(fs: DtapFileSystem, tap: str) -> None:
    fs.pipe({f"{tap}/new": b"new", f"{tap}/old": b"old"})
    with pytest.raises(FileExistsError):
        fs.publish(f"{tap}/new", f"dtap://{tap}/old")
    assert fs.cat(f"{tap}/old") == b"old"
    fs.replace(f"{tap}/new", f"{tap}/old")
    assert fs.cat(f"{tap}/old") == b"new"
    fs.publish(f"{tap}/old", f"{tap}/deeper/one")
    assert fs.find(tap) == [f"{tap}/deeper/one"]


def test_there_is_no_rename_between_filesystems(fs: DtapFileSystem) -> None:
    fs.pipe("A/x", b"1")
    with pytest.raises(OSError, match="Files cannot be renamed between two filesystems"):
        fs.publish("A/x", "Mem/x")


def test_a_transaction_keeps_all_or_nothing(fs: DtapFileSystem) -> None:
    def write(fail: bool) -> None:
        with fs.transaction:
            for tap in ("A", "B"):
                with fs.open(f"{tap}/x", "wb") as file:
                    file.write(b"1")
            assert fs.find("") == []
            if fail:
                raise KeyError

    with pytest.raises(KeyError):
        write(fail=True)
    assert fs.find("") == []
    write(fail=False)
    assert fs.find("") == ["A/x", "B/x"]
    with (
        pytest.raises(NotImplementedError, match=r"dtap://Mem/x is on a filesystem .MemoryFileSystem."),
        fs.transaction,
    ):
        fs.open("Mem/x", "wb")
    assert not fs.exists("Mem/x")


def test_other_calls_of_fsspec(fs: DtapFileSystem, tmp_path: Path) -> None:
    for tap in ("A", "Mem"):
        fs.write_text(f"{tap}/t", "eins\nzwei\n")
        assert fs.read_text(f"{tap}/t") == "eins\nzwei\n"
        assert fs.cat_file(f"{tap}/t", 1, 3) == b"in"
        assert fs.cat_ranges([f"{tap}/t"] * 2, [0, 5], [4, 9]) == [b"eins", b"zwei"]
        assert fs.head(f"{tap}/t", 2) == b"ei"
        assert fs.tail(f"{tap}/t", 2) == b"i\n"
        assert fs.read_block(f"{tap}/t", 0, 6, b"\n") == b"eins\nzwei\n"
        assert fs.size(f"{tap}/t") == 10
        assert fs.modified(f"{tap}/t") is not None
        assert fs.created(f"{tap}/t") is not None
        assert isinstance(fs.ukey(f"{tap}/t"), str)
        assert isinstance(fs.checksum(f"{tap}/t"), int)
        with fs.open(f"{tap}/t") as file:
            assert list(file) == [b"eins\n", b"zwei\n"]
        with fs.open(f"{tap}/t.gz", "w", compression="infer") as file:
            file.write("zipped")
        with fs.open(f"{tap}/t.gz", compression="gzip") as file:
            assert file.read() == b"zipped"
        fs.get(f"{tap}/t", str(tmp_path / tap / "got"))
        assert (tmp_path / tap / "got").read_bytes() == b"eins\nzwei\n"
        fs.touch(f"{tap}/t")
        assert fs.size(f"{tap}/t") == 0
        mapper = fs.get_mapper(f"{tap}/map")
        mapper["k"] = b"v"
        assert dict(mapper) == {"k": b"v"}
        fs.makedirs(f"{tap}/made/deep", exist_ok=True)
        with pytest.raises(FileExistsError):
            fs.makedirs(f"{tap}/made/deep")
    fs.invalidate_cache()


# Instances


def test_an_instance_follows_from_its_settings(taps: Taps, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = DtapFileSystem(map=taps)
    fs.exists("A/x")
    same = DtapFileSystem(dtap={"map": taps})  # a job's `storage` section
    assert fs == same
    assert hash(fs) == hash(same)
    assert tokenize(fs) == tokenize(same)
    assert fs.fsid == same.fsid
    other = DtapFileSystem(map={**taps, "A": taps["B"]})
    assert fs != other
    assert tokenize(fs) != tokenize(other)
    assert fs.fsid != other.fsid
    with_hdfs = DtapFileSystem(map=taps, hdfs={"user": "me"})
    assert with_hdfs.settings["hdfs"] == {"user": "me"}
    assert with_hdfs != fs
    monkeypatch.setenv("DTAP_MAP", f"New={taps['A']}")
    assert DtapFileSystem(map=taps).exists("New")
    with pytest.raises(StorageError, match=r"storage\.dtap\.mpa: unknown key 'mpa'\. Did you mean 'map'\?"):
        DtapFileSystem(mpa=taps)


def test_an_instance_travels_with_what_the_client_said(taps: Taps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTAP_MAP", f"A={taps['A']}")
    fs = DtapFileSystem()
    fs.pipe("A/x", b"1")
    copies = [pickle.dumps(fs), pickle.dumps(fs.open("A/x"))]
    written = fs.to_json()
    monkeypatch.setenv("DTAP_MAP", "A=/elsewhere,B=/b")
    monkeypatch.setenv("DTAP_BACKEND", "mount")
    with dask.config.set({"dtap.user": "worker"}):
        there = pickle.loads(copies[0])
        assert there == fs
        assert there.cat("A/x") == b"1"
        assert there.ls("", detail=False) == ["A"]
        assert fsspec.AbstractFileSystem.from_json(written) == fs
    with pickle.loads(copies[1]) as file:
        assert file.read() == b"1"


def test_another_process_takes_the_way_of_the_client_or_none(tmp_path: Path) -> None:
    """A mount root that is there on the client only: a worker must not take another way, to other data."""
    (tmp_path / "mounts" / "T").mkdir(parents=True)
    fs = DtapFileSystem(mount_root=f"{tmp_path}/mounts")
    assert fs.ls("T") == []
    packed = pickle.dumps(fs)
    (tmp_path / "mounts").rename(tmp_path / "elsewhere")
    with pytest.raises(
        StorageError, match=r"holds no folder 'T'\. It may .* as the way that the client chose is 'mount'"
    ):
        pickle.loads(packed).ls("T")


def test_a_spawned_process_needs_no_settings_of_its_own(taps: Taps) -> None:
    fs = DtapFileSystem(map=taps)
    fs.pipe("A/x", b"1")
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).cat('dtap://A/x'))"
    command = [sys.executable, "-c", code, pickle.dumps(fs).hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/", timeout=HANG)
    assert done.stdout == "b'1'\n"


def test_the_class_of_the_storage_room_knows_no_dask(taps: Taps) -> None:
    with dask.config.set(dtap={"map": taps}):
        assert DtapFileSystem().exists("A")
        with pytest.raises(StorageError, match="is not mapped"):
            dtap.TapFileSystem().exists("A")


# As users use it


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"id": range(6), "day": ["mon", "tue"] * 3})


@pytest.mark.parametrize("tap", ["A", "Mem"])
def test_pandas(frame: pd.DataFrame, taps: Taps, tap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame.to_parquet(f"dtap://{tap}/new/x.parquet", storage_options={"map": taps})
    with dask.config.set({"dtap": {"map": taps}}):
        found = pd.read_parquet(f"dtap://{tap}/new/x.parquet", columns=["id"])
    assert found["id"].tolist() == list(range(6))
    monkeypatch.setenv("DTAP_MAP", ",".join(f"{name}={target}" for name, target in taps.items()))
    frame.to_parquet(f"dtap://{tap}/parts", partition_cols=["day"])
    found = pd.read_parquet(f"dtap://{tap}/parts", filters=[("day", "==", "tue")])
    assert found["id"].tolist() == [1, 3, 5]
    frame.to_csv(f"dtap://{tap}/x.csv.gz", index=False)
    assert pd.read_csv(f"dtap://{tap}/x.csv.gz").equals(frame)


@pytest.mark.parametrize("tap", ["A", "Mem"])
def test_pyarrow(frame: pd.DataFrame, fs: DtapFileSystem, tap: str) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, f"{tap}/x.parquet", filesystem=fs)
    for path in (f"{tap}/x.parquet", f"dtap://{tap}/x.parquet"):
        assert pq.read_table(path, filesystem=fs).equals(table)
    pa.dataset.write_dataset(
        table, f"{tap}/parts", format="parquet", filesystem=fs, partitioning=["day"], partitioning_flavor="hive"
    )
    found = pa.dataset.dataset(f"{tap}/parts", filesystem=fs, partitioning="hive")
    assert found.to_table(filter=pa.dataset.field("day") == "tue")["id"].to_pylist() == [1, 3, 5]
    assert pickle.loads(pickle.dumps(found)).count_rows() == 6


@pytest.mark.filterwarnings("ignore:.*inplace keyword")  # of pandas 3.1 about Dask's own code
def test_dask_with_settings_on_the_client_only(client: Client, taps: Taps, frame: pd.DataFrame) -> None:
    """Two taps in one job, on workers that know of neither."""
    del taps["Mem"]  # every process has a memory of its own
    with client.as_current():
        ddf = dd.from_pandas(frame, npartitions=2)
        ddf.to_parquet("dtap://A/one", storage_options={"map": taps})
        with dask.config.set({"dtap": {"map": taps}}):
            ddf.assign(id=ddf["id"] + 10).to_parquet("dtap://B/two")
            two = dd.read_parquet("dtap://B/two")
            _, blocks = dask.bytes.read_bytes("dtap://A/one/*.parquet", blocksize=None)
        one = dd.read_parquet("dtap://A/one", storage_options={"map": taps}, filters=[("day", "==", "mon")])
        assert sorted(dd.concat([one, two]).compute()["id"]) == [0, 2, 4, *range(10, 16)]
        sizes = [len(part) for part in dask.compute(*(block for file in blocks for block in file))]
        assert sorted(sizes) == sorted(path.stat().st_size for path in Path(taps["A"], "one").glob("*.parquet"))
        open_file = fsspec.open("dtap://A/note", "w", map=taps)
        client.submit(_write, open_file).result()
    assert Path(taps["A"], "note").read_text() == "from a worker"


def _write(open_file: Any) -> None:
    with open_file as file:
        file.write("from a worker")


def test_settings_are_plain_values(taps: Taps) -> None:
    fs = DtapFileSystem(map=taps, hadoop_conf={"dfs.replication": 3}, hdfs={"dfs.client.use.datanode.hostname": True})
    assert json.loads(json.dumps(fs.storage_options)) == fs.storage_options
