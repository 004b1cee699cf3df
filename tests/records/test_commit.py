"""Writing and committing, stopped at every step: a reader never sees half a dataset, a rerun ends in the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dtap_dask.errors import OutputError
from dtap_dask.records import lock as locks
from dtap_dask.records.commit import (
    begin_commit,
    commit_dataset,
    completed_task,
    finish_commit,
    run_write_task,
    sidecar_path,
)
from dtap_dask.records.lock import lock
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import verify_dataset
from dtap_dask.storage import Store, open_store
from property_tests import examples
from two_tasks import INFOS, LAYOUT, batches, contents, manifest_of, plan_of, prepared, run, seen_by_a_reader


class Crash(BaseException):
    """The process is gone: no handler of ours can mend anything after it."""


class CrashingStore(Store):
    """A store that dies at its n-th step. Every change of the filesystem is a step before and one after."""

    def __init__(self, url, steps):
        super().__init__(url)
        self.steps = steps
        self.taken = 0

    def step(self):
        self.taken += 1
        if self.taken > self.steps:
            raise Crash

    @contextlib.contextmanager
    def create(self, path):
        self.step()
        with super().create(path) as file:
            yield _CrashingFile(self, file)
        self.step()

    def publish(self, src, dst):
        self.step()
        super().publish(src, dst)
        self.step()

    def replace(self, src, dst):
        self.step()
        super().replace(src, dst)
        self.step()

    def delete(self, path):
        self.step()
        super().delete(path)

    def delete_tree(self, path):
        for file in self.list_files(path):
            self.delete(file.path)
        self.step()
        super().delete_tree(path)


class _CrashingFile:
    def __init__(self, store, file):
        self.store, self.file = store, file

    def write(self, data):
        data = bytes(data)
        self.file.write(data[: len(data) // 2])
        self.store.step()
        self.file.write(data[len(data) // 2 :])
        return len(data)


def crash(url, steps):
    """Run until step `steps`; False once the run needs no more steps than these."""
    try:
        run(CrashingStore(url, steps), "new")
    except Crash:
        return True
    return False


@pytest.fixture
def dead_holder(monkeypatch):
    """This process crashes in play only: a lock it left counts as that of a process that is gone."""
    monkeypatch.setattr(locks, "_gone", lambda holder: True)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.usefixtures("dead_holder")
def test_stopped_at_every_step_nothing_is_lost_and_a_rerun_ends_the_same(tmp_path, old):
    undisturbed = prepared(tmp_path / "undisturbed", old=old)
    run(open_store(undisturbed), "new")
    want = contents(open_store(undisturbed))
    assert not [path for path in want if path.startswith("_run/") or "old" in path or path == "transform/5.parquet"]
    steps, seen = 0, []
    while True:
        url = prepared(tmp_path / f"stopped-{steps}", old=old)
        if not crash(url, steps):
            break
        seen.append(seen_by_a_reader(url))
        run(open_store(url), "new")
        assert contents(open_store(url)) == want, f"stopped at step {steps}"
        steps += 1
    before = "old" if old else None
    committed = seen.index("new")
    assert set(seen[:committed]) == {before}
    assert set(seen[committed:]) == {"new"}
    assert committed > 50  # the steps were those of the whole protocol
    assert len(seen) - committed > 8


@pytest.mark.usefixtures("dead_holder")
@examples(0.125, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 120), min_size=2, max_size=4))
def test_stopped_again_and_again(tmp_path_factory, crashes):
    url = prepared(tmp_path_factory.mktemp("again"), old=True)
    for steps in crashes:
        crash(url, steps)
        assert seen_by_a_reader(url) in ("old", "new")
    run(open_store(url), "new")
    undisturbed = prepared(tmp_path_factory.mktemp("undisturbed"), old=True)
    run(open_store(undisturbed), "new")
    assert contents(open_store(url)) == contents(open_store(undisturbed))


@pytest.mark.usefixtures("dead_holder")
def test_finish_commit_moves_what_is_left_and_sidecars_are_found_meanwhile(tmp_path):
    steps, states = 0, set()
    while True:
        url = prepared(tmp_path / str(steps), old=True)
        if not crash(url, steps):
            break
        store = open_store(url)
        manifest = read_manifest(store)
        if manifest.fingerprint == "new":
            states.add(sidecar_path(store, manifest, "transform.json"))
            finish_commit(store)
            verified = verify_dataset(store, manifest)
            assert verified.notes == ()
            assert sidecar_path(store, manifest, "transform.json") == "transform.json"
            assert store.read_bytes("transform.json") == b"a,b"
            assert store.is_file("_SUCCESS")
        steps += 1
    assert states == {"transform.json", "_run/new/commit/transform.json"}


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


def write(store, plan, rows, **options):
    return run_write_task(store, "r", plan, rows, infos=INFOS, layout=LAYOUT, **options)


def test_a_task_that_is_done_reads_nothing_and_writes_nothing(store):
    plan = plan_of("f", 0, 0, 20)
    assert completed_task(store, "r", plan) is None
    shards = write(store, plan, batches(0, 20))

    def never():
        raise AssertionError("read again")
        yield

    before = store.counters.bytes_written
    assert write(store, plan, never()) == shards
    assert completed_task(store, "r", plan) == shards
    assert store.counters.bytes_written == before
    assert completed_task(store, "r", dataclasses.replace(plan, rows=(12, 8))) is None


@pytest.mark.parametrize("harm", ["missing", "cut", "changed"])
def test_a_task_whose_shard_was_harmed_is_written_again(store, harm):
    plan = plan_of("f", 0, 0, 20)
    shards = write(store, plan, batches(0, 20))
    path, data = shards[1].path, store.read_bytes(shards[1].path)
    store.delete(path)
    if harm != "missing":
        store.write_atomic(path, data[:-1] + (b"" if harm == "cut" else bytes([data[-1] ^ 1])))
    assert completed_task(store, "r", plan) is None
    assert write(store, plan, batches(0, 20)) == shards
    assert store.read_bytes(path) == data


def test_two_attempts_at_once_agree(store):
    """Dask may run a task twice at the same time; whoever publishes second finds the same bytes."""
    plan = plan_of("f", 0, 0, 20)
    inner = []

    def meanwhile():
        inner.append(write(store, plan, batches(0, 20)))
        yield from batches(0, 20)

    assert write(store, plan, meanwhile()) == inner[0]
    assert [file.path for file in store.list_files("_run/r/attempts")] == []


def test_other_bytes_replace_an_orphan_but_never_a_shard_of_the_dataset(store):
    plan = plan_of("f", 0, 0, 20)
    store.write_atomic(plan.shards[0][0], b"left by a run that never finished")
    shards = write(store, plan, batches(0, 20))
    begin_commit(store, "r")
    commit_dataset(store, "r", manifest_of("f", shards))
    with pytest.raises(OutputError, match=r"belongs to the present dataset, and the same job .* other bytes"):
        write(store, plan, batches(0, 20), seed=1)
    verify_dataset(store, read_manifest(store))
    store.write_atomic(shards[0].path, b"damaged later")
    assert write(store, plan, batches(0, 20)) == shards
    verify_dataset(store, read_manifest(store))


def test_nothing_is_committed_while_a_shard_is_missing(store):
    plan = plan_of("f", 0, 0, 20)
    shards = write(store, plan, batches(0, 20))
    store.delete(shards[2].path)
    begin_commit(store, "r")
    with pytest.raises(OutputError, match=r"Shards in .* are missing .*: 1 file, the first is eval/part-0-f"):
        commit_dataset(store, "r", manifest_of("f", shards))
    assert not store.exists("manifest.json")


def test_a_damaged_manifest_can_be_overwritten(store):
    store.write_atomic("manifest.json", b"{")
    run(store, "new")
    assert seen_by_a_reader(store.url) == "new"


def test_nothing_of_a_finished_run_s_folder_stays(store):
    for name in ("plan.json", "fitted-1/transform.json", "attempts/x/part"):
        store.write_atomic(f"_run/new/{name}", b"1")
    run(store, "new")
    assert [file.path for file in store.list_files("_run")] == []


def test_a_sidecar_that_is_not_what_the_manifest_states_is_told(store):
    run(store, "new")
    manifest = read_manifest(store)
    with pytest.raises(OutputError, match=r"has no other.json; it has \['transform.json'"):
        sidecar_path(store, manifest, "other.json")
    store.write_atomic("transform.json", b"x,y")
    with pytest.raises(OutputError, match=r"transform\.json is missing or is not the file"):
        sidecar_path(store, manifest, "transform.json")


def test_a_lock_keeps_others_out_and_names_its_holder(store):
    with lock(store):
        with pytest.raises(OutputError, match=rf"process {os.getpid()} on .* since .* --resume"), lock(store):
            pass
        with pytest.raises(OutputError, match="Another run"), lock(store, steal=True):
            pass
    assert store.list_files() == []


def _left_lock(store, **changes):
    with lock(store):
        holder = json.loads(store.read_bytes("_run/lock"))
    store.write_atomic("_run/lock", json.dumps({**holder, **changes}).encode())


def test_the_lock_of_a_dead_process_is_taken_over(store):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True)
    _left_lock(store, pid=int(dead.stdout), token="t")
    with lock(store):
        assert json.loads(store.read_bytes("_run/lock"))["pid"] == os.getpid()
    _left_lock(store, born="1", token="t")  # the number is in use again, by a younger process
    with lock(store):
        assert json.loads(store.read_bytes("_run/lock"))["token"] != "t"
    assert store.list_files() == []


@pytest.mark.parametrize("data", [b"", b'{"host"', b"[]", b'{"later": 1}'])
def test_a_lock_that_cannot_be_read_is_told(store, data):
    store.write_atomic("_run/lock", data)
    with (
        pytest.raises(OutputError, match=r"_run/lock is not a lock of this software: .* delete that file"),
        lock(store),
    ):
        pass
    assert [file.path for file in store.list_files()] == ["_run/lock"]


def test_a_fresh_lock_that_cannot_go_back_is_told(store, monkeypatch):
    _left_lock(store, pid=2**22 + 1, token="stale")
    publish = Store.publish

    def racing(self, source, target):
        if source == "_run/lock":  # another run took the stale one over a moment ago
            self.write_atomic(source, self.read_bytes(source).replace(b"stale", b"fresh"))
        publish(self, source, target)
        if source == "_run/lock":  # and a third run found none
            self.write_atomic(source, self.read_bytes(target).replace(b"fresh", b"third"))

    monkeypatch.setattr(Store, "publish", racing)
    with pytest.raises(OutputError, match="Another run is writing"), lock(store):
        pass
    assert json.loads(store.read_bytes("_run/lock"))["token"] == "third"


def test_the_lock_of_another_host_is_taken_over_only_on_demand(store):
    _left_lock(store, host="elsewhere", token="t")
    with pytest.raises(OutputError, match=r"on elsewhere .*--resume"), lock(store):
        pass
    with lock(store, steal=True):
        assert store.is_file("_run/lock")
    assert store.list_files() == []
