"""The order of an epoch, as a function of (seed, epoch) alone.

A pair of numbers is drawn for an epoch when its first row is requested, and all shuffling follows from that pair. So
shards, records and rows agree on the epoch, however many iterators are made. `Dataset.shuffle` and `Dataset.random`
would also mix in tf.random.set_seed, so that `load(..., seed=0)` would differ between two scripts; the public raw ops
beneath them take the whole seed.
"""

from __future__ import annotations

import tensorflow as tf


class Epochs:
    """Counts the epochs of one loaded dataset and gives each its seed."""

    def __init__(self, seed: int):
        spec = tf.TensorSpec([], tf.int64)
        variant = tf.raw_ops.RandomDatasetV2(
            seed=tf.constant(seed, tf.int64),
            seed2=tf.constant(1, tf.int64),
            seed_generator=tf.raw_ops.DummySeedGenerator(),
            rerandomize_each_iteration=True,
            output_types=[spec.dtype],
            output_shapes=[spec.shape],
        )
        self._numbers = tf.data.experimental.from_variant(variant, spec)

    def seeds(self) -> tf.data.Dataset:
        """One pair, int64 [2], which is different in every iteration."""
        pairs = self._numbers.batch(2, drop_remainder=True).take(1)
        # Within flat_map the pair is drawn with the first element, not when an unused iterator is made.
        return tf.data.Dataset.range(1).flat_map(lambda _: pairs)

    def remembered(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """`batches` unchanged, but with the epoch in the checkpoints of their iterators.

        The counter of iterations is saved by the iterators that draw from it. The one in `seeds` may end long before
        the last batch is yielded, because windows and batches are prepared ahead; the one here stays open as long as
        the epoch. It draws a number itself, so epochs use every other pair.
        """
        first = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).repeat()

        def open_numbers(_: tf.Tensor) -> tf.data.Dataset:
            return self._numbers.flat_map(_always)

        def _always(_: tf.Tensor) -> tf.data.Dataset:
            return first

        choice = tf.data.Dataset.range(1).flat_map(open_numbers)
        return tf.data.Dataset.choose_from_datasets([batches], choice, stop_on_empty_dataset=True)


def derived(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """A different pair for each `number` (int64), derived from the epoch's."""
    first, second = tf.unstack(seed, 2)
    return tf.stack([first, second + number])


def permuted(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """`values` ([n, ...]) in an order that depends on `seed` alone."""
    return tf.random.experimental.stateless_shuffle(values, seed)


def drawn() -> tf.Tensor:
    """A pair that is different every time, whatever tf.random.set_seed was given: two zeros mean no seed."""
    return tf.raw_ops.RandomUniformInt(
        shape=[2], minval=tf.constant(0, tf.int64), maxval=tf.constant(tf.int64.max, tf.int64), seed=0, seed2=0
    )


def buffered(data: tf.data.Dataset, size: int, seed: tf.Tensor | None) -> tf.data.Dataset:
    """`data` (scalars) through a shuffle buffer of `size` elements, in an order that depends on the epoch's `seed`.

    Without a seed the order is different every time.
    """
    spec = data.element_spec
    pair = tf.zeros([2], tf.int64) if seed is None else derived(seed, tf.constant(1, tf.int64))  # never two zeros
    first, second = tf.unstack(pair, 2)
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(data),
        buffer_size=tf.constant(size, tf.int64),
        seed=first,
        seed2=second,
        reshuffle_each_iteration=False,
        output_types=[spec.dtype],
        output_shapes=[spec.shape],
    )
    return tf.data.experimental.from_variant(variant, spec)
