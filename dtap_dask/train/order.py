"""The order of an epoch, as a function of (seed, epoch) alone.

One pair of numbers is drawn for an epoch when its first row is asked for, and all shuffling follows from that pair. So
shards, records and rows agree about which epoch it is, however often and by whom iterators are made. `Dataset.shuffle`
and `Dataset.random` would also mix in tf.random.set_seed, and `load(..., seed=0)` would differ between two scripts: the
public raw ops beneath them take the whole seed.
"""

from __future__ import annotations

import tensorflow as tf


class Epochs:
    """The epochs of one loaded dataset, and which of them it is."""

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
        """One pair, int64 [2]; another one in every iteration."""
        pairs = self._numbers.batch(2, drop_remainder=True).take(1)
        # Within flat_map the pair is drawn with the first element, not when an iterator is made that nobody uses.
        return tf.data.Dataset.range(1).flat_map(lambda _: pairs)

    def remembered(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """`batches` as they are, and a checkpoint of an iterator over them says which epoch it is.

        The counter of iterations is saved by the iterators that draw from it. That of `seeds` may have ended long
        before the last batch is handed out, because windows and batches are prepared ahead; the one here stays open as
        long as the epoch. It draws numbers of its own, so a pair of the epoch's is every other one.
        """
        first = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).repeat()

        def open_numbers(_: tf.Tensor) -> tf.data.Dataset:
            return self._numbers.flat_map(_always)

        def _always(_: tf.Tensor) -> tf.data.Dataset:
            return first

        choice = tf.data.Dataset.range(1).flat_map(open_numbers)
        return tf.data.Dataset.choose_from_datasets([batches], choice, stop_on_empty_dataset=True)


def apart(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Another pair for each `number` (int64), all following from the epoch's."""
    first, second = tf.unstack(seed, 2)
    return tf.stack([first, second + number])


def permuted(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """`values` ([n, ...]) in an order that follows from `seed`."""
    return tf.random.experimental.stateless_shuffle(values, seed)


def buffered(data: tf.data.Dataset, size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """`data` (scalars) through a shuffle buffer of `size` elements; the order follows from the epoch's `seed`."""
    spec = data.element_spec
    first, second = tf.unstack(seed, 2)
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(data),
        buffer_size=tf.constant(size, tf.int64),
        seed=first,
        seed2=second + 1,  # two zeros would mean: any order
        reshuffle_each_iteration=False,
        output_types=[spec.dtype],
        output_shapes=[spec.shape],
    )
    return tf.data.experimental.from_variant(variant, spec)
