"""The twin of target_encode."""

from __future__ import annotations

import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.target import TargetEncode, table_of
from dtap_dask.train.serving.encode import category
from dtap_dask.train.serving.lookup import Lookup
from dtap_dask.train.serving.tensors import NumberTensor, TensorBound, TensorColumn


class TargetTwin(tf.Module):  # type: ignore[misc]
    """What the whole fitted part says of a value: see TargetEncode."""

    def __init__(self, step: TargetEncode, fitted: Fitted, value: Value):
        super().__init__()
        categories = fitted["categories_"]
        self._vector = step.target_type == "multiclass"
        self._others = len(categories)
        self._null = self._others - 1 if categories.null_count else self._others
        self.lookup = Lookup(categories.drop_null())
        self.encodings = tf.Variable(table_of(fitted)[:, -1], trainable=False, dtype=tf.float64)

    def __call__(self, column: TensorColumn) -> TensorColumn:
        place = self.lookup(category(column))
        place = tf.where(place < 0, tf.constant(self._others, tf.int64), place)
        if column.null is not None:
            place = tf.where(column.null, tf.constant(self._null, tf.int64), place)
        found = tf.gather(self.encodings, place)
        return NumberTensor(found if self._vector else found[:, 0])


def target_encode(step: TargetEncode, fitted: Fitted, value: Value) -> TensorBound:
    """The encodings of values, and the mean of all for others."""
    return TargetTwin(step, fitted, value)
