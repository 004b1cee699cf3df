"""The features of a job as one graph of values, from which passes and shared work follow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from dtap_dask.features.graph.value import Value, context_of, in_order
from dtap_dask.features.info import Role
from dtap_dask.features.steps.operation import ErrorContext, Operation, Source


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


def _reason(at: int, steps: dict[str, list[str]]) -> str:
    parts = [f"{name} of {_few(outputs)}" for name, outputs in steps.items()]
    why = "" if at == 0 else " (its input is fitted in the level before)"
    return f"level {at + 1}: {'; '.join(parts)}{why}"


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
