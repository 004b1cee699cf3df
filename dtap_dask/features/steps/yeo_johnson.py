"""Scaling by the power of Yeo and Johnson that makes a column most nearly normal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Floats, Numbers, numbers
from dtap_dask.features.statistics.quantiles import Summary
from dtap_dask.features.statistics.relative_quantiles import RelativeQuantiles
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
from dtap_dask.features.steps.scale import EPSILON, IMPUTE, is_constant
from dtap_dask.features.steps.valuetype import ValueType

MARGIN = 20.0
"""How many times larger than the fitted values others may be, so that their powers do not overflow."""

TOLERANCE = 1.48e-8
"""How near the search comes to the most likely power; as scikit-learn's."""

RESOLVED = 2.0**-24
"""The least standard deviation of transformed values, as a share of their mean: what is less than that is rounding of
float64, in results of float32."""


class PowerTransform(Operation):
    """The power transform of Yeo and Johnson (Biometrika 87, 2000) with the power that makes the values most likely
    normal, and with `standardize` scaled to mean 0 and variance 1 afterwards.

    As scikit-learn's PowerTransformer. The likelihood is that of the points of the RelativeQuantiles statistic, which
    are all values up to 8,192 distinct ones; powers that do not leave values RESOLVED are not considered. A constant
    keeps its values (lambdas_ 1), as do values that no power leaves resolved; with `standardize` a constant becomes 0.
    Nulls stay null, infinities are errors. Fitted: `lambdas_`, `n_samples_seen_`, and with `standardize` `mean_`,
    `var_` and `scale_` of the transformed values.
    """

    name: ClassVar[str] = "power_transform"
    scalar: ClassVar[str | None] = "standardize"
    on_elements: ClassVar[bool] = True
    precision_floor: ClassVar[float] = 1.0

    standardize: bool = True

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.number_only(given)
        return given.become("float")

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(RelativeQuantiles)

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, IMPUTE)
        summary = statistic.summary()
        power = most_likely_power(summary, statistic.smallest, statistic.largest)
        fitted: dict[str, Any] = {"lambdas_": power, "n_samples_seen_": statistic.count}
        if self.standardize:
            mean, variance = _moments(yeo_johnson(summary.points, power), summary.weights)
            if not math.isfinite(variance):
                raise DataError(
                    f"The values of {context} are so large that their squares overflow float64. Put `clip`, or "
                    "`log1p`, before it."
                )
            scale = 1.0 if is_constant(variance, mean) else math.sqrt(variance)
            fitted |= {"mean_": mean, "var_": variance, "scale_": scale}
        return fitted

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        power, mean, scale = fitted["lambdas_"], fitted.get("mean_", 0.0), fitted.get("scale_", 1.0)

        def apply(column: Column) -> Column:
            values = numbers(column).floats()
            refuse_infinities(values, context)
            with np.errstate(over="ignore"):
                return Numbers((yeo_johnson(values, power) - mean) / scale)

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        power, mean, scale = fitted["lambdas_"], fitted.get("mean_", 0.0), fitted.get("scale_", 1.0)

        def undo(column: Column) -> tuple[Column]:
            return (Numbers(_root(numbers(column).floats() * scale + mean, power)),)

        return undo


def yeo_johnson(values: Floats, power: float) -> Floats:
    """((1 + x)^power - 1) / power for x from 0 on, and below -((1 - x)^(2 - power) - 1) / (2 - power); logarithms for
    the power 0. NaN stays NaN, and what overflows becomes infinite."""
    with np.errstate(over="ignore"):
        growth = np.log1p(np.abs(values))
        return np.copysign(np.where(values < 0, _grown(growth, 2 - power), _grown(growth, power)), values)


def _grown(growth: Floats, power: float) -> Floats:
    """(e^(growth * power) - 1) / power."""
    return growth if abs(power) < EPSILON else np.expm1(growth * power) / power


def _root(values: Floats, power: float) -> Floats:
    """What yeo_johnson made the values of; NaN for values that it never makes."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        size = np.abs(values)
        growth = np.where(values < 0, _shrunk(size, 2 - power), _shrunk(size, power))
        return np.copysign(np.expm1(growth), values)


def _shrunk(size: Floats, power: float) -> Floats:
    """The growth g that _grown(g, power) takes to `size`."""
    return size if abs(power) < EPSILON else np.log1p(size * power) / power


def most_likely_power(summary: Summary, smallest: float, largest: float) -> float:
    """The power with the largest likelihood of normal values, found as by SciPy's yeojohnson; 1 where there is none."""
    mean, variance = _moments(summary.points, summary.weights)
    if smallest == largest or is_constant(variance, mean):
        return 1.0
    low, high = _bounds(smallest, largest)
    if not low < high:
        return 1.0
    from scipy.optimize import fminbound  # imported late: most datasets do without

    unlikelihood = _unlikelihood(summary)
    with np.errstate(over="ignore", invalid="ignore"):
        found = float(fminbound(unlikelihood, low, high, xtol=TOLERANCE))
    return found if unlikelihood(found) < math.inf else 1.0


def _bounds(smallest: float, largest: float) -> tuple[float, float]:
    """The powers with which the squares of all values, and of values MARGIN times as large, neither over- nor
    underflow (SciPy's pull request 18852); (0, 0) for values so small that there are no such."""
    limits, size = np.finfo(np.float64), max(-smallest, largest)
    growth = math.log1p(size * MARGIN if size < limits.max / MARGIN else limits.max)
    low = (math.log(limits.tiny) - math.log(limits.eps)) / 2 / growth if growth else -math.inf
    high = (math.log(limits.max) + math.log(limits.eps)) / 2 / growth if growth else math.inf
    if not math.isfinite(high - low):
        return 0.0, 0.0
    if largest < 0:
        return 2 - high, 2 - low
    return (max(2 - high, low), min(2 - low, high)) if smallest < 0 else (low, high)


def _unlikelihood(summary: Summary) -> Any:
    """A function of the power: the negative logarithm of the likelihood of normal values, without its constants."""
    points, weights = summary.points, summary.weights
    count = int(weights.sum())
    growth = float((np.sign(points) * np.log1p(np.abs(points)) * weights).sum())

    def of(power: float) -> float:
        mean, variance = _moments(yeo_johnson(points, power), weights)
        if not np.finfo(np.float64).tiny <= variance < math.inf or not is_resolved(mean, variance):
            return math.inf
        return count / 2 * math.log(variance) - (power - 1) * growth

    return of


def is_resolved(mean: float, variance: float) -> bool:
    """Whether values with these moments are told apart well enough."""
    return math.sqrt(variance) >= RESOLVED * abs(mean)


def _moments(points: Floats, weights: Any) -> tuple[float, float]:
    """The mean and the variance of weighted points; not finite where they overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        shares = weights / weights.sum()
        mean = (points * shares).sum()
        return float(mean), float(((points - mean) ** 2 * shares).sum())
