"""Steps that learn nothing and treat each value on its own: clip, log1p, cast, passthrough."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import (
    Array,
    Coded,
    Column,
    Decimals,
    Numbers,
    Text,
    Words,
    item_of,
    numbers,
)
from dtap_dask.features.columns.decimals import clipped, spelled, whole
from dtap_dask.features.quoting import sql_name
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Inverse, Operation, is_finite, rows_of
from dtap_dask.features.steps.valuetype import Base, Unfit, ValueType, describe

DType = Literal["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "bool", "string"]


class Clip(Operation):
    """Values below `min` become `min`, those above `max` become `max`; infinities too. Nulls stay null."""

    name: ClassVar[str] = "clip"
    on_elements: ClassVar[bool] = True
    on_places: ClassVar[bool] = True

    min: int | float | None = None
    max: int | float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs `min`, `max` or both")
        if not all(bound is None or is_finite(bound) for bound in (self.min, self.max)):
            raise ValueError("`min` and `max` must be finite; leave out a bound that is not needed")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` {self.min} is above `max` {self.max}")
        return self

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.number_only(given)
        given = replace(given, infinities=frozenset())
        if given.base != "int" or not self._whole:
            return given.become("float")
        limits = np.iinfo(given.holds)
        outside = (self.min is not None and self.min > limits.max) or (self.max is not None and self.max < limits.min)
        return given.become("int", holds="int64" if outside else given.holds)

    @property
    def _whole(self) -> bool:
        limits = np.iinfo(np.int64)
        bounds = [bound for bound in (self.min, self.max) if bound is not None]
        return all(isinstance(bound, int) and limits.min <= bound <= limits.max for bound in bounds)

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        low, high, whole = self.min, self.max, self._whole

        def apply(column: Column) -> Column:
            if isinstance(column, Decimals):
                limited = clipped(column.array, low, high)
                if limited is not None:
                    return Decimals(limited)
            given = numbers(column)
            if not whole or given.values.dtype.kind not in "iu":
                return Numbers(np.clip(given.floats(), low, high))
            values = given.values
            if values.dtype != np.uint64:
                return Numbers(np.clip(values.astype(np.int64), low, high), given.valid)
            if high is not None:
                values = np.minimum(values, np.uint64(max(high, 0)))
            bottom = values.astype(np.int64) if high is not None else values
            if low is not None and high is not None:
                return Numbers(np.clip(bottom, low, high), given.valid)
            return Numbers(bottom if low is None else np.maximum(bottom, np.uint64(max(low, 0))), given.valid)

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        return lambda column: (column,)


class Log1p(Operation):
    """The natural logarithm of 1 + x. Below -1 there is none: null; -1 itself gives an infinity, an error."""

    name: ClassVar[str] = "log1p"
    on_elements: ClassVar[bool] = True
    on_places: ClassVar[bool] = True

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.number_only(given)
        return given.become("float")

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            with np.errstate(invalid="ignore", divide="ignore"):
                return Numbers(np.log1p(numbers(column).floats()))

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        return lambda column: (Numbers(np.expm1(numbers(column).floats())),)


class Passthrough(Operation):
    """The column as it is."""

    name: ClassVar[str] = "passthrough"
    keeps_ids: ClassVar[bool] = True

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return given

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        return lambda column: column

    def inverse(self, fitted: Fitted) -> Inverse | None:
        return lambda column: (column,)


class Cast(Operation):
    """Another type: for the steps after it, and for the output when it is the last.

    Floats are cut to integers towards zero, as NumPy does; what the type cannot hold is a DataError. Dates and
    timestamps become microseconds since 1970, rounded down. Text is parsed.
    """

    name: ClassVar[str] = "cast"
    on_elements: ClassVar[bool] = True
    keeps_ids: ClassVar[bool] = True
    scalar: ClassVar[str | None] = "dtype"

    dtype: DType

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        if given.base == "onehot" or given.width is not None:
            exact = given.width is None or not pa.types.is_decimal(item_of(given.source))
            if self.dtype in ("string", "bool") or not (exact or self.dtype.startswith("float")):
                raise Unfit(f"cast to {self.dtype} cannot be of {describe(given)}.")
            base = given.base if given.width is None else _base(self.dtype)
            return given.become(base, cast=self.dtype, ids=given.ids, holds=given.holds)
        if given.base == "time" and self.dtype in ("string", "bool"):
            raise Unfit(f"cast to {self.dtype} cannot be of {given.source}; valid: int64 (microseconds since 1970).")
        if self.dtype == "string":
            return given.become("text")
        ids = given.ids and self.dtype != "bool"
        return given.become(_base(self.dtype), cast=self.dtype, ids=ids, holds=self._holds(given))

    def _holds(self, given: ValueType) -> str:
        """The integer dtype of the result: no wider than that of integers that are cast."""
        if _base(self.dtype) != "int":
            return "int64"
        if given.base != "int":
            return self.dtype
        inner, outer = np.iinfo(given.holds), np.iinfo(self.dtype)
        return given.holds if outer.min <= inner.min and inner.max <= outer.max else self.dtype

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            if isinstance(column, Text):
                return column if self.dtype == "string" else self._parse(column, context)
            if isinstance(column, Decimals):
                return self._decimals(column, context)
            given = numbers(column)
            return self._spell(given) if self.dtype == "string" else self._numbers(given, context)

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        return None if self.dtype in ("string", "bool") else lambda column: (column,)

    def _decimals(self, given: Decimals, context: ErrorContext) -> Column:
        """The cast of decimals, exact unless it is to floats."""
        if self.dtype == "string":
            return Text(spelled(given.array))
        if not self.dtype.startswith(("int", "uint")):
            return self._numbers(given.numbers, context)
        dtype = np.dtype(self.dtype)
        values, bad = whole(given.array, dtype)
        if bad is not None:
            few = ", ".join(map(str, given.array.filter(pa.array(bad))[:3].to_pylist()))
            self._refuse_some(int(bad.sum()), few, context)
        nulls = given.nulls()
        return Numbers(values, None if nulls is None else ~nulls)

    def _numbers(self, given: Numbers, context: ErrorContext) -> Numbers:
        dtype = np.dtype(self.dtype)
        nulls = given.nulls()
        if dtype.kind == "f":
            floats = given.values if given.is_float else given.floats()
            with np.errstate(over="ignore"):
                out = floats.astype(dtype, copy=False)
            bad = np.isinf(out) & np.isfinite(floats)
            self._refuse(floats, bad, context)
            return Numbers(out)
        valid = None if nulls is None else ~nulls
        if dtype.kind == "b":
            return Numbers(given.values != 0, valid)
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        values = np.trunc(given.values.astype(np.float64)) if given.is_float else given.values
        if given.values.dtype.kind == "b":
            return Numbers(values.astype(dtype), valid)
        # 2.0**63 is a float64 and int64's largest value is not
        bad = (values < low) | ((values >= float(high) + 1.0) if given.is_float else (values > high))
        self._refuse(values, bad if valid is None else bad & given_rows(valid, bad), context)
        if valid is not None and given.is_float:
            values = np.where(given_rows(valid, values), values, 0.0)
        return Numbers(values.astype(dtype), valid)

    def _refuse(self, values: Array, bad: Array, context: ErrorContext) -> None:
        if bad.any():
            self._refuse_some(int(bad.sum()), rows_of(values[bad]), context)

    def _refuse_some(self, count: int, few: str, context: ErrorContext) -> None:
        raise DataError(
            f"{count:,} values of {context} do not fit {self.dtype}: {few}. Use a wider type, put `clip` before the "
            "cast, or leave such rows out with `source.where`."
        )

    def _parse(self, given: Text, context: ErrorContext) -> Numbers:
        coded = given.coded
        target = pa.bool_() if self.dtype == "bool" else pa.float64()
        if self.dtype.startswith(("int", "uint")):
            target = pa.int64()
        try:
            words = _parsed(coded, target)
        except pa.ArrowInvalid as error:
            kind = {pa.bool_(): "boolean", pa.float64(): "double"}.get(target, "bigint")
            raise DataError(
                f"A value of {context} does not spell a {self.dtype}: {error}. Leave such rows out with "
                f"`source.where`, `derive` a column `try_cast({sql_name(context.column)} as {kind})`, which has null "
                "in their place, or encode the column as text."
            ) from error
        table = np.append(words.to_numpy(zero_copy_only=False), np.zeros(1, target.to_pandas_dtype()))
        values = table[coded.codes]
        if coded.nulls:
            valid = coded.codes != len(coded.words)
            if values.dtype.kind == "f":
                return self._numbers(Numbers(np.where(valid, values, np.nan)), context)
            return self._numbers(Numbers(values, valid), context)
        return self._numbers(Numbers(values), context)

    def _spell(self, given: Numbers) -> Text:
        nulls = given.nulls()
        encoded = pa.array(given.values, mask=nulls).dictionary_encode()
        words = encoded.dictionary.cast(pa.string())
        codes = pc.fill_null(encoded.indices, len(words)).to_numpy()
        return Text(Coded(codes, Words(words), nulls is not None))


def _parsed(coded: Coded, target: pa.DataType) -> pa.Array:
    """The words as numbers, 0 for words that no row uses and that are none. ArrowInvalid for others."""
    words = coded.words.binary
    try:
        return words.cast(pa.large_string()).cast(target)
    except pa.ArrowInvalid:
        used = np.zeros(len(words) + 1, np.bool_)
        used[coded.codes] = True
        nothing = pa.scalar(None, words.type)
        parsed = pc.if_else(pa.array(used[:-1]), words, nothing).cast(pa.large_string()).cast(target)
        return parsed.fill_null(pa.scalar(0, pa.int64()).cast(target))


def given_rows(valid: Array, like: Array) -> Array:
    """`valid` of shape [n] beside an array of [n] or [n, k]."""
    return valid[:, None] if like.ndim == 2 else valid


def _base(dtype: str) -> Base:
    if dtype == "bool":
        return "bool"
    return "float" if dtype.startswith("float") else "int"
