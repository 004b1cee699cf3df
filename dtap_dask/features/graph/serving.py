"""What a model needs when it serves, and what of it no TensorFlow graph can compute: known here, without TensorFlow."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from dtap_dask.features.graph.graph import Graph, Output
from dtap_dask.features.graph.state import FittedState
from dtap_dask.features.graph.value import Value, in_order
from dtap_dask.features.steps.elementwise import Cast
from dtap_dask.features.steps.operation import Source
from dtap_dask.lake.derived import needed
from dtap_dask.lake.sql.expression import Expression, bind_in_order
from dtap_dask.lake.sql.serving import unserved

Derived = Sequence[tuple[str, Expression]]  # derived columns in order: an expression may use earlier ones


def derivations(derive: Mapping[str, str], graph: Graph) -> list[tuple[str, Expression]]:
    """The derived columns that the features need, in order: (name, expression), of the job's `derive`."""
    bound = bind_in_order(derive.items(), pa.schema([field for field in graph.schema if field.name not in derive]))
    used = needed(_read(graph), bound)
    return [(name, expression) for name, expression in bound if name in used]


def raw_columns(graph: Graph, derived: Derived) -> tuple[str, ...]:
    """The columns of the lake that the features need, also through derived ones, in the schema's order."""
    used = needed(_read(graph), derived) - {name for name, _ in derived}
    return tuple(name for name in graph.schema.names if name in used)


def _read(graph: Graph) -> list[str]:
    """The columns that features are made from."""
    return [column for output in graph.outputs if output.role == "feature" for column in output.sources]


def of_new_rows(state: FittedState, labels: Collection[str] = ()) -> FittedState:
    """The features alone, as they are applied to new rows: their values have no inputs but those of `Value.given`.

    `labels` are the labels that new rows have, too.
    """
    made: dict[Value, Value] = {}
    for value in in_order([*state.graph.values, *state.fitted]):
        made[value] = Value(value.operation, tuple(made[one] for one in value.given), value.type)
    outputs = tuple(
        replace(one, values=tuple(made[value] for value in one.values))
        for one in state.graph.outputs
        if one.role == "feature" or (one.role == "label" and one.name in labels)
    )
    fitted = {made[value]: learnt for value, learnt in state.fitted.items()}
    return replace(state, graph=replace(state.graph, outputs=outputs), fitted=fitted)


def unservable(graph: Graph, derived: Derived) -> tuple[str, ...]:
    """Why features cannot be served, a text for each reason that begins with the feature's name; empty if all can be.

    `derived`: the derived columns in order, at least those of `derivations`.
    """
    features = [output for output in graph.outputs if output.role == "feature"]
    found = dict.fromkeys(reason for output in features for reason in _of_output(output, derived))
    if features and not raw_columns(graph, derived):
        found[f"feature {features[0].name!r}: no column of the lake is read, whose tensor has the number of rows"] = (
            None
        )
    return tuple(found)


def _of_output(output: Output, derived: Derived) -> Iterator[str]:
    for value in in_order(output.values, given=True):
        for reason in _of_value(value, derived):
            yield f"feature {output.name!r}: {reason}"


def _of_value(value: Value, derived: Derived) -> Iterator[str]:
    if isinstance(value.operation, Cast) and value.operation.dtype == "string" and _element(value.inputs[0]) == "float":
        yield f"step cast: the text of {value.inputs[0].type.source} has no TensorFlow twin"
    if not isinstance(value.operation, Source):
        if value.applied.without_twin:
            yield f"step {value.applied.name} has no TensorFlow twin: {value.applied.without_twin}"
        return
    if "uint64" in str(value.type.source):
        yield f"column {value.operation.column!r} has 64 bits without a sign, and TensorFlow's integers have one"
    used = needed([value.operation.column], derived)
    for name, expression in derived:
        if name in used:
            yield from (f"column {name!r}, {reason}" for reason in unserved(expression.tree))


def _element(value: Value) -> str:
    """The kind of a value, of lists that of their elements."""
    return (value.type.element or value.type).base
