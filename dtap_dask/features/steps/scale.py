"""Linear scalers with the semantics of those in dask-ml and scikit-learn."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import model_validator

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Numbers, numbers
from dtap_dask.features.statistics.statistic import Extremes, Moments
from dtap_dask.features.steps.keyed import Keyable
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    Inverse,
    StatisticSpec,
    need_values,
)
from dtap_dask.features.steps.valuetype import ValueType


class Scaler(Keyable):
    """x * factor + shift, or (x - shift) / factor, with fitted numbers. Nulls stay null."""

    on_elements: ClassVar[bool] = True
    on_places: ClassVar[bool] = True

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.number_only(given)
        return given.become("float")

    @property
    def is_linear(self) -> bool:
        return True

    def inverse(self, fitted: Fitted) -> Inverse | None:
        factor, shift = self.linear(fitted)
        return lambda column: (Numbers((numbers(column).floats() - shift) / factor),)


IMPUTE = "look at `source.where` and `split.fit`, or impute a constant first"

EPSILON = float(np.finfo(np.float64).eps)
UNRESOLVED = 8 * EPSILON


def is_constant(variance: float, mean: float) -> bool:
    """Whether a column does not vary, as far as float64 can tell numbers around its mean apart: by a few units in the
    last place at most, however many rows there are."""
    return math.sqrt(variance) <= UNRESOLVED * abs(mean)


class StandardScale(Scaler):
    """(x - mean_) / scale_, with scale_ the square root of var_ (ddof 0); 1 where that is no more than rounding, below
    8 * 2.2e-16 of the mean.

    Fitted: `mean_`, `var_`, `scale_`, `n_samples_seen_`; with_mean and with_std leave out what they do.
    """

    name: ClassVar[str] = "standard_scale"

    with_mean: bool = True
    with_std: bool = True

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Moments)

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, IMPUTE)
        variance = statistic.squares / statistic.count
        if self.with_std and not math.isfinite(variance):
            raise DataError(
                f"The values of {context} are so large that their squares overflow float64. Put `clip`, or `log1p`, "
                "before it."
            )
        fitted: dict[str, Any] = {"n_samples_seen_": statistic.count}
        if self.with_mean:
            fitted["mean_"] = statistic.mean
        if self.with_std:
            fitted["var_"] = variance
            fitted["scale_"] = 1.0 if is_constant(variance, statistic.mean) else math.sqrt(variance)
        return fitted

    def linear(self, fitted: Fitted) -> tuple[float, float]:
        scale, mean = fitted.get("scale_", 1.0), fitted.get("mean_", 0.0)
        return 1.0 / scale, -mean / scale

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        mean, scale = fitted.get("mean_"), fitted.get("scale_")

        def apply(column: Column) -> Column:
            values = numbers(column).floats()
            out = values - mean if mean is not None else values.copy()
            if scale is not None:
                out /= scale
            return Numbers(out)

        return apply


class MinMaxScale(Scaler):
    """x * scale_ + min_, which takes data_min_..data_max_ to `feature_range`; a constant goes to its lower end.

    Fitted: `data_min_`, `data_max_`, `data_range_`, `scale_`, `min_`, `n_samples_seen_`.
    """

    name: ClassVar[str] = "minmax_scale"
    scalar: ClassVar[str | None] = "feature_range"

    feature_range: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _range_rises(self) -> Self:
        low, high = self.feature_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"feature_range needs two finite numbers, the lower first, not {low}, {high}")
        return self

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Extremes)

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, IMPUTE)
        low, high = self.feature_range
        data_range = statistic.largest - statistic.smallest
        if not math.isfinite(data_range):
            raise DataError(f"The range of {context} overflows float64. Put `clip`, or `log1p`, before it.")
        scale = (high - low) / (data_range or 1.0)
        if not math.isfinite(scale):  # a range of a few denormals is as good as none
            scale = high - low
        return {
            "n_samples_seen_": statistic.count,
            "data_min_": statistic.smallest,
            "data_max_": statistic.largest,
            "data_range_": data_range,
            "scale_": scale,
            "min_": low - statistic.smallest * scale,
        }

    def linear(self, fitted: Fitted) -> tuple[float, float]:
        return fitted["scale_"], fitted["min_"]

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        scale, shift = self.linear(fitted)

        def apply(column: Column) -> Column:
            out = numbers(column).floats() * scale
            out += shift
            return Numbers(out)

        return apply


class MaxAbsScale(Scaler):
    """x / scale_, with scale_ the largest absolute value, 1 where that is 0.

    Fitted: `max_abs_`, `scale_`, `n_samples_seen_`.
    """

    name: ClassVar[str] = "maxabs_scale"

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Extremes)

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, IMPUTE)
        largest = max(abs(statistic.smallest), abs(statistic.largest))
        return {"n_samples_seen_": statistic.count, "max_abs_": largest, "scale_": largest or 1.0}

    def linear(self, fitted: Fitted) -> tuple[float, float]:
        return 1.0 / fitted["scale_"], 0.0

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        scale = fitted["scale_"]

        def apply(column: Column) -> Column:
            with np.errstate(over="ignore"):
                return Numbers(numbers(column).floats() / scale)

        return apply
