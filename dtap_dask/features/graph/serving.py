"""What of a job a TensorFlow graph cannot compute when a model serves: known here, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dtap_dask.features.graph.graph import Graph, Output, Value, in_order
from dtap_dask.features.steps.operation import Source
from dtap_dask.lake.sql.expression import Expression
from dtap_dask.lake.sql.serving import unserved


def unservable(graph: Graph, derived: Sequence[tuple[str, Expression]]) -> tuple[str, ...]:
    """Why features cannot be served, a text for each reason that begins with the feature's name; empty if all can be.

    `derived`: the derived columns in order, as lake.sql.expression.bind_in_order gives them.
    """
    expressions = dict(derived)
    found = (_of_output(output, expressions) for output in graph.outputs if output.role == "feature")
    return tuple(dict.fromkeys(reason for reasons in found for reason in reasons))


def _of_output(output: Output, expressions: Mapping[str, Expression]) -> Iterator[str]:
    for value in in_order(output.values):
        for reason in _of_value(value, expressions):
            yield f"feature {output.name!r}: {reason}"


def _of_value(value: Value, expressions: Mapping[str, Expression]) -> Iterator[str]:
    if not isinstance(value.operation, Source):
        if value.applied.without_twin:
            yield f"step {value.applied.name} has no TensorFlow twin: {value.applied.without_twin}"
        return
    for name in needed([value.operation.column], expressions):
        if name in expressions:
            yield from (f"column {name!r}, {reason}" for reason in unserved(expressions[name].tree))


def needed(columns: Sequence[str], expressions: Mapping[str, Expression]) -> list[str]:
    """The columns, and those that derived ones among them are computed from, each once."""
    found: dict[str, None] = {}
    pending = [*columns]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = None
            pending += sorted(expressions[name].columns) if name in expressions else []
    return list(found)
