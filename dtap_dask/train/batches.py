"""Windows of rows cut into batches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.data.ops import batch_op


def rebatched(windows: tf.data.Dataset, size: int, drop_remainder: bool) -> tf.data.Dataset:
    """The rows of `windows` in batches of `size`, with ragged columns by TensorFlow's own `rebatch`.

    `rebatch` passes every window through one more function with a node per column, which takes time as an epoch begins.
    """
    if not all(type(part) is tf.TensorSpec for part in tf.nest.flatten(windows.element_spec)):
        return windows.rebatch(size, drop_remainder=drop_remainder)
    rows = size if drop_remainder else None
    spec = tf.nest.map_structure(lambda part: tf.TensorSpec([rows, *part.shape[1:]], part.dtype), windows.element_spec)
    variant = tf.raw_ops.RebatchDatasetV2(
        input_dataset=tf.data.experimental.to_variant(windows),
        batch_sizes=tf.constant([size], tf.int64),
        drop_remainder=drop_remainder,
        output_types=[part.dtype for part in tf.nest.flatten(spec)],
        output_shapes=[part.shape for part in tf.nest.flatten(spec)],
    )
    return tf.data.experimental.from_variant(variant, spec)


_Batch: Any = batch_op._BatchDataset


class BatchedDataset(_Batch):  # type: ignore[misc]
    """Batches in the form of TensorFlow's own `batch`, so that tools that look for a dataset's batch size find it."""

    def __init__(self, data: tf.data.Dataset, size: int, drop_remainder: bool):
        self._input_dataset = data
        self._batch_size = tf.constant(size, tf.int64)
        self._drop_remainder = tf.constant(drop_remainder)
        self._structure = data.element_spec
        tf.data.Dataset.__init__(self, data._variant_tensor)
