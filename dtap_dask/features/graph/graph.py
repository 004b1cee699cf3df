"""The features of a job as one graph of values, from which passes and shared work follow.

A value is an operation and the values that it is given, or a column of the lake. Equal values are one value: they are
computed once a batch and fitted once. A pass over the rows can take a statistic as soon as the passes before have
fitted what its inputs need; two rules let it be taken a pass earlier (see `_before_imputing`, `_before_scaling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from dtap_dask.features.info import Role
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


@dataclass(frozen=True)
class Output:
    """One output column of the dataset: `values`, side by side if it is a vector; else there is one.

    `columns` are those that the job names for it. `allow_null`: nulls of floats become NaN. `place` is where the job
    file asks for it, for messages: 'features[2]'.
    """

    name: str
    role: Role
    values: tuple[Value, ...]
    columns: tuple[str, ...]
    vector: bool = False
    allow_null: bool = False
    place: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns of the lake that it is made from, also in new rows: `columns` and keys."""
        read = (value.operation for value in in_order(self.values, given=True))
        return tuple(one.column for one in read if isinstance(one, Source))


@dataclass(frozen=True)
class ValueLine:
    """An operation, or a column, with the positions of its inputs and of its pool in a list of values."""

    operation: Operation | Source
    inputs: Sequence[int] = ()
    pool: Sequence[int] = ()


@dataclass(frozen=True)
class Graph:
    """All outputs of a job, over columns of these names and types."""

    schema: pa.Schema
    outputs: tuple[Output, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.schema, self.lines, [replace(one, values=()) for one in self.outputs], self.places)

    @cached_property
    def lines(self) -> list[ValueLine]:
        """The values as a straight line."""
        return [ValueLine(one.operation, self._at(one.inputs), self._at(one.pool)) for one in self.values]

    def _at(self, values: Iterable[Value]) -> tuple[int, ...]:
        return tuple(self._positions[value] for value in values)

    @cached_property
    def places(self) -> list[tuple[int, ...]]:
        """The positions of each output's values in `values`."""
        return [self._at(output.values) for output in self.outputs]

    @cached_property
    def _positions(self) -> dict[Value, int]:
        return {value: position for position, value in enumerate(self.values)}

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """Every value once, inputs before what is made of them."""
        return in_order(value for output in self.outputs for value in output.values)

    @cached_property
    def passes(self) -> int:
        """The number of passes over the rows that fitting needs."""
        return max((value.request.at + 1 for value in self.values if value.learns), default=0)

    def learning(self, at: int) -> tuple[Value, ...]:
        """The values that are fitted from the statistics of pass `at`."""
        return tuple(value for value in self.values if value.learns and value.request.at == at)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the lake that are read, in the schema's order."""
        used = {source.column for source in self._sources}
        return tuple(name for name in self.schema.names if name in used)

    @property
    def folds(self) -> tuple[int, ...]:
        """The numbers of folds that operations need."""
        return tuple(sorted({source.folds for source in self._sources if source.folds}))

    @property
    def _sources(self) -> list[Source]:
        return [value.operation for value in self.values if isinstance(value.operation, Source)]

    def fitted_in(self, at: int) -> dict[str, list[str]]:
        """The steps that pass `at` fits, each with the outputs that it is fitted for."""
        learning = set(self.learning(at))
        found: dict[str, dict[str, None]] = {}
        for output in self.outputs:
            for value in in_order(output.values):
                if value in learning:
                    found.setdefault(value.applied.title, {})[output.name] = None
        return {step: list(names) for step, names in found.items()}

    @property
    def reasons(self) -> tuple[str, ...]:
        """For each pass, which steps of which outputs are fitted in it."""
        return tuple(_reason(at, self.fitted_in(at)) for at in range(self.passes))

    def context(self, value: Value) -> ErrorContext:
        """What messages about a value name: its columns, and the first output that uses it or one of them."""
        context = context_of(value)
        user = self.user(value)
        return replace(context, feature=user.name) if user else context

    def fitting_context(self, value: Value) -> ErrorContext:
        """What messages about the fitting of a value name."""
        context, user = self.context(value), self.user(value)
        of_label = user is not None and user.role == "label"
        return replace(context, step=f"{context.step} of the label") if of_label else context

    def user(self, value: Value) -> Output | None:
        """The first output that uses a value, or else one of its columns."""
        if value in self._users:
            return self._users[value]
        return next((output for output in self.outputs if value.columns[0] in output.columns), None)

    @cached_property
    def _users(self) -> dict[Value, Output]:
        users: dict[Value, Output] = {}
        for output in self.outputs:
            for value in in_order(output.values):
                users.setdefault(value, output)
        return users


def context_of(value: Value) -> ErrorContext:
    """What messages about a value name, where the outputs are not known."""
    columns = ", ".join(value.columns[:4])
    return ErrorContext(columns, columns, "reading" if isinstance(value.operation, Source) else value.operation.title)


def values_of(schema: pa.Schema, lines: Iterable[ValueLine]) -> list[Value]:
    """The values of `lines`, as Graph has them."""
    values: list[Value] = []
    for line in lines:
        inputs, pool = (tuple(values[position] for position in places) for places in (line.inputs, line.pool))
        values.append(Value.of(line.operation, inputs, schema, pool))
    return values


def _unpickled(
    schema: pa.Schema, lines: Sequence[ValueLine], outputs: Sequence[Output], places: Sequence[tuple[int, ...]]
) -> Graph:
    values, pairs = values_of(schema, lines), zip(outputs, places, strict=True)
    made = [replace(output, values=tuple(values[position] for position in own)) for output, own in pairs]
    return Graph(schema, tuple(made))


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


def _reason(at: int, steps: dict[str, list[str]]) -> str:
    parts = [f"{name} of {_few(outputs)}" for name, outputs in steps.items()]
    why = "" if at == 0 else " (its input is fitted in the level before)"
    return f"level {at + 1}: {'; '.join(parts)}{why}"


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
