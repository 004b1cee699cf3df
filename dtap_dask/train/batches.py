"""Columns in the structure that Keras's fit takes, (features, label[, weight]), and windows cut into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from dtap_dask.features.info import FeatureInfo, Role


def structured(infos: Sequence[FeatureInfo], columns: Mapping[str, tf.Tensor], kept: bool) -> Any:
    """`columns` as features, (features, label), (features, label, weight), or (features, None, weight).

    Features are a dict; one label is a tensor, several are a dict. With `kept` it is a pair of this and a dict of kept
    columns.
    """
    features = _of("feature", infos, columns)
    labels = {name: _label(values) for name, values in _of("label", infos, columns).items()}
    weights = list(_of("weight", infos, columns).values())
    label = next(iter(labels.values()), None) if len(labels) <= 1 else labels
    batch = (features, label, *weights) if weights else (features, label) if labels else features
    return (batch, _of("kept", infos, columns)) if kept else batch


def _of(role: Role, infos: Sequence[FeatureInfo], columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {info.name: columns[info.name] for info in infos if info.role == role}


def _label(values: tf.Tensor) -> tf.Tensor:
    """A boolean label as float32, because Keras's losses take no booleans."""
    return tf.cast(values, tf.float32) if values.dtype == tf.bool else values


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


_Batch: Any = type(tf.data.Dataset.range(1).batch(1))


class BatchedDataset(_Batch):  # type: ignore[misc]
    """Batches in the form of TensorFlow's own `batch`, so that tools that look for a dataset's batch size find it."""

    def __init__(self, data: tf.data.Dataset, size: int, drop_remainder: bool):
        self._input_dataset = data
        self._batch_size = tf.constant(size, tf.int64)
        self._drop_remainder = tf.constant(drop_remainder)
        self._structure = data.element_spec
        tf.data.Dataset.__init__(self, data._variant_tensor)
