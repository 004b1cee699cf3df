"""The twins of steps of lists, and those of one value applied to each element: see features.steps.elements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.lists import Last, ListLength, NullAsEmpty, Pad, PadMask, Side
from dtap_dask.features.steps.operation import Fitted, Operation
from dtap_dask.train.serving.tensors import (
    ListTensor,
    NumberTensor,
    Tensor,
    TensorBound,
    TensorColumn,
    null_of,
    numbers,
)


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


def null_as_empty(step: NullAsEmpty, fitted: Fitted, value: Value) -> TensorBound:
    """Null lists have no elements already."""
    return lambda column: replace(_lists(column), null=None)


def list_length(step: ListLength, fitted: Fitted, value: Value) -> TensorBound:
    """The number of elements."""

    def apply(column: TensorColumn) -> TensorColumn:
        rows = _lists(column)
        return NumberTensor(_lengths(rows), rows.null)

    return apply


def last(step: Last, fitted: Fitted, value: Value) -> TensorBound:
    """The first or the last elements."""

    def apply(column: TensorColumn) -> TensorColumn:
        rows = _lists(column)
        kept = tf.minimum(_lengths(rows), tf.constant(step.count, tf.int64))
        return _kept(rows, kept, step.cut_off)

    return apply


def pad(step: Pad, fitted: Fitted, value: Value) -> TensorBound:
    """Vectors of a fixed length."""

    def apply(column: TensorColumn) -> TensorColumn:
        rows = _lists(column)
        kept = tf.minimum(_lengths(rows), tf.constant(step.length, tf.int64))
        short = _kept(rows, kept, step.truncating)
        values = numbers(short.elements).values
        there = tf.where(_filled(kept, step.length, step.side))
        blank = tf.fill([tf.size(kept, tf.int64), step.length], tf.cast(step.value, values.dtype))
        made = tf.tensor_scatter_nd_update(blank, there, values)
        if values.dtype != tf.float64:
            return NumberTensor(made, holes(short))
        if rows.null is None:
            return NumberTensor(made)
        return NumberTensor(tf.where(rows.null[:, tf.newaxis], tf.constant(float("nan"), tf.float64), made))

    return apply


def pad_mask(step: PadMask, fitted: Fitted, value: Value) -> TensorBound:
    """Where `pad` puts elements."""

    def apply(column: TensorColumn) -> TensorColumn:
        rows = _lists(column)
        return NumberTensor(_filled(_lengths(rows), step.length, step.side), rows.null)

    return apply


def _lists(column: TensorColumn) -> ListTensor:
    assert isinstance(column, ListTensor)
    return column


def _lengths(rows: ListTensor) -> Tensor:
    """The number of elements of each row, int64 [n]."""
    return rows.splits[1:] - rows.splits[:-1]


def _kept(rows: ListTensor, kept: Tensor, cut_off: Side) -> ListTensor:
    """The lists with `kept` [n] elements of each, others cut off on one side."""
    starts = rows.splits[:-1] if cut_off == "post" else rows.splits[1:] - kept
    index = tf.ragged.range(starts, starts + kept, row_splits_dtype=tf.int64)
    nulls = rows.elements.null
    elements = replace(
        rows.elements,
        values=tf.gather(rows.elements.values, index.values),
        null=None if nulls is None else tf.gather(nulls, index.values),
    )
    return ListTensor(index.row_splits, elements, rows.null)


def _filled(lengths: Tensor, length: int, side: Side) -> Tensor:
    """The places of padded vectors that hold elements, bool [n, length]."""
    at = tf.range(length, dtype=tf.int64)
    return at < lengths[:, tf.newaxis] if side == "post" else at >= length - lengths[:, tf.newaxis]
