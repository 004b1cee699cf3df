"""A column of a batch as tensors: what features.columns.column has in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from dtap_dask.features.graph.value import Value

Tensor = Any


@dataclass(frozen=True)
class NumberTensor:
    """Numbers of shape [n], or [n, k] for vectors: float64 with NaN for null, int64 or bool.

    `null` is None for floats; for the others it is a bool tensor [n], or None where there are no nulls. Dates and
    timestamps are int64 microseconds since 1970.
    """

    values: Tensor
    null: Tensor | None = None


class OneHotTensor(NumberTensor):
    """One-hot vectors [n, width], held as `places`, int64 [n]: where the 1 of each row is, -1 for none.

    `values`, int64 [n, width], are made when they are first asked for.
    """

    places: Tensor
    width: int

    def __init__(self, places: Tensor, width: int, null: Tensor | None = None):
        for name, value in (("places", places), ("width", width), ("null", null)):
            object.__setattr__(self, name, value)

    @cached_property
    def values(self) -> Tensor:
        return tf.one_hot(self.places, self.width, on_value=1, off_value=0, dtype=tf.int64)


@dataclass(frozen=True)
class TextTensor:
    """Text as raw bytes, a string tensor of shape [n]; `null` as in NumberTensor."""

    values: Tensor
    null: Tensor | None = None


@dataclass(frozen=True)
class ListTensor:
    """Lists of any length: row i holds `elements` from `splits[i]` to `splits[i + 1]`, int64 [n + 1].

    `null` is as in NumberTensor; null lists have no elements.
    """

    splits: Tensor
    elements: NumberTensor | TextTensor
    null: Tensor | None = None


def fixed(value: Any, dtype: Any = tf.float64) -> Tensor:
    """A constant of floats, of any shape, that TensorFlow's graph optimizer leaves alone; a tensor as it is.

    In a graph it would compute x / 3 as x * (1 / 3), and (x * a) * b as x * (a * b), which are other floats.
    """
    if tf.is_tensor(value):
        return value
    constant = tf.constant(value, dtype)
    return tf.raw_ops.PlaceholderWithDefault(input=constant, shape=constant.shape)


TensorColumn = NumberTensor | TextTensor | ListTensor
TensorBound = Callable[..., TensorColumn]  # one column for each input


def row_count(column: TensorColumn) -> Tensor:
    """The number of rows, int64 []."""
    if isinstance(column, ListTensor):
        return tf.shape(column.splits, tf.int64)[0] - 1
    return tf.shape(column.values, tf.int64)[0]


def numbers(column: TensorColumn) -> NumberTensor:
    """The column as numbers; the types were checked when the graph was built."""
    assert isinstance(column, NumberTensor)
    return column


def floats(column: TensorColumn) -> Tensor:
    """The numbers as float64, NaN where null."""
    given = numbers(column)
    if given.values.dtype == tf.float64:
        return given.values
    made = tf.cast(given.values, tf.float64)
    if given.null is None:
        return made
    null = given.null[:, tf.newaxis] if made.shape.rank == 2 else given.null
    return tf.where(null, tf.constant(float("nan"), tf.float64), made)


def null_of(column: NumberTensor | TextTensor) -> Tensor | None:
    """Where nulls are, bool [n] (any of a vector's places); None where there cannot be any."""
    if isinstance(column, TextTensor) or column.values.dtype != tf.float64:
        return column.null
    missing = tf.math.is_nan(column.values)
    return tf.reduce_any(missing, axis=1) if missing.shape.rank == 2 else missing


def refuse(wrong: Tensor, value: Value, what: str) -> None:
    """InvalidArgumentError if any is true: `what` is in a value's columns, and its step cannot take it."""
    step = value.applied.title
    text = f"column {', '.join(value.columns)!r}, step {step}: the rows hold {what}"
    tf.debugging.Assert(~tf.reduce_any(wrong), [tf.constant(text)])
