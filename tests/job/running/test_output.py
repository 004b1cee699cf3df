"""What a run finds in its output folder: datasets and unfinished runs of this job, of others, of other software."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dtap_dask
from documents import Document
from dtap_dask.errors import JobError, OutputError
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.running import commit as commit_module
from dtap_dask.records.lock import lock
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import first_rows, verify_dataset
from dtap_dask.storage import open_store
from in_process import run_in_process as run


@pytest.fixture
def interrupted(job: Document, monkeypatch: pytest.MonkeyPatch) -> Document:
    """The job, stopped after its shards were written and before they were committed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit_module, "commit_dataset", stop)
        with pytest.raises(dtap_dask.DtapError, match="--resume"):
            run(job)
    return job


def other(job: Document) -> Document:
    """Another job with the same output."""
    changed = copy.deepcopy(job)
    changed["features"] = changed["features"][:1]
    return changed


def shards(job: Document) -> set[str]:
    folder = Path(job["output"]["path"])
    return {str(path.relative_to(folder)) for path in folder.rglob("*.tfrecord")}


def test_resume_finishes_what_was_interrupted(interrupted: Document) -> None:
    written = shards(interrupted)
    manifest = run(interrupted, resume=True)
    assert shards(interrupted) == written == {shard.path for shard in manifest.shards}
    assert not list(Path(interrupted["output"]["path"]).glob("_run/*/plan.json"))
    assert verify_dataset(open_store(interrupted["output"]["path"]), manifest).notes == ()


def test_another_job_does_not_write_beside_an_unfinished_run(interrupted: Document) -> None:
    run_id = make_plan(interrupted).run_id
    for options in ({}, {"resume": True}):
        with pytest.raises(JobError, match=rf"holds an unfinished run \({run_id}\) of another job.*--overwrite"):
            run(other(interrupted), **options)
    manifest = run(other(interrupted), overwrite=True)
    assert shards(interrupted) == {shard.path for shard in manifest.shards}
    assert verify_dataset(open_store(interrupted["output"]["path"]), manifest).notes == ()


def test_an_abandoned_overwrite_takes_nothing_of_the_old_dataset(
    job: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run stops before its commit; the third begins anew and is stopped too: the first still stands."""
    first = run(job)
    monkeypatch.setattr(commit_module, "commit_dataset", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for _ in range(2):
        with pytest.raises(dtap_dask.DtapError, match="Stopped"):
            run(other(job), overwrite=True)
    assert verify_dataset(open_store(job["output"]["path"]), first).rows == sum(
        part.rows for part in first.splits.values()
    )
    monkeypatch.undo()
    second = run(other(job), resume=True)
    assert shards(job) == {shard.path for shard in second.shards}


def test_resume_never_replaces_a_finished_dataset(job: Document) -> None:
    run(job)
    second = run(other(job), overwrite=True)
    with pytest.raises(JobError, match="holds a dataset already"):
        run(job, resume=True)
    assert read_manifest(open_store(job["output"]["path"])) == second


def test_overwrite_and_resume_contradict_each_other(job: Document) -> None:
    with pytest.raises(JobError, match="give one of the two"):
        run(job, overwrite=True, resume=True)


def test_other_software_does_not_go_on(interrupted: Document) -> None:
    [path] = Path(interrupted["output"]["path"]).glob("_run/*/plan.json")
    document = json.loads(path.read_text())
    document["software"]["numpy"] = "1.0"
    path.write_text(json.dumps(document))
    with pytest.raises(JobError, match=r"started with other software \(numpy 1\.0, now .*--overwrite"):
        run(interrupted, resume=True)


def test_a_damaged_manifest_can_be_overwritten(job: Document) -> None:
    run(job)
    Path(job["output"]["path"], "manifest.json").write_text("{")
    with pytest.raises(OutputError, match="is not a manifest"):
        run(job)
    run(job, overwrite=True)
    assert read_manifest(open_store(job["output"]["path"])).splits["train"].rows > 0


def test_one_run_at_a_time_in_a_folder_whatever_the_job(job: Document) -> None:
    with (
        lock(open_store(job["output"]["path"])),
        pytest.raises(OutputError, match="Another run is writing .* holds _run/lock"),
    ):
        run(other(job))


def test_what_one_run_fitted_is_not_taken_for_the_next(tmp_path: Path) -> None:
    """Same job, same names and sizes of files, other values, same processes; what tells them apart is the footer."""
    job = {
        "version": 1,
        "source": {"path": str(tmp_path / "source")},
        "features": [{"columns": ["x"], "steps": ["standard_scale"]}],
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "source").mkdir()
    values = np.random.default_rng(0).normal(size=1000)
    prints = set()
    for shift in (0.0, 50.0):
        table = pa.table({"x": values + shift})
        pq.write_table(table, tmp_path / "source" / "a.parquet", use_dictionary=False, compression="none")
        prints.add(run(job, overwrite=True).fingerprint)
        store = open_store(str(tmp_path / "out"))
        found = first_rows(store, read_manifest(store), "train", 1000)["x"]
        assert np.mean(found) == pytest.approx(0, abs=1e-5)
        for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert len(prints) == 2
