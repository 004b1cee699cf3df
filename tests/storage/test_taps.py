"""Settings of taps and the way to each: precedence, resolution, and one clear error for everything that is wrong."""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

import dtap_dask
from dtap_dask.errors import JobError, StorageError
from dtap_dask.job import taps as job_taps
from dtap_dask.job.init import starter
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.loading.dataset import open_dataset
from dtap_dask.storage import locations, open_store, taps
from dtap_dask.storage.hadoop import jvm
from dtap_dask.storage.locations import locate
from dtap_dask.storage.settings import environment, parse, resolved
from waiting import unhindered

Settings = dict[str, Any]


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("DTAP_")]:
        monkeypatch.delenv(name)
    locations._log_once.cache_clear()
    with dask.config.set(dtap={}, hdfs={}):
        yield


# Settings


def test_an_argument_goes_before_the_environment_and_that_before_dask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTAP_MAP", f"B={tmp_path}/env,C={tmp_path}/env")
    monkeypatch.setenv("DTAP_BACKEND", "map")
    monkeypatch.setenv("DTAP_DEFAULT_TAP", "B")
    everywhere = {
        "map": dict.fromkeys("ABC", f"{tmp_path}/dask"),
        "backend": "mount",
        "mount-root": "/m",
        "jar": "/j",
    }
    with dask.config.set(dtap=everywhere, hdfs={"user": "dask", "dfs.replication": 2}):
        found = job_taps.settings(
            {"dtap": {"map": {"C": f"{tmp_path}/job"}, "default-tap": "C"}, "hdfs": {"user": "me"}}
        )
    assert found["dtap"] == {
        "map": {"A": f"{tmp_path}/dask", "B": f"{tmp_path}/env", "C": f"{tmp_path}/job"},
        "backend": "map",
        "default_tap": "C",
        "mount_root": "/m",
        "jar": "/j",
        "resolved": True,
    }
    assert found["hdfs"] == {"user": "me", "dfs.replication": "2"}


def test_resolved_settings_mean_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = resolved({"dtap": {"map": {"T": "lake", "U": "~/lake", "V": "hdfs://ns/x"}, "mount_root": "./mounts"}})
    assert found["dtap"]["map"] == {"T": f"{tmp_path}/lake", "U": os.path.expanduser("~/lake"), "V": "hdfs://ns/x"}
    assert found["dtap"]["mount_root"] == f"{tmp_path}/mounts"
    monkeypatch.chdir("/")
    for name, value in {"BACKEND": "mount", "MAP": "T=/other,W=/w", "MOUNT_ROOT": "/o", "DEFAULT_TAP": "W"}.items():
        monkeypatch.setenv(f"DTAP_{name}", value)
    there = resolved(json.loads(json.dumps(found)), {"dtap": {"user": "worker"}})
    assert there == found
    assert resolved(there) == found


def test_a_store_travels_with_what_the_client_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake").mkdir()
    monkeypatch.setenv("DTAP_MAP", f"T={tmp_path}/lake")
    packed = pickle.dumps(open_store("dtap://T/x"))
    monkeypatch.setenv("DTAP_MAP", "T=/elsewhere")
    assert pickle.loads(packed).root == f"{tmp_path}/lake/x"


def test_keys_have_hyphens_or_underscores_and_none_is_not_set() -> None:
    good = parse({"dtap": {"mount-root": "/m", "hadoop-conf": {"a.b": True}, "user": None}, "s3": {"k": 1}})
    assert good == {"dtap": {"mount_root": "/m", "hadoop_conf": {"a.b": "true"}}, "s3": {"k": 1}}


WRONG = [
    ({"dtap": {"mpa": {}}}, "dtap.mpa", r"unknown key 'mpa'\. Did you mean 'map'\?"),
    ({"dtap": {"mount-rot": "x"}}, "dtap.mount-rot", r"Did you mean 'mount_root'"),
    ({"dtap": {"backend": "libhfds"}}, "dtap.backend", r"valid are 'auto', 'map', 'libhdfs' or 'mount'\. Did you mean"),
    ({"dtap": {"backend": ["map"]}}, "dtap.backend", "valid are"),
    ({"dtap": {"map": "T=/x"}}, "dtap.map", "a mapping of keys is needed"),
    (
        {"dtap": {"map": {"T_1": "/x"}}},
        "dtap.map.T_1",
        "not the name of a DataTap: those are letters, digits and hyphens",
    ),
    ({"dtap": {"map": {"T": 3}}}, "dtap.map.T", "found 3: a text is needed"),
    ({"dtap": {"map": {"T": " "}}}, "dtap.map.T", "a text is needed"),
    ({"dtap": {"map": {"T": "dtap://T/x"}}}, "dtap.map.T", "is a DataTap itself. Give the folder or URL"),
    ({"dtap": {"default_tap": "a/b"}}, "dtap.default_tap", "not the name of a DataTap"),
    ({"dtap": {"require_mountpoint": "yes"}}, "dtap.require_mountpoint", "true or false"),
    ({"dtap": {"hadoop_conf": {"a": [1]}}}, "dtap.hadoop_conf.a", "a text, a number, true or false"),
    ({"dtap": {"mount-root": "/a", "mount_root": "/b"}}, "dtap.mount-root", "written twice, as 'mount_root' and"),
    ({"dtpa": {"map": {}}}, "dtpa", r"not a protocol that fsspec knows\. Did you mean 'dtap'\?"),
    ({"dtap": ["x"]}, "dtap", "a mapping of keys is needed"),
    ({"hdfs": {"backend": "java"}}, "hdfs.backend", "valid are 'native' or 'libhdfs'"),
    ({"cache": {"sise": "1GiB"}}, "cache.sise", r"Did you mean 'size'"),
    ({"mounts": {"dtap://T/x": 3}}, "mounts.dtap://T/x", "a local folder is needed"),
    ({"hdfs": {"usr": "me"}}, "hdfs.usr", r"Did you mean 'user'\? Hadoop's own keys have dots"),
    ({"hdfs": {"port": 0}}, "hdfs.port", "from 1 to 65535"),
    ({"hdfs": {"timeout": -1}}, "hdfs.timeout", "a number greater than 0 is needed"),
    ({"hdfs": {"dfs.x": {}}}, "hdfs.dfs.x", "a text, a number"),
]


@pytest.mark.parametrize(("section", "place", "says"), WRONG)
def test_wrong_settings_are_one_clear_error_that_names_the_place(section: Settings, place: str, says: str) -> None:
    with pytest.raises(StorageError, match=rf"^storage\.{place}: .*{says}"):
        open_store("/tmp", section)
    document = {"version": 1, "storage": section, "source": {"path": "x"}, "features": [{"columns": ["a"]}]}
    with pytest.raises(JobError, match=says) as caught:
        Job.load({**document, "output": {"path": "y"}})
    assert [problem.place for problem in caught.value.problems] == [f"storage.{place}"]
    if place.startswith(("dtpa", "cache", "mounts")):  # of Dask's configuration only these two sections are ours
        return
    with dask.config.set(section), pytest.raises(StorageError, match=r"Dask's configuration.* (dtap|hdfs)"):
        job_taps.settings()


def test_the_mark_of_resolved_settings_is_no_key_of_a_job() -> None:
    document = {"version": 1, "storage": {"dtap": {"resolved": True}}, "source": {"path": "x"}}
    with pytest.raises(JobError, match=r"storage\.dtap\.resolved: unknown key"):
        Job.load({**document, "features": [{"columns": ["a"]}], "output": {"path": "y"}})


def test_all_mistakes_of_a_job_file_are_told_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "version: 1\nstorage:\n  dtap:\n    bakend: map\n    map:\n      T: dtap://U\nsource: {path: x}\n"
        "features: [{columns: [a]}]\noutput: {path: y}\n"
    )
    with pytest.raises(JobError) as caught:
        Job.load(tmp_path / "job.yaml")
    assert str(caught.value).splitlines() == [
        "storage.dtap.bakend (line 4): unknown key 'bakend'. Did you mean 'backend'?",
        "storage.dtap.map.T (line 6): dtap://U is a DataTap itself. Give the folder or URL where its data is.",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DTAP_MAP", "T", r"DTAP_MAP holds 'T', which is not of the form Tap=folder"),
        ("DTAP_MAP", "T_1=/x", r"DTAP_MAP: 'T_1' is not the name"),
        ("DTAP_MAP", "T=dtap://U", r"DTAP_MAP: dtap://U is a DataTap itself"),
        ("DTAP_BACKEND", "mpa", r"DTAP_BACKEND: found 'mpa', valid are .* Did you mean 'map'"),
        ("DTAP_DEFAULT_TAP", "a b", r"DTAP_DEFAULT_TAP: 'a b' is not the name"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=says):
        open_store("/tmp")


def test_empty_variables_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKEND", "MAP", "MOUNT_ROOT", "DEFAULT_TAP", "JAR"):
        monkeypatch.setenv(f"DTAP_{name}", " ")
    assert environment() == {}


# URLs


@pytest.mark.parametrize(
    ("url", "tap", "path"),
    [
        ("dtap://TenantStorage/trips/a.parquet", "TenantStorage", "trips/a.parquet"),
        ("dtap://tenant-storage-2", "tenant-storage-2", ""),
        ("dtap://T//a/./b/", "T", "a/b"),
        ("T/a", "T", "a"),
        ("dtap://T/year=201?/x=*/ü n%20d", "T", "year=201?/x=*/ü n%20d"),
        ("dtap://T/a..b/...", "T", "a..b/..."),
    ],
)
def test_a_url_is_taken_apart_with_its_case(url: str, tap: str, path: str) -> None:
    assert taps.parse(url) == taps.TapPath(tap, path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dtap://T/a/../../etc", r"contains '\.\.'"),
        ("dtap://T/..", r"contains '\.\.'"),
        ("dtap://T/%2e%2E/etc", r"contains '\.\.'"),
        ("dtap://T/%252e%252e/etc", r"contains '\.\.'"),
        ("dtap://T/a%2f..%2fetc", r"contains '\.\.'"),
        ("dtap://T/a\\..\\etc", r"contains '\.\.'"),
        ("dtap://../x", "names no DataTap"),
        ("dtap://user@T/x", "names no DataTap: .*without user, port or query"),
        ("dtap://T:8020/x", "names no DataTap"),
        ("dtap://T?user=x", "names no DataTap"),
        ("dtap://T/?fs.dtap.impl=x", "has a query"),
        ("dtap://T/a/b?user=x", "has a query"),
        ("dtap://", "names no DataTap"),
        ("dtap:///", "names no DataTap"),
        (
            "dtap:///lake/x",
            r"two ways: as 'lake/x' in a default DataTap, .*DTAP_DEFAULT_TAP.* dtap://lake/x, with 'lake'",
        ),
    ],
)
def test_what_is_no_place_in_a_tap_is_refused(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=says):
        open_store(url, {"dtap": {"map": {"T": str(tmp_path), "lake": str(tmp_path)}}})


@given(st.text(alphabet="./%2eE5c\\ab", max_size=12))
def test_no_path_leads_out_of_a_tap(path: str) -> None:
    """Held against the operating system's own way to resolve a path, decoded or not."""
    try:
        found = taps.parse(f"dtap://T/{path}").path
    except StorageError:
        return
    from urllib.parse import unquote

    for spelling in (found, unquote(found), unquote(unquote(found)), found.replace("\\", "/")):
        assert f"{os.path.normpath(f'/root/of/tap/{spelling}')}/".startswith("/root/of/tap/")


def test_an_empty_authority_is_the_default_tap(tmp_path: Path) -> None:
    place = locate("dtap:///a/b", resolved({"dtap": {"map": {"T": tmp_path}, "default_tap": "T"}}))
    assert place.root == f"{tmp_path}/a/b"


# The way to a tap


def test_a_map_to_a_folder_and_to_urls(tmp_path: Path) -> None:
    taps_of = {"A": str(tmp_path), "B": f"file://{tmp_path}", "C": "memory://base/c"}
    found = resolved({"dtap": {"map": taps_of}})
    for tap in "AB":
        place = locate(f"dtap://{tap}/x/y", found)
        assert isinstance(place.fs, LocalFileSystem)
        assert place.root == f"{tmp_path}/x/y"
    assert locate("dtap://A", found).way == f"mapped to {tmp_path}"
    assert locate("dtap://C/x", found).root == "/base/c/x"
    assert locate("dtap://C/x", found).way == "mapped to memory://base/c"


def test_passwords_are_in_no_message() -> None:
    found = resolved({"dtap": {"map": {"T": "nonsense://me:secret@host/base"}}})
    with pytest.raises(StorageError, match="nonsense://host/base/x cannot be opened") as caught:
        locate("dtap://T/x", found)
    assert "secret" not in str(caught.value)


def test_a_mapped_folder_must_exist_and_no_other_way_is_taken(tmp_path: Path) -> None:
    (tmp_path / "T").mkdir()
    found = resolved({"dtap": {"map": {"T": f"{tmp_path}/gone"}, "mount_root": str(tmp_path)}})
    with pytest.raises(StorageError, match=rf"'T' is mapped to the folder {tmp_path}/gone, which does not exist here"):
        locate("dtap://T", found)


def test_a_mount_root_holds_a_folder_for_each_tap(tmp_path: Path) -> None:
    (tmp_path / "T").mkdir()
    found = resolved({"dtap": {"mount_root": str(tmp_path)}})
    place = locate("dtap://T/x", found)
    assert (place.root, place.way) == (f"{tmp_path}/T/x", f"below the mount root {tmp_path}")
    with pytest.raises(StorageError, match=rf"the mount root {tmp_path} holds no folder 't'"):
        locate("dtap://t/x", found)


def test_a_folder_may_have_to_be_a_mount_point(tmp_path: Path) -> None:
    (tmp_path / "T").mkdir()
    (tmp_path / "link").symlink_to("/proc")
    for way in ({"map": {"T": f"{tmp_path}/T"}}, {"mount_root": str(tmp_path)}):
        found = resolved({"dtap": {**way, "require_mountpoint": True}})
        with pytest.raises(StorageError, match=rf"{tmp_path}/T is not a mount point here, .*require_mountpoint"):
            locate("dtap://T/x", found)
    for target in ("/proc", f"{tmp_path}/link"):
        found = resolved({"dtap": {"map": {"T": target}, "require_mountpoint": True}})
        assert locate("dtap://T/self", found).root == f"{target}/self"


def test_nothing_is_guessed_and_the_error_says_of_each_way_why_it_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: True)  # as if /bd-fs-mnt/TenantStorage were there
    with pytest.raises(StorageError) as caught:
        open_store("dtap://Tenantstorage/x", {"dtap": {"map": {"TenantStorage": "/lake"}}})
    said = str(caught.value)
    for part in (
        "DataTap 'Tenantstorage' of dtap://Tenantstorage/x is not mapped to anything",
        "cannot be reached through libhdfs: ",
        "has no mount: dtap.mount_root (DTAP_MOUNT_ROOT) is not set.",
        "Did you mean 'TenantStorage'?",
        "`storage: {dtap: {map: {Tenantstorage: /folder/or/url}}}`",
        "storage={'dtap': {'map': {'Tenantstorage': ...}}}",
        "DTAP_MAP=Tenantstorage=/folder/or/url",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ("map", "is not mapped to anything. It may be reached in no other way, as the setting dtap.backend is 'map'."),
        (
            "mount",
            "(DTAP_MOUNT_ROOT) is not set. It may be reached in no other way, as the setting dtap.backend is 'mount'.",
        ),
        ("libhdfs", "cannot be reached through libhdfs: "),
    ],
)
def test_a_backend_is_the_only_way(backend: str, says: str, tmp_path: Path) -> None:
    """A map that would do is passed by, too."""
    others: Settings = {"map": {} if backend == "map" else {"T": str(tmp_path)}}
    if backend != "mount":
        (tmp_path / "T").mkdir()
        others["mount_root"] = str(tmp_path)
    with pytest.raises(StorageError) as caught:
        open_store("dtap://T/x", {"dtap": {**others, "backend": backend}})
    assert says in str(caught.value)


def test_the_way_is_logged_once_for_a_tap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    locations._log_once.cache_clear()  # for this process
    (tmp_path / "U").mkdir()
    found = {"dtap": {"map": {"T": str(tmp_path)}, "mount_root": str(tmp_path)}}
    with caplog.at_level(logging.INFO, logger="dtap_dask.storage"):
        for _ in range(3):
            open_store("dtap://T/x", found)
            open_store("dtap://U", found)
    assert caplog.messages == [
        "DataTap T is reached by its entry in the map",
        "DataTap U is reached by its folder below the mount root",
    ]


@pytest.mark.parametrize(
    ("url", "hdfs", "says"),
    [
        ("hdfs://me@host:port/x", {}, r"hdfs://host:port/x is not of the form hdfs://HOST:PORT/path"),
        (
            "hdfs://host:99999/x",
            {},
            r"hdfs://host:99999/x is not of the form hdfs://HOST:PORT/path: 99999 is not a port",
        ),
        (
            "hdfs://host/x",
            {"user": "nobody-here"},
            r"hdfs://host/x cannot be opened: .*Set HADOOP_USER_NAME=nobody-here",
        ),
        ("hdfs://host/x", {"kerb_ticket": "/t"}, r"hdfs\.kerb_ticket is for hdfs\.backend: libhdfs\. Set KRB5CCNAME"),
    ],
)
def test_wrong_words_about_hdfs(url: str, hdfs: Settings, says: str) -> None:
    for address in (url, "dtap://T"):
        with pytest.raises(StorageError, match=says):
            open_store(address, {"dtap": {"map": {"T": url}}, "hdfs": hdfs})


def test_a_jar_that_does_not_come_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jvm, "PATIENCE", 0.5)
    (tmp_path / "T").mkdir()
    found = resolved({"dtap": {"jar": f"{tmp_path}/not-yet.jar", "mount_root": str(tmp_path)}})
    start, begun = time.monotonic(), unhindered()
    for _ in range(3):
        assert locate("dtap://T", found).way == f"below the mount root {tmp_path}"
    assert time.monotonic() - start >= 0.5
    assert unhindered() - begun < 1


# From Python


def test_calls_without_a_job_file_take_the_environment_and_dask(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTAP_MAP", f"E={lake}")
    with dask.config.set({"dtap.map": {"D": str(lake)}}):
        for tap in "ED":
            assert f"dtap://{tap}/trips" in starter(f"dtap://{tap}/trips")
            assert len(dtap_dask.read(f"dtap://{tap}/trips").columns) > 3
    frame = dtap_dask.read("dtap://S/trips", storage={"dtap": {"map": {"S": lake}}})
    assert len(frame.columns) > 3


@pytest.mark.parametrize(
    "call",
    [
        dtap_dask.read,
        starter,
        dtap_dask.to_dask_ml,
        lambda url: dtap_dask.plan(a_job(url)),
        lambda url: open_dataset(url, None),  # which `load` and `inputs` call first
    ],
)
def test_a_python_call_with_an_unknown_tap_says_where_to_name_it(call: Any) -> None:
    with pytest.raises(StorageError, match=r"'Nowhere'.*`storage: \{dtap.* storage=\{'dtap'.* DTAP_MAP=Nowhere="):
        call("dtap://Nowhere/x")


def a_job(source: str) -> Settings:
    return {"version": 1, "source": {"path": source}, "features": [{"columns": ["a"]}], "output": {"path": "unused"}}
