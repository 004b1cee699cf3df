"""The twin of count_encode."""

from __future__ import annotations

import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.frequency import CountEncode
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.train.serving.encode import category
from dtap_dask.train.serving.lookup import Lookup
from dtap_dask.train.serving.tensors import NumberTensor, TensorBound, TensorColumn


class CountTwin(tf.Module):  # type: ignore[misc]
    """The counts or shares of values: see CountEncode."""

    def __init__(self, step: CountEncode, fitted: Fitted, value: Value):
        super().__init__()
        self._null = len(fitted["categories_"])
        self.lookup = Lookup(fitted["categories_"])
        self.table = tf.Variable(step.table(fitted), trainable=False)

    def __call__(self, column: TensorColumn) -> TensorColumn:
        place = self.lookup(category(column))
        place = tf.where(place < 0, tf.constant(self._null + 1, tf.int64), place)
        if column.null is not None:
            place = tf.where(column.null, tf.constant(self._null, tf.int64), place)
        return NumberTensor(tf.gather(self.table, place))


def count_encode(step: CountEncode, fitted: Fitted, value: Value) -> TensorBound:
    """The counts of values, 0 for others."""
    return CountTwin(step, fitted, value)
