"""Windows of many records, decoded and permuted together: each column by one operation for the whole window."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from dtap_dask.features.info import FeatureInfo
from dtap_dask.train import order
from dtap_dask.train.batches import arranged
from dtap_dask.train.blocks import decode_blocks
from dtap_dask.train.dataset import DatasetSplit
from dtap_dask.train.parsing import decode_rows
from dtap_dask.train.shards import StagedShards, for_workers, in_order, interleaved

# A window is this many rows, or as many bytes of records if that is less. Larger ones mix better and cost memory: about
# three are alive at a time, with ids widened to int64.
WINDOW_ROWS = 65_536
WINDOW_BYTES = 64 << 20
# Serialized blocks that the shuffle buffer holds before they meet in windows.
BUFFER_BYTES = 64 << 20
# What TensorFlow's autotune would choose: it is off, see load.
DECODERS = 4  # windows decoded at the same time, if there are as many processors


@dataclass(frozen=True)
class Selection:
    """What to load of a split: the columns `infos`, with kept ones apart if `kept`, shuffled or not."""

    split: DatasetSplit
    infos: Sequence[FeatureInfo]
    kept: bool
    shuffle: bool

    @cached_property
    def record_rows(self) -> int:
        """About how many rows a record holds."""
        return max(1, -(-self.split.rows // max(1, self.split.records)))

    @property
    def records(self) -> int:
        """The records of a window."""
        return max(1, min(-(-WINDOW_ROWS // self.record_rows), WINDOW_BYTES // self.split.record_bytes))

    @property
    def buffer(self) -> int:
        """The records that the shuffle buffer holds; 1 where windows alone mix as much."""
        if self.split.layout.kind == "rows":
            return 1
        return max(1, min(self.split.records, BUFFER_BYTES // self.split.record_bytes))

    @property
    def block(self) -> int:
        """The records that are taken from one shard before it is the next one's turn."""
        return max(1, 64 // self.record_rows)

    def decoded(self, records: tf.Tensor, seed: tf.Tensor | None) -> Any:
        """The rows of serialized records [b] in the structure of a batch, permuted if there is a `seed`, int64 [2]."""
        decode = decode_blocks if self.split.layout.kind == "blocks" else decode_rows
        names = {info.name for info in self.infos}
        return arranged(self.infos, decode(self.split, names, records, seed), self.kept)


def windows(wanted: Selection, staged: StagedShards | None, epochs: order.Epochs | None) -> tf.data.Dataset:
    """One window of records after the other, in the structure of a batch; shuffled where there are `epochs`."""
    split = wanted.split

    def window(number: tf.Tensor, records: tf.Tensor, epoch: tf.Tensor | None = None) -> Any:
        return wanted.decoded(records, None if epoch is None else order.apart(epoch, number))

    def epoch(seed: tf.Tensor) -> tf.data.Dataset:
        shards = order.permuted(tf.range(len(split.shards), dtype=tf.int64), seed)
        records = interleaved(split, staged, shards, wanted.block)
        if split.layout.kind == "blocks":
            records = order.buffered(records, wanted.buffer, seed)
        seeds = tf.data.Dataset.from_tensors(seed).repeat()
        return tf.data.Dataset.zip(tf.data.Dataset.counter(1), records.batch(wanted.records), seeds)

    if epochs is None:
        found = in_order(split, staged).batch(wanted.records).enumerate(1)
    else:
        found = epochs.seeds().flat_map(epoch)
    # Not within the epoch: TensorFlow would optimize this large function twice whenever an epoch begins.
    return found.map(window, num_parallel_calls=min(DECODERS, os.cpu_count() or 1))


def windows_for_workers(wanted: Selection) -> tf.data.Dataset:
    """The same rows for tf.data service, whose workers each take some of the shards, or all of them.

    Each worker begins anew in every epoch and knows neither its number nor those of the others: shuffled rows come in
    an order that is different every time and cannot be repeated.
    """
    records = for_workers(wanted.split, wanted.block)
    if wanted.shuffle and wanted.buffer > 1:
        records = records.shuffle(wanted.buffer)

    def window(records: tf.Tensor) -> Any:
        drawn = tf.random.uniform([2], maxval=tf.int64.max, dtype=tf.int64) if wanted.shuffle else None
        return wanted.decoded(records, drawn)

    return records.batch(wanted.records).map(window, num_parallel_calls=min(DECODERS, os.cpu_count() or 1))
