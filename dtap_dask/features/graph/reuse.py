"""A fitted state for the rows of another source: its outputs, and how the features of a job differ from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dtap_dask.errors import did_you_mean
from dtap_dask.features.graph.graph import Graph, Output
from dtap_dask.features.graph.serving import of_new_rows
from dtap_dask.features.graph.state import FittedState
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.operation import Operation, Source
from dtap_dask.features.steps.ordinal import LabelEncode
from dtap_dask.features.steps.registry import operation_name


def reusable(state: FittedState, labels: Collection[str]) -> FittedState:
    """The state of the features and of the labels of these names, as they are applied to rows that are not fitted."""
    found = of_new_rows(state, labels)
    return with_state(found.graph, found)


def with_state(graph: Graph, state: FittedState) -> FittedState:
    """The graph with the numbers that its values have in a state."""
    fitted = {value: state.fitted[value] for value in graph.values if value in state.fitted}
    return replace(state, graph=graph, passes=graph.passes, fitted=fitted)


def differences(fitted: Sequence[Output], wanted: Sequence[Output]) -> Iterator[tuple[str, str]]:
    """How the outputs that a job asks for differ from the fitted ones: the place in the job, and what is wrong there.

    The order of outputs, and the types of columns, are not compared.
    """
    known, asked = {one.name: one for one in fitted}, {one.name: one for one in wanted}
    for output in wanted:
        if output.name not in known:
            yield output.place, f"the dataset has no {output.role} {output.name!r}.{did_you_mean(output.name, known)}"
        elif _compared(output) != _compared(known[output.name]):
            was, now = _in_words(known[output.name]), _in_words(output)
            yield output.place, f"{output.role} {output.name!r} is {now}, and was fitted as {was}."
    for output in fitted:
        if output.name not in asked:
            yield "features", f"the dataset's feature {output.name!r} is missing: {_in_words(output)}."


def _compared(output: Output) -> tuple[Any, ...]:
    """What must be equal, so that one state serves both."""
    return tuple(map(_made, output.values)), output.vector, output.allow_null


def _made(value: Value) -> tuple[Any, ...]:
    return value.operation, tuple(map(_made, value.inputs))


def _in_words(output: Output) -> str:
    """`[fare > impute {'strategy': 'mean'} > standard_scale, miles], allow_null`."""
    values = ", ".join(map(_chain, output.values))
    return (f"the vector [{values}]" if output.vector else values) + (", with allow_null" if output.allow_null else "")


def _chain(value: Value) -> str:
    if isinstance(value.operation, Source):
        return value.operation.column
    inputs = ", ".join(map(_chain, value.inputs))
    return f"{f'({inputs})' if len(value.inputs) > 1 else inputs} > {_step(value.operation)}"


def _step(operation: Operation) -> str:
    options = operation.model_dump(mode="json", exclude_defaults=True)
    name = "ordinal_encode" if isinstance(operation, LabelEncode) else operation_name(operation)
    return f"{name}{f' {options}' if options else ''}"
