"""The values of which the features of a job are made, and the pass over the rows in which each is fitted.

A value is an operation and the values that it is given, or a column of the lake. Equal values are one value: they are
computed once a batch and fitted once. A pass over the rows can take a statistic as soon as the passes before have
fitted what its inputs need; two rules let it be taken a pass earlier (see `_before_imputing`, `_before_scaling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from dtap_dask.features.statistics.statistic import ColumnStatistic, Covariance
from dtap_dask.features.steps.elements import result_type
from dtap_dask.features.steps.operation import ErrorContext, Operation, Source, StatisticSpec, WithoutNulls
from dtap_dask.features.steps.places import statistic_of
from dtap_dask.features.steps.valuetype import ValueType, source_type


@dataclass(frozen=True, repr=False)
class Value:
    """What an operation makes of its inputs, or a column as it is read."""

    operation: Operation | Source
    inputs: tuple[Value, ...]
    type: ValueType
    pool: tuple[Value, ...] = ()
    """The values that its operation learns from, all together, where these are not its inputs."""

    @classmethod
    def of(
        cls,
        operation: Operation | Source,
        inputs: tuple[Value, ...],
        schema: pa.Schema,
        pool: tuple[Value, ...] = (),
    ) -> Value:
        """The value with the type that follows from its inputs, or from the schema. Raises `Unfit`."""
        if isinstance(operation, Operation):
            return cls(operation, inputs, result_type(operation, *(value.type for value in inputs)), pool)
        if operation.folds:
            return cls(operation, (), ValueType("int", pa.int64()))
        return cls(operation, (), source_type(schema.field(operation.column).type, operation.column))

    @cached_property
    def _hash(self) -> int:
        own = self.operation.column if isinstance(self.operation, Source) else self.operation.name
        return hash((own, self.inputs))  # equal values hash alike; options need not be hashable

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # without caches: hashes differ between processes
        return Value, (self.operation, self.inputs, self.type, self.pool)

    def __repr__(self) -> str:
        if isinstance(self.operation, Source):
            return self.operation.column
        return f"{self.operation!r}({', '.join(map(repr, self.inputs))})"

    @property
    def applied(self) -> Operation:
        """The operation, of a value that is no column as it is read."""
        assert isinstance(self.operation, Operation)
        return self.operation

    @property
    def learns(self) -> StatisticSpec | None:
        """The statistic that the operation is fitted from; None if it learns nothing."""
        if not isinstance(self.operation, Operation):
            return None
        return statistic_of(self.operation, self.inputs[0].type)

    @cached_property
    def ready_after(self) -> int:
        """How many passes must be over before the value can be computed."""
        before = _ready_after(self.inputs)
        return before if self.learns is None else max(before, self.request.at + 1)

    @cached_property
    def request(self) -> Request:
        """What a value that learns is fitted from."""
        of = self.pool or self.inputs
        return _before_scaling(self) or _before_imputing(self) or Request(of, _ready_after(of))

    @property
    def learner(self) -> object:
        """What is equal for values that learn the same: of values with a pool their operation and the pool."""
        return (self.operation, self.pool) if self.pool else self

    @cached_property
    def given(self) -> tuple[Value, ...]:
        """The inputs that new rows must have: without the label and the folds that fitting needs.

        Values that are made for new rows have no others.
        """
        found = list(self._named)
        if len(self.inputs) > len(found):
            for need, one in zip(self.applied.needs(), self.inputs[len(found) :], strict=True):
                found += [one] if isinstance(need, Source) and not need.folds else []
        return tuple(found)

    @property
    def _named(self) -> tuple[Value, ...]:
        """The inputs without those that the operation needs besides."""
        needs = self.operation.needs() if isinstance(self.operation, Operation) else ()
        if not needs or not self.applied.on_block:
            return self.inputs[:1] if needs else self.inputs
        last = self.inputs[-1].operation
        return self.inputs[: -len(needs)] if isinstance(last, Source) and last.folds else self.inputs

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made from, without what operations need besides."""
        if isinstance(self.operation, Source):
            return (self.operation.column,)
        return tuple(dict.fromkeys(column for one in self._named for column in one.columns))

    @cached_property
    def leaves_rows_out(self) -> bool:
        """Whether it has fewer rows than the columns that it is made from."""
        return isinstance(self.operation, WithoutNulls) or any(one.leaves_rows_out for one in self.inputs)


@dataclass(frozen=True)
class LaterFilling:
    """A value, `imputed`, whose fitted filling is to be added for every null, after the operations of `between`."""

    imputed: Value
    between: tuple[Value, ...]


@dataclass(frozen=True)
class Request:
    """The statistic that a value is fitted from: of the values `of`, taken in pass `at` (0 is the first).

    `fillings`: what is to be added to it for nulls.
    `scaled`: for each of `of` the scaling to be worked out in the statistic, or None.
    """

    of: tuple[Value, ...]
    at: int
    fillings: tuple[LaterFilling, ...] = ()
    scaled: tuple[Value | None, ...] = ()


def _ready_after(values: Iterable[Value]) -> int:
    return max((value.ready_after for value in values), default=0)


def _before_imputing(value: Value) -> Request | None:
    """Of columns whose nulls are filled: what is not null is known before the fillings are, which are added afterwards
    with the numbers of nulls as their weights. Imputers and statistic then take one pass."""
    given = value.pool or value.inputs
    learns, at = value.learns, _ready_after(given) - 1
    if at < 0 or learns is None or not issubclass(learns.kind, ColumnStatistic) or value.applied.fills:
        return None
    seen, fillings = [], []
    for one in given:
        found = (one, None) if one.ready_after <= at else _unfilled(one, at)
        if found is None:
            return None
        seen.append(found[0])
        fillings += [found[1]] if found[1] else []
    return Request(tuple(seen), at, tuple(fillings))


def _unfilled(of: Value, at: int) -> tuple[Value, LaterFilling] | None:
    """What is known of a value before its imputer is fitted, in pass `at`; None where it waits for something else."""
    between: list[Value] = []
    while of.learns is None and len(of.inputs) == 1:
        between.insert(0, of)
        [of] = of.inputs
    if of.learns is None or not of.applied.fills or of.request.at != at:
        return None
    if of.type.element is not None and not all(one.applied.on_elements for one in between):
        return None  # which elements are filled depends on whole lists
    [seen] = of.inputs
    if not all(one.applied.keeps_nulls for one in between):
        seen = Value(WithoutNulls(), (seen,), seen.type)
    for one in between:
        seen = Value(one.operation, (seen,), one.type)
    return seen, LaterFilling(of, tuple(between))


def _before_scaling(value: Value) -> Request | None:
    """Of scaled columns: their covariance follows from that of the columns before, and from the fitted scaling.
    Scalers and covariance then take one pass."""
    learns, at = value.learns, _ready_after(value.inputs) - 1
    if at < 0 or learns is None or not issubclass(learns.kind, Covariance):
        return None
    scaled = tuple(one if _is_scaling(one, at) else None for one in value.inputs)
    of = tuple(one.inputs[0] if scaling else one for one, scaling in zip(value.inputs, scaled, strict=True))
    return Request(of, at, scaled=scaled) if _ready_after(of) <= at else None


def _is_scaling(value: Value, at: int) -> bool:
    if value.learns is None or not value.applied.is_linear:
        return False
    return value.request.at == at and not value.request.fillings


def context_of(value: Value) -> ErrorContext:
    """What messages about a value name, where the outputs are not known."""
    columns = ", ".join(value.columns[:4])
    return ErrorContext(columns, columns, "reading" if isinstance(value.operation, Source) else value.operation.title)


def in_order(values: Iterable[Value], *, given: bool = False) -> tuple[Value, ...]:
    """The values and all that they are made from, each once, inputs first; with `given` as for new rows."""
    found: dict[Value, None] = {}

    def add(value: Value) -> None:
        if value not in found:
            for one in value.given if given else (*value.inputs, *value.pool):
                add(one)
            found[value] = None

    for value in values:
        add(value)
    return tuple(found)


def paths(value: Value) -> Iterator[tuple[Value, ...]]:
    """The ways from a column to the value, each from the column on."""
    if not value.inputs:
        yield (value,)
    for one in value.inputs:
        for path in paths(one):
            yield (*path, value)
