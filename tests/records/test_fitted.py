"""The fitted state that is read is that of the manifest, also while a commit has not given its files their names."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dtap_dask
from dtap_dask.errors import OutputError
from dtap_dask.job.planning.origin import open_origin
from dtap_dask.records import commit
from dtap_dask.records.fitted import read_fitted
from dtap_dask.records.folder import TRANSFORM
from dtap_dask.storage import Store, open_store
from in_process import run_in_process

FEATURES = [{"columns": ["x"], "steps": ["standard_scale"]}, {"columns": ["word"], "steps": ["ordinal_encode"]}]
NEW = {"x": 10.0, "word": "new"}


def write(folder: Path, mean: float, word: str) -> Store:
    """A dataset in `out` whose column x has this mean and the deviation 1, and whose column of text has this word."""
    pq.write_table(pa.table({"x": [mean - 1, mean + 1], "word": [word, word]}), folder / "lake.parquet")
    job = {"version": 1, "source": {"path": str(folder / "lake.parquet")}, "features": FEATURES}
    run_in_process({**job, "output": {"path": str(folder / "out")}}, overwrite=True)
    return open_store(str(folder / "out"))


def transformed(folder: Path) -> list[float]:
    made = dtap_dask.transform(folder / "out", NEW)
    return [made["x"][0], made["word"][0]]


def test_the_state_is_the_manifest_s_while_its_files_wait_for_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 2, "old")
    assert transformed(tmp_path) == [8, 1]
    with monkeypatch.context() as crash:  # right after the manifest was replaced
        crash.setattr(commit, "finish_commit", lambda store: None)
        store = write(tmp_path, 4, "new")
    assert b'"mean_": 2.0' in store.read_bytes(TRANSFORM)
    assert transformed(tmp_path) == [6, 2]
    assert "mean_ 4" in str(read_fitted(store)[1])
    scored = {"version": 1, "source": {"path": "x"}, "fit": {"from": str(tmp_path / "out")}, "output": {"path": "y"}}
    origin = open_origin(dtap_dask.Job.load(scored))
    assert origin
    assert [fitted["mean_"] for fitted in origin.state.fitted.values() if "mean_" in fitted] == [4]
    commit.finish_commit(store)
    assert b'"mean_": 4.0' in store.read_bytes(TRANSFORM)
    assert transformed(tmp_path) == [6, 2]


def test_a_dataset_that_is_replaced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path, 2, "old")
    replaced: list[Store] = []

    def read(*given: object) -> bytes:
        if not replaced:
            replaced.append(write(tmp_path, 4, "new"))
        return commit.read_sidecar(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("dtap_dask.records.fitted.read_sidecar", read)
    manifest, state = read_fitted(store)
    assert manifest == read_fitted(store)[0]
    assert [fitted["mean_"] for fitted in state.fitted.values() if "mean_" in fitted] == [4]


def test_a_file_that_is_not_the_manifest_s_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path, 2, "old")
    store.write_atomic(TRANSFORM, store.read_bytes(TRANSFORM).replace(b'"mean_": 2.0', b'"mean_": 3.0'))
    with pytest.raises(OutputError, match="out/transform.json is missing or is not the file that manifest.json states"):
        read_fitted(store)
