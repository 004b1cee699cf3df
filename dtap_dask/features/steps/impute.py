"""Fill missing values, as scikit-learn's SimpleImputer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from dtap_dask.features.columns.column import Array, Coded, Column, Decimals, Numbers, Text, Words, numbers
from dtap_dask.features.columns.decimals import constant, filled
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.features.statistics.quantiles import Quantiles
from dtap_dask.features.statistics.statistic import Moments, Statistic
from dtap_dask.features.steps.keyed import ByRow, Keyable
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    Inverse,
    Operation,
    Part,
    StatisticSpec,
    fits,
    is_finite,
    need_values,
)
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe, has_null_places

Filling = bool | int | float | str


class Impute(Keyable):
    """Put the mean, the median, the most frequent value (the smallest of several) or a constant in place of nulls.

    Decimals stay decimals with the last two, unless their type does not hold the constant.

    `indicator` adds a feature `<name>_missing`, 1 where a value was filled in. Fitted: `statistics_`.
    """

    name: ClassVar[str] = "impute"
    on_elements: ClassVar[bool] = True
    on_places: ClassVar[bool] = True

    scalar: ClassVar[str | None] = "strategy"

    strategy: Literal["mean", "median", "most_frequent", "constant"] = "mean"
    value: Filling | None = None
    indicator: bool = False

    @model_validator(mode="after")
    def _value_with_constant(self) -> Self:
        if self.strategy == "constant" and self.value is None:
            raise ValueError("strategy constant needs `value`")
        if self.strategy != "constant" and self.value is not None:
            raise ValueError(f"`value` goes with strategy constant, not {self.strategy}")
        if self.strategy == "constant" and self.by is not None:
            raise ValueError("`by` goes with a strategy that learns: a constant is the same for all keys")
        if isinstance(self.value, int | float) and not is_finite(self.value):
            raise ValueError("`value` must be finite")
        return self

    def check_input(self, given: ValueType) -> None:
        if given.width is not None and not has_null_places(given):
            raise Unfit(f"impute takes vectors of floats, and the column is {describe(given)}, where a null makes its "
                        "whole row null. Put it before `pad`, or leave such rows out with `source.where`.")  # fmt: skip

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        if self.strategy in ("mean", "median"):
            self.number_only(given)
            return given.become("float", nulls=frozenset())
        if given.base not in ("float", "int", "bool", "text") or given.width is not None:
            self.number_only(given)
        holds = given.holds
        if self.strategy == "constant":
            self._check_value(given)
            if given.base == "int" and not fits(int(self.value or 0), holds):
                holds = "int64"
        return given.become(given.base, nulls=frozenset(), holds=holds)

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
    def statistic(self) -> StatisticSpec | None:
        kinds: dict[str, type[Statistic]] = {"mean": Moments, "median": Quantiles, "most_frequent": Counts}
        return StatisticSpec(kinds[self.strategy]) if self.strategy in kinds else None

    @property
    def fills(self) -> bool:
        return self.statistic is not None

    @property
    def keeps_nulls(self) -> bool:
        return False

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, "or use `impute: {strategy: constant, value: ...}`")
        if self.strategy == "mean":
            return {"statistics_": statistic.mean}
        if self.strategy == "median":
            return {"statistics_": float(statistic.quantiles(np.array([0.5]))[0])}
        value = statistic.by_count()[0][0].as_py()
        if isinstance(value, Decimal):
            value = format(value, "f")  # its digits, which JSON holds exactly
        return {"statistics_": value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value}

    def filling(self, fitted: Fitted, result: ValueType) -> Column:
        value = fitted["statistics_"]
        if not isinstance(value, str):
            return Numbers(np.array([value]))
        if result.base == "text":
            return Text(pa.array([value.encode("utf-8", "surrogateescape")], pa.large_binary()))
        source = result.source  # a decimal, whose digits were fitted
        return Decimals(pa.array([constant(value, source.value_type if pa.types.is_dictionary(source) else source)]))

    def inverse(self, fitted: Fitted) -> Inverse | None:
        return lambda column: (column,)

    def parts(self) -> Sequence[Part]:
        missing = (Part("missing", MissingIndicator(), extra=True),) if self.indicator else ()
        return (*super().parts(), *missing)

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        value: Any = self.value if self.strategy == "constant" else fitted["statistics_"]
        words = _words([value]) if isinstance(value, str) else None
        floats = self.strategy in ("mean", "median")
        filling = np.asarray(np.nan if isinstance(value, str) else value, np.float64)

        def fill(column: Column) -> Column:
            if words is not None and isinstance(column, Text):
                return _filled_text(column, words)
            if isinstance(column, Decimals) and not floats:
                whole = filled(column.array, value)
                if whole is not None:
                    return Decimals(whole)
            given = numbers(column)
            if given.is_float or floats:
                plain = given.floats()
                missing = np.isnan(plain)
                return Numbers(np.where(missing, filling, plain) if missing.any() else plain)
            if given.valid is None:
                return given
            values = given.values
            if values.dtype.kind in "iu" and not fits(value, values.dtype.name):
                values = values.astype(np.int64)  # ids have the narrowest dtype that holds them
            return Numbers(np.where(given.valid, values, values.dtype.type(value)))

        return fill

    def bind_by_row(self, tables: Mapping[str, pa.Array], context: ErrorContext) -> ByRow:
        table = tables["statistics_"]
        if self.strategy != "most_frequent":
            values = table.to_numpy()
            return lambda column, places: _filled_numbers(Numbers(numbers(column).floats()), values, places)
        spelled = not pa.types.is_integer(table.type) and not pa.types.is_floating(table.type)
        words = Words(table.cast(pa.large_binary())) if spelled else None

        def fill(column: Column, places: Array) -> Column:
            if isinstance(column, Text):
                assert words is not None
                return _filled_text(column, words, places)
            if isinstance(column, Decimals):
                filling = table.cast(column.array.type).take(pa.array(places))
                return Decimals(pc.coalesce(column.array, filling))
            return _filled_numbers(numbers(column), table.to_numpy(), places)

        return fill


def _filled_numbers(given: Numbers, table: Array, places: Array) -> Numbers:
    """The numbers with the entry of each row's place in a table in place of null."""
    nulls = given.nulls()
    if nulls is None:
        return given
    return Numbers(np.where(nulls, table[places].astype(given.values.dtype), given.values))


class MissingIndicator(Operation):
    """1 where a value is null, else 0: the further output of an imputer with `indicator`."""

    name: ClassVar[str] = "missing_indicator"
    on_places: ClassVar[bool] = True

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return given.become("int", nulls=frozenset(), holds="uint8")

    @property
    def keeps_nulls(self) -> bool:
        return False

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            if isinstance(column, Numbers) and column.values.ndim == 2:
                return Numbers(np.isnan(column.floats()).astype(np.uint8))
            nulls = column.nulls()
            return Numbers(np.zeros(len(column), np.uint8) if nulls is None else nulls.astype(np.uint8))

        return apply


def _words(values: Sequence[str]) -> Words:
    return Words(pa.array([one.encode("utf-8", "surrogateescape") for one in values], pa.large_binary()))


def _filled_text(column: Text, words: Words, places: Array | None = None) -> Text:
    """The text with the first of `words` in place of null, or with the one at each row's place among them."""
    coded = column.coded
    if not coded.nulls:
        return column
    # the null code is one past the last word, so the first new word takes all nulls
    known, codes = len(coded.words), coded.codes
    if places is not None:
        codes = np.where(codes == known, known + places, codes)
    both = Words(pa.concat_arrays([coded.words.binary, words.binary]), ("filled", *words.key, *coded.words.key))
    return Text(Coded(codes, both, nulls=False))
