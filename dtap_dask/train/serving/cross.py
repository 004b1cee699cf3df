"""The twin of cross."""

from __future__ import annotations

import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.cross import Cross
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.train.serving.encode import category
from dtap_dask.train.serving.tensors import TensorBound, TensorColumn, TextTensor


def cross(step: Cross, fitted: Fitted, value: Value) -> TensorBound:
    """The texts of all columns, joined; null where any of them is."""

    def apply(*columns: TensorColumn) -> TensorColumn:
        given = [category(column) for column in columns]
        words = [one if one.dtype == tf.string else tf.strings.as_string(one) for one in given]
        nulls = [column.null for column in columns if column.null is not None]
        null = tf.reduce_any(tf.stack(nulls), axis=0) if nulls else None
        return TextTensor(tf.strings.join(words, step.separator), null)

    return apply
