"""Fill missing values, as scikit-learn's SimpleImputer."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from dtap_dask.errors import DataError
from dtap_dask.features.column import Coded, Column, Decimals, Numbers, Text, Words, numbers, text
from dtap_dask.features.counts import Counts
from dtap_dask.features.decimals import filled
from dtap_dask.features.quantiles import Quantiles
from dtap_dask.features.statistic import Moments, Statistic
from dtap_dask.features.step import Bound, ErrorContext, Fitted, Step, Unfit, ValueType, fits, is_finite

Value = bool | int | float | str


class Impute(Step):
    """Put the mean, the median, the most frequent value (the smallest of several) or a constant in place of nulls.

    Decimals stay decimals with the last two, unless their type does not hold the constant.

    `indicator` adds a feature `<name>_missing`, 1 where a value was filled in. Fitted: `statistics_`.
    """

    name: ClassVar[str] = "impute"

    scalar: ClassVar[str | None] = "strategy"

    strategy: Literal["mean", "median", "most_frequent", "constant"] = "mean"
    value: Value | None = None
    indicator: bool = False

    @model_validator(mode="after")
    def _value_with_constant(self) -> Self:
        if self.strategy == "constant" and self.value is None:
            raise ValueError("strategy constant needs `value`")
        if self.strategy != "constant" and self.value is not None:
            raise ValueError(f"`value` goes with strategy constant, not {self.strategy}")
        if isinstance(self.value, int | float) and not is_finite(self.value):
            raise ValueError("`value` must be finite")
        return self

    def kind(self, given: ValueType, index: int) -> ValueType:
        if self.strategy in ("mean", "median"):
            self.number_only(given)
            return given.become("float", nulls=False)
        if given.base not in ("float", "int", "bool", "text") or given.width is not None:
            self.number_only(given)
        holds = given.holds
        if self.strategy == "constant":
            self._check_value(given)
            if given.base == "int" and not fits(int(self.value or 0), holds):
                holds = "int64"
        return given.become(given.base, nulls=False, holds=holds)

    def _check_value(self, given: ValueType) -> None:
        value = self.value
        if (given.base == "text") != isinstance(value, str):
            raise Unfit(f"value {value!r} does not go with a column of {given.base}.")
        if given.base == "bool" and value not in (0, 1):
            raise Unfit(f"value {value!r} does not go with a column of bool; valid: true, false.")
        if given.base != "int":
            return
        if int(value or 0) != value:
            raise Unfit(f"value {value!r} does not go with an integer column. Put `cast: float64` before it.")
        dtype = given.cast or given.holds
        if not fits(int(value or 0), dtype):
            wider = "int64" if fits(int(value or 0), "int64") else "float64"
            raise Unfit(f"value {value!r} does not fit {dtype}. Put `cast: {wider}` before it.")

    @property
    def statistic(self) -> type[Statistic] | None:
        kinds: dict[str, type[Statistic]] = {"mean": Moments, "median": Quantiles, "most_frequent": Counts}
        return kinds.get(self.strategy)

    @property
    def keeps_nulls(self) -> bool:
        return False

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        if statistic.count == 0:
            raise DataError(
                f"There is nothing to learn in {context}: the fitted rows hold {statistic.nulls:,} nulls and no value. "
                "Leave the column out, or use `impute: {strategy: constant, value: ...}`."
            )
        if self.strategy == "mean":
            return {"statistics_": statistic.mean}
        if self.strategy == "median":
            return {"statistics_": float(statistic.quantiles(np.array([0.5]))[0])}
        value = statistic.by_count()[0][0].as_py()
        if isinstance(value, Decimal):
            value = format(value, "f")  # its digits, which JSON holds exactly
        return {"statistics_": value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value}

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        value: Any = self.value if self.strategy == "constant" else fitted["statistics_"]
        fill_text = _fill_text(value) if isinstance(value, str) else None
        floats = self.strategy in ("mean", "median")

        def fill(column: Column) -> Column:
            if fill_text is not None and isinstance(column, Text):
                return fill_text(column)
            if isinstance(column, Decimals) and not floats:
                whole = filled(column.array, value)
                if whole is not None:
                    return Decimals(whole)
            given = numbers(column)
            if given.is_float or floats:
                plain = given.floats()
                missing = np.isnan(plain)
                return Numbers(np.where(missing, float(value), plain) if missing.any() else plain)
            if given.valid is None:
                return given
            values = given.values
            if values.dtype.kind in "iu" and not fits(value, values.dtype.name):
                values = values.astype(np.int64)  # ids lie in the narrowest dtype that holds them
            return Numbers(np.where(given.valid, values, values.dtype.type(value)))

        return fill


def _fill_text(value: str) -> Bound:
    raw = value.encode("utf-8", "surrogateescape")

    def fill(column: Column) -> Column:
        coded = text(column).coded
        if not coded.nulls:
            return column
        # the null code is one past the last word, so the new last word takes all nulls
        words = pa.concat_arrays([coded.words.binary, pa.array([raw], pa.large_binary())])
        return Text(Coded(coded.codes, Words(words, ("filled", raw, *coded.words.key)), nulls=False))

    return fill
