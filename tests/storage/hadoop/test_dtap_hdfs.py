"""`dtap://` for fsspec with taps on a real HDFS: mapped to it, and through libhdfs with a stand-in for HPE's jar."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow.dataset as ds
import pytest
from distributed import Client

from dtap_dask.errors import StorageError
from dtap_dask.job.taps import DtapFileSystem
from dtap_dask.storage import open_store
from dtap_dask.storage.locations import locate
from waiting import HANG

Taps = dict[str, str]


pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def taps(hdfs_url: str, tmp_path: Path) -> Taps:
    """A tap on HDFS, one on a local folder."""
    return {"Far": hdfs_url, "Near": str(tmp_path)}


@pytest.fixture
def closed() -> str:
    """A NameNode's address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"hdfs://127.0.0.1:{server.getsockname()[1]}"


def test_names_and_files_of_a_tap_on_hdfs(taps: Taps) -> None:
    fs = DtapFileSystem(map=taps)
    fs.pipe({"Far/x/2 ü": b"22", "dtap://Far/x/1": b"1"})
    assert fs.ls("dtap://Far/x", detail=False) == ["Far/x/1", "Far/x/2 ü"] == fs.find("Far") == fs.glob("Far/*/*")
    assert fs.info("Far/x/1")["size"] == 1
    assert fs.isdir("Far")
    assert not fs.exists("Far/x/1/below")
    assert not fs.exists("Far/no")
    with fs.open("Far/lines", "w") as file:
        file.write("eins\nzwei\n")
    with pickle.loads(pickle.dumps(fs)).open("dtap://Far/lines", "r") as file:
        assert list(file) == ["eins\n", "zwei\n"]
    assert fs.cat_file("Far/lines", 5, 9) == b"zwei"
    with pytest.raises(FileExistsError):
        fs.publish("Far/lines", "Far/x/1")
    fs.replace("Far/lines", "Far/x/1")
    assert fs.cat("Far/x/1") == b"eins\nzwei\n"
    fs.rm("Far/x", recursive=True)
    assert fs.find("Far") == []


def test_a_file_left_by_an_exception_is_gone_from_both(taps: Taps) -> None:
    fs = DtapFileSystem(map=taps)

    def write() -> None:
        with fs.transaction, fs.open("Far/x", "wb") as far, fs.open("Near/x", "wb") as near:
            far.write(b"1")
            near.write(b"1")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    with pytest.raises(KeyError), fs.open("Far/y", "w") as file:
        raise KeyError(file.write("1"))
    assert fs.find("") == []


def test_files_move_between_hdfs_and_a_folder(taps: Taps) -> None:
    fs = DtapFileSystem(map=taps)
    fs.pipe({"Near/a/f": b"1", "Near/a/deep/g": b"22"})
    fs.mv("Near/a", "Far/b", recursive=True)
    assert {name: fs.cat(name) for name in fs.find("")} == {"Far/b/deep/g": b"22", "Far/b/f": b"1"}
    fs.mv("Far/b/deep", "Far/b/renamed")
    fs.cp_file("Far/b/renamed/g", "Near/g")
    assert fs.cat("dtap://Near/g") == b"22" == fs.cat("Far/b/renamed/g")


def test_a_dead_namenode_is_neither_missing_nor_passed_by(closed: str, tmp_path: Path) -> None:
    """A folder of the tap's name below the mount root would do, and is not taken."""
    (tmp_path / "T").mkdir()
    hdfs = {"dfs.client.failover.max.attempts": "0"}
    fs = DtapFileSystem(map={"T": f"{closed}/x"}, mount_root=str(tmp_path), hdfs=hdfs)
    for call in (fs.exists, fs.isdir, fs.find, fs.open):
        with pytest.raises((ConnectionError, StorageError), match="cannot be reached"):
            call("dtap://T/x")
    assert list((tmp_path / "T").iterdir()) == []


def test_pandas_and_pyarrow(taps: Taps) -> None:
    frame = pd.DataFrame({"id": range(6), "day": ["mon", "tue"] * 3})
    frame.to_parquet("dtap://Far/parts", partition_cols=["day"], storage_options={"map": taps})
    with dask.config.set({"dtap": {"map": taps}}):
        assert pd.read_parquet("dtap://Far/parts", filters=[("day", "==", "tue")])["id"].tolist() == [1, 3, 5]
    found = ds.dataset("Far/parts", filesystem=DtapFileSystem(map=taps), partitioning="hive")
    assert pickle.loads(pickle.dumps(found)).count_rows(filter=ds.field("day") == "mon") == 3


@pytest.mark.filterwarnings("ignore:.*inplace keyword")  # of pandas 3.1 about Dask's own code
def test_dask_workers_need_no_settings(client: Client, taps: Taps) -> None:
    with client.as_current():
        ddf = dd.from_pandas(pd.DataFrame({"id": range(6)}), npartitions=2)
        ddf.to_parquet("dtap://Far/one", storage_options={"map": taps})
        with dask.config.set({"dtap": {"map": taps}}):
            found = dd.read_parquet("dtap://Far/one")
        found.assign(id=found["id"] + 1).to_parquet("dtap://Near/two", storage_options={"map": taps})
    assert sorted(pd.read_parquet(f"{taps['Near']}/two")["id"]) == [1, 2, 3, 4, 5, 6]


def test_a_name_service_comes_with_the_settings(hdfs: Any, hdfs_url: str) -> None:
    """hdfs://Lake is described by Hadoop's keys alone; its case is kept."""
    address = hdfs.url.removeprefix("hdfs://")
    provider = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
    named = {
        "dfs.nameservices": "Lake",
        "dfs.ha.namenodes.Lake": "nn1",
        "dfs.namenode.rpc-address.Lake.nn1": address,
        "dfs.client.failover.proxy.provider.Lake": provider,
    }
    folder = hdfs_url.rpartition("/")[2]
    store = open_store("dtap://T/x", {"dtap": {"map": {"T": f"hdfs://Lake/{folder}"}}, "hdfs": named})
    store.write_atomic("f", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("f") == b"1" == open_store(f"{hdfs_url}/x").read_bytes("f")


IN_JAVA = """
import os, pickle, fsspec, pandas as pd
from dtap_dask.job.taps import DtapFileSystem
from dtap_dask.storage import open_store
from dtap_dask.storage.locations import locate
fsspec.register_implementation("dtap", DtapFileSystem, clobber=True)
fs = DtapFileSystem()
print(locate("dtap://Tap/x", {}).way)
pd.DataFrame({"id": [1, 2]}).to_parquet("dtap://Tap/new/x.parquet")
print(pd.read_parquet("dtap://Tap/new/x.parquet")["id"].tolist())
with fsspec.open("dtap://Tap/new/t", "w") as file:
    file.write("text")
print(fs.find("dtap://Tap"), fs.cat("Tap/new/t"), fs.exists("Tap/no"), pickle.loads(pickle.dumps(fs)) == fs)
fs.mv("Tap/new/t", "Other/t")
print(fs.find("Tap"), fs.find("Other"))
java = locate(os.environ["LAKE"], {"hdfs": {"backend": "libhdfs"}})
print(type(java.fs).__name__, java.way, java.fs.cat(f"{java.root}/t"))
for call in (lambda: fs.open("Tap/../x"), lambda: open_store("dtap://Stranger").list_files()):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_taps_and_hdfs_through_libhdfs_with_a_standin_not_hpes_jar(hadoop: Any, hdfs_url: str, tmp_path: Path) -> None:
    classes = Path(hadoop.classpath.split(os.pathsep)[0])
    with zipfile.ZipFile(tmp_path / "standin.jar", "w") as jar:
        for path in (classes / "com").rglob("*.class"):
            jar.write(path, path.relative_to(classes))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("DTAP_")},
        **hadoop.environment(),
        "DTAP_JAR": f"{tmp_path}/standin.jar",
        "BDFS_TEST_TAPS": f"Tap={hdfs_url}/tap,Other={hdfs_url}/other",
        "LAKE": f"{hdfs_url}/other",
    }
    (tmp_path / "script.py").write_text(IN_JAVA)
    command = [sys.executable, "-W", "ignore", str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=HANG)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        f"through libhdfs with the jar {tmp_path}/standin.jar",
        "[1, 2]",
        "['Tap/new/t', 'Tap/new/x.parquet'] b'text' False True",
        "['Tap/new/x.parquet'] ['Other/t']",
        "LibhdfsFileSystem directly, through libhdfs b'text'",
        "StorageError Tap/../x contains '..', which could leave the DataTap. Write the path without it.",
    ]
    assert "Stranger" in lines[6]
    assert open_store(f"{hdfs_url}/other").read_bytes("t") == b"text"


def test_hdfs_through_libhdfs_says_what_it_lacks(hdfs_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARROW_LIBHDFS_DIR", "HADOOP_HOME", "CLASSPATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match="cannot be reached by hdfs.backend 'libhdfs': .*ARROW_LIBHDFS_DIR"):
        locate(hdfs_url, {"hdfs": {"backend": "libhdfs"}})
