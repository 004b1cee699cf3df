"""The twins of one_hot_encode and hash_encode."""

from __future__ import annotations

import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.encode import HashEncode, OneHotEncode
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.train.serving.lookup import Lookup
from dtap_dask.train.serving.tensors import (
    NumberTensor,
    OneHotTensor,
    Tensor,
    TensorBound,
    TensorColumn,
    TextTensor,
    numbers,
    refuse,
)


def category(column: TensorColumn) -> Tensor:
    """Text, or integers as int64; booleans are 0 and 1. What is null means nothing."""
    if isinstance(column, TextTensor):
        return column.values
    return tf.cast(numbers(column).values, tf.int64)


class OneHotTwin(tf.Module):  # type: ignore[misc]
    """A 1 at the value's place: see OneHotEncode."""

    def __init__(self, step: OneHotEncode, fitted: Fitted, value: Value):
        super().__init__()
        self._step, self._value = step, value
        self._width = len(fitted["categories_"])
        self.lookup = Lookup(fitted["categories_"])

    def __call__(self, column: TensorColumn) -> TensorColumn:
        null, place = column.null, self.lookup(category(column))
        if self._step.unseen == "error":
            unseen = place < 0
            refuse(unseen if null is None else unseen & ~null, self._value, "a value that was not in the fitted rows")
        if null is not None:
            place = tf.where(null, tf.constant(-1, tf.int64), place)
        return OneHotTensor(place, self._width, null if self._step.keeps_nulls else None)


def one_hot_encode(step: OneHotEncode, fitted: Fitted, value: Value) -> TensorBound:
    """Vectors of 0 and 1."""
    return OneHotTwin(step, fitted, value)


def hash_encode(step: HashEncode, fitted: Fitted, value: Value) -> TensorBound:
    """0 for null, else 1 + the hash bucket of the bytes or of the decimal digits."""

    def apply(column: TensorColumn) -> TensorColumn:
        given = category(column)
        words = given if given.dtype == tf.string else tf.strings.as_string(given)
        ids = 1 + tf.strings.to_hash_bucket_fast(words, step.buckets)
        return NumberTensor(ids if column.null is None else tf.where(column.null, tf.zeros_like(ids), ids))

    return apply
