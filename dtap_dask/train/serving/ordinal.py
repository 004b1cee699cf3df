"""The twin of ordinal_encode."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.ordinal import OrdinalEncode
from dtap_dask.train.serving.encode import category
from dtap_dask.train.serving.lookup import Lookup
from dtap_dask.train.serving.tensors import NumberTensor, Tensor, TensorBound, TensorColumn, refuse


class OrdinalTwin(tf.Module):  # type: ignore[misc]
    """Ids of a vocabulary: see OrdinalEncode."""

    def __init__(self, step: OrdinalEncode, fitted: Fitted, value: Value):
        super().__init__()
        self._step, self._value = step, value
        self._unseen = (
            f"a value that {'was not in the fitted rows' if step.vocabulary is None else 'is not in the vocabulary'}"
        )
        self.lookup = Lookup(fitted["vocabulary"])

    def __call__(self, column: TensorColumn) -> TensorColumn:
        step, given, null = self._step, category(column), column.null
        place = self.lookup(given)
        unseen = place < 0
        if step.oov_buckets == 0:
            refuse(unseen if null is None else unseen & ~null, self._value, self._unseen)
        ids = tf.where(unseen, self._bucket(given), place + step.first_id)
        if null is None:
            return NumberTensor(ids)
        return NumberTensor(tf.where(null, tf.zeros_like(ids), ids), null if step.keeps_nulls else None)

    def _bucket(self, given: Tensor) -> Any:
        buckets = self._step.oov_buckets
        if buckets <= 1:
            return tf.constant(buckets, tf.int64)
        if given.dtype == tf.string:
            return 1 + tf.strings.to_hash_bucket_fast(given, buckets)
        return 1 + tf.math.floormod(given, buckets)


def ordinal_encode(step: OrdinalEncode, fitted: Fitted, value: Value) -> TensorBound:
    """Ids: 0 is null, then the buckets of unseen values, then the vocabulary."""
    return OrdinalTwin(step, fitted, value)
