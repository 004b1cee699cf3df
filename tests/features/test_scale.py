"""The scalers give what scikit-learn and dask-ml give, however the rows are cut into batches and merged."""

from __future__ import annotations

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask_ml import preprocessing as dask_ml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import preprocessing as sklearn

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.columns.column import Numbers
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import Extremes, Moments
from dtap_dask.features.steps.operation import ErrorContext
from fitting import fit_batches, pieces
from property_tests import examples

ordinary = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
columns = hnp.arrays(np.float64, st.integers(2, 60), elements=ordinary)
cuts = st.lists(st.integers(0, 60), max_size=5)


def fitted(values, step, at=(), options=None):
    rows = pa.record_batch({"x": pa.array(values, from_pandas=False)})
    graph = build([FeatureSpec("x", "feature", ("x",), (parse_step(step, options),))], rows.schema)
    state = fit_batches(graph, pieces(rows, list(at)))
    [numbers] = state.fitted.values()
    return numbers, Transform(state).apply(rows)["x"]


@given(columns, cuts)
def test_standard_scale_is_scikit_learns(values, at):
    numbers, out = fitted(values, "standard_scale", at)
    oracle = sklearn.StandardScaler().fit(values[:, None])
    np.testing.assert_allclose(numbers["mean_"], oracle.mean_[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(numbers["var_"], oracle.var_[0], rtol=1e-8, atol=1e-12 * np.abs(values).max() ** 2)
    assert numbers["n_samples_seen_"] == len(values)
    if numbers["var_"] > 1e-6 * max(1.0, np.abs(values).max() ** 2):
        np.testing.assert_allclose(out, oracle.transform(values[:, None])[:, 0], rtol=1e-5, atol=1e-5)


@examples(0.3)
@given(columns, cuts, st.sampled_from([(0.0, 1.0), (-2.0, 3.5)]))
def test_minmax_and_maxabs_are_scikit_learns(values, at, feature_range):
    numbers, out = fitted(values, "minmax_scale", at, {"feature_range": feature_range})
    oracle = sklearn.MinMaxScaler(feature_range=feature_range).fit(values[:, None])
    for name in ("data_min_", "data_max_", "data_range_", "scale_", "min_"):
        np.testing.assert_allclose(numbers[name], getattr(oracle, name)[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(out, oracle.transform(values[:, None])[:, 0], rtol=1e-6, atol=1e-5)
    numbers, out = fitted(values, "maxabs_scale", at)
    oracle = sklearn.MaxAbsScaler().fit(values[:, None])
    assert numbers["max_abs_"] == oracle.max_abs_[0]
    np.testing.assert_allclose(out, oracle.transform(values[:, None])[:, 0], rtol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_attributes_are_those_of_dask_mls_own_fit():
    values = np.random.default_rng(3).lognormal(size=(1000, 1))
    frame = dd.from_pandas(pd.DataFrame({"x": values[:, 0]}), npartitions=4)
    numbers, _ = fitted(values[:, 0], "standard_scale", [250, 500])
    oracle = dask_ml.StandardScaler().fit(frame)
    for name in ("mean_", "var_", "scale_"):
        np.testing.assert_allclose(numbers[name], np.asarray(getattr(oracle, name))[0], rtol=1e-12)
    numbers, _ = fitted(values[:, 0], "minmax_scale", [250, 500])
    oracle = dask_ml.MinMaxScaler().fit(frame)
    for name in ("data_min_", "data_max_", "data_range_", "scale_", "min_"):
        np.testing.assert_allclose(numbers[name], np.asarray(getattr(oracle, name))[0], rtol=1e-12)


def test_nulls_are_skipped_and_nan_is_null():
    values = [1.0, None, 3.0, float("nan"), 8.0]
    rows = pa.record_batch({"x": pa.array(values, from_pandas=False)})
    spec = FeatureSpec("x", "feature", ("x",), (parse_step("standard_scale"),), allow_null=True)
    graph = build([spec], rows.schema)
    out = Transform(fit_batches(graph, [rows.slice(0, 2), rows.slice(2)])).apply(rows)["x"]
    oracle = sklearn.StandardScaler().fit_transform(np.array([[1], [np.nan], [3], [np.nan], [8]], float))[:, 0]
    np.testing.assert_allclose(out, oracle, rtol=1e-6)
    assert out.dtype == np.float32


def test_a_constant_has_no_variance_in_any_partition():
    numbers, out = fitted(np.full(1000, 0.1), "standard_scale", [3, 100, 999])
    assert numbers["var_"] == 0.0
    assert numbers["scale_"] == 1.0
    assert numbers["mean_"] == 0.1
    assert not out.any()
    numbers, out = fitted(np.full(10, 7.0), "minmax_scale", options={"feature_range": [2, 3]})
    assert (out == 2.0).all()


def test_variance_survives_a_large_offset():
    values = 1e9 + np.random.default_rng(0).normal(size=10_000)
    numbers, _ = fitted(values, "standard_scale", [17, 5000, 5001])
    np.testing.assert_allclose(numbers["var_"], np.var(values - 1e9), rtol=1e-6)


def test_with_mean_and_with_std():
    values = np.array([1.0, 2.0, 6.0])
    numbers, out = fitted(values, "standard_scale", options={"with_std": False})
    assert "scale_" not in numbers
    np.testing.assert_allclose(out, values - 3)
    _, out = fitted(values, "standard_scale", options={"with_mean": False})
    np.testing.assert_allclose(out, values / values.std(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint64, np.bool_, np.float32])
def test_every_number_type_is_scaled_in_float64(dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    _, out = fitted(values, "standard_scale")
    plain = values.astype(float)
    np.testing.assert_allclose(out, (plain - plain.mean()) / plain.std(), rtol=1e-6)


def test_integers_at_the_ends_of_int64():
    values = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max, 0])
    numbers, out = fitted(values, "minmax_scale")
    assert numbers["data_min_"] == -(2.0**63)
    np.testing.assert_allclose(out, [0, 1, 0.5], atol=1e-7)


def test_the_mean_of_numbers_whose_difference_overflows():
    one, other = Moments(), Moments()
    one.add(Sample(Numbers(np.full(3, 1.6e308))))
    other.add(Sample(Numbers(np.array([-1.6e308]))))
    for parts in ([one, other], [other, one]):
        assert Moments.merged(parts).mean == pytest.approx(0.8e308, rel=1e-15)


def test_squares_that_overflow_are_an_error_with_a_remedy():
    with pytest.raises(DataError, match=r"'x'.*overflow.*clip"):
        fitted(np.array([1e200, -1e200]), "standard_scale")


def test_only_nulls_are_an_error_with_a_remedy():
    rows = pa.record_batch({"x": pa.array([None, None], pa.float64())})
    spec = FeatureSpec("x", "feature", ("x",), (parse_step("standard_scale"),), allow_null=True)
    graph = build([spec], rows.schema)
    with pytest.raises(DataError, match=r"nothing to learn in column 'x'.*2 nulls"):
        fit_batches(graph, [rows])


def test_an_infinity_names_column_and_step():
    with pytest.raises(DataError, match=r"1 values of column 'x' are infinite at step standard_scale"):
        fitted(np.array([1.0, np.inf]), "standard_scale")


@pytest.mark.parametrize(("kind", "remedy"), [(pa.string(), "cast: float64"), (pa.timestamp("us"), "cast: int64")])
def test_what_cannot_be_scaled_is_refused_with_a_remedy(kind, remedy):
    spec = FeatureSpec("x", "feature", ("x",), (parse_step("standard_scale"),), place="features[0]")
    with pytest.raises(JobError, match=rf"features\[0\].steps\[0\]: column 'x'.*{remedy}"):
        build([spec], pa.schema({"x": kind}))


@examples(0.3)
@given(columns, cuts, st.randoms())
def test_any_merge_tree_agrees(values, at, random):
    parts = []
    for piece in pieces(pa.record_batch({"x": values}), at):
        moments, extremes = Moments(), Extremes()
        sample = Sample(Numbers(piece.column(0).to_numpy()))
        moments.add(sample)
        extremes.add(sample)
        parts.append((moments, extremes))
    while len(parts) > 1:
        k = random.randint(2, len(parts))
        parts = [
            tuple(type(one).merged(same) for one, same in zip(parts[0], zip(*parts[:k], strict=True), strict=True)),
            *parts[k:],
        ]
    moments, extremes = parts[0]
    np.testing.assert_allclose(moments.mean, values.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.squares / moments.count, values.var(), rtol=1e-7, atol=1e-6)
    assert (extremes.smallest, extremes.largest) == (values.min(), values.max())


@pytest.mark.parametrize("rows", [3_000, 10_000, 100_000])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_small_spread_is_a_spread_however_many_rows_there_are(rows):
    values = 1e9 + 1e-3 * np.random.default_rng(1).standard_normal(rows)
    numbers, out = fitted(values, "standard_scale", [rows // 3, rows // 2])
    oracle = dask_ml.StandardScaler().fit(da.from_array(values[:, None], chunks=(1000, 1)))
    np.testing.assert_allclose(numbers["scale_"], oracle.scale_[0], rtol=1e-3)
    assert abs(out.std() - 1) < 1e-3


def test_a_small_spread_is_a_spread_in_ten_billion_rows():
    values = 1.7e9 + 1e-3 * np.random.default_rng(1).standard_normal(100_000)
    parts = []
    for piece in np.split(values, 100):
        part = Moments()
        part.add_weighted(Sample(Numbers(piece)), weight=100_000)
        parts.append(part)
    while len(parts) > 1:
        parts = [Moments.merged(parts[start : start + 8]) for start in range(0, len(parts), 8)]
    assert parts[0].count == 10**10
    numbers = parse_step("standard_scale").fit(parts[0], ErrorContext("x", "x", "standard_scale"))
    np.testing.assert_allclose(numbers["scale_"], np.std(values - 1.7e9), rtol=1e-3)
    constant = Moments()
    for value in (0.1, 1.7e9, 1e300):
        part = Moments()
        part.add_weighted(Sample(Numbers(np.full(1000, value))), weight=10**7)
        constant = Moments.merged([part] * 7)
        numbers = parse_step("standard_scale").fit(constant, ErrorContext("x", "x", "standard_scale"))
        assert (numbers["mean_"], numbers["var_"], numbers["scale_"]) == (value, 0.0, 1.0)


def test_a_spread_that_float64_does_not_resolve_is_none():
    values = np.where(np.arange(50_000) % 2, 1e9, np.nextafter(1e9, 2e9))
    numbers, out = fitted(values, "standard_scale", [20_000])
    assert numbers["scale_"] == 1.0
    assert np.abs(out).max() < 1e-6


def test_very_large_values():
    numbers, out = fitted(np.full(4, 1.7e308), "standard_scale", [1, 3])
    assert (numbers["mean_"], numbers["scale_"]) == (1.7e308, 1.0)
    assert not out.any()
    with pytest.raises(DataError, match=r"'x'.*overflow.*clip"):
        fitted(np.array([1e300, 1e300, 1e300, 1e299]), "standard_scale")
