"""Scaling by a column's distribution: by its quantiles rather than by its moments."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Floats, Numbers, numbers
from dtap_dask.features.statistics.quantiles import POINTS, Quantiles
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    Inverse,
    Operation,
    StatisticSpec,
    need_values,
    refuse_infinities,
)
from dtap_dask.features.steps.scale import EPSILON, IMPUTE, Scaler
from dtap_dask.features.steps.valuetype import ValueType

TAIL = 1e-7
"""scikit-learn's BOUNDS_THRESHOLD: normal scores are those of probabilities from TAIL to 1 - TAIL."""


class RobustScale(Scaler):
    """(x - center_) / scale_, with center_ the median and scale_ the distance of the two quantiles of `quantile_range`.

    As scikit-learn's RobustScaler: a distance below 10 * 2.2e-16 counts as none, and scale_ is then 1. `unit_variance`
    divides scale_ by that distance of a normal distribution, so that normally distributed values get variance 1.
    Quantiles are as exact as the Quantiles statistic. Fitted: `center_`, `scale_`, `n_samples_seen_`; with_centering
    and with_scaling leave out what they do.
    """

    name: ClassVar[str] = "robust_scale"

    quantile_range: tuple[float, float] = (25.0, 75.0)
    with_centering: bool = True
    with_scaling: bool = True
    unit_variance: bool = False

    @model_validator(mode="after")
    def _range_rises(self) -> Self:
        low, high = self.quantile_range
        if not 0 <= low < high <= 100:
            raise ValueError(f"quantile_range needs two percentages, 0 to 100, the lower first, not {low}, {high}")
        if self.unit_variance and (low == 0 or high == 100):
            raise ValueError("unit_variance needs a quantile_range above 0 and below 100: a normal distribution has no "
                             "smallest and no largest value")  # fmt: skip
        return self

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Quantiles)

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, IMPUTE)
        shares = np.array(self.quantile_range) / 100
        low, median, high = statistic.quantiles(np.array([shares[0], 0.5, shares[1]])).tolist()
        fitted: dict[str, Any] = {"n_samples_seen_": statistic.count}
        if self.with_centering:
            fitted["center_"] = median
        if self.with_scaling:
            scale = _distance(low, high, context)
            scale = 1.0 if scale < 10 * EPSILON else scale
            fitted["scale_"] = scale / _normal_distance(*shares) if self.unit_variance else scale
        return fitted

    def linear(self, fitted: Fitted) -> tuple[float, float]:
        scale, center = fitted.get("scale_", 1.0), fitted.get("center_", 0.0)
        return 1.0 / scale, -center / scale

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        scale, center = fitted.get("scale_", 1.0), fitted.get("center_", 0.0)

        def apply(column: Column) -> Column:
            with np.errstate(over="ignore"):
                return Numbers((numbers(column).floats() - center) / scale)

        return apply


def _normal_distance(low: float, high: float) -> float:
    """The distance of two quantiles of the standard normal distribution."""
    normal = NormalDist()
    return normal.inv_cdf(high) - normal.inv_cdf(low)


class QuantileTransform(Operation):
    """The share of the fitted values that are below x, 0 to 1, or with `normal` the normal score of that share.

    As scikit-learn's QuantileTransformer fitted on all values: x is placed between `n_quantiles` quantiles by linear
    interpolation, in the middle of equal ones; values beyond the fitted ones become the ends, and normal scores are
    within those of 1e-7 and 1 - 1e-7, about 5.2. Nulls stay null, infinities are errors. Quantiles are as exact as the
    Quantiles statistic. Fitted: `quantiles_`, as many as `n_quantiles`, or as there are values if these are fewer, and
    `n_samples_seen_`.
    """

    name: ClassVar[str] = "quantile_transform"
    scalar: ClassVar[str | None] = "output_distribution"
    on_elements: ClassVar[bool] = True

    output_distribution: Literal["uniform", "normal"] = "uniform"
    n_quantiles: Annotated[int, Field(ge=2, le=POINTS)] = 1000

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.number_only(given)
        return given.become("float")

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Quantiles)

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, IMPUTE)
        percentages = np.linspace(0, 1, min(self.n_quantiles, statistic.count)) * 100
        found = statistic.quantiles(percentages / 100)  # rounded as in scikit-learn, which decides what equals a tie
        _distance(float(found[0]), float(found[-1]), context)
        return {"quantiles_": tuple(np.maximum.accumulate(found).tolist()), "n_samples_seen_": statistic.count}

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        quantiles = np.array(fitted["quantiles_"], np.float64)

        def apply(column: Column) -> Column:
            values = numbers(column).floats()
            refuse_infinities(values, context)
            made = _shares(values, quantiles)
            if self.output_distribution == "normal":
                made = _normal_scores(values, made, quantiles)
            return Numbers(np.where(np.isnan(values), np.nan, made))

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        quantiles = np.array(fitted["quantiles_"], np.float64)

        def undo(column: Column) -> tuple[Column]:
            shares = numbers(column).floats()
            if self.output_distribution == "normal":
                from scipy.special import ndtr  # imported late: most datasets do without

                shares = ndtr(shares)
                shares = np.where(shares < TAIL, 0.0, np.where(shares > 1 - TAIL, 1.0, shares))
            return (Numbers(np.interp(shares, np.linspace(0, 1, len(quantiles)), quantiles)),)

        return undo


def _shares(values: Floats, quantiles: Floats) -> Floats:
    """Where values are among rising quantiles, 0 to 1: in the middle of equal ones, between others linearly."""
    last = len(quantiles) - 1
    above = np.minimum(np.searchsorted(quantiles, values, side="left"), last)
    below = np.maximum(np.searchsorted(quantiles, values, side="right") - 1, 0)
    low, high = quantiles[below], quantiles[above]
    between = high > low
    share = (np.clip(values, low, np.maximum(low, high)) - low) / np.where(between, high - low, 1.0)
    places = np.where(between, below + share, (below + above) / 2)
    ends = np.where(values >= quantiles[-1], float(last), places)
    return np.where(values <= quantiles[0], 0.0, ends) / max(last, 1)


def _normal_scores(values: Floats, shares: Floats, quantiles: Floats) -> Floats:
    """The normal scores of shares; of values within TAIL of an end the score of that end, as scikit-learn."""
    from scipy.special import ndtri  # imported late: most datasets do without

    low, high = normal_ends()
    shares = np.where(values + TAIL > quantiles[-1], 1.0, shares)
    shares = np.where(values - TAIL < quantiles[0], 0.0, shares)
    return np.asarray(np.clip(ndtri(shares), low, high))


def normal_ends() -> tuple[float, float]:
    """The smallest and the largest normal score, of TAIL and of 1 - TAIL."""
    normal = NormalDist()
    tail = TAIL - EPSILON
    return normal.inv_cdf(tail), normal.inv_cdf(1 - tail)


def _distance(low: float, high: float, context: ErrorContext) -> float:
    """high - low. DataError where that is no float64."""
    if not math.isfinite(high - low):
        raise DataError(f"The range of {context} overflows float64. Put `clip`, or `log1p`, before it.")
    return high - low
