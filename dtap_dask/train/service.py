"""The form of a loaded dataset for tf.data service, whose workers read the shards themselves, without Python.

A worker starts afresh in every epoch and knows neither its own number nor the others': shuffled rows come in an order
that is different every time and cannot be repeated.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.order.epoch_order import CYCLE, WINDOW_BYTES, WINDOW_ROWS, group_size
from dtap_dask.train.forms import RecordForm
from dtap_dask.train.mapped import as_it_is

BUFFER_BYTES = 64 << 20  # of serialized blocks in the shuffle buffer, which mixes them before they are grouped
READ_BYTES = 1 << 20  # one read of a shard
DECODERS = 4


def windows_for_workers(split: DatasetSplit, form: RecordForm, shuffle: bool) -> tf.data.Dataset:
    """The rows of all shards, window by window, in the structure of a batch.

    A worker requests one shard after another, and few at a time, so that all workers get some.
    """
    count, record_rows = len(split.shards), max(1, -(-split.rows // split.records))
    paths = tf.constant(split.paths, tf.string, shape=[count])
    records = tf.data.Dataset.range(count).interleave(
        as_it_is(lambda at: _read(split, tf.gather(paths, at))),
        cycle_length=max(1, min(group_size(split, True), count // CYCLE)),
        block_length=max(1, 64 // record_rows),
    )
    buffer = max(1, min(split.records, BUFFER_BYTES // split.record_bytes))
    if shuffle and split.layout.kind == "blocks" and buffer > 1:
        records = _buffered(records, buffer)

    def window(records: tf.Tensor) -> Any:
        return form.decoded(records, _shuffled if shuffle else None)

    size = max(1, min(-(-WINDOW_ROWS // record_rows), WINDOW_BYTES // split.record_bytes))
    return records.batch(size).map(as_it_is(window), num_parallel_calls=min(DECODERS, os.cpu_count() or 1))


def _read(split: DatasetSplit, path: tf.Tensor) -> tf.data.Dataset:
    compression = "GZIP" if split.layout.compression == "gzip" else ""
    return tf.data.TFRecordDataset(path, compression, READ_BYTES)


def _shuffled(rows: tf.Tensor) -> tf.Tensor:
    """The places of all rows, in an order that is different every time."""
    return tf.random.experimental.stateless_shuffle(tf.range(rows), _drawn())


def _drawn() -> tf.Tensor:
    """A seed that is different every time, whatever tf.random.set_seed was given: two zeros mean no seed."""
    return tf.raw_ops.RandomUniformInt(
        shape=[2], minval=tf.constant(0, tf.int64), maxval=tf.constant(tf.int64.max, tf.int64), seed=0, seed2=0
    )


def _buffered(records: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """`records` through a shuffle buffer, differently every time; `Dataset.shuffle` would use TensorFlow's seed."""
    spec, zero = records.element_spec, tf.constant(0, tf.int64)
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=tf.constant(size, tf.int64),
        seed=zero,
        seed2=zero,
        reshuffle_each_iteration=False,
        output_types=[spec.dtype],
        output_shapes=[spec.shape],
    )
    return tf.data.experimental.from_variant(variant, spec)
