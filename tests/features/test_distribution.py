"""Scaling by quantiles, against scikit-learn."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer, RobustScaler

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from fitting import fit_batches
from property_tests import examples

OPTIONS = st.fixed_dictionaries(
    {
        "with_centering": st.booleans(),
        "with_scaling": st.booleans(),
        "unit_variance": st.booleans(),
        "quantile_range": st.sampled_from([(25.0, 75.0), (10.0, 50.0), (0.5, 99.5)]),
    }
)
VALUES = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


def fitted(
    values: Any, options: Any = None, at: Any = (), impute: bool = False, step: str = "robust_scale"
) -> FittedState:
    rows = pa.record_batch({"x": pa.array(values, from_pandas=True)})
    steps = [parse_step(step, options)]
    spec = FeatureSpec(
        "x", "feature", ("x",), tuple([parse_step("impute"), *steps] if impute else steps), allow_null=True
    )
    ends = sorted({0, len(rows), *(cut for cut in at if cut < len(rows))})
    return fit_batches(build([spec], rows.schema), [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)])


def numbers(state: FittedState) -> Any:
    return next(
        value for step, value in ((one.operation.name, two) for one, two in state.fitted.items()) if step != "impute"
    )


@examples(1)
@given(VALUES, OPTIONS, st.lists(st.integers(1, 59), max_size=3))
def test_numbers_and_results_are_those_of_scikit_learn(values: list[float], options: Any, at: list[int]) -> None:
    column = np.array(values)
    state = fitted(column, options, at)
    theirs = RobustScaler(**options).fit(column[:, None])
    found = numbers(state)
    for name in ("center_", "scale_"):
        own = getattr(theirs, name)
        assert (own is None) == (name not in found)
        if own is not None:
            np.testing.assert_allclose(found[name], own[0], rtol=1e-12, atol=1e-300)
    made = Transform(state).apply(pa.record_batch({"x": column}))["x"]
    np.testing.assert_allclose(made, theirs.transform(column[:, None])[:, 0], rtol=2e-7, atol=1e-30)


def test_nulls_are_left_out_and_stay_null() -> None:
    column = np.array([3.0, np.nan, 1.0, 100.0, np.nan, 2.0])
    state = fitted(column)
    theirs = RobustScaler().fit(column[:, None])
    assert numbers(state)["center_"] == theirs.center_[0]
    made = Transform(state).apply(pa.record_batch({"x": pa.array(column, from_pandas=True)}))["x"]
    np.testing.assert_allclose(made, theirs.transform(column[:, None])[:, 0], rtol=1e-6)


def test_an_imputer_before_it_takes_the_same_pass() -> None:
    column = np.array([3.0, np.nan, 1.0, 100.0, np.nan, 2.0])
    state = fitted(column, impute=True)
    filled = np.where(np.isnan(column), np.nanmean(column), column)
    assert state.graph.passes == 1
    np.testing.assert_allclose(numbers(state)["scale_"], RobustScaler().fit(filled[:, None]).scale_[0], rtol=1e-12)


def test_quantiles_of_many_rows_are_within_a_thousandth_of_the_rank() -> None:
    column = np.random.default_rng(0).lognormal(size=400_000)
    found = numbers(fitted(column, at=(100_000, 150_000)))
    low, high = np.quantile(column, [0.249, 0.251]), np.quantile(column, [0.749, 0.751])
    assert high[0] - low[1] <= found["scale_"] <= high[1] - low[0]
    assert np.quantile(column, 0.499) <= found["center_"] <= np.quantile(column, 0.501)


def ranked(column: Any, options: Any, at: Any = (), rows: Any = None) -> tuple[Any, Any]:
    """quantile_transform of rows, and what scikit-learn gives that was fitted on the same column."""
    state = fitted(column, options, at, step="quantile_transform")
    rows = column if rows is None else rows
    present = int((~np.isnan(column)).sum())
    theirs = QuantileTransformer(
        **{**options, "n_quantiles": min(options["n_quantiles"], present)}, subsample=None
    ).fit(column[:, None])
    made = Transform(state).apply(pa.record_batch({"x": pa.array(rows, from_pandas=True)}))["x"]
    return made, theirs.transform(rows[:, None])[:, 0]


RANKED = st.fixed_dictionaries(
    {"output_distribution": st.sampled_from(["uniform", "normal"]), "n_quantiles": st.integers(2, 70)}
)
TIED = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False) | st.integers(0, 3).map(float), min_size=1, max_size=60)


@examples(1)
@given(TIED, TIED, RANKED, st.lists(st.integers(1, 59), max_size=3))
def test_ranks_are_those_of_scikit_learn(values: list[float], new: list[float], options: Any, at: list[int]) -> None:
    made, theirs = ranked(np.array(values), options, at, np.array(values + new))
    np.testing.assert_allclose(made, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("column", [[5.0] * 9, [np.nan, 1, 1, 2, np.nan], [7.0], [0.0] * 50 + [1, 2]])
def test_ranks_of_constants_ties_and_nulls(distribution: str, column: list[float]) -> None:
    options = {"output_distribution": distribution, "n_quantiles": 10}
    made, theirs = ranked(np.array(column), options, rows=np.array([*column, -9.0, 99.0]))
    np.testing.assert_allclose(made, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("draw", ["lognormal", "ties"])
def test_ranks_of_many_rows_are_within_the_stated_bound(draw: str) -> None:
    rng = np.random.default_rng(1)
    column = rng.lognormal(size=400_000)
    column = np.round(column, 1) + 1e-9 * (rng.random(400_000) < 0.1) * column if draw == "ties" else column
    options = {"output_distribution": "uniform", "n_quantiles": 1000}
    made, theirs = ranked(column, options, at=(100_000, 150_000))
    assert len(np.unique(column)) > 8192
    assert np.abs(made - theirs).max() <= 0.001 + 1 / 999


def test_infinities_have_no_rank() -> None:
    state = fitted([1.0, 2.0], {}, step="quantile_transform")
    with pytest.raises(DataError, match="1 values of column 'x', step quantile_transform are infinite"):
        Transform(state).apply(pa.record_batch({"x": [1.0, np.inf]}))


REFUSED = [
    ({"quantile_range": [75, 25]}, "quantile_range needs two percentages, 0 to 100, the lower first, not 75.0, 25.0"),
    ({"quantile_range": [-1, 25]}, "quantile_range needs two percentages"),
    ({"quantile_range": [0, 100], "unit_variance": True}, "unit_variance needs a quantile_range above 0 and below 100"),
]
BOTH = ["robust_scale", "quantile_transform"]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_wrong_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        parse_step("robust_scale", options)


@pytest.mark.parametrize("options", [{"n_quantiles": 1}, {"n_quantiles": 8193}, "gaussian"])
def test_wrong_options_of_ranks_are_refused(options: Any) -> None:
    with pytest.raises(JobError, match=r"8,?192|at least 2|greater than or equal to 2|uniform"):
        parse_step("quantile_transform", options)


@pytest.mark.parametrize("step", BOTH)
def test_columns_that_have_no_quantiles_are_refused(step: str) -> None:
    with pytest.raises(DataError, match=r"nothing to learn in column 'x'.*impute a constant first"):
        fitted(np.array([np.nan, np.nan]), step=step)
    with pytest.raises(DataError, match=rf"The range of column 'x', step {step} overflows float64\. Put `clip`"):
        fitted([-1.7e308, -1.7e308, 1.7e308, 1.7e308], step=step)
    spec = FeatureSpec("x", "feature", ("x",), (parse_step(step),), place="features[0]")
    with pytest.raises(JobError, match=f"{step} needs numbers, and the column is text"):
        build([spec], pa.schema({"x": pa.string()}))
