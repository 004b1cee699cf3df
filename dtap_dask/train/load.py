"""A finished dataset as a tf.data.Dataset, ready for Keras's fit.

Records are read from several shards in turn, decoded and permuted in windows of many records with one operation per
column and window, and then cut into batches without a copy: there is no step per row, and few per batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf

from dtap_dask.errors import JobError, Problem, StorageError
from dtap_dask.loading.mixture.component import Mixture
from dtap_dask.loading.mixture.opening import opened
from dtap_dask.loading.mixture.source import MixtureSource
from dtap_dask.loading.order.epoch_order import WINDOW_ROWS
from dtap_dask.loading.reading.batch_source import ENDLESS
from dtap_dask.loading.reading.options import BatchOptions, Ids, OnBadRecord, Remainder
from dtap_dask.loading.reading.source import RowSource
from dtap_dask.loading.shards.precision import FloatDtype
from dtap_dask.train.batches import BatchedDataset, rebatched
from dtap_dask.train.chunks import ChunkPasses
from dtap_dask.train.forms import RecordForm
from dtap_dask.train.loop import LoopDataset, LoopHooks
from dtap_dask.train.passes import WindowPasses
from dtap_dask.train.place import Place
from dtap_dask.train.service import windows_for_workers

READY = 8  # batches prefetched for training, if they hold no more rows than a window


def load(
    path: str | os.PathLike[str] | Mixture,
    split: str = "train",
    batch_size: int = 1024,
    shuffle: bool | None = None,
    seed: int = 0,
    *,
    features: Sequence[str] | None = None,
    kept: bool = False,
    label: bool = True,
    drop_remainder: bool = False,
    as_vectors: bool = False,
    ids: Ids = "int64",
    floats: FloatDtype | None = None,
    readers: tuple[int, int] | tf.distribute.InputContext | Literal["TF_CONFIG"] | None = None,
    remainder: Remainder | None = None,
    on_bad_record: OnBadRecord = "error",
    skip: int = 0,
    take: int | None = None,
    where: str | None = None,
    resample: Mapping[Any, float] | Literal["balanced"] | None = None,
    class_weights: Mapping[Any, float] | Literal["balanced"] | None = None,
    state: Mapping[str, Any] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """The rows of one split of the dataset at `path`, in batches of `batch_size`, prefetched: `model.fit(load(...))`.

    An element is (features, label), with a weight (features, label, weight); without a label only features, or
    (features, None, weight). `features` is a dict by name: scalars [batch], vectors [batch, k], tensors [batch, k, l],
    lists of any length as tf.RaggedTensor [batch, None], text as tf.string; ids are int64. `features=[...]` loads only
    the named ones, in that order, and decodes no others: give the same list to `inputs`. A label is a tensor, a boolean
    one float32; several labels are a dict. With `kept=True` an element is (what it is without, dict of kept columns),
    to join predictions back: `for (features, label), keys in load(path, "test", kept=True)`.

    `as_vectors` gives the features of fixed width side by side, one matrix [batch, n] for each dtype, named after it
    (`.vectors` has their names); `ids="int32"`, or "stored" for the width in the records, makes ids
    narrower, and `floats="float16"` or "bfloat16" the features of floats; `label=False` leaves the label out.

    Every iteration is an epoch and yields each row once; `len()` is the number of batches. With `shuffle` the order
    depends on (seed, number of the epoch) only, not on tf.random.set_seed, threads or staging; without, rows come in
    the order of the manifest, the same in every iteration. By default (None) the part that the job was fitted on
    (`split.fit`, usually 'train') is shuffled and every other part is not, so that predictions of one pass line up with
    the labels or keys of another.

    `remainder` says what becomes of the rows at the end of an epoch that do not fill a batch: "keep" makes the last
    batch smaller, "drop" (as `drop_remainder`) leaves them out, "pad" adds rows of zeros with weight 0, "repeat" rows
    from the beginning. `readers=(index, count)`: this is one of `count` processes that divide the rows of each epoch;
    each row comes to one of them, and all have equally many batches. They pad unless `remainder` says otherwise.
    `readers` may also be the input context of `strategy.distribute_datasets_from_function`, where `batch_size` is that
    of one replica, or "TF_CONFIG": the tasks of the cluster in this environment variable.

    `on_bad_record="skip"` replaces damaged records by rows of weight 0, at most 100 in an epoch, or as many as
    `{"skip": 1000}` says; `stats()` counts them.

    `skip` and `take` choose rows by their place in the order of the manifest, the same in every epoch; `where` chooses
    those of which a SQL condition on the dataset's columns is true. Of these, `resample={label: factor}` multiplies
    the number of rows of each class, drawn anew in every epoch; "balanced" gives each as many as the largest has.
    `class_weights={label: weight}` multiplies the weight of each row; "balanced" weighs as scikit-learn does. But for
    `skip`, `take` and given weights, the rows are counted first, in one pass over the columns that matter.

    `state` is what `iterator.state()` returned, here or in `batches`: the first iteration gives the batches that were
    still to come, later ones the epochs after it.

    (Keras 3 warns at every `fit` of a dataset that it will not shuffle it; `fit(..., shuffle=False)` keeps it quiet.)

    A dataset on a local filesystem or a mount is read in place. Any other is staged, during training, to a cache
    on local disk that all processes of this host share, each shard checked by its CRC; the batches are the same.

    `storage` is the job's `storage` section: how path is reached, and `cache: {path: ~/.cache/dtap_dask, size: 20GiB}`
    (also DTAP_CACHE and DTAP_CACHE_SIZE) and `mounts: {"hdfs://ns/base": /mnt/base}`, where the same files are found.

    Positions, checkpoints, several readers, tf.data service and what else `load` guarantees: `dtap-dask docs loading`.

    Raises JobError for a wrong argument, a state of something else or a split that is not there, DataError for a split
    without rows, OutputError for a dataset that is not finished or whose files are not those of its manifest,
    StorageError for one that cannot be reached or whose cache is too small; in the loop the last two. (Within `fit`
    these come as TensorFlow's errors.)
    """
    if drop_remainder and remainder not in (None, "drop"):
        raise JobError(Problem("remainder", f"{remainder!r} and drop_remainder exclude each other; give one of them"))
    remainder = "drop" if drop_remainder else remainder
    source, options = opened(
        path,
        split,
        batch_size,
        shuffle,
        seed,
        readers=readers,
        storage=storage,
        features=features,
        kept=kept,
        label=label,
        as_vectors=as_vectors,
        ids=ids,
        floats=floats,
        remainder=remainder,
        on_bad_record=on_bad_record,
        skip=skip,
        take=take,
        where=where,
        resample=resample,
        class_weights=class_weights,
    )
    return _loaded(source, options, source.start(state, options), continued=state is not None)


def _loaded(source: RowSource | MixtureSource, options: BatchOptions, start: Any, *, continued: bool) -> LoopDataset:
    """The batches of epochs from a position on; if training is continued, not all of them are whole."""
    full, size = options.remainder != "keep", options.size

    def batched(windows: tf.data.Dataset) -> tf.data.Dataset:
        ready = max(2, min(READY, WINDOW_ROWS // size))
        return rebatched(windows, size, full).prefetch(ready).with_options(_options())

    def for_service() -> tf.data.Dataset:
        if not isinstance(source, RowSource):
            raise JobError(Problem("path", _NO_MIXTURE))
        if source.cache is not None:
            raise StorageError(_NOT_SERVED.format(url=source.split.store.url))
        if source.readers.count > 1:
            raise JobError(Problem("readers", _NO_READERS))
        if options.remainder in ("pad", "repeat"):
            raise JobError(Problem("remainder", _NO_REMAINDER.format(options.remainder)))
        if options.narrowed:
            raise JobError(Problem("floats", _NO_FLOATS))
        if options.skips:
            raise JobError(Problem("on_bad_record", _NO_SKIP))
        if not source.selection.is_all:
            raise JobError([Problem(name, _NO_CHOICE) for name in source.selection.given])
        return batched(windows_for_workers(source.split, RecordForm(source.split, options), source.shuffle))

    passes = (
        WindowPasses(source, options, start) if isinstance(source, RowSource) else ChunkPasses(source, options, start)
    )
    data = known = batched(passes.windows())
    whole = source.cardinality(options)
    if whole == ENDLESS or (whole > 0 and not continued):
        known = data.apply(tf.data.experimental.assert_cardinality(whole)).with_options(_options())
    place, later = Place(source, options, passes, start), whole if continued else None
    hooks = LoopHooks(passes, place, lambda _: data, for_service, batches=later)
    made = LoopDataset(BatchedDataset(known, size, full), hooks, size)
    made.vectors = options.names
    return made


_NOT_SERVED = (
    "{url} is on no filesystem that the workers of tf.data service can open, so they cannot load it. Mount it on them "
    "and name the mount in `storage.mounts`, or copy it to a filesystem that they share."
)
_NO_READERS = (
    "tf.data service divides the rows among its consumers itself: leave `readers` out, and give each process the same "
    "`job_name` in the service's `distribute`"
)
_NO_REMAINDER = (
    "the workers of tf.data service do not know the others' rows, so that {0!r} would not give them equal numbers of "
    "batches; use 'keep' or 'drop'"
)

_NO_CHOICE = (
    "the workers of tf.data service read whole shards by TensorFlow's own operations and do not choose rows; choose "
    "them in the job (`source.where`, `split`), or use several `readers`"
)
_NO_MIXTURE = "the workers of tf.data service read the shards of one dataset; a mixture can only be loaded in place"
_NO_FLOATS = (
    "the workers of tf.data service read records by TensorFlow's own operations, which make numbers that are too large "
    "infinite; leave `floats` out, and cast the batches after the service"
)
_NO_SKIP = "the workers of tf.data service read records by TensorFlow's own operations, which stop at a damaged one"


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # With autotune the end of an iterator may wait for the tuner as long again as the epoch took (TensorFlow 2.21).
    options.autotune.enabled = False
    # Under tf.distribute every worker then takes its share of the batches; sharding by file can starve a worker.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
