"""A finished dataset as a tf.data.Dataset, ready for Keras's fit.

Records are read from several shards in turn, decoded and permuted in windows of many records with one operation per
column and window, and then cut into batches without a copy: there is no step per row, and few per batch.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from dtap_dask.errors import DataError, JobError, Problem, StorageError
from dtap_dask.storage import local_copies
from dtap_dask.train.batches import BatchedDataset, rebatched
from dtap_dask.train.damage import explained
from dtap_dask.train.dataset import DatasetSplit, open_split, selected
from dtap_dask.train.loop import LoopDataset, LoopHooks
from dtap_dask.train.order import Epochs
from dtap_dask.train.shards import StagedShards
from dtap_dask.train.windows import WINDOW_ROWS, Selection, windows, windows_for_workers

READY = 8  # batches prefetched for training, if they hold no more rows than a window


def load(
    path: str | os.PathLike[str],
    split: str = "train",
    batch_size: int = 1024,
    shuffle: bool | None = None,
    seed: int = 0,
    *,
    features: Sequence[str] | None = None,
    kept: bool = False,
    drop_remainder: bool = False,
    storage: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """The rows of one split of the dataset at `path`, in batches of `batch_size`, prefetched: `model.fit(load(...))`.

    An element is (features, label), with a weight (features, label, weight); without a label only features, or
    (features, None, weight). `features` is a dict by name: scalars [batch], vectors [batch, k], tensors [batch, k, l],
    lists of any length as tf.RaggedTensor [batch, None], text as tf.string; ids are int64. `features=[...]` loads only
    the named ones, in that order, and decodes no others: give the same list to `inputs`. A label is a tensor, a boolean
    one float32; several labels are a dict. With `kept=True` an element is (what it is without, dict of kept columns),
    to join predictions back: `for (features, label), keys in load(path, "test", kept=True)`.

    Every iteration is an epoch and yields each row once; `len()` is the number of batches, the last of which may be
    smaller unless `drop_remainder`. With `shuffle` the order of shards, records and rows depends on (seed, number of
    the iteration) only, not on tf.random.set_seed; without, rows come in the order of the manifest, the same in every
    iteration. By default (None) the part that the job was fitted on (`split.fit`, usually 'train') is shuffled and
    every other part is not, nor is any with `fit: {from: ...}`, so that predictions of one pass line up with the labels
    or keys of another.

    (Keras 3 warns at every `fit` of a dataset that it will not shuffle it; `fit(..., shuffle=False)` keeps it quiet.)

    A dataset on a local filesystem or a mount is read in place. Any other is staged, during training, to a cache
    on local disk that all processes of this host share, each shard checked by its CRC; the batches are the same.

    `storage` is the job's `storage` section: how path is reached, and `cache: {path: ~/.cache/dtap_dask, size: 20GiB}`
    (also DTAP_CACHE and DTAP_CACHE_SIZE) and `mounts: {"hdfs://ns/base": /mnt/base}`, where the same files are found.

    Checkpoints of iterators, tf.data service and what else `load` guarantees: `dtap-dask docs loading`.

    Raises JobError for a wrong argument or a split that is not there, DataError for a split without rows, OutputError
    for a dataset that is not finished or whose files are not those of its manifest, StorageError for one that cannot be
    reached or whose cache is too small; in the loop the last two. (Within `fit` these come as TensorFlow's errors.)
    """
    batch_size, seed = _checked(batch_size, seed)
    found = open_split(path, split, storage)
    infos = tuple(info for info in selected(found.infos, features) if kept or info.role != "kept")
    shuffle = found.fitted if shuffle is None else shuffle
    batches = _batches(found, batch_size, drop_remainder)
    staged = _staged(found, shuffle, storage)
    selection = Selection(found, infos, kept, shuffle)

    def batched(windows: tf.data.Dataset) -> tf.data.Dataset:
        ready = max(2, min(READY, WINDOW_ROWS // batch_size))
        return rebatched(windows, batch_size, drop_remainder).prefetch(ready)

    def for_service() -> tf.data.Dataset:
        if staged is not None:
            raise StorageError(_NOT_SERVED.format(url=found.store.url))
        return batched(windows_for_workers(selection)).with_options(_options())

    epochs = Epochs(seed) if shuffle else None
    data = batched(windows(selection, staged, epochs))
    data = epochs.remembered(data) if epochs else data
    data = data.apply(tf.data.experimental.assert_cardinality(batches)).with_options(_options())
    return LoopDataset(BatchedDataset(data, batch_size, drop_remainder), _hooks(found, staged, for_service), batch_size)


_NOT_SERVED = (
    "{url} is on no filesystem that the workers of tf.data service can open, so they cannot load it. Mount it on them "
    "and name the mount in `storage.mounts`, or copy it to a filesystem that they share."
)
_NOT_SAVED = (
    "The position of an iterator over {url} cannot be saved in a checkpoint, because its shards are fetched to a cache "
    "while they are read. Load it from a mount (`storage.mounts`) or a local copy, or save the number of the epoch "
    "instead and begin that epoch again, for example with load(..., seed=epoch)."
)


def _hooks(split: DatasetSplit, staged: StagedShards | None, for_service: Callable[[], tf.data.Dataset]) -> LoopHooks:
    if staged is None:
        return LoopHooks(lambda error: explained(split, error), None, for_service)
    return LoopHooks(lambda error: staged.failure, _NOT_SAVED.format(url=split.store.url), for_service)


def _batches(split: DatasetSplit, size: int, drop_remainder: bool) -> int:
    """The number of batches of an epoch. DataError where there would be none."""
    if drop_remainder and split.rows < size:
        raise DataError(
            f"The split {split.name!r} of {split.store.url} has {split.rows:,} rows, so that `drop_remainder` with a "
            f"batch_size of {size:,} drops them all. Use smaller batches, or leave drop_remainder out."
        )
    return split.rows // size if drop_remainder else -(-split.rows // size)


def _checked(batch_size: int, seed: int) -> tuple[int, int]:
    """Both as plain integers, also where they are NumPy's. JobError where they are no such numbers."""
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
    """`value` as an int; None for anything else, booleans included."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _staged(split: DatasetSplit, shuffle: bool, storage: Mapping[str, Any] | None) -> StagedShards | None:
    """The shards staged on local disk, None where they are on one already."""
    return StagedShards(split, local_copies.cache(storage or {}), shuffle) if split.shards and not split.paths else None


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # With autotune the end of an iterator may wait for the tuner as long again as the epoch took (TensorFlow 2.21).
    options.autotune.enabled = False
    # Under tf.distribute every worker then takes its share of the batches; sharding by file can starve a worker.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
