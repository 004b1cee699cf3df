"""The twins of the linear scalers, and of bucketize."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.bucketize import Bucketize
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.train.serving.tensors import (
    NumberTensor,
    Tensor,
    TensorBound,
    TensorColumn,
    fixed,
    floats,
    numbers,
    refuse,
)


def standard_scale(step: StandardScale, fitted: Fitted, value: Value) -> TensorBound:
    """(x - mean_) / scale_."""
    mean, scale = fitted.get("mean_"), fitted.get("scale_")

    def apply(column: TensorColumn) -> TensorColumn:
        made = floats(column)
        made = made if mean is None else made - fixed(mean)
        return NumberTensor(made if scale is None else made / fixed(scale))

    return apply


def minmax_scale(step: MinMaxScale, fitted: Fitted, value: Value) -> TensorBound:
    """x * scale_ + min_."""
    scale, shift = step.linear(fitted)
    return lambda column: NumberTensor(floats(column) * fixed(scale) + fixed(shift))


def maxabs_scale(step: MaxAbsScale, fitted: Fitted, value: Value) -> TensorBound:
    """x / scale_."""
    return lambda column: NumberTensor(floats(column) / fixed(fitted["scale_"]))


def bucketize(step: Bucketize, fitted: Fitted, value: Value) -> TensorBound:
    """The number of boundaries that are not above the value; of integers exactly. Infinities are an error."""
    bounds = step.boundaries or fitted["boundaries_"]
    limits = np.iinfo(np.int64)
    whole = [math.ceil(bound) for bound in bounds]
    below = sum(bound < limits.min for bound in whole)
    within = [bound for bound in whole if limits.min <= bound <= limits.max]

    def apply(column: TensorColumn) -> TensorColumn:
        given = numbers(column)
        if given.values.dtype == tf.int64:
            return NumberTensor(_passed(within, given.values) + below, given.null)
        made = floats(column)
        null = tf.math.is_nan(made)
        refuse(tf.math.is_inf(made), value, "an infinite value")
        found = _passed(bounds, tf.where(null, tf.zeros_like(made), made))
        return NumberTensor(found, tf.reduce_any(null, axis=1) if made.shape.rank == 2 else null)

    return apply


def _passed(bounds: Sequence[float], values: Tensor) -> Tensor:
    """How many of rising boundaries are not above each value, int64 in the shape of `values`."""
    flat = values if values.shape.rank == 1 else tf.reshape(values, [-1])
    found = tf.searchsorted(tf.constant(bounds, values.dtype), flat, side="right", out_type=tf.int64)
    return found if flat is values else tf.reshape(found, tf.shape(values))
