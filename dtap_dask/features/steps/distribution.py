"""Scaling by a column's distribution: by its quantiles rather than by its moments."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import model_validator

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Numbers, numbers
from dtap_dask.features.statistics.quantiles import Quantiles
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, StatisticSpec, need_values
from dtap_dask.features.steps.scale import EPSILON, IMPUTE, Scaler


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
            scale = high - low
            if not math.isfinite(scale):
                raise DataError(f"The range of {context} overflows float64. Put `clip`, or `log1p`, before it.")
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
