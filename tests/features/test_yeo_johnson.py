"""power_transform, against scikit-learn, and the summary that it is fitted from."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import PowerTransformer

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.columns.column import Numbers
from dtap_dask.features.statistics.quantiles import POINTS
from dtap_dask.features.statistics.relative_quantiles import TAIL, RelativeQuantiles
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.steps.yeo_johnson import yeo_johnson
from fitting import fit_batches
from property_tests import examples


def fitted(values: Any, standardize: bool = True, at: Any = (), before: Any = ()) -> FittedState:
    rows = pa.record_batch({"x": pa.array(values, pa.float64(), from_pandas=True)})
    steps = (*map(parse_step, before), parse_step("power_transform", standardize))
    spec = FeatureSpec("x", "feature", ("x",), steps, allow_null=True)
    ends = sorted({0, len(rows), *(cut for cut in at if cut < len(rows))})
    return fit_batches(build([spec], rows.schema), [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)])


def learnt(state: FittedState) -> Any:
    return next(fitted for value, fitted in state.fitted.items() if value.applied.name == "power_transform")


def applied(state: FittedState, values: Any) -> Any:
    return Transform(state).apply(pa.record_batch({"x": pa.array(values, from_pandas=True)}))["x"]


@examples(1)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False) | st.integers(-3, 9).map(float), min_size=1, max_size=60),
    st.booleans(),
    st.lists(st.integers(1, 59), max_size=3),
)
def test_results_are_those_of_scikit_learn(values: list[float], standardize: bool, at: list[int]) -> None:
    column = np.array(values)[:, None]
    state = fitted(values, standardize, at)
    theirs = PowerTransformer(standardize=standardize).fit(column)
    mine, other = learnt(state)["lambdas_"], theirs.lambdas_[0]
    if abs(mine - other) > 1e-6:  # as likely, as far as float64 tells
        unsure = 1e-9 + 4 * max(rounding(mine, column), rounding(other, column))
        assert likelihood(mine, column) >= likelihood(other, column) - unsure
        return
    wanted = theirs.transform(column)[:, 0]
    if np.abs(wanted).max() > np.finfo(np.float32).max:
        with pytest.raises(DataError, match="infinite at step output as float32"):
            applied(state, values)
        return
    size = np.abs(yeo_johnson(column[:, 0], learnt(state)["lambdas_"])).max() / learnt(state).get("scale_", 1.0)
    np.testing.assert_allclose(applied(state, values), wanted, rtol=2e-5, atol=1e-5 + 1e-12 * size)


def likelihood(power: float, column: Any) -> float:
    from scipy.stats import yeojohnson_llf

    return float(yeojohnson_llf(power, column[:, 0])) / len(column)


def rounding(power: float, column: Any) -> float:
    """The relative error of the variance of transformed values in float64, which is that of the likelihood."""
    made = yeo_johnson(column[:, 0], power)
    return float(np.finfo(float).eps * (made.mean() / made.std()) ** 2) if made.std() else float("inf")


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("column", [[5.0] * 9, [np.nan, 1, 1, 2, np.nan], [7.0], [0.0] * 50 + [1, 2], [-3.0, -1, -1]])
def test_constants_ties_nulls_and_negative_columns(column: list[float], standardize: bool) -> None:
    state = fitted(column, standardize)
    theirs = PowerTransformer(standardize=standardize).fit(np.array(column)[:, None])
    new = [*column, 3.0, -4.0]
    np.testing.assert_allclose(applied(state, new), theirs.transform(np.array(new)[:, None])[:, 0], 1e-4, 1e-9)


@pytest.mark.parametrize(("middle", "power"), [(42.0, None), (1e9, 1.0)])
def test_powers_that_float64_does_not_resolve_are_not_considered(middle: float, power: float | None) -> None:
    values = middle + 0.05 * np.random.default_rng(5).gamma(2, size=3000)
    found = learnt(fitted(values))
    assert power is None or found["lambdas_"] == power
    assert power or abs(found["mean_"]) / 2**24 <= found["scale_"] < 2 * abs(found["mean_"]) / 2**24  # the lowest one
    scaled = (values - values.mean()) / values.std()
    theirs = PowerTransformer().fit(scaled[:, None])
    np.testing.assert_allclose(
        applied(fitted(values, before=["standard_scale"]), values), theirs.transform(scaled[:, None])[:, 0], atol=1e-4
    )


DRAWS = {
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "negative": lambda rng, n: -rng.chisquare(3, n),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "outliers": lambda rng, n: np.where(rng.random(n) < 1e-4, 1e6, rng.normal(size=n)),
    "half zeros": lambda rng, n: np.where(rng.random(n) < 0.5, 0, rng.exponential(size=n)),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_many_rows_are_within_the_stated_bound(draw: str) -> None:
    values = DRAWS[draw](np.random.default_rng(1), 200_000)
    state = fitted(values, at=(70_000, 130_000))
    theirs = PowerTransformer().fit(values[:, None])
    assert len(np.unique(values)) > POINTS
    assert abs(learnt(state)["lambdas_"] - theirs.lambdas_[0]) <= 1e-4
    made, wanted = applied(state, values), theirs.transform(values[:, None])[:, 0]
    assert np.abs(made - wanted)[np.abs(wanted) < 4].max() <= 1e-4


def test_an_imputer_before_it_takes_the_same_pass() -> None:
    values = np.where(np.random.default_rng(2).random(500) < 0.2, np.nan, np.random.default_rng(3).lognormal(size=500))
    state = fitted(values, before=["impute"], at=(100,))
    assert state.graph.passes == 1
    full = np.where(np.isnan(values), np.nanmean(values), values)[:, None]
    np.testing.assert_allclose(applied(state, values), PowerTransformer().fit_transform(full)[:, 0], rtol=1e-4)


@pytest.mark.parametrize("power", [-3.0, 0.0, 0.5, 1.0, 2.0, 4.5])
def test_the_inverse(power: float) -> None:
    step, values = parse_step("power_transform", False), np.linspace(-5, 5, 41)
    undo = step.inverse({"lambdas_": power})
    assert undo is not None
    [back] = undo(Numbers(yeo_johnson(values, power)))
    assert isinstance(back, Numbers)
    np.testing.assert_allclose(back.values, values, atol=1e-10)


def test_what_is_no_power_has_no_inverse() -> None:
    undo = parse_step("power_transform", False).inverse({"lambdas_": -1.0})
    assert undo is not None
    [back] = undo(Numbers(np.array([0.5, 1.5])))  # (1 + x) ** -1 is never negative
    assert isinstance(back, Numbers)
    np.testing.assert_allclose(back.values, [1.0, np.nan])


@examples(1)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_summary_keeps_counts_mean_and_the_outermost_values(parts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_cauchy(rng.integers(1, 60_000))
    pieces = []
    for piece in np.array_split(values, parts):
        pieces.append(RelativeQuantiles())
        if len(piece):
            pieces[-1].add(Sample(Numbers(piece)))
        pieces[-1].settle()
    whole = RelativeQuantiles.merged(pieces).summary()
    assert whole.weights.sum() == len(values)
    np.testing.assert_allclose((whole.points * whole.weights).sum(), values.sum(), rtol=1e-9, atol=1e-6)
    kept = min(len(values), TAIL)
    assert (np.sort(values)[:kept] == whole.points[:kept]).all()
    assert (np.sort(values)[len(values) - kept :] == whole.points[len(whole.points) - kept :]).all()


REFUSED = [
    ([np.nan, np.nan], r"nothing to learn in column 'x'.*impute a constant first"),
    ([-1.7e308, 1.7e308], "of column 'x', step power_transform are so large that their squares overflow float64"),
    ([1.0, np.inf], "1 values of column 'x' are infinite at step power_transform"),
]


@pytest.mark.parametrize(("column", "message"), REFUSED)
def test_columns_that_have_no_power_are_refused(column: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fitted(column)


def test_infinities_in_new_rows_are_refused() -> None:
    with pytest.raises(DataError, match="1 values of column 'x', step power_transform are infinite"):
        applied(fitted([1.0, 2.0]), [np.inf])


def test_text_and_wrong_options_are_refused() -> None:
    with pytest.raises(JobError, match="power_transform needs numbers, and the column is text"):
        build([FeatureSpec("x", "feature", ("x",), (parse_step("power_transform"),))], pa.schema({"x": pa.string()}))
    with pytest.raises(JobError, match="method"):
        parse_step("power_transform", {"method": "box-cox"})
