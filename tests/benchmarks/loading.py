"""Rows a second into a training loop: ours, and the two pipelines people write over one-feature-a-column records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
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


def packed(dataset: Path, batch: int) -> tf.data.Dataset:
    """The same, with features side by side in one matrix for each dtype, and ids of 32 bits."""
    return dtap_dask.load(dataset, batch_size=batch, shuffle=True, seed=0, as_vectors=True, ids="int32")


def mixed(dataset: Path, batch: int) -> tf.data.Dataset:
    """A mixture of the dataset with itself."""
    components = {name: dtap_dask.Component(dataset) for name in ("one", "other")}
    return dtap_dask.load(dtap_dask.Mixture(components), batch_size=batch, shuffle=True, seed=0)


def arrays(dataset: Path, batch: int) -> Iterable[Any]:
    """dtap_dask.batches: NumPy arrays, without TensorFlow."""
    return dtap_dask.batches(dataset, batch_size=batch, shuffle=True, seed=0)


def saved(folder: Path, batch: int) -> tf.data.Dataset:
    """TensorFlow's own form of a dataset, in which `save` has kept the finished batches."""
    return tf.data.Dataset.load(str(folder / f"saved-{batch}"))


def save(dataset: Path, folder: Path, batch: int) -> None:
    """Keep the batches of one epoch as `saved` takes them."""
    if not (folder / f"saved-{batch}").exists():
        ours(dataset, batch).save(str(folder / f"saved-{batch}"))


@dataclass(frozen=True)
class Mapped:
    """Raw matrices in files that are mapped into memory, in batches of neighbours that come in random order.

    NVIDIA's DLRM examples call this form tf_raw; it has no checksums and shuffles no rows.
    """

    folder: Path
    batch: int

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Any]]:
        parts = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("float32", "int32", "label")}
        starts = np.random.default_rng(0).permutation(np.arange(0, len(parts["label"]), self.batch))
        for start in starts:
            each = {name: np.array(part[start : start + self.batch]) for name, part in parts.items()}
            yield each, each.pop("label")


def write_raw(dataset: Path, folder: Path) -> None:
    """Keep all rows as Mapped takes them."""
    if (folder / "label.npy").exists():
        return
    found = list(dtap_dask.batches(dataset, batch_size=65_536, shuffle=False, as_vectors=True, ids="int32"))
    for name in ("float32", "int32"):
        np.save(folder / f"{name}.npy", np.concatenate([features[name] for features, _ in found]))
    np.save(folder / "label.npy", np.concatenate([label for _, label in found]))


class Empty(keras.Model):
    """A model that takes batches and does nothing with them."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras wants a number."""
        return {"loss": tf.constant(0.0)}


class SmallDlrm(keras.Model):
    """Embeddings of the ids, a dense layer over the numbers, their dot products, and two dense layers over these.

    The architecture of M. Naumov et al., *Deep Learning Recommendation Model for Personalization and Recommendation
    Systems*, 2019, with one table of 4 values per id for all features. It takes batches of `packed`.
    """

    def __init__(self, dataset: Path, size: int = 4):
        super().__init__()
        ids = [one.ids for one in dtap_dask.inputs(dataset).values() if one.ids]
        self._first = tf.constant(np.cumsum([0, *ids[:-1]]), tf.int32)
        self._embedding = keras.layers.Embedding(sum(ids), size)
        self._bottom = keras.layers.Dense(size, "relu")
        self._top = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(1, "sigmoid")])

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Probabilities [batch, 1]."""
        numbers = self._bottom(features["float32"])
        embedded = self._embedding(features["int32"] + self._first)
        vectors = tf.concat([numbers[:, None], embedded], axis=1)
        products = tf.matmul(vectors, vectors, transpose_b=True)
        size = (1 + len(self._first)) ** 2
        return self._top(tf.concat([numbers, tf.reshape(products, [-1, size])], axis=1))


def fit_seconds(data: tf.data.Dataset, model: keras.Model, steps: int, rows: int) -> tuple[int, float]:
    """Rows that reach `train_step` of a model within `fit`, and how long it took; after an epoch that warms up.

    The last batch of an epoch counts as a whole one.
    """
    model.compile("sgd", "binary_crossentropy", steps_per_execution=min(steps, len(data)))
    model.fit(data, verbose=0, shuffle=False)
    batch = len(next(iter(data))[1])
    epochs = -(-rows // (len(data) * batch))
    start = time.perf_counter()
    model.fit(data, epochs=epochs, verbose=0, shuffle=False)
    return epochs * len(data) * batch, time.perf_counter() - start


def one_batch(data: tf.data.Dataset) -> tf.data.Dataset:
    """The first batch again and again, as often as there are batches: a model fed so waits for nothing."""
    first, count = next(iter(data)), len(data)
    return tf.data.Dataset.from_tensors(first).repeat(count)


def seconds_from_the_middle(dataset: Path, batch: int) -> float:
    """From `load` with a state in the middle of an epoch to the first batch."""
    loaded = dtap_dask.batches(dataset, batch_size=batch)
    state = loaded.state()
    state["taken"] = [{"readers": 1, "rows": len(loaded) // 2 * batch}]
    start = time.perf_counter()
    next(iter(dtap_dask.load(dataset, batch_size=batch, state=state)))
    return time.perf_counter() - start


def parse_each(dataset: Path, batch: int) -> tf.data.Dataset:
    """The usual tutorial: parse one record at a time, then batch."""
    records = _records(dataset).map(lambda record: tf.io.parse_single_example(record, SPEC), tf.data.AUTOTUNE)
    return records.batch(batch).map(_split_label).prefetch(tf.data.AUTOTUNE)


def parse_batch(dataset: Path, batch: int) -> tf.data.Dataset:
    """The better way: batch the records, then parse them together."""
    records = _records(dataset).batch(batch).map(lambda records: tf.io.parse_example(records, SPEC), tf.data.AUTOTUNE)
    return records.map(_split_label).prefetch(tf.data.AUTOTUNE)


def seconds_of(build: Callable[[], Iterable[Any]], rows: int) -> tuple[int, float]:
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
