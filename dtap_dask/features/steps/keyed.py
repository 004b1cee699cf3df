"""Steps fitted for each value of a key: the option `by` of scalers, impute and bucketize."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array, Column
from dtap_dask.features.statistics.keyed import Key, KeyedStatistic
from dtap_dask.features.statistics.statistic import ColumnStatistic
from dtap_dask.features.steps.encode import as_text, place_finder
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    Inverse,
    Need,
    Operation,
    Part,
    Source,
    StatisticSpec,
)
from dtap_dask.features.steps.valuetype import Unfit, UnfitKey, ValueType, describe

ByRow = Callable[[Column, Array], Column]
"""A function of a column and of the place of each row's fitted numbers in the tables of all keys, int64 [n]."""

KEY_OPTIONS = ("by", "max_keys")


class Keyable(Operation):
    """A step of one column that can learn for each value of a key.

    With `by` its first part is `Keyed`; as an operation of its own it learns from all rows alike.
    """

    by: Annotated[str, Field(min_length=1)] | None = None
    max_keys: Annotated[int, Field(ge=1, le=1 << 20)] = 1000

    @model_serializer(mode="wrap")
    def _as_written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The options; those of the key only where there is one."""
        options: dict[str, Any] = written(self)
        return options if self.by is not None else {name: options[name] for name in options if name not in KEY_OPTIONS}

    def parts(self) -> Sequence[Part]:
        return (Part("", self if self.by is None else Keyed(step=self)),)

    def bind_by_row(self, tables: Mapping[str, pa.Array], context: ErrorContext) -> ByRow:
        """The operation, each row with fitted numbers of its own: those at its place in each of the arrays."""
        columns = {name: array.to_numpy(zero_copy_only=False) for name, array in tables.items()}
        return lambda column, places: self.bind(AtPlaces(columns, places), context)(column)


class AtPlaces(Mapping[str, Any]):
    """Fitted numbers of each row [n]: those at its place in the tables of all keys, taken as they are asked for."""

    def __init__(self, tables: Mapping[str, Any], places: Any, take: Callable[[Any, Any], Any] = np.take):
        self._tables, self._places, self._take = tables, places, take

    def __getitem__(self, name: str) -> Any:
        return self._take(self._tables[name], self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


class Keyed(Operation):
    """`step` fitted on the rows with each value of the key `step.by`, and applied to each row as its key says.

    A row without a key, and one whose key has no value in the fitted rows, gets what all rows say. Fitted: `keys_`, and
    each fitted number of `step` as an array with an entry for each key; the last entry of all arrays, where `keys_` is
    null, is for all rows. More than `max_keys` keys are an error.
    """

    name: ClassVar[str] = "keyed"

    step: Keyable

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"step": self.step.name, "options": self.step.model_dump(mode="json")}

    @property
    def key(self) -> str:
        """The column whose values are the keys."""
        assert self.step.by is not None
        return self.step.by

    @property
    def title(self) -> str:
        return f"{self.step.name} by {self.key!r}"

    def needs(self) -> Sequence[Need]:
        return (Source(self.key),)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        [key] = others
        if given.element is not None or given.width is not None:
            raise Unfit(f"`by` takes one number or text a row, and the column is {describe(given)}. Leave `by` out.")
        if key.base not in ("int", "bool", "text", "time") or key.width is not None:
            raise UnfitKey(
                f"by: keys are text, integers, booleans, dates or timestamps, and column {self.key!r} is "
                f"{describe(key)}. `derive` such a column from it."
            )
        return self.step.type_of(given)

    @property
    def statistic(self) -> StatisticSpec | None:
        of_all = self.step.statistic
        assert of_all is not None
        assert issubclass(of_all.kind, ColumnStatistic)
        return StatisticSpec(KeyedStatistic, (of_all.kind, self.step.max_keys))

    @property
    def keeps_nulls(self) -> bool:
        return self.step.keeps_nulls

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        whole = self.step.fit(statistic.whole, context)
        if statistic.excess:
            most = self.step.max_keys
            raise DataError(
                f"The {context}, meets more than {most:,} keys that have values, and max_keys is {most:,}. Raise "
                "`max_keys`, or `derive` a key with fewer values."
            )
        parts = statistic.by_key()
        learnt = [*(self.step.fit(part, context) for _, part in parts), whole]
        return with_tables({"keys_": _keys([key for key, _ in parts])}, learnt)

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        keys, tables = of_keys(fitted)
        find = place_finder(keys, null=len(keys), unseen=len(keys))
        bound = self.step.bind_by_row(tables, context)

        def apply(column: Column, key: Column) -> Column:
            return bound(column, find(key) if len(keys) else np.zeros(len(key), np.int64))

        return apply

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """That of an imputer, which changes nothing that is not null; others cannot do without the key of each row."""
        return self.step.inverse(fitted) if self.step.fills else None

    def ids(self, fitted: Fitted) -> int | None:
        _, tables = of_keys(fitted)
        counts = [self.step.ids(one) for one in pa.table(tables).to_pylist()]
        return max((count for count in counts if count is not None), default=None)

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        least, most = (with_tables({"keys_": _keys([])}, [found]) for found in self.step.guess(rows))
        return least, most


def of_keys(fitted: Fitted) -> tuple[pa.Array, dict[str, pa.Array]]:
    """The keys, and the numbers of each and then of all rows, by name."""
    return fitted["keys_"].drop_null(), {name: array for name, array in fitted.items() if name != "keys_"}


def with_tables(fitted: Fitted, learnt: Sequence[Fitted]) -> Fitted:
    """`keys_` of `fitted` with what was learnt of the rows of each of these keys, and last of all rows."""
    return {"keys_": fitted["keys_"], **{name: _table([one[name] for one in learnt]) for name in learnt[0]}}


def _keys(keys: Sequence[Key]) -> pa.Array:
    """The keys and a null."""
    if any(isinstance(key, bytes) for key in keys):
        return as_text(pa.array([*keys, None], pa.large_binary()))
    wide = any(isinstance(key, int) and key > np.iinfo(np.int64).max for key in keys)
    return pa.array([*keys, None], pa.uint64() if wide else pa.int64())


def _table(values: Sequence[Any]) -> pa.Array:
    """The values that a step has learnt under one name, one for each key: numbers, text, or tuples of numbers."""
    if isinstance(values[0], str):
        return as_text(pa.array([one.encode("utf-8", "surrogateescape") for one in values], pa.large_binary()))
    wide = isinstance(values[0], int) and max(values) > np.iinfo(np.int64).max
    return pa.array(values, pa.uint64()) if wide else pa.array(values)
