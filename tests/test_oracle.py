"""`fit: dask_ml`: what dask-ml, Dask, scikit-learn and NumPy learn is what the fused passes learn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from dtap_dask.errors import DataError
from dtap_dask.features import FittedState, Pipeline
from dtap_dask.job import tasks
from dtap_dask.job.oracle import fit_with_dask_ml
from dtap_dask.job.plan import Plan, make_plan
from dtap_dask.job.progress import Silent
from dtap_dask.job.tasks import Work
from dtap_dask.lake.sample import write_sample
from dtap_dask.records.example import Layout
from dtap_dask.storage import open_store

SPLIT = {"parts": {"train": 0.7, "eval": 0.3}, "key": ["trip_id"]}
FEATURES = [
    {"columns": ["fare", "trip_miles"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
    {"columns": ["tips"], "steps": [{"impute": {"strategy": "median", "indicator": True}}, "minmax_scale"]},
    {
        "columns": ["trip_seconds"],
        "steps": [{"impute": {"strategy": "most_frequent"}}, {"clip": {"min": 0}}, "log1p", "maxabs_scale"],
    },
    {"columns": ["company"], "steps": [{"ordinal_encode": {"top_k": 20, "oov_buckets": 3}}]},
    {
        "columns": ["payment_type"],
        "steps": [{"impute": {"strategy": "constant", "value": "nothing said"}}, "one_hot_encode"],
    },
    {
        "columns": ["fare", "tips"],
        "steps": [{"impute": {"strategy": "constant", "value": 0}}, {"bucketize": {"quantiles": 10}}],
        "as": "{column}_bucket",
    },
    {
        "columns": ["fare", "tips", "trip_miles", "trip_seconds"],
        "steps": [{"impute": {"strategy": "mean"}}, "standard_scale", {"pca": {"n_components": 3}}],
        "name": "axes",
    },
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    write_sample(open_store(str(folder)), 6000)
    return folder / "trips"


def planned(lake: Path, output: Path, where: str | None = None, **job: Any) -> tuple[Plan, Work]:
    document = {
        "version": 1,
        "source": {"path": str(lake), "where": where},
        "output": {"path": str(output)},
        "fit": "dask_ml",
        **job,
    }
    plan = make_plan(document)
    work = Work(
        source_url=plan.source.url,
        output_url=str(output),
        settings=json.dumps({}),
        run_id=plan.run_id,
        scan=plan.checked.scan,
        specs=plan.checked.specs,
        schema=plan.checked.pipeline.schema,
        layout=Layout("blocks", 1024, "none"),
        shuffle="none",
        seed=0,
    )
    return plan, work


def by_dask_ml(client: Client, plan: Plan, work: Work) -> FittedState:
    fit_with_dask_ml(client, plan, work, Silent())
    return FittedState.load(work.output(), tasks.fitted_folder(plan.run_id, plan.checked.pipeline.levels))


def fused(plan: Plan, work: Work) -> FittedState:
    for level in range(plan.checked.pipeline.levels):
        parts = [tasks.fit(work, level, plan.task(index, one)) for index, one in enumerate(plan.fit_tasks)]
        tasks.finish_fit(work, level, tasks.merge_fits(parts))
    return FittedState.load(work.output(), tasks.fitted_folder(plan.run_id, plan.checked.pipeline.levels))


def assert_close(left: Any, right: Any, place: str) -> None:
    if isinstance(left, pa.Array):
        assert left.type == right.type, place
        assert left.equals(right), place
    elif isinstance(left, tuple):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9, err_msg=place)
    elif isinstance(left, float):
        assert left == pytest.approx(right, rel=1e-9, abs=1e-12), place
    else:
        assert (type(left), left) == (type(right), right), place


def assert_same(left: FittedState, right: FittedState) -> None:
    assert (left.specs, left.schema, left.levels, left.rows) == (right.specs, right.schema, right.levels, right.rows)
    assert list(left.fitted) == list(right.fitted)
    for name, numbers in left.fitted.items():
        assert set(numbers) == set(right.fitted[name]), name
        for key, value in numbers.items():
            assert_close(value, right.fitted[name][key], f"{name}: {key}")


def test_every_step_of_a_sample_lake(client: Client, lake: Path, tmp_path: Path) -> None:
    job: Mapping[str, Any] = {
        "features": FEATURES,
        "split": SPLIT,
        "derive": {"paid": "payment_type"},
        "label": {"column": "paid", "steps": ["ordinal_encode"]},
    }
    where = "fare > 0 and payment_type is not null"
    plan, work = planned(lake, tmp_path / "a", where, **job)
    other, other_work = planned(lake, tmp_path / "b", where, **job)
    mine = by_dask_ml(client, plan, work)
    assert 0 < mine.rows < plan.totals.read.rows
    assert_same(mine, fused(other, other_work))
