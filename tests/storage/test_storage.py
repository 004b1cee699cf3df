"""Storage on local folders, and URLs that lead nowhere; what every store promises is in tests/storage/contract."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtap_dask.errors import StorageError
from dtap_dask.storage import FileInfo, Store, open_store


def put(store: Store, path: str, data: bytes) -> None:
    with store.create(path) as file:
        file.write(data)


@pytest.mark.parametrize("url", ["local", "memory://x", "dtap://T/deep/er"])
def test_paths_that_leave_the_folder_are_refused(url: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path) if url == "local" else url, {"dtap": {"map": {"T": str(tmp_path)}}})
    for call in (
        store.read_bytes,
        store.exists,
        store.list_files,
        store.delete_tree,
        lambda path: put(store, path, b""),
    ):
        for path in ("../secret", "a/../../secret", ".."):
            with pytest.raises(StorageError, match=r"leaves the folder"):
                call(path)


def test_local_path_is_for_local_stores(tmp_path: Path) -> None:
    tapped = open_store("dtap://T/deep/er", {"dtap": {"map": {"T": str(tmp_path)}}})
    assert open_store(str(tmp_path)).local_path("x") == str(tmp_path / "x")
    assert tapped.local_path("x") == str(tmp_path / "deep" / "er" / "x")
    assert open_store(f"memory://{uuid.uuid4().hex}").local_path("x") is None


@pytest.mark.parametrize("name", ["run[1]", "run?", "r*"])
def test_a_name_that_looks_like_a_pattern_is_that_name_only(name: str) -> None:
    base = f"memory://{uuid.uuid4().hex}"
    store, other = open_store(f"{base}/{name}"), open_store(f"{base}/run1")
    for each in (store, other):
        put(each, "_run/deep/a", b"1")
    store.publish("_run/deep/a", "train/a")
    put(store, "_run/deep/a", b"2")
    store.replace("_run/deep/a", "train/a")
    put(store, "_run/deep/b", b"3")
    store.delete_tree("_run")
    assert store.read_bytes("train/a") == b"2"
    assert [file.path for file in store.list_files()] == ["train/a"]
    assert not store.exists("_run")
    assert [file.path for file in other.list_files()] == ["_run/deep/a"]


def test_a_folder_is_removed_without_what_links_in_it_lead_to(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "precious").write_text("1")
    (tmp_path / "store" / "_run").mkdir(parents=True)
    (tmp_path / "store" / "_run" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "far")
    store = open_store(str(tmp_path / "store"))
    store.delete_tree("_run")
    store.delete_tree("link")
    assert os.listdir(tmp_path / "store") == []
    assert os.listdir(tmp_path / "far") == ["precious"]


def test_a_mount_that_flushes_no_folders_can_be_published_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    store = open_store(str(tmp_path))
    put(store, "draft", b"1")
    store.publish("draft", "final")
    store.write_atomic("final", b"2")
    assert store.read_bytes("final") == b"2"


def test_a_mount_without_hard_links_can_be_published_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: str, target: str, **_: object) -> None:
        raise OSError(errno.EPERM, "no links here", source, None, target)

    monkeypatch.setattr(os, "link", link)
    store = open_store(str(tmp_path))
    put(store, "draft", b"first")
    store.publish("draft", "folder/final")
    put(store, "draft", b"second")
    with pytest.raises(FileExistsError):
        store.publish("draft", "folder/final")
    assert store.read_bytes("folder/final") == b"first"
    assert store.read_bytes("draft") == b"second"


@pytest.mark.parametrize(
    ("url", "settings", "says"),
    [
        ("dtap://Nowhere/x", {}, "DataTap 'Nowhere' of dtap://Nowhere/x is not mapped.*DTAP_MAP=Nowhere="),
        ("dtap://Tenantstorage/x", {"dtap": {"map": {"TenantStorage": "/tmp"}}}, "Did you mean 'TenantStorage'"),
        ("dtap://T/x", {"dtap": {"map": {"T": "/no/such/folder"}}}, "mapped to the folder /no/such/folder.*not exist"),
        ("dtap://T/a/../../etc", {"dtap": {"map": {"T": "/tmp"}}}, r"contains '\.\.'"),
        ("dtap:///x", {}, "names no DataTap"),
        ("dtap://user@tap:80/x", {}, "names no DataTap"),
        ("nonsense://x", {}, "nonsense://x cannot be opened: .*nonsense"),
    ],
)
def test_urls_that_lead_nowhere(url: str, settings: dict[str, object], says: str) -> None:
    with pytest.raises(StorageError, match=says):
        open_store(url, settings)


def test_the_environment_maps_taps_and_the_job_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.setenv("DTAP_MAP", f"A={tmp_path}/one, B={tmp_path}/one")
    put(open_store("dtap://A"), "x", b"")
    put(open_store("dtap://B", {"dtap": {"map": {"B": f"{tmp_path}/two"}}}), "y", b"")
    assert (tmp_path / "one" / "x").exists()
    assert (tmp_path / "two" / "y").exists()
    monkeypatch.setenv("DTAP_MAP", "nonsense")
    with pytest.raises(StorageError, match="not of the form Tap=folder"):
        open_store("dtap://A")


def test_read_only_and_full_places_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not filled for real: the failing call is replaced, as no such device can be made everywhere."""
    store = open_store(str(tmp_path))

    def refuse(number: int, text: str) -> None:
        def fsync(_: int) -> None:
            raise OSError(number, text)

        monkeypatch.setattr(os, "fsync", fsync)
        put(store, "a", b"x")

    with pytest.raises(StorageError, match="No space left to write .*/a"):
        refuse(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match="is read-only"):
        refuse(errno.EROFS, "Read-only file system")
    with pytest.raises(StorageError, match="No permission to write"):
        refuse(errno.EACCES, "Permission denied")
    assert list(tmp_path.iterdir()) == []


def test_odd_paths_are_told_in_words(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    put(store, "file", b"x")
    (tmp_path / "circle").symlink_to("circle")
    for call in (store.read_bytes, store.size, lambda path: put(store, path, b"")):
        with pytest.raises(StorageError, match=r"/file/below.*: .*a file where a folder is meant: correct the path"):
            call("file/below")
    with pytest.raises(StorageError, match=r"Cannot open .*: Is a directory. This is a folder where a file is meant"):
        open_store(str(tmp_path.parent)).read_bytes(tmp_path.name)
    with pytest.raises(StorageError, match=r"Cannot open .*/circle: .*links on this path lead in a circle"):
        store.read_bytes("circle")
    with pytest.raises(StorageError, match=r"Cannot list .*/circle: .*lead in a circle"):
        open_store(f"{tmp_path}/circle").list_files()
    for call in (store.read_bytes, store.list_files):
        with pytest.raises(StorageError, match=r"File name too long. Choose a shorter path"):
            call("x" * 300)
    assert store.list_files("file/below") == []
    with pytest.raises(FileNotFoundError):
        store.read_bytes("nowhere")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O"), OSError("no number"), TimeoutError(), ConnectionError()])
def test_what_may_pass_stays_for_the_caller_to_try_again(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> bool:
        raise error

    store = open_store(str(tmp_path))
    monkeypatch.setattr(store._files, "exists", fail)
    with pytest.raises(OSError) as found:  # noqa: PT011 - the very same one, whatever it says
        store.exists("a")
    assert found.value is error


def test_broken_links_are_listed_as_such(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    put(store, "a/b/1", b"xyz")
    put(store, "c/2", b"xy")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "good").symlink_to("c/2")
    (tmp_path / "folder").symlink_to("c")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path.parent)
    (tmp_path / "a" / "over").symlink_to("../c")
    (tmp_path / "c" / "back").symlink_to("../a")
    found = store.list_files()
    assert [info.path for info in found if not info.broken and "over" not in info.path and "back" not in info.path] == [
        "a/b/1", "c/2", "folder/2", "good",
    ]  # fmt: skip
    broken = {info.path for info in found if info.broken}
    assert {"dangling", "self", "a/b/up", "a/over/back", "c/back/over"} <= broken
    assert len(found) < 20  # nothing is walked in circles
    assert all(info.size == 0 for info in found if info.broken)


def test_a_file_deleted_while_listing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    put(store, "a", b"x")
    put(store, "b", b"x")
    walk = os.walk

    def late(*arguments: Any, **options: Any) -> Iterator[Any]:
        for found in walk(*arguments, **options):
            (tmp_path / "a").unlink()
            yield found

    monkeypatch.setattr(os, "walk", late)
    assert store.list_files() == [FileInfo("b", 1)]
