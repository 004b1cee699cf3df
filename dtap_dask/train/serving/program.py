"""The features of a job as one TensorFlow graph: raw tensors in, features out, shared values computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DtapError
from dtap_dask.features import FittedState
from dtap_dask.features.graph.serving import derivations, of_new_rows, raw_columns, unservable
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.operation import Source
from dtap_dask.train.serving.output import feature
from dtap_dask.train.serving.raw import RawColumn, RawTensors, raw_columns_of
from dtap_dask.train.serving.sql.derived import derived
from dtap_dask.train.serving.tensors import NumberTensor, TensorColumn, row_count
from dtap_dask.train.serving.twins import twin


def features_only(state: FittedState) -> FittedState:
    """A state as it is served: see `of_new_rows`; it has learnt nothing else."""
    served = of_new_rows(state)
    values = served.graph.values
    return replace(served, fitted={one: served.fitted[one] for one in values if one in served.fitted})


class ServingModule(tf.Module):  # type: ignore[misc]
    """A fitted state as a function of raw tensors; it owns the tables of vocabularies.

    `columns` are the raw columns that it needs. DtapError, which lists them, for features that cannot be served.
    """

    def __init__(self, state: FittedState, derive: Mapping[str, str]):
        super().__init__()
        graph = state.graph
        expressions = derivations(derive, graph)
        reasons = unservable(graph, expressions)
        if reasons:
            raise DtapError(f"The features cannot be served: {'; '.join(reasons)}.")
        names = raw_columns(graph, expressions)
        self.columns = tuple(RawColumn.of(graph.schema.field(name), names) for name in names)
        self._derived = derived(expressions, graph.schema)
        self._outputs, self._infos = graph.outputs, state.infos
        self.names = tuple(info.name for info in self._infos)
        self._values = graph.values
        self.twins = [
            None if isinstance(value.operation, Source) else twin(value, state.fitted.get(value, {}))
            for value in self._values
        ]

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # it would warn of Arrow's functions
    def __call__(self, rows: RawTensors) -> dict[str, Any]:
        """The features, by name, as `load` gives them."""
        given = self._derived(raw_columns_of(rows, self.columns))
        made: dict[Value, TensorColumn] = {}
        for value, bound in zip(self._values, self.twins, strict=True):
            if bound is None:
                made[value] = _read(value, given)
            else:
                made[value] = bound(*(made[one] for one in value.inputs))
        return {info.name: feature(one, info, made) for one, info in zip(self._outputs, self._infos, strict=True)}


def _read(value: Value, given: Mapping[str, TensorColumn]) -> TensorColumn:
    source = value.operation
    assert isinstance(source, Source)
    if not source.folds:
        return given[source.column]
    rows = row_count(next(iter(given.values())))
    return NumberTensor(tf.fill([rows], tf.constant(-1, tf.int64)))  # none of the rows is fitted
