"""The manifest's description of a record as tf.io.parse_example takes it."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from dtap_dask.records.manifest import ParseFeature


def parse_features(spec: Mapping[str, ParseFeature]) -> dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature]:
    """{key in the record: TensorFlow's feature}."""
    return {key: _feature(feature) for key, feature in spec.items()}


def _feature(feature: ParseFeature) -> tf.io.FixedLenFeature | tf.io.RaggedFeature:
    dtype = tf.as_dtype(feature.dtype)
    if feature.kind == "RaggedFeature":
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature(feature.shape, dtype)
