"""The twins of impute and of its indicator."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.impute import Impute, MissingIndicator
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.train.serving.tensors import (
    ListTensor,
    NumberTensor,
    Tensor,
    TensorBound,
    TensorColumn,
    TextTensor,
    fixed,
    floats,
    null_of,
    numbers,
)


def impute(step: Impute, fitted: Fitted, value: Value) -> TensorBound:
    """The value in place of nulls."""
    filling: Any = step.value if step.strategy == "constant" else fitted["statistics_"]
    as_floats = step.strategy in ("mean", "median")

    def apply(column: TensorColumn) -> TensorColumn:
        if isinstance(column, TextTensor):
            word = filling.encode("utf-8", "surrogateescape")
            return (
                column if column.null is None else TextTensor(tf.where(column.null, tf.constant(word), column.values))
            )
        given = numbers(column)
        if as_floats or given.values.dtype == tf.float64:
            return filled(NumberTensor(floats(column)), fixed(np.asarray(filling, np.float64)))
        return filled(given, tf.cast(filling, given.values.dtype))

    return apply


def impute_by_row(step: Impute, fitted: Fitted, value: Value) -> TensorBound:
    """The value of each row in place of nulls: `statistics_` is a tensor [n]."""
    filling = fitted["statistics_"]

    def apply(column: TensorColumn) -> TensorColumn:
        if isinstance(column, TextTensor):
            return column if column.null is None else TextTensor(tf.where(column.null, filling, column.values))
        given = numbers(column)
        if step.strategy != "most_frequent" or given.values.dtype == tf.float64:
            given = NumberTensor(floats(column))
        return filled(given, tf.cast(filling, given.values.dtype))

    return apply


def filled(given: NumberTensor, filling: Tensor) -> NumberTensor:
    """The numbers with others of the same dtype in place of nulls; of vectors of floats in each place on its own."""
    null = tf.math.is_nan(given.values) if given.values.dtype == tf.float64 else given.null
    return given if null is None else NumberTensor(tf.where(null, filling, given.values))


def missing_indicator(step: MissingIndicator, fitted: Fitted, value: Value) -> TensorBound:
    """1 where a value is null, else 0."""

    def apply(column: TensorColumn) -> TensorColumn:
        assert not isinstance(column, ListTensor)
        if isinstance(column, NumberTensor) and column.values.shape.rank == 2:
            return NumberTensor(tf.cast(tf.math.is_nan(column.values), tf.int64))
        null = null_of(column)
        if null is None:
            return NumberTensor(tf.zeros(tf.shape(column.values)[:1], tf.int64))
        return NumberTensor(tf.cast(null, tf.int64))

    return apply
