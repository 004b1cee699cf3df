"""Windows of many records, decoded and permuted together, with one operation per column and window."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from dtap_dask.features.info import FeatureInfo
from dtap_dask.train import order
from dtap_dask.train.batches import structured
from dtap_dask.train.blocks import decode_blocks
from dtap_dask.train.dataset import DatasetSplit
from dtap_dask.train.parsing import decode_rows
from dtap_dask.train.shards import StagedShards, for_workers, in_order, interleaved

# The size of a window: this many rows, or this many bytes of records if that is less. Larger ones mix better and cost
# memory: about three exist at a time, with ids widened to int64.
WINDOW_ROWS = 65_536
WINDOW_BYTES = 64 << 20
# Serialized blocks in the shuffle buffer, which mixes them before they are grouped in windows.
BUFFER_BYTES = 64 << 20
# Windows decoded in parallel, if there are as many processors. Autotune would choose the same; it is off, see load.
DECODERS = 4


@dataclass(frozen=True)
class Selection:
    """The part of a split to load: the columns `infos`, with kept ones apart if `kept`, shuffled or not."""

    split: DatasetSplit
    infos: Sequence[FeatureInfo]
    kept: bool
    shuffle: bool

    @cached_property
    def record_rows(self) -> int:
        """The approximate number of rows in a record."""
        return max(1, -(-self.split.rows // max(1, self.split.records)))

    @property
    def records(self) -> int:
        """The number of records in a window."""
        return max(1, min(-(-WINDOW_ROWS // self.record_rows), WINDOW_BYTES // self.split.record_bytes))

    @property
    def buffer(self) -> int:
        """The number of records in the shuffle buffer; 1 where windows alone mix as well."""
        if self.split.layout.kind == "rows":
            return 1
        return max(1, min(self.split.records, BUFFER_BYTES // self.split.record_bytes))

    @property
    def block(self) -> int:
        """The number of records read from one shard before the next one's turn."""
        return max(1, 64 // self.record_rows)

    def decode(self, records: tf.Tensor, seed: tf.Tensor | None) -> Any:
        """The rows of serialized records [b] in the structure of a batch, permuted if there is a `seed`, int64 [2]."""
        function = decode_blocks if self.split.layout.kind == "blocks" else decode_rows
        names = {info.name for info in self.infos}
        return structured(self.infos, function(self.split, names, records, seed), self.kept)


def windows(selection: Selection, staged: StagedShards | None, epochs: order.Epochs | None) -> tf.data.Dataset:
    """Windows of records in the structure of a batch, one after another; shuffled if there are `epochs`."""
    split = selection.split

    def window(number: tf.Tensor, records: tf.Tensor, epoch: tf.Tensor | None = None) -> Any:
        return selection.decode(records, None if epoch is None else order.derived(epoch, number))

    def epoch(seed: tf.Tensor) -> tf.data.Dataset:
        shards = order.permuted(tf.range(len(split.shards), dtype=tf.int64), seed)
        records = interleaved(split, staged, shards, selection.block)
        if split.layout.kind == "blocks":
            records = order.buffered(records, selection.buffer, seed)
        seeds = tf.data.Dataset.from_tensors(seed).repeat()
        return tf.data.Dataset.zip(tf.data.Dataset.counter(1), records.batch(selection.records), seeds)

    if epochs is None:
        found = in_order(split, staged).batch(selection.records).enumerate(1)
    else:
        found = epochs.seeds().flat_map(epoch)
    # Not within `epoch`: TensorFlow would optimize this large function twice at the beginning of each epoch.
    return found.map(window, num_parallel_calls=min(DECODERS, os.cpu_count() or 1))


def windows_for_workers(selection: Selection) -> tf.data.Dataset:
    """The same rows for tf.data service, whose workers each take some of the shards, or all of them.

    A worker starts afresh in every epoch and knows neither its own number nor the others': shuffled rows come in an
    order that is different every time and cannot be repeated.
    """
    records = for_workers(selection.split, selection.block)
    if selection.shuffle and selection.buffer > 1:
        records = order.buffered(records, selection.buffer, None)

    def window(records: tf.Tensor) -> Any:
        return selection.decode(records, order.drawn() if selection.shuffle else None)

    return records.batch(selection.records).map(window, num_parallel_calls=min(DECODERS, os.cpu_count() or 1))
