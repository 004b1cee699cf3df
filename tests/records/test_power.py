"""The power fails at any moment of a run: a dataset that stands is whole, and running again ends in the same bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtap_dask.records import lock as locks
from dtap_dask.records.commit import finish_commit
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import verify_dataset
from dtap_dask.storage import Store, open_store
from power import Disk, Image, images, made, watched
from two_tasks import contents, prepared, run, seen_by_a_reader


def after(act: str, tmp_path: Path, *, old: bool, draws: int) -> list[Image]:
    """Every state in which a machine may find `tmp_path` after a run that lost its power, in order, each once."""
    if old:
        prepared(tmp_path / "out", old=True)
    found: dict[tuple[tuple[str, bytes | None], ...], Image] = {}

    def look(disk: Disk) -> None:
        for image in images(disk, disk.flushes, draws):
            found.setdefault(tuple(sorted(image.items())), image)

    disk = Disk(tmp_path, look)
    with pytest.MonkeyPatch.context() as patch:
        watched(patch, disk)
        run(open_store(str(tmp_path / "out")), act)
    disk.on_change(disk)
    return list(found.values())


@pytest.fixture(autouse=True)
def _dead_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock that a machine without power left is that of a process that is gone."""
    monkeypatch.setattr(locks, "_gone", lambda holder: True)


@pytest.mark.parametrize("old", [False, True])
def test_a_loss_of_power_never_takes_a_part_of_a_dataset(old: bool, tmp_path: Path) -> None:
    undisturbed = prepared(tmp_path / "undisturbed", old=old)
    run(open_store(undisturbed), "new")
    want = contents(open_store(undisturbed))
    (tmp_path / "disk").mkdir()
    states = after("new", tmp_path / "disk", old=old, draws=1)
    seen = []
    for number, image in enumerate(states):
        folder = tmp_path / str(number)
        folder.mkdir()
        made(image, folder)
        store = open_store(str(folder / "out"))
        seen.append(seen_by_a_reader(store.url))  # verifies shards and sidecars of what stands
        run(open_store(store.url), "new")
        assert contents(store) == want, f"state {number} of {len(states)}"
    assert set(seen) == {"old" if old else None, "new"}
    assert seen[-1] == "new"
    assert len(states) > 80  # the states were those of the whole protocol


def test_what_a_finished_run_leaves_outlasts_a_loss_of_power(tmp_path: Path) -> None:
    """Nothing of it is lost, and nothing comes back of what it removed, for a reader and after what is left to do."""
    (tmp_path / "disk").mkdir()
    prepared(tmp_path / "disk" / "out", old=True)
    disk = Disk(tmp_path / "disk")
    with pytest.MonkeyPatch.context() as patch:
        watched(patch, disk)
        run(open_store(str(tmp_path / "disk" / "out")), "new")
    for number, image in enumerate(images(disk, 0, 20)):
        (tmp_path / str(number)).mkdir()
        made(image, tmp_path / str(number))
        store = open_store(str(tmp_path / str(number) / "out"))
        manifest = read_manifest(store)
        assert manifest.fingerprint == "new"
        verify_dataset(store, manifest)
        finish_commit(store)
        assert verify_dataset(store, manifest).notes == ()


def test_the_harness_notices_what_is_not_flushed(tmp_path: Path) -> None:
    """It would be of no use if it never lost anything: each promise of the store, with and without its flush."""
    disk = Disk(tmp_path)
    store = open_store(str(tmp_path / "deep" / "out"))

    def left() -> set[str]:
        return {path for path, data in disk.image(lambda: False).items() if data is not None}

    with pytest.MonkeyPatch.context() as patch:
        watched(patch, disk)
        with store.create("a/b") as file:
            file.write(b"1")
        assert left() == set()  # no name leads there yet
        store.sync_folders(["a"])
        assert left() == set()
        store.sync_folders([""])
        assert left() == {"deep/out/a/b"}  # the names above are flushed as they are made
        store.move_all({"a/b": "a/c"})
        assert left() == {"deep/out/a/b"}
        store.sync_folders(["a"])
        assert left() == {"deep/out/a/c"}
        store.delete("a/c")
        assert left() == {"deep/out/a/c"}
        store.sync_folders(["a"])
        assert left() == set()
        store.write_atomic("state", b"1")
        store.write_atomic("state", b"2")
        assert disk.image(lambda: False)["deep/out/state"] == b"2"
        with open(os.open(str(tmp_path / "deep" / "out" / "state"), os.O_WRONLY), "wb") as file:
            file.write(b"3")  # behind the harness's back
        assert disk.image(lambda: True)["deep/out/state"] == b"2"


def test_a_commit_waits_for_the_disk_no_more_than_it_must(tmp_path: Path) -> None:
    """Flushes of a whole run of two tasks, six shards and two sidecars, over an older dataset."""
    prepared(tmp_path / "out", old=True)
    disk = Disk(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        watched(patch, disk)
        run(open_store(str(tmp_path / "out")), "new")
    assert disk.flushes <= 33


def test_a_folder_is_flushed_only_where_it_is(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    store.sync_folders(["", "nowhere", "nowhere/deeper"])
    store.write_atomic("file", b"")
    store.sync_folders(["file"])
    assert [file.path for file in store.list_files()] == ["file"]
