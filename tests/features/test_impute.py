"""Imputing gives what scikit-learn and dask-ml give, alone and in front of other steps, in one pass."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask_ml import impute as dask_ml
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, StandardScaler

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from fitting import fit_batches, pieces
from property_tests import examples

numbers = st.lists(st.none() | st.integers(-50, 50).map(lambda x: x / 4), min_size=2, max_size=60).filter(
    lambda values: any(value is not None for value in values)
)
cuts = st.lists(st.integers(0, 60), max_size=5)


def run(values: pa.Array, steps, at=()):
    rows = pa.record_batch({"x": values})
    spec = FeatureSpec("x", "feature", ("x",), tuple(parse_step(*step) for step in steps), place="features[0]")
    graph = build([spec], rows.schema)
    state = fit_batches(graph, pieces(rows, list(at)))
    return graph, state, Transform(state).apply(rows)


def as_matrix(values):
    return np.array([[np.nan if value is None else value] for value in values], float)


@given(numbers, cuts, st.sampled_from(["mean", "median", "most_frequent"]))
def test_the_strategies_are_scikit_learns(values, at, strategy):
    _, state, out = run(pa.array(values, pa.float64()), [("impute", {"strategy": strategy, "indicator": True})], at)
    oracle = SimpleImputer(strategy=strategy).fit(as_matrix(values))
    [learnt] = state.fitted.values()
    np.testing.assert_allclose(learnt["statistics_"], oracle.statistics_[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(out["x"], oracle.transform(as_matrix(values))[:, 0], rtol=1e-6, atol=1e-6)
    assert out["x_missing"].tolist() == [value is None for value in values]


@given(
    numbers,
    cuts,
    st.sampled_from(["mean", "median", "most_frequent", "constant"]),
    st.sampled_from(
        [("standard_scale", StandardScaler), ("minmax_scale", MinMaxScaler), ("maxabs_scale", MaxAbsScaler)]
    ),
)
def test_impute_clip_log_and_scale_fit_in_one_pass(values, at, strategy, scaler):
    options = {"strategy": strategy, **({"value": 1.5} if strategy == "constant" else {})}
    steps = [("impute", options), ("clip", {"min": 0, "max": 9}), ("log1p",), (scaler[0],)]
    graph, _, out = run(pa.array(values, pa.float64()), steps, at)
    assert graph.passes == 1
    oracle = make_pipeline(
        SimpleImputer(strategy=strategy, fill_value=1.5 if strategy == "constant" else None),
        FunctionTransformer(lambda x: np.log1p(np.clip(x, 0, 9))),
        scaler[1](),
    )
    np.testing.assert_allclose(out["x"], oracle.fit_transform(as_matrix(values))[:, 0], rtol=2e-5, atol=2e-5)


@examples(0.4)
@given(numbers, cuts)
def test_a_constant_after_a_fitted_imputer_does_not_take_its_nulls(values, at):
    steps = [
        ("impute",),
        ("clip", {"max": 100}),
        ("impute", {"strategy": "constant", "value": 99}),
        ("standard_scale",),
    ]
    graph, _, out = run(pa.array(values, pa.float64()), steps, at)
    assert graph.passes == 1
    plain = as_matrix(values)[:, 0]
    filled = np.where(np.isnan(plain), np.nanmean(plain), plain)
    if filled.std() > 1e-6:
        np.testing.assert_allclose(out["x"], (filled - filled.mean()) / filled.std(), rtol=1e-4, atol=1e-4)


@examples(0.3)
@given(numbers, cuts)
def test_quantile_buckets_count_the_imputed_values(values, at):
    graph, _, out = run(
        pa.array(values, pa.float64()), [("impute", {"strategy": "median"}), ("bucketize", {"quantiles": 4})], at
    )
    assert graph.passes == 1
    plain = as_matrix(values)[:, 0]
    filled = np.where(np.isnan(plain), np.nanmedian(plain), plain)
    bounds = np.unique(np.quantile(filled, [0.25, 0.5, 0.75]))
    assert out["x"].tolist() == np.digitize(filled, bounds).tolist()


@examples(0.4)
@given(st.lists(st.none() | st.sampled_from(["b", "a", "c", ""]), min_size=1).filter(any), cuts)
def test_text_is_filled_and_then_counted(values, at):
    for array in (pa.array(values, pa.string()), pa.array(values, pa.string()).dictionary_encode()):
        graph, state, out = run(array, [("impute", {"strategy": "most_frequent"}), ("ordinal_encode",)], at)
        assert graph.passes == 1
        counts = pd.Series([value for value in values if value is not None]).value_counts()
        common = min(counts.index[counts == counts.max()])
        filled = [common if value is None else value for value in values]
        order = sorted(set(filled), key=lambda value: (-filled.count(value), value))
        assert out["x"].tolist() == [2 + order.index(value) for value in filled]
        assert next(iter(state.fitted.values())) == {"statistics_": common}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("options", [{"strategy": "mean"}, {"strategy": "constant", "value": 3.0}])
def test_statistics_are_those_of_dask_mls_own_fit(options):
    values = np.random.default_rng(1).normal(size=500)
    values[::7] = np.nan
    _, state, out = run(pa.array(values), [("impute", options)], [100, 300])
    frame = dd.from_pandas(pd.DataFrame({"x": values}), npartitions=3)
    oracle = dask_ml.SimpleImputer(strategy=options["strategy"], fill_value=options.get("value")).fit(frame)
    if options["strategy"] == "mean":
        np.testing.assert_allclose(
            next(iter(state.fitted.values()))["statistics_"], oracle.statistics_["x"], rtol=1e-12
        )
    np.testing.assert_allclose(out["x"], oracle.transform(frame).compute()["x"], rtol=1e-6)


def test_integers_stay_integers_where_the_value_is_one():
    big = 2**53 + 1
    _, _, out = run(pa.array([big, None, big, 4]), [("impute", {"strategy": "most_frequent"})])
    assert out["x"].dtype == np.int64
    assert out["x"].tolist() == [big, big, big, 4]
    _, _, out = run(pa.array([1, None], pa.int16()), [("impute", {"strategy": "constant", "value": -3})])
    assert out["x"].dtype == np.int16
    assert out["x"].tolist() == [1, -3]
    _, _, out = run(pa.array([True, None]), [("impute", {"strategy": "constant", "value": False})])
    assert out["x"].tolist() == [1, 0]


def test_the_indicator_of_a_vector_is_a_vector():
    rows = pa.record_batch({"x": pa.array([1.0, None, 3.0]), "y": pa.array([None, None, 1.0])})
    step = parse_step("impute", {"indicator": True})
    graph = build([FeatureSpec("v", "feature", ("x", "y"), (step,), vector=True)], rows.schema)
    transform = Transform(fit_batches(graph, [rows]))
    oracle = make_column_transformer((SimpleImputer(add_indicator=True), ["x", "y"])).fit_transform(rows.to_pandas())
    out = transform.apply(rows)
    np.testing.assert_allclose(np.hstack([out["v"], out["v_missing"]]), oracle)
    assert [info.shape for info in transform.infos] == [(2,), (2,)]
    assert [output.name for output in graph.outputs] == ["v", "v_missing"]


def test_a_column_of_only_nulls_says_what_to_do():
    with pytest.raises(DataError, match=r"column 'x', step impute.*3 nulls and no value.*constant"):
        run(pa.array([None] * 3, pa.float64()), [("impute",)])


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (pa.int32(), 0.5, "cast: float64"),
        (pa.int8(), 300, "cast: int64"),
        (pa.string(), 0, "column of text"),
        (pa.float64(), "a", "column of float"),
        (pa.bool_(), 3, "true, false"),
    ],
)
def test_a_value_that_does_not_go_with_the_column_is_refused(kind, value, message):
    with pytest.raises(JobError, match=message):
        run(pa.array([], kind), [("impute", {"strategy": "constant", "value": value})])
