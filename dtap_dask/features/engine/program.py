"""Values computed batch by batch; what several outputs have in common is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa

from dtap_dask.errors import DtapError
from dtap_dask.features.columns.arrow import from_arrow
from dtap_dask.features.columns.column import Column, Numbers
from dtap_dask.features.graph.value import Value, context_of, in_order
from dtap_dask.features.steps.elements import bound
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Source, naming, unforeseen

ContextOf = Callable[[Value], ErrorContext]


class Program:
    """Computes `values` of a record batch, given what their operations have learnt."""

    def __init__(
        self,
        values: Iterable[Value],
        fitted: Mapping[Value, Fitted],
        context: ContextOf = context_of,
        like: Program | None = None,
    ):
        """`context` says what messages about a value name; `places` is where each value is in what `run` returns.

        `like` is a program of the same fitted numbers, whose bound operations are shared.
        """
        self.values = in_order(values)
        self.places = {value: place for place, value in enumerate(self.values)}
        self._context = context
        self._like = like
        self._nodes = [
            (self._bound(value, fitted), [self.places[one] for one in value.inputs]) for value in self.values
        ]

    def _bound(self, value: Value, fitted: Mapping[Value, Fitted]) -> Bound | Source:
        if isinstance(value.operation, Source):
            return value.operation
        if self._like is not None and value in self._like.places:
            return self._like._nodes[self._like.places[value]][0]
        context = self._context(value)
        with naming(context):
            return bound(value.operation, fitted.get(value, {}), context, value.inputs[0].type)

    def of(self, values: Iterable[Value]) -> Program:
        """The program of some of its values."""
        return Program(values, {}, self._context, self)

    def run(self, rows: pa.RecordBatch) -> list[Column]:
        """The columns of all values, inputs before what is made of them."""
        columns: list[Column] = []
        try:
            for node, inputs in self._nodes:
                if isinstance(node, Source):
                    columns.append(_read(node, rows))
                else:
                    columns.append(node(*[columns[place] for place in inputs]))
        except (DtapError, MemoryError):
            raise
        except Exception as error:
            raise unforeseen(self._context(self.values[len(columns)]), error) from error
        return columns


def _read(source: Source, rows: pa.RecordBatch) -> Column:
    if source.folds and source.column not in rows.schema.names:  # none of these rows is fitted
        return Numbers(np.full(rows.num_rows, -1, np.int64))
    return from_arrow(rows.column(source.column))
