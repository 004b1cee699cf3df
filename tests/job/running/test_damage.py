"""Datasets and run files that were damaged or left half done: what --resume and --overwrite make of them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from click.testing import CliRunner

import dtap_dask
from digests import digests
from documents import Document
from dtap_dask.cli import tfrecords
from dtap_dask.errors import DtapError, InterruptedRun, JobError, OutputError, VerificationError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.job.execution import tasks
from dtap_dask.job.running import commit as commit_module
from dtap_dask.job.running import run as run_module
from dtap_dask.records.commit import run_write_task
from dtap_dask.records.example import Layout
from dtap_dask.records.lock import lock
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.shard import TaskShards
from dtap_dask.records.verify import verify_dataset
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.local import LocalFiles
from in_process import interrupt
from in_process import run_in_process as run

DEEP = b"[" * 100_000
DAMAGE = {
    "empty": b"",
    "cut": b'{"a": [1, ',
    "other": b"[1]",
    "deep": DEEP,
    "not UTF-8": b'{"a": "\xe9"}',
    "null": b"null",
}


@pytest.fixture
def small(lake: Path, tmp_path: Path) -> Document:
    """A job with words, numbers, two parts and several tasks, in a second or so."""
    return {
        "version": 1,
        "name": "small",
        "source": {"path": str(lake / "trips"), "where": "year = 2013 and month <= 2"},
        "split": {"parts": {"train": 0.8, "eval": 0.2}, "key": ["trip_id"]},
        "features": [
            {"columns": ["trip_miles"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
            {"columns": ["company"], "steps": ["ordinal_encode"]},
        ],
        "output": {"path": str(tmp_path / "out"), "shard_size": "16KiB"},
    }


def other(job: Document) -> Document:
    return {**job, "features": job["features"][:1]}


def stopped(job: Document, at: str, **options: Any) -> None:
    """A run that is interrupted before one of its steps: start, fit, write, commit."""
    with pytest.raises(InterruptedRun, match="--resume"):
        run(job, before={at: interrupt}, **options)


def output_of(job: Document) -> Path:
    return Path(job["output"]["path"])


def is_sound(job: Document) -> bool:
    """Whether the dataset is what its manifest says, and nothing else lies there."""
    store = open_store(job["output"]["path"])
    try:
        return verify_dataset(store, read_manifest(store)).notes == () and os.listdir(output_of(job) / "_run") == [
            "status"
        ]
    except VerificationError:
        return False


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", ["start", "fit", "write", "commit"])
def test_an_overwrite_that_repairs_and_is_interrupted_is_gone_on_with(at: str, small: Document) -> None:
    """The same job over the same files: its fingerprint is that of the damaged dataset."""
    run(small)
    right = digests(output_of(small))
    flip(sorted((output_of(small) / "train").iterdir())[-1])
    assert not is_sound(small)
    stopped(small, at, overwrite=True)
    run(small, resume=True)
    assert is_sound(small)
    assert digests(output_of(small)) == right


@pytest.mark.parametrize("at", ["start", "fit", "write", "commit"])
def test_an_overwrite_by_another_job_that_is_interrupted_is_gone_on_with(at: str, small: Document) -> None:
    first = run(small)
    stopped(other(small), at, overwrite=True)
    store = open_store(small["output"]["path"])
    assert read_manifest(store) == first
    verify_dataset(store, first)
    with pytest.raises(JobError, match="holds a dataset already"):
        run(other(small))
    second = run(other(small), resume=True)
    assert second.fingerprint != first.fingerprint
    assert is_sound(small)


@pytest.mark.parametrize("at", ["start", "commit"])
def test_an_overwrite_of_a_damaged_manifest_is_gone_on_with(at: str, small: Document) -> None:
    run(small)
    (output_of(small) / "manifest.json").write_text("{")
    stopped(small, at, overwrite=True)
    run(small, resume=True)
    assert is_sound(small)


def test_a_job_whose_overwrite_was_given_up_is_finished_still(small: Document) -> None:
    first = run(small)
    stopped(other(small), "fit", overwrite=True)
    assert run(small, resume=True) == first


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda out: next((out / "train").iterdir()).unlink(), r"train/part-\S+ is missing"),
        (lambda out: next((out / "eval").iterdir()).write_bytes(b"short"), r"eval/part-\S+ has 5 bytes instead of"),
        (lambda out: (out / "transform.json").unlink(), "transform.json is missing or is not the file"),
        (lambda out: flip(out / "transform" / "0.parquet"), "transform/0.parquet is missing or is not the file"),
        (lambda out: shutil.rmtree(out / "train"), r"train/part-\S+ is missing; train/part-\S+ is missing"),
    ],
)
def test_resume_calls_no_damaged_dataset_finished(harm: Callable[[Path], None], says: str, small: Document) -> None:
    run(small)
    assert run(small, resume=True)
    harm(output_of(small))
    with pytest.raises(OutputError, match=rf"has been damaged since: .*{says}.*Write it again with --overwrite"):
        run(small, resume=True)
    run(small, overwrite=True)  # as it says
    assert is_sound(small)


@pytest.mark.parametrize("damage", DAMAGE)
def test_no_damaged_file_of_a_run_keeps_an_overwrite_from_beginning(damage: str, small: Document) -> None:
    """All of them at once: lock, plan, records of tasks, fitted state, status, and a commit file of another run."""
    stopped(small, "commit")
    files = [path for path in (output_of(small) / "_run").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"plan.json", "00000.json", "transform.json", "0.parquet"}
    left = output_of(small) / "_run" / "0123abcd" / "commit"
    left.mkdir(parents=True)
    for path in (*files, output_of(small) / "_run" / "lock", left / "commit.json", left / "transform.json"):
        path.write_bytes(DAMAGE[damage])
    run(small, overwrite=True)
    assert is_sound(small)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_commit_file_beside_a_dataset_is_in_nobody_s_way(damage: str, small: Document) -> None:
    first = run(small)
    left = output_of(small) / "_run" / "0123abcd" / "commit"
    left.mkdir(parents=True)
    (left / "commit.json").write_bytes(DAMAGE[damage])
    (output_of(small) / "transform.json").rename(left / "transform.json")  # as if it had not been moved yet
    assert run(small, resume=True) == first
    assert (output_of(small) / "transform.json").exists()
    run(other(small), overwrite=True)
    assert is_sound(small)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("plan.json", r"plan\.json, the plan of the unfinished run, was damaged.*Start over with --overwrite"),
        ("fitted-1/transform.json", r"fitted-1/transform\.json, or a vocabulary.* was damaged.*--overwrite"),
        ("fitted-1/transform/0.parquet", r"fitted-1/transform\.json, or a vocabulary.* was damaged.*--overwrite"),
        ("tasks/00000.json", None),
    ],
)
def test_a_damaged_file_of_a_run_is_told_by_resume_unless_it_can_do_without(
    file: str, says: str | None, damage: str, small: Document, stopped_once: Path
) -> None:
    shutil.copytree(stopped_once, output_of(small))
    [path] = output_of(small).glob(f"_run/*/{file}")
    path.write_bytes(DAMAGE[damage])
    if says is None:
        run(small, resume=True)
        assert is_sound(small)
    else:
        with pytest.raises(OutputError, match=says):
            run(small, resume=True)


_STOPPED: dict[str, Path] = {}


@pytest.fixture
def stopped_once(small: Document, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the output of a run that was stopped before its commit."""
    if not _STOPPED:
        stopped(small, "commit")
        _STOPPED["output"] = tmp_path_factory.mktemp("stopped") / "out"
        shutil.move(output_of(small), _STOPPED["output"])
    return _STOPPED["output"]


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_shard_that_is_missing_is_named(command: str, small: Document) -> None:
    run(small)
    shutil.rmtree(output_of(small) / "train")
    result = CliRunner().invoke(tfrecords, [command, small["output"]["path"]])
    assert result.exit_code == (1 if command == "show" else 3)
    assert re.search(r"train/part-\S+ is missing.*--overwrite", result.output)


def test_a_plan_that_names_other_files_is_damaged(small: Document) -> None:
    stopped(small, "commit")
    [path] = output_of(small).glob("_run/*/plan.json")
    plan = json.loads(path.read_text())
    plan["shards"][0]["shards"][0][0] = "README.md"
    path.write_text(json.dumps(plan))
    (output_of(small) / "README.md").write_text("mine")
    with pytest.raises(OutputError, match="was damaged"):
        run(small, resume=True)
    assert (output_of(small) / "README.md").read_text() == "mine"


def test_a_damaged_lock_stops_all_but_an_overwrite_and_what_it_says_works(small: Document) -> None:
    stopped(small, "commit")
    lock_file = output_of(small) / "_run" / "lock"
    lock_file.write_bytes(DEEP)
    for options in ({}, {"resume": True}):
        with pytest.raises(
            OutputError, match=r"_run/lock is not a lock .* delete that file and continue with .* --resume"
        ):
            run(small, **options)
    lock_file.unlink()
    run(small, resume=True)
    assert is_sound(small)


def test_a_run_whose_status_was_damaged_is_told_by_name(small: Document) -> None:
    from dtap_dask.job.status.folder import read_notes, read_run, read_runs

    run(small)
    store = open_store(small["output"]["path"])
    [told] = read_runs(store)
    for kind, ask in (("json", read_run), ("log", read_notes)):
        (output_of(small) / "_run" / "status" / f"{told.id}.{kind}").write_bytes(DEEP)
        with pytest.raises(OutputError, match=rf"_run/status/{told.id}\.{kind} is damaged.*delete it"):
            ask(store, told.id)
    assert read_runs(store) == []
    run(other(small), overwrite=True)
    assert len(read_runs(store)) == 1


@pytest.mark.parametrize("failing", ["replace", "move", "delete", "open_output", "sync_folder"])
def test_a_disk_that_fails_for_a_moment_during_the_commit_costs_a_retry(
    failing: str, small: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first call after the shards are written, and at the one in the middle of the sidecars' moves."""
    monkeypatch.setattr(tasks, "IO_PAUSES", (0, 0, 0))
    run(small)
    right = digests(output_of(small))
    real, commit = getattr(LocalFiles, failing), run_module.commit
    for after in (0, 1):
        calls = [-1]

        def flaky(*arguments: Any, calls: list[int] = calls, after: int = after) -> Any:
            calls[0] += calls[0] >= 0
            if calls[0] == after + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        def committing(
            *arguments: Any, calls: list[int] = calls, after: int = after, **options: Any
        ) -> dtap_dask.Manifest:
            calls[0] = 0
            try:
                return commit(*arguments, **options)
            finally:
                assert calls[0] > after, "the call that was to fail was never made"
                calls[0] = -1

        run(other(small), overwrite=True)
        with monkeypatch.context() as patch:
            patch.setattr(LocalFiles, failing, flaky)
            patch.setattr(run_module, "commit", committing)
            run(small, overwrite=True)
        assert digests(output_of(small)) == right
        assert is_sound(small)


def test_a_disk_that_keeps_failing_during_the_commit_ends_in_advice_that_works(
    small: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "IO_PAUSES", (0, 0))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(commit_module, "commit_dataset", fail)
        with pytest.raises(InterruptedRun, match=r"failed 3 times .*Input/output error.* continue with --resume"):
            run(small)
    run(small, resume=True)
    assert is_sound(small)


def test_what_ended_a_task_is_told_even_if_its_attempt_cannot_be_removed(
    small: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where permission is lost while tasks write: nothing can be written, and nothing removed."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def sink(files: LocalFiles, path: str) -> BinaryIO:
        for name in ("sync", "delete", "delete_tree"):
            monkeypatch.setattr(LocalFiles, name, refuse)
        return real(files, path)

    real = LocalFiles.open_output
    monkeypatch.setattr(LocalFiles, "open_output", sink)
    infos = (FeatureInfo("id", "feature", "int64", "int64"),)
    plan = TaskShards(0, ("train",), (1,), (("train/part-0",),))
    rows = [(np.zeros(1, np.int16), {"id": np.zeros(1, np.int64)})]
    with pytest.raises(DtapError, match=r"No permission to write .*train/part-0\."):
        run_write_task(open_store(str(tmp_path)), "r", plan, rows, infos=infos, layout=Layout("blocks", 4))


def test_what_ended_a_run_is_told_even_if_the_lock_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def work(store: Store) -> None:
        with lock(store):
            monkeypatch.setattr(LocalFiles, "delete", refuse)
            raise DtapError("No permission to write the shard")

    with pytest.raises(DtapError, match="No permission to write the shard"):
        work(open_store(str(tmp_path)))
    assert "The lock" in caplog.text
    assert "_run/lock could not be removed: No permission to delete" in caplog.text
    monkeypatch.undo()
    assert open_store(str(tmp_path)).exists("_run/lock")
