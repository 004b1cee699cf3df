"""Whole jobs with the step `estimator`: the sample, dask-ml's own fit, new rows, and what is said of it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dask_ml.cluster import KMeans
from dask_ml.decomposition import TruncatedSVD
from dask_ml.preprocessing import StandardScaler
from sklearn.decomposition import PCA

import dtap_dask
from dtap_dask.cli import tfrecords
from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FittedState
from dtap_dask.features.steps import transformers
from dtap_dask.job.running import submit
from dtap_dask.job.running.driver import Submission
from dtap_dask.storage import open_store
from format_reader import read
from in_process import run_in_process

ROWS = 3000
RNG = np.random.default_rng(11)
LAKE = pd.DataFrame({name: RNG.gamma(2, size=ROWS) for name in "abc"}).assign(
    y=np.arange(ROWS) % 2, key=np.arange(ROWS)
)
PCA_STEP = {"estimator": {"path": "sklearn.decomposition.PCA", "parameters": {"n_components": 2, "random_state": 0}}}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    (tmp_path / "lake").mkdir()
    for number, part in enumerate(np.array_split(np.arange(ROWS), 3)):
        table = pa.Table.from_pandas(LAKE.iloc[part], preserve_index=False)
        pq.write_table(table, tmp_path / "lake" / f"{number}.parquet", row_group_size=500)
    return tmp_path / "lake"


def job(lake: Path, *steps: Any, output: str = "out", **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "source": {"path": str(lake)},
        "features": [{"columns": ["a", "b", "c"], "steps": list(steps), "name": "f"}],
        "label": {"column": "y"},
        "keep": ["key"],
        "output": {"path": str(lake.parent / output)},
        **more,
    }


def state_of(path: Path) -> FittedState:
    return FittedState.load(open_store(str(path)))


def test_a_job_its_new_rows_its_inverse_and_its_estimator(lake: Path) -> None:
    run_in_process(job(lake, "standard_scale", PCA_STEP))
    out = lake.parent / "out"
    made, written = dtap_dask.transform(out, LAKE)["f"], read(out, "train")
    scaled = (LAKE[list("abc")] - LAKE[list("abc")].mean()) / LAKE[list("abc")].std(ddof=0)
    wanted = PCA(2, random_state=0).fit_transform(scaled.to_numpy())
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    np.testing.assert_allclose(dtap_dask.transform(out, LAKE.iloc[5:6])["f"], made[5:6], atol=1e-6)
    np.testing.assert_array_equal(written["f"], made[written["key"]])
    frame = dd.from_pandas(LAKE, npartitions=2)
    lazy = dtap_dask.transform(out, frame).compute(scheduler="synchronous")["f"]
    np.testing.assert_allclose(np.stack(lazy.to_list()), made, atol=1e-6)
    back = dtap_dask.inverse(out, "f", made.astype(np.float64))
    np.testing.assert_allclose(back["a"], LAKE["a"], atol=LAKE["a"].max())
    entry = dtap_dask.to_dask_ml(out)["f"][-1]
    np.testing.assert_allclose(entry.steps[-1][1].transform(scaled), wanted, atol=1e-6)
    assert "estimator_ of 10, input_widths_ [0, 0, 0], n_outputs_ 2, n_samples_ 3000" in repr(state_of(out))


def test_the_fused_sample_is_that_of_fit_dask_ml(lake: Path) -> None:
    step = {"estimator": {**PCA_STEP["estimator"], "rows": 200}}
    for fit in ("fused", "dask_ml"):
        run_in_process(
            job(lake, step, output=fit, fit=fit, split={"parts": {"train": 0.5, "eval": 0.5}, "key": ["key"]})
        )
    [one], [other] = (list(state_of(lake.parent / fit).fitted.values()) for fit in ("fused", "dask_ml"))
    assert one == other
    assert one["n_samples_"] == 200


def test_rows_are_drawn_one_by_one_whatever_the_key_of_the_split_is(lake: Path) -> None:
    step = {"estimator": {"path": "sklearn.preprocessing.StandardScaler", "rows": 100}}
    split = {"parts": {"train": 0.9, "eval": 0.1}, "key": ["group"]}
    block = {"columns": ["a", "group"], "steps": [step], "name": "f"}
    run_in_process(job(lake, split=split, features=[block], derive={"group": "key % 10"}, keep=[]))
    [entry] = dtap_dask.to_dask_ml(lake.parent / "out")["f"][-1:]
    assert 5 < entry.steps[-1][1].var_[1] < 12  # of few groups it would be far less


SCALER = (StandardScaler, "dask_ml.preprocessing.StandardScaler", {})
SVD = (TruncatedSVD, "dask_ml.decomposition.TruncatedSVD", {"n_components": 2, "algorithm": "tsqr", "random_state": 0})
CLUSTERS = (KMeans, "dask_ml.cluster.KMeans", {"n_clusters": 2, "init": "random", "max_iter": 3, "random_state": 0})
BY_DASK = [
    pytest.param(*SCALER, id="scaler"),
    pytest.param(*SVD, id="svd"),
    pytest.param(*CLUSTERS, id="clusters", marks=pytest.mark.slow),  # it is compiled when it first runs
]


@pytest.mark.parametrize(("kind", "path", "parameters"), BY_DASK)
def test_dask_ml_is_fitted_on_all_rows(lake: Path, kind: Any, path: str, parameters: Any) -> None:
    step = {"estimator": {"path": path, "parameters": parameters, "rows": 50}}
    run_in_process(job(lake, step, fit="dask_ml"))
    array = LAKE[list("abc")].to_numpy()
    theirs = kind(**parameters).fit(da.from_array(array, chunks=array.shape))
    wanted = np.asarray(theirs.transform(array.copy()))
    np.testing.assert_allclose(dtap_dask.transform(lake.parent / "out", LAKE)["f"], wanted, rtol=1e-5, atol=1e-5)
    [fitted] = state_of(lake.parent / "out").fitted.values()
    assert fitted["n_samples_"] == ROWS


def test_dask_ml_needs_its_way_of_fitting(lake: Path) -> None:
    message = r"steps\[0\]: dask_ml\.cluster\.KMeans is fitted on Dask arrays: set `fit: dask_ml` in the job, or"
    with pytest.raises(JobError, match=message):
        dtap_dask.plan(job(lake, {"estimator": {"path": CLUSTERS[1], "parameters": CLUSTERS[2]}}))


def test_plan_tells_of_the_sample_and_of_serving(lake: Path) -> None:
    text = str(dtap_dask.plan(job(lake, {"estimator": {**PCA_STEP["estimator"], "rows": 100}})))
    text = " ".join(text.replace("│", " ").split())
    assert "sklearn.decomposition.PCA (feature 'f') is fitted on a sample: 100 of the fitted rows at most" in text
    assert "step estimator has no TensorFlow twin: only Python has sklearn.decomposition.PCA" in text
    assert "is fitted on a sample" not in str(dtap_dask.plan(job(lake, PCA_STEP)))


def test_modules_that_a_user_allows_go_with_the_tasks(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "_allowed", ["sklearn", "dask_ml"])
    step = {"estimator": {"path": "odd_transformers.Doubling"}}
    with pytest.raises(JobError, match="module 'odd_transformers' is not allowed"):
        run_in_process(job(lake, step))
    dtap_dask.allow_estimators("odd_transformers")
    run_in_process(job(lake, step))
    made = dtap_dask.transform(lake.parent / "out", LAKE)["f"]
    np.testing.assert_allclose(made, 2 * LAKE[list("abc")], rtol=1e-6)


def test_the_option_of_commands_and_what_a_submitted_job_takes_along(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers, "_allowed", ["sklearn", "dask_ml"])
    described = job(lake, {"estimator": {"path": "odd_transformers.Doubling"}})
    (lake.parent / "job.yaml").write_text(json.dumps(described))
    command = ["plan", str(lake.parent / "job.yaml")]
    refused = CliRunner().invoke(tfrecords, command)
    assert (refused.exit_code, "give --allow-estimators odd_transformers" in refused.stderr) == (2, True)
    assert CliRunner().invoke(tfrecords, [*command, "--allow-estimators", "odd_transformers"]).exit_code == 0
    given: list[Submission] = []
    monkeypatch.setattr(submit, "running_client", lambda *_: nullcontext())
    monkeypatch.setattr(submit, "_hand_over", lambda client, submission: given.append(submission) or "")
    dtap_dask.submit(described)
    assert given[0].estimators == ("sklearn", "dask_ml", "odd_transformers")


def test_allowing_takes_the_names_of_modules() -> None:
    with pytest.raises(JobError, match="takes the name of a top-level module, such as umap, not 'a.b'"):
        dtap_dask.allow_estimators("a.b")


def test_a_transformer_that_is_refused_by_its_results_stops_the_run(lake: Path) -> None:
    with pytest.raises(DataError, match=r"sklearn\.decomposition\.NMF .* gives a row other results among other rows"):
        run_in_process(job(lake, {"estimator": {"path": "sklearn.decomposition.NMF", "parameters": {"n_components": 2,
                                  "random_state": 0, "init": "nndsvda"}}}))  # fmt: skip
