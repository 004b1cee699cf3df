"""The twin of polynomial."""

from __future__ import annotations

from functools import reduce

import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.polynomial import Polynomial
from dtap_dask.train.serving.tensors import NumberTensor, TensorBound, TensorColumn, floats


def polynomial(step: Polynomial, fitted: Fitted, value: Value) -> TensorBound:
    """The products of the block's columns, multiplied in the order of the columns."""
    products = list(step.products(len(value.inputs)))

    def apply(*columns: TensorColumn) -> TensorColumn:
        factors = [floats(column) for column in columns]
        one = tf.where(tf.math.is_nan(factors[0]), factors[0], tf.ones_like(factors[0]))
        made = [reduce(tf.multiply, [factors[place] for place in places]) if places else one for places in products]
        return NumberTensor(tf.stack(made, axis=1))

    return apply
