"""Twins of one value applied to each element of lists: see features.steps.elements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tensorflow as tf

from dtap_dask.features.graph.graph import Value
from dtap_dask.features.steps.operation import Operation
from dtap_dask.train.serving.tensors import ListTensor, NumberTensor, Tensor, TensorBound, TensorColumn, null_of


def of_elements(value: Value) -> Value:
    """The value as it would be of the elements alone, for its types."""
    element, made = value.inputs[0].type.element, value.type.element
    assert element is not None
    return replace(value, inputs=(replace(value.inputs[0], type=element),), type=made or value.type)


class ElementsTwin(tf.Module):  # type: ignore[misc]
    """A twin applied to the elements of all lists at once."""

    def __init__(self, inner: TensorBound, *, marks_nulls: bool):
        super().__init__()
        self.inner = inner
        self._marks_nulls = marks_nulls

    def __call__(self, column: TensorColumn) -> TensorColumn:
        assert isinstance(column, ListTensor)
        made = self.inner(column.elements)
        nulls = null_of(column.elements)
        if self._marks_nulls and nulls is not None:
            assert isinstance(made, NumberTensor)
            made = NumberTensor(made.values, nulls)
        assert not isinstance(made, ListTensor)
        return ListTensor(column.splits, made, column.null)


def each(operation: Operation, inner: TensorBound) -> TensorBound:
    """`inner` for each element; what would make null an id leaves it null."""
    return ElementsTwin(inner, marks_nulls=operation.makes_ids and not operation.keeps_nulls)


def holes(column: ListTensor) -> Tensor:
    """Rows that are null or hold a null, bool [n]; None where there cannot be any."""
    nulls: Any = null_of(column.elements)
    if nulls is None:
        return column.null
    ragged = tf.RaggedTensor.from_row_splits(nulls, column.splits, validate=False)
    held = tf.reduce_any(ragged, axis=1)
    return held if column.null is None else held | column.null
