"""tf.io.parse_example by the manifest's feature_spec, which is all that records of the rows layout need."""

from __future__ import annotations

from collections.abc import Container, Mapping

import tensorflow as tf

from dtap_dask.records.manifest import ParseFeature
from dtap_dask.train.dataset import DatasetSplit
from dtap_dask.train.order import permuted


def parse_features(spec: Mapping[str, ParseFeature]) -> dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature]:
    """The feature_spec as TensorFlow's own objects, by key in the record."""
    return {key: _feature(feature) for key, feature in spec.items()}


def _feature(feature: ParseFeature) -> tf.io.FixedLenFeature | tf.io.RaggedFeature:
    dtype = tf.as_dtype(feature.dtype)
    if feature.kind == "RaggedFeature":
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature(feature.shape, dtype)


def decode_rows(
    split: DatasetSplit, names: Container[str], records: tf.Tensor, seed: tf.Tensor | None
) -> dict[str, tf.Tensor]:
    """The rows of `records` (serialized Examples, string [n]): the columns `names`, in their infos' dtypes and shapes.

    Rows are in the order of the records, or with `seed` (int64 [2]) permuted over all of them.
    """
    if seed is not None:
        records = permuted(records, seed)
    wanted = {info.name: info for info in split.infos if info.name in names}
    parsed = tf.io.parse_example(records, parse_features({name: split.spec[name] for name in wanted}))
    return {
        name: parsed[name] if info.stored == "bytes" else tf.cast(parsed[name], tf.as_dtype(info.dtype))
        for name, info in wanted.items()
    }
