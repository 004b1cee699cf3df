"""Rows a second into a training loop: ours, and the two pipelines people write over one-feature-a-column records."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

import dtap_dask
from lake import CATEGORIES, NUMBERS

SHUFFLE_ROWS = 65_536
SPEC = {
    **{name: tf.io.FixedLenFeature([], tf.float32) for name in NUMBERS},
    **{name: tf.io.FixedLenFeature([], tf.int64) for name in [*CATEGORIES, "label"]},
}


def ours(dataset: Path, batch: int) -> tf.data.Dataset:
    """dtap_dask.load, shuffled; the layout is the dataset's own."""
    return dtap_dask.load(dataset, split="train", batch_size=batch, shuffle=True, seed=0)


def parse_each(dataset: Path, batch: int) -> tf.data.Dataset:
    """The usual tutorial: parse one record at a time, then batch."""
    records = _records(dataset).map(lambda record: tf.io.parse_single_example(record, SPEC), tf.data.AUTOTUNE)
    return records.batch(batch).map(_split_label).prefetch(tf.data.AUTOTUNE)


def parse_batch(dataset: Path, batch: int) -> tf.data.Dataset:
    """The better way: batch the records, then parse them together."""
    records = _records(dataset).batch(batch).map(lambda records: tf.io.parse_example(records, SPEC), tf.data.AUTOTUNE)
    return records.map(_split_label).prefetch(tf.data.AUTOTUNE)


def seconds_of(build: Callable[[], tf.data.Dataset], rows: int) -> tuple[int, float]:
    """Iterate epoch after epoch until at least `rows` rows have come; returns how many did and how long it took.

    Starting each epoch and filling its shuffle buffer are inside. What comes after its last batch is not: with autotune
    on, TensorFlow 2.21 may let the end of an iterator wait for the tuner's next turn, as long again as the epoch took.
    """
    dataset = build()
    seen, seconds = 0, 0.0
    while seen < rows:
        before, start = seen, time.perf_counter()
        iterator = iter(dataset)
        for _, label in iterator:
            seen += label.shape[0]
            if seen >= rows:
                break
        seconds += time.perf_counter() - start
        del iterator
        if seen == before:
            raise ValueError("The dataset holds no rows.")
    return seen, seconds


def _records(dataset: Path) -> tf.data.Dataset:
    files = sorted(map(str, dataset.rglob("*.tfrecord")))
    shards = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=0)
    records = shards.interleave(
        tf.data.TFRecordDataset, cycle_length=16, block_length=16, num_parallel_calls=tf.data.AUTOTUNE
    )
    return records.shuffle(SHUFFLE_ROWS, seed=0)


def _split_label(features: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    features = dict(features)
    return features, features.pop("label")
