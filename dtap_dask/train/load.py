"""A finished dataset as a tf.data.Dataset, ready for Keras's fit.

Records are read from several shards in turns, decoded and permuted in windows of many records, each column by one
operation for the whole window, and then cut into batches, which costs no copy: there is no step per row, few per batch.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dtap_dask.errors import JobError, Problem
from dtap_dask.storage import near
from dtap_dask.train import blocks, order, rows
from dtap_dask.train.batches import arranged, rebatched
from dtap_dask.train.dataset import Split, open_split
from dtap_dask.train.loop import LoopDataset
from dtap_dask.train.shards import Staged, in_turns, one_by_one

# A window is this many rows, or as many bytes of records if that is less. Larger ones mix better and cost memory: about
# three are alive at a time, with ids widened to int64.
WINDOW_ROWS = 65_536
WINDOW_BYTES = 64 << 20
# Serialized blocks that the shuffle buffer holds before they meet in windows.
BUFFER_BYTES = 64 << 20
# What TensorFlow's autotune would choose: it is off, see _options.
DECODERS = 4  # windows decoded at the same time, if there are as many processors
READY = 8  # batches that are ready for training, if they hold no more rows than a window


def load(
    path: str | os.PathLike[str],
    split: str = "train",
    batch_size: int = 1024,
    shuffle: bool = True,
    seed: int = 0,
    *,
    kept: bool = False,
    drop_remainder: bool = False,
    storage: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """The rows of one split of the dataset at `path`, in batches of `batch_size`, prefetched: `model.fit(load(...))`.

    An element is (features, label), with a weight (features, label, weight); without a label only features, or
    (features, None, weight). `features` is a dict by name: scalars [batch], vectors [batch, k], lists of any length as
    tf.RaggedTensor [batch, None], text as tf.string; ids are int64. A label is a tensor, a boolean one float32; several
    labels are a dict. With `kept=True` an element is (what it is without, dict of kept columns), to join predictions
    back: `for (features, label), keys in load(path, "test", kept=True)`.

    Every iteration is an epoch and yields each row once; `len()` is the number of batches, the last of which may be
    smaller unless `drop_remainder`. With `shuffle` the order of shards, records and rows depends on (seed, number of
    the iteration) only, not on tf.random.set_seed; without, rows come in the order of the manifest.

    (Keras 3 warns at every `fit` of a dataset that it will not shuffle it; `fit(..., shuffle=False)` keeps it quiet.)

    A dataset on a local filesystem or a mount is read in place. Any other is staged, while training goes on, to a cache
    on local disk that all processes of this host share, each shard checked by its CRC; the batches are the same.

    `storage` is the job's `storage` section: how path is reached, and `cache: {path: ~/.cache/dtap_dask, size: 20GiB}`
    (also DTAP_CACHE and DTAP_CACHE_SIZE) and `mounts: {"hdfs://ns/base": /mnt/base}`, where the same files are found.

    Raises JobError for a wrong argument or a split that is not there, OutputError for a dataset that is not finished or
    whose files are not those of its manifest, StorageError for one that cannot be reached or whose cache is too small;
    in the loop the same two. (Within `fit` these come as tf.errors.InvalidArgumentError, with the same message.)
    """
    batch_size, seed = _checked(batch_size, seed)
    found = open_split(path, split, storage)
    staged = _staged(found, shuffle, storage)
    data = _windows(found, staged, shuffle, seed, kept)
    data = rebatched(data, batch_size, drop_remainder)
    batches = found.rows // batch_size if drop_remainder else -(-found.rows // batch_size)
    data = data.apply(tf.data.experimental.assert_cardinality(batches)).prefetch(
        max(2, min(READY, WINDOW_ROWS // batch_size))
    )
    return LoopDataset(data.with_options(_options()), lambda: staged.failure if staged else None)


def _checked(batch_size: int, seed: int) -> tuple[int, int]:
    """Both as plain integers: NumPy's are taken too."""
    problems = []
    rows, number = _integer(batch_size), _integer(seed)
    if rows is None or rows < 1:
        problems.append(Problem("batch_size", f"{batch_size!r} is not a positive number of rows, such as 1024"))
    if number is None or not -(2**63) <= number < 2**63:
        problems.append(Problem("seed", f"{seed!r} is not an integer of 64 bits, such as 0"))
    if problems or rows is None or number is None:
        raise JobError(problems)
    return rows, number


def _integer(value: Any) -> int | None:
    """`value` as an int, None for anything else; booleans are no numbers here."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _staged(split: Split, shuffle: bool, storage: Mapping[str, Any] | None) -> Staged | None:
    """What brings the shards to local disk, None where they are on one."""
    return Staged(split, near.cache(storage or {}), shuffle) if split.shards and not split.paths else None


def _windows(split: Split, staged: Staged | None, shuffle: bool, seed: int, kept: bool) -> tf.data.Dataset:
    """The columns of one window of records after the other, in the structure of a batch."""
    record_rows = max(1, -(-split.rows // max(1, split.records)))
    size = max(1, min(-(-WINDOW_ROWS // record_rows), WINDOW_BYTES // split.record_bytes))
    decode = blocks.decode if split.layout.kind == "blocks" else rows.decode
    names = {info.name for info in split.infos if kept or info.role != "kept"}

    def window(number: tf.Tensor, records: tf.Tensor, epoch: tf.Tensor | None = None) -> Any:
        seed = None if epoch is None else order.apart(epoch, number)
        return arranged(split.infos, decode(split, names, records, seed), kept)

    def epoch(seed: tf.Tensor) -> tf.data.Dataset:
        shards = order.permuted(tf.range(len(split.shards), dtype=tf.int64), seed)
        records = in_turns(split, staged, shards, max(1, 64 // record_rows))
        if split.layout.kind == "blocks":
            records = order.buffered(records, max(1, min(split.records, BUFFER_BYTES // split.record_bytes)), seed)
        seeds = tf.data.Dataset.from_tensors(seed).repeat()
        return tf.data.Dataset.zip(tf.data.Dataset.counter(1), records.batch(size), seeds)

    windows = order.epoch_seeds(seed).flat_map(epoch) if shuffle else one_by_one(split, staged).batch(size).enumerate(1)
    # Not within the epoch: TensorFlow would optimize this large function twice whenever an epoch begins.
    return windows.map(window, num_parallel_calls=min(DECODERS, os.cpu_count() or 1))


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Autotune may let the end of an iterator wait for the tuner's next turn, as long again as the epoch took (2.21).
    options.autotune.enabled = False
    # Under tf.distribute every worker then takes its share of the batches; sharding by file can starve a worker.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
