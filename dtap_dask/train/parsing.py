"""tf.io.parse_example by the manifest's feature_spec, which is all that records of the rows layout need."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import tensorflow as tf

from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.records.manifest import ParseFeature


def parse_features(spec: Mapping[str, ParseFeature]) -> dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature]:
    """The feature_spec as TensorFlow's own objects, by key in the record."""
    return {key: _feature(feature) for key, feature in spec.items()}


def _feature(feature: ParseFeature) -> tf.io.FixedLenFeature | tf.io.RaggedFeature:
    dtype = tf.as_dtype(feature.dtype)
    if feature.kind == "RaggedFeature":
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature(feature.shape, dtype)


def decode_rows(
    split: DatasetSplit, names: Container[str], records: tf.Tensor, order: Callable[[tf.Tensor], tf.Tensor] | None
) -> dict[str, tf.Tensor]:
    """The rows of `records` (serialized Examples, string [n]): the columns `names`, in their infos' dtypes and shapes.

    Rows are in the order of the records, or those that `order` names (see decode_blocks).
    """
    if order is not None:
        records = tf.gather(records, order(tf.size(records, tf.int64)))
    wanted = {info.name: info for info in split.infos if info.name in names}
    parsed = tf.io.parse_example(records, parse_features({name: split.spec[name] for name in wanted}))
    return {
        name: parsed[name] if info.stored == "bytes" else tf.cast(parsed[name], tf.as_dtype(info.dtype))
        for name, info in wanted.items()
    }
