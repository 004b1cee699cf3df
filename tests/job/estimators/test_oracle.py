"""`fit: dask_ml`: what dask-ml, Dask, scikit-learn and NumPy learn is what the fused passes learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import dtap_dask
from dtap_dask.errors import DataError
from dtap_dask.features import FittedState, Transform
from dtap_dask.job.estimators.oracle import fit_with_dask_ml
from dtap_dask.job.execution import tasks
from dtap_dask.job.execution.context import TaskContext
from dtap_dask.job.execution.dask_executor import DaskExecutor
from dtap_dask.job.execution.executor import Executor, LoopExecutor
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.planning.plan import Plan, make_plan
from dtap_dask.job.running.run import first_snapshot
from dtap_dask.job.running.stages import task_context
from dtap_dask.job.status.displays import Silent
from dtap_dask.job.status.reporter import RunReporter
from dtap_dask.lake.sample.sample_lake import write_sample
from dtap_dask.records.folder import RunPaths
from dtap_dask.storage import open_store

SPLIT = {"parts": {"train": 0.7, "eval": 0.3}, "key": ["trip_id"]}
FEATURES = [
    {"columns": ["fare", "trip_miles"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
    {"columns": ["tips"], "steps": [{"impute": {"strategy": "median", "indicator": True}}, "minmax_scale"]},
    {
        "columns": ["trip_seconds"],
        "steps": [{"impute": {"strategy": "most_frequent"}}, {"clip": {"min": 0}}, "log1p", "maxabs_scale"],
    },
    {"columns": ["pickup_latitude"], "steps": ["impute", {"robust_scale": {"quantile_range": [10, 80]}}]},
    {"columns": ["pickup_latitude"], "steps": ["impute", {"quantile_transform": "normal"}], "as": "scores"},
    {"columns": ["pickup_latitude"], "steps": ["impute", "power_transform"], "as": "power"},
    {"columns": ["company"], "steps": [{"count_encode": True}], "as": "share"},
    {
        "columns": ["company"],
        "steps": [{"ordinal_encode": {"top_k": 20, "oov_buckets": 3, "first": ["none", "Sun Taxi"]}}],
    },
    {"columns": ["company", "payment_type"], "steps": [{"ordinal_encode": {"share": "all"}}], "as": "{column}_shared"},
    {"columns": ["company"], "steps": [{"ordinal_encode": {"vocabulary": ["Sun Taxi", "none"]}}], "as": "known"},
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
    {
        "columns": ["fare", "tips", "trip_miles"],
        "steps": [{"impute": {"strategy": "mean"}}, {"pca": {"n_components": 2, "whiten": True}}],
        "name": "white",
    },
    {"columns": ["payment_type", "company"], "steps": ["one_hot_encode", {"truncated_svd": 2}], "name": "topics"},
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A worker in a thread, to which everything is sent as to one in another process."""
    options = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    write_sample(open_store(str(folder)), 6000)
    return folder / "trips"


def planned(lake: Path, output: Path, where: str | None = None, **job: Any) -> tuple[Plan, TaskContext]:
    document = {
        "version": 1,
        "source": {"path": str(lake), "where": where},
        "output": {"path": str(output)},
        "fit": "dask_ml",
        **job,
    }
    plan = make_plan(document)
    return plan, task_context(plan, open_store(str(output)))


def by_dask_ml(plan: Plan, context: TaskContext, executor: Executor | None = None) -> FittedState:
    report = RunReporter(first_snapshot(plan.job), Silent(), Secrets())
    fit_with_dask_ml(executor or LoopExecutor(), plan, context, report)
    return FittedState.load(context.output(), RunPaths(plan.run_id).fitted(plan.checked.graph.passes))


def fused(plan: Plan, context: TaskContext) -> FittedState:
    for level in range(plan.checked.graph.passes):
        LoopExecutor().tree(
            ("fit", "merge-fit", "finish-fit"),
            tasks.fit,
            [(context, level, plan.task(index, one)) for index, one in enumerate(plan.fit_tasks)],
            merge=tasks.merge_fits,
            last=partial(tasks.finish_fit, context, level),
            on_end=lambda _: None,
        )
    return FittedState.load(context.output(), RunPaths(plan.run_id).fitted(plan.checked.graph.passes))


def assert_close(left: Any, right: Any, place: str) -> None:
    if isinstance(left, pa.Array):
        assert left.type == right.type, place
        if pa.types.is_list(left.type):
            assert left.offsets.equals(right.offsets), place
        inner = left.flatten() if pa.types.is_list(left.type) or pa.types.is_fixed_size_list(left.type) else left
        if pa.types.is_floating(inner.type):
            other = right if inner is left else right.flatten()
            np.testing.assert_allclose(inner, other, rtol=1e-9, atol=1e-12, err_msg=place)
        else:
            assert left.equals(right), place
    elif isinstance(left, tuple):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9, err_msg=place)
    elif isinstance(left, float):
        assert left == pytest.approx(right, rel=1e-9, abs=1e-12), place
    else:
        assert (type(left), left) == (type(right), right), place


def assert_same(left: FittedState, right: FittedState) -> None:
    assert (left.graph, left.passes, left.rows) == (right.graph, right.passes, right.rows)
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
    plan, context = planned(lake, tmp_path / "a", where, **job)
    other, other_work = planned(lake, tmp_path / "b", where, **job)
    mine = by_dask_ml(plan, context, DaskExecutor(client))
    assert 0 < mine.rows < plan.totals.rows.read
    assert_same(mine, fused(other, other_work))


def odd_table() -> pa.Table:
    """Columns with what goes wrong easily: ties, bytes that are no text, integers beyond float64, constants, NaN."""
    rng = np.random.default_rng(5)
    n = 900
    holes = rng.random(n) < 0.2
    big = 2**53 + rng.integers(0, 4, n)
    cents = [
        None if hole else Decimal(90_071_992_547_409_920 + int(x)).scaleb(-1)
        for x, hole in zip(big % 4, holes, strict=True)
    ]
    words = rng.choice(np.array([b"\xff\xfe", b"a", b"b", "\u00e9".encode(), b""], object), n)
    return pa.table(
        {
            "key": pa.array(np.arange(n)),
            "digit": pa.array(np.arange(n) % 7),
            "tenth": pa.array(np.full(n, 0.1), mask=holes),
            "nan": pa.array(
                np.where(holes, np.nan, rng.normal(size=n).round(1) - 0.0), pa.float64(), from_pandas=False
            ),
            "big": pa.array(big, mask=holes),
            "unsigned": pa.array(rng.integers(0, 3, n).astype(np.uint64) + np.uint64(2**62)),
            "small": pa.array(rng.integers(-3, 3, n).astype(np.int8), mask=holes),
            "flag": pa.array(rng.random(n) < 0.5, mask=holes),
            "bytes": pa.array(words, pa.binary(), mask=holes),
            "cents": pa.array(cents, pa.decimal128(30, 1)),
            "tie": pa.array(np.where(np.arange(n) % 2, "x", "a")),
            "pair": pa.FixedSizeListArray.from_arrays(
                pa.array(
                    np.repeat(rng.normal(size=n), 2).round(1), mask=np.repeat(holes, 2) & (np.arange(2 * n) % 3 > 0)
                ),
                2,
            ),
        }
    )


ODD = [
    {"columns": ["tenth"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
    {"columns": ["tenth"], "steps": ["minmax_scale"], "allow_null": True, "as": "constant"},
    {
        "columns": ["nan"],
        "steps": [{"impute": {"strategy": "most_frequent"}}, {"standard_scale": {"with_mean": False}}],
    },
    {"columns": ["nan"], "steps": [{"bucketize": {"quantiles": 7}}, {"impute": {"strategy": "median"}}], "as": "q"},
    {
        "columns": ["big", "unsigned", "small", "flag", "bytes", "tie"],
        "steps": [{"ordinal_encode": {"oov_buckets": 2}}],
        "as": "{column}_id",
    },
    {"columns": ["small", "flag", "bytes"], "steps": ["one_hot_encode"], "as": "{column}_hot"},
    {
        "columns": ["cents"],
        "steps": [{"impute": {"strategy": "most_frequent"}}, {"cast": "string"}, "ordinal_encode"],
        "as": "cents_id",
    },
    {
        "columns": ["big", "flag", "bytes"],
        "steps": [{"impute": {"strategy": "most_frequent"}}, "ordinal_encode"],
        "as": "{column}_filled",
    },
    {
        "columns": ["small"],
        "steps": [{"standard_scale": {"with_std": False}}, {"impute": {"strategy": "mean"}}, {"minmax_scale": [-1, 1]}],
        "as": "rounds",
    },
    {"columns": ["pair"], "steps": ["impute", "standard_scale"]},
    {"columns": ["pair"], "steps": [{"impute": "median"}, {"minmax_scale": [-1, 1]}], "as": "pair_range"},
    {
        "columns": ["pair"],
        "steps": [{"impute": "most_frequent"}, "robust_scale", "maxabs_scale"],
        "as": "pair_robust",
    },
]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    table = odd_table()
    for number in range(3):
        part = table.slice(300 * number, 300)
        (tmp_path / "odd").mkdir(exist_ok=True)
        pq.write_table(part, tmp_path / "odd" / f"{number}.parquet", row_group_size=50)
    return tmp_path / "odd"


def test_odd_columns(odd: Path, tmp_path: Path) -> None:
    split = {"parts": {"train": 0.5, "eval": 0.5}, "key": ["key"]}
    plan, context = planned(odd, tmp_path / "a", features=ODD, split=split)
    other, other_work = planned(odd, tmp_path / "b", features=ODD, split=split)
    mine = by_dask_ml(plan, context)
    assert mine.passes == 3
    assert_same(mine, fused(other, other_work))


BY_KEY = [
    {
        "columns": ["nan"],
        "steps": [
            {"impute": {"strategy": "median", "by": "bytes"}},
            {"standard_scale": {"by": "digit"}},
            {"minmax_scale": {"by": "flag", "feature_range": [-1, 1]}},
            {"robust_scale": {"by": "unsigned", "with_centering": False}},
            {"maxabs_scale": {"by": "tie"}},
            {"bucketize": {"quantiles": 4, "by": "second"}},
        ],
    },
    {
        "columns": ["tenth", "small"],
        "steps": [{"impute": {"by": "small"}}, {"standard_scale": {"by": "tie", "with_mean": False}}],
    },
    {
        "columns": ["big", "bytes", "flag"],
        "steps": [{"impute": {"strategy": "most_frequent", "by": "digit"}}, {"hash_encode": 9}],
    },
    {
        "columns": ["cents", "nan"],
        "steps": [{"impute": {"strategy": "most_frequent", "by": "digit"}}],
        "as": "{column}_filled",
    },
]


def test_steps_by_a_key(odd: Path, tmp_path: Path) -> None:
    given = {
        "features": BY_KEY,
        "split": {"parts": {"train": 0.5, "eval": 0.5}, "key": ["key"]},
        "derive": {"second": "make_timestamp(digit * 1000000)"},
    }
    plan, context = planned(odd, tmp_path / "a", **given)
    other, other_work = planned(odd, tmp_path / "b", **given)
    assert_same(by_dask_ml(plan, context), fused(other, other_work))


def test_target_encoding_without_each_fold(odd: Path, tmp_path: Path) -> None:
    steps = [{"target_encode": {"target_type": kind, "cv": 3}} for kind in ("continuous", "multiclass")]
    features = [
        {"columns": ["big", "small", "flag", "bytes"], "steps": [step], "as": f"{{column}}_{number}"}
        for number, step in enumerate(steps)
    ]
    job = {
        "features": features,
        "label": {"column": "digit"},
        "split": {"parts": {"train": 0.5, "eval": 0.5}, "key": ["key"]},
    }
    plan, context = planned(odd, tmp_path / "a", **job)
    other, other_work = planned(odd, tmp_path / "b", **job)
    assert_same(by_dask_ml(plan, context), fused(other, other_work))


def test_target_encoding_where_a_fold_has_all_rows_of_a_class(tmp_path: Path) -> None:
    """scikit-learn numbers the classes of each fold anew, and knows no `multiclass` of two."""
    (tmp_path / "lake").mkdir()
    rows = pa.table({"x": [*"abcab"] * 2, "y": [1] + [0] * 9})  # without the first row's fold there is one class
    pq.write_table(rows, tmp_path / "lake/a.parquet")
    features = [
        {"columns": ["x"], "steps": [{"target_encode": {"target_type": kind, "cv": 2}}], "as": kind}
        for kind in ("binary", "multiclass")
    ]
    job = {"features": features, "label": {"column": "y"}}
    planned_job = planned(tmp_path / "lake", tmp_path / "a", **job)
    assert_same(by_dask_ml(*planned_job), fused(*planned(tmp_path / "lake", tmp_path / "b", **job)))


def test_a_small_spread_is_a_spread_in_both(tmp_path: Path) -> None:
    values = 1e9 + 1e-3 * np.random.default_rng(1).standard_normal(10_000)
    (tmp_path / "lake").mkdir()
    pq.write_table(pa.table({"x": values, "c": np.full(10_000, 0.1)}), tmp_path / "lake/a.parquet", row_group_size=1000)
    features = [{"columns": ["x", "c"], "steps": ["standard_scale"]}]
    for fit, name in ((by_dask_ml, "a"), (fused, "b")):
        state = fit(*planned(tmp_path / "lake", tmp_path / name, features=features))
        x, c = state.fitted.values()
        np.testing.assert_allclose(x["scale_"], values.std(), rtol=1e-3)
        assert (c["var_"], c["scale_"]) == (0.0, 1.0)


def test_tiny_scales_and_rounded_means_are_the_same_in_both(tmp_path: Path) -> None:
    """scikit-learn takes a scale of 1e-300 for none, and the mean of equal values need not be one of them."""
    tiny, huge = np.linspace(-1, 1, 23) * 1e-140, np.full(23, -2.63e150)
    rows = pa.table({"tiny": tiny, "huge": huge, "key": ["a", "b", "b"] * 7 + ["a", "b"]})
    (tmp_path / "lake").mkdir()
    pq.write_table(rows, tmp_path / "lake/a.parquet", row_group_size=4)
    features = [
        {"columns": ["tiny", "huge"], "steps": [{step: options}], "as": f"{{column}}_{step}{len(options)}"}
        for step in ("standard_scale", "minmax_scale", "maxabs_scale")
        for options in ({}, {"by": "key"})
    ]
    made = [
        Transform(fit(*planned(tmp_path / "lake", tmp_path / name, features=features))).apply(rows.to_batches()[0])
        for fit, name in ((by_dask_ml, "a"), (fused, "b"))
    ]
    for name, values in made[0].items():
        np.testing.assert_allclose(values, made[1][name], rtol=1e-6, err_msg=name)


REFUSED = {
    "a null that would reach the output": ({"columns": ["x"], "steps": ["standard_scale"]}, {"x": [1.0, None, 2.0]}),
    "a column of nulls": (
        {"columns": ["x"], "steps": [{"impute": {"strategy": "mean"}}]},
        {"x": pa.array([None, None], pa.float64())},
    ),
    "an encoder of nulls": ({"columns": ["x"], "steps": ["ordinal_encode"]}, {"x": pa.array([None] * 3, pa.string())}),
    "an infinity": ({"columns": ["x"], "steps": ["minmax_scale"]}, {"x": [1.0, np.inf]}),
    "an infinity that a step makes": ({"columns": ["x"], "steps": ["log1p", "standard_scale"]}, {"x": [-1.0, 3.0]}),
    "an infinite most frequent value": (
        {"columns": ["x"], "steps": ["log1p", {"impute": {"strategy": "most_frequent"}}]},
        {"x": [-1.0, None, 3.0]},
    ),
    "too many categories": ({"columns": ["x"], "steps": [{"one_hot_encode": {"max_values": 2}}]}, {"x": [1, 2, 3]}),
    "too few rows": (
        {"columns": ["x", "y"], "steps": ["standard_scale", {"pca": {"n_components": 2}}], "name": "p"},
        {"x": [1.0], "y": [2.0]},
    ),
    "squares that overflow": ({"columns": ["x"], "steps": ["standard_scale"]}, {"x": [-1e300, 1e300]}),
    "a range that overflows": ({"columns": ["x"], "steps": ["minmax_scale"]}, {"x": [-1.7e308, 1.7e308]}),
}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of Dask's reductions
@pytest.mark.parametrize("case", list(REFUSED))
def test_the_same_is_refused(tmp_path: Path, case: str) -> None:
    feature, columns = REFUSED[case]
    (tmp_path / "lake").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "lake" / "part.parquet")
    every = "x is null or x is not null"  # with a condition, no null is foreseen
    plan, context = planned(tmp_path / "lake", tmp_path / "out", every, features=[feature])
    with pytest.raises(DataError) as expected:
        fused(plan, context)
    with pytest.raises(DataError) as raised:
        by_dask_ml(plan, context)
    assert str(raised.value) == str(expected.value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of SciPy
def test_values_that_scikit_learns_power_transformer_fails_on(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    pq.write_table(pa.table({"x": [9e149, -1e150, 3e148]}), tmp_path / "lake/a.parquet")
    planned_job = planned(
        tmp_path / "lake", tmp_path / "a", features=[{"columns": ["x"], "steps": ["power_transform"]}]
    )
    with pytest.raises(DataError, match="column 'x', step power_transform: .* Use `fit: fused`"):
        by_dask_ml(*planned_job)


def test_quantiles_within_the_stated_rank_error(tmp_path: Path) -> None:
    values = np.random.default_rng(1).lognormal(size=60_000)
    (tmp_path / "lake").mkdir()
    for number, part in enumerate(np.split(values, 6)):
        pq.write_table(pa.table({"x": part}), tmp_path / "lake" / f"{number}.parquet")
    features = [
        {"columns": ["x"], "steps": [{"bucketize": {"quantiles": 20}}]},
        {"columns": ["x"], "steps": [{"impute": {"strategy": "median"}}], "as": "median"},
    ]
    plan, context = planned(tmp_path / "lake", tmp_path / "a", features=features)
    exact, summary = by_dask_ml(plan, context), fused(plan, context)
    values.sort()
    for left, right in zip(exact.fitted.values(), summary.fitted.values(), strict=True):
        name = "boundaries_" if "boundaries_" in left else "statistics_"
        ranks = [np.searchsorted(values, one[name]) for one in (left, right)]
        assert np.abs(ranks[0] - ranks[1]).max() <= 0.001 * len(values)
        if name == "boundaries_":
            np.testing.assert_array_equal(left[name], np.quantile(values, np.arange(1, 20) / 20))


def test_run_with_dask_ml_gives_the_rows_of_the_fused_run(client: Client, lake: Path, tmp_path: Path) -> None:
    """With every third block: all steps are compared by test_every_step_of_a_sample_lake."""
    states, some = {}, FEATURES[::3]
    for fit in ("fused", "dask_ml"):
        plan, _ = planned(lake, tmp_path / fit, "fare > 0 and payment_type is not null", features=some, split=SPLIT)
        job = {**plan.job.as_document(), "fit": fit}
        manifest = dtap_dask.run(job, client=client, progress="silent")
        states[fit] = FittedState.load(open_store(str(tmp_path / fit)))
        assert manifest.splits["train"].rows == states[fit].rows
    assert_same(states["dask_ml"], states["fused"])
    made = dtap_dask.to_dask_ml(tmp_path / "dask_ml")
    assert set(made) == {output.name for output in states["fused"].graph.outputs}
    scaler = made["fare"][0].steps[-1][1]
    value = states["dask_ml"].graph.outputs[0].values[0]
    assert scaler.mean_[0] == states["dask_ml"].fitted[value]["mean_"]


def test_elements_of_lists(tmp_path: Path) -> None:
    words = [["b", "a"], [], ["c", "b", "b"], ["a", None]] * 10
    numbers = [[1.0], [2.0, None, 7.5], [], [3.0]] * 10
    (tmp_path / "lake").mkdir()
    pq.write_table(pa.table({"words": words, "numbers": numbers, "more": numbers[::-1]}), tmp_path / "lake/a.parquet")
    constant = {"impute": {"strategy": "constant", "value": "?"}}
    job = {
        "features": [
            {"columns": "words", "steps": [constant, "ordinal_encode"]},
            {"columns": ["numbers", "more"], "steps": ["impute", "standard_scale"]},
            {"columns": "numbers", "steps": ["impute", {"bucketize": {"quantiles": 3}}], "as": "buckets"},
        ]
    }
    plan, context = planned(tmp_path / "lake", tmp_path / "a", **job)
    assert_same(by_dask_ml(plan, context), fused(*planned(tmp_path / "lake", tmp_path / "b", **job)))
