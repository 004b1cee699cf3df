"""Nothing outside an output folder is written, replaced or deleted, whatever links and forged files lie in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from documents import Document
from dtap_dask.errors import JobError, OutputError, StorageError
from dtap_dask.records.commit import finish_commit
from dtap_dask.records.lock import lock
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.remote import RemoteFiles
from in_process import run_in_process

WRITING: dict[str, Callable[[Store], Any]] = {
    "create": lambda store: put(store, "linked/precious"),
    "create deeper": lambda store: put(store, "linked/deep/new"),
    "write_atomic": lambda store: store.write_atomic("linked/precious", b"new"),
    "write_all": lambda store: store.write_all({"linked/precious": b"new"}),
    "publish into": lambda store: store.publish("own/file", "linked/new"),
    "publish from": lambda store: store.publish("linked/precious", "own/new"),
    "replace into": lambda store: store.replace("own/file", "linked/precious"),
    "move_all into": lambda store: store.move_all({"own/file": "linked/precious"}),
    "move_all from": lambda store: store.move_all({"linked/precious": "own/new"}),
    "replace from": lambda store: store.replace("linked/precious", "own/new"),
}
DELETING: dict[str, Callable[[Store], Any]] = {
    "delete": lambda store: store.delete("linked/precious"),
    "delete_all": lambda store: store.delete_all(["linked/precious", "linked/deep/more"]),
    "delete_tree": lambda store: store.delete_tree("linked/deep"),
    "delete_tree of a file": lambda store: store.delete_tree("linked/precious"),
    "delete_empty": lambda store: store.delete_empty("linked/empty"),
}


def put(store: Store, path: str, data: bytes = b"new") -> None:
    with store.create(path) as file:
        file.write(data)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, by its path, without following links."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink()
    }


def fill(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "precious").write_text("years of work")
    (folder / "deep" / "more").write_text("more of it")


@pytest.fixture(params=["local", "fsspec"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """A store with a folder of its own and a link to one that is none of its business."""
    fill(tmp_path / "outside")
    found = open_store(str(tmp_path / "out"))
    put(found, "own/file", b"own")
    (tmp_path / "out" / "linked").symlink_to(tmp_path / "outside")
    if request.param == "fsspec":  # as the store sees any filesystem that is not the operating system's own
        found.root = "out"
        found._files = RemoteFiles(DirFileSystem(str(tmp_path), LocalFileSystem()), "out")
    return found


@pytest.mark.parametrize("name", WRITING)
def test_nothing_is_written_through_a_link(name: str, store: Store, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(StorageError, match=r"out/linked is a symbolic link\. Nothing is written.*put a real folder"):
        WRITING[name](store)
    left = {path: data for path, data in contents(tmp_path).items() if "/.precious." not in path}
    assert left == before


@pytest.mark.parametrize("name", DELETING)
def test_behind_a_link_there_is_nothing_to_delete(name: str, store: Store, tmp_path: Path) -> None:
    before = contents(tmp_path)
    DELETING[name](store)
    assert contents(tmp_path) == before


def test_a_link_in_a_folder_that_is_removed_is_removed_itself(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out" / "own" / "linked").symlink_to(tmp_path / "outside")
    store.delete_tree("own")
    assert sorted(os.listdir(tmp_path / "out")) == ["linked"]
    assert len(contents(tmp_path / "outside")) == 4


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_is_created_in_place_of_a_link_not_where_it_leads(
    link: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    fill(tmp_path / "outside")
    (tmp_path / "out").mkdir()
    link(tmp_path / "outside" / "precious", tmp_path / "out" / "draft")
    store = open_store(str(tmp_path / "out"))
    put(store, "draft")
    assert store.read_bytes("draft") == b"new"
    assert (tmp_path / "outside" / "precious").read_text() == "years of work"


def test_the_folder_itself_and_what_is_above_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "real" / "out").mkdir(parents=True)
    (tmp_path / "above").symlink_to("real")
    (tmp_path / "out").symlink_to("real/out")
    for url in (tmp_path / "above" / "out", tmp_path / "out"):
        store = open_store(str(url))
        put(store, "a/b")
        store.publish("a/b", "c/d")
        store.delete_all(["c/d"])
        assert store.list_files(follow=False) == []


def test_links_are_listed_only_by_who_follows_them(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out" / "file").symlink_to(tmp_path / "outside" / "precious")
    (tmp_path / "out" / "nowhere").symlink_to("nothing")
    assert [file.path for file in store.list_files(follow=False)] == ["own/file"]
    assert store.list_files("linked", follow=False) == []
    if store.local_path() and isinstance(store.root, str) and store.root.startswith("/"):
        found = {file.path for file in store.list_files()}
        assert found == {"own/file", "linked/precious", "linked/deep/more", "file", "nowhere"}


@pytest.mark.parametrize("path", ["/etc/passwd", "//x", "../x", "a/../../x", "a\0b"])
def test_paths_that_could_mean_another_place_are_refused(path: str, store: Store) -> None:
    calls = (store.read_bytes, store.exists, store.delete, store.delete_tree, store.list_files, store.delete_empty)
    for call in (*calls, lambda path: put(store, path), lambda path: store.publish("own/file", path)):
        with pytest.raises(StorageError, match=r"leaves the folder|NUL"):
            call(path)


def test_a_lock_takes_away_only_what_locks_and_probes_leave(tmp_path: Path) -> None:
    fill(tmp_path / "outside")
    run = tmp_path / "out" / "_run"
    run.mkdir(parents=True)
    token = "0123456789abcdef" * 2
    for name in ("lock.txt", "lock.old.json", "notes", f"lock.{token}", f".probe-{token}", f"..probe-{token}.{token}"):
        (run / name).write_text("1")
    (run / "lock.link").symlink_to(tmp_path / "outside")
    (run / f"lock.{token[::-1]}").symlink_to(tmp_path / "outside")
    with lock(open_store(str(tmp_path / "out"))):
        pass
    assert sorted(os.listdir(run)) == sorted(["lock.txt", "lock.old.json", "notes", "lock.link", f"lock.{token[::-1]}"])
    assert len(contents(tmp_path / "outside")) == 4


def small(lake: Path, output: Path, column: str = "fare") -> Document:
    return {
        "version": 1,
        "source": {"path": str(lake / "trips"), "where": "year = 2013 and month <= 1"},
        "features": [{"columns": [column], "steps": [{"impute": {"strategy": "mean"}}]}],
        "output": {"path": str(output)},
    }


def forge(output: Path, **changes: Any) -> None:
    path = output / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_overwrite_follows_neither_links_nor_what_a_manifest_claims(lake: Path, tmp_path: Path) -> None:
    """Links among status files and locks, and below the dataset, to which its manifest and commit.json point."""
    output, outside = tmp_path / "out", tmp_path / "outside"
    fill(outside)
    (output / "_run" / "status").mkdir(parents=True)
    for name in ("_run/status/old", "_run/status/job-abcdef.json", "_run/lock.old"):
        (output / name).symlink_to(outside)
    run_in_process(small(lake, output))
    (output / "extra").symlink_to(outside)
    manifest = json.loads((output / "manifest.json").read_text())
    forge(output, sidecars=[*manifest["sidecars"], {"path": "extra/precious", "bytes": 13, "crc32c": 1}])
    run_in_process(small(lake, output, "tips"), overwrite=True)
    commit(output, ["extra/deep/more"])
    with pytest.raises(JobError, match="holds a dataset already"):
        run_in_process(small(lake, output))
    assert (output / "_run" / "0123abcd" / "commit" / "commit.json").exists()  # a run that is refused changes nothing
    finish_commit(open_store(str(output)))
    assert contents(outside) == {
        "deep": None, "deep/more": b"more of it", "empty": None, "precious": b"years of work",
    }  # fmt: skip


def commit(output: Path, remove: list[str]) -> None:
    """A commit.json that says what is left to do for the manifest that stands."""
    folder = output / "_run" / "0123abcd" / "commit"
    folder.mkdir(parents=True, exist_ok=True)
    crc = google_crc32c.value((output / "manifest.json").read_bytes())
    (folder / "commit.json").write_text(json.dumps({"manifest": crc, "remove": remove}))


@pytest.mark.parametrize("path", ["/precious", "../precious", "_run/lock", "manifest.json", "a//b", "a/./b", "a\0b"])
def test_neither_manifest_nor_commit_file_names_other_files_than_the_dataset_s(
    path: str, lake: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    manifest = run_in_process(small(lake, output))
    (tmp_path / "precious").write_text("years of work")
    commit(output, [path, "kept"])
    (output / "kept").write_text("1")
    store = open_store(str(output))
    finish_commit(store)
    assert store.exists("kept")  # nothing that such a file says is done
    assert read_manifest(store) == manifest
    forge(output, sidecars=[{"path": path, "bytes": 1, "crc32c": 1}])
    with pytest.raises(OutputError, match=r"is not a manifest: .*is no path of a shard or sidecar"):
        read_manifest(store)
    assert (tmp_path / "precious").exists()


FOREIGN = ["transform.json", "sources.parquet", "transform/0.parquet"]


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_files_of_other_programs_are_not_replaced(options: dict[str, bool], lake: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for name in (*FOREIGN, "_run/lock.txt", "_run/notes", "_run/status/notes.txt", "_run/mine/plan.json", "README.md"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")
    with pytest.raises(JobError, match=rf"holds {', '.join(FOREIGN)}, which no dataset there owns.*another output"):
        run_in_process(small(lake, output), **options)
    for name in FOREIGN:
        assert (output / name).read_text() == "mine"
        (output / name).unlink()
    run_in_process(small(lake, output), **options)
    left = [path for path in output.rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    assert {str(path.relative_to(output)) for path in left} == {
        "_run/lock.txt", "_run/notes", "_run/status/notes.txt", "_run/mine/plan.json", "README.md",
    }  # fmt: skip


def test_a_file_beside_a_dataset_is_not_replaced_by_the_next(lake: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_in_process(small(lake, output))
    (output / "transform").mkdir()
    (output / "transform" / "0.parquet").write_text("mine")
    with pytest.raises(JobError, match=r"holds transform/0\.parquet, which no dataset there owns"):
        run_in_process(small(lake, output, "tips"), overwrite=True)
    (output / "transform" / "0.parquet").unlink()
    run_in_process(small(lake, output, "tips"), overwrite=True)
