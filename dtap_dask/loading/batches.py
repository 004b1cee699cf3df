"""A finished dataset as batches of NumPy arrays, without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.columns import Unpacker
from dtap_dask.loading.feed import LoopMeter
from dtap_dask.loading.mixture.component import Mixture
from dtap_dask.loading.mixture.opening import opened
from dtap_dask.loading.order.sharing import PipelineContext
from dtap_dask.loading.reading.batch_source import BatchSource
from dtap_dask.loading.reading.options import BatchOptions, OnBadRecord
from dtap_dask.loading.shards.decode import PADDING_WEIGHT
from dtap_dask.loading.shards.precision import FloatDtype
from dtap_dask.loading.structure import structured
from dtap_dask.records import columns

THREADS = 2  # that decode ahead of a loop
NO_LENGTH = "An epoch of a mixture with repeated components has no certain number of batches."


def batches(
    path: str | os.PathLike[str] | Mixture,
    split: str = "train",
    batch_size: int = 1024,
    shuffle: bool | None = None,
    seed: int = 0,
    *,
    features: Sequence[str] | None = None,
    kept: bool = False,
    label: bool = True,
    as_vectors: bool = False,
    ids: str = "int64",
    floats: FloatDtype | None = None,
    readers: tuple[int, int] | PipelineContext | Literal["TF_CONFIG"] | None = None,
    remainder: str | None = None,
    on_bad_record: OnBadRecord = "error",
    skip: int = 0,
    take: int | None = None,
    where: str | None = None,
    resample: Mapping[Any, float] | Literal["balanced"] | None = None,
    class_weights: Mapping[Any, float] | Literal["balanced"] | None = None,
    state: Mapping[str, Any] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> Batches:
    """The rows of one split in batches of NumPy arrays: what `load` gives, without TensorFlow.

    An element has the structure of `load`'s: (features, label), (features, label, weight), features alone, and with
    `kept=True` a pair of that and a dict of the kept columns. Features are a dict by name: scalars [batch], vectors
    [batch, k], text as object arrays of bytes [batch], lists of any length as `Ragged(values, offsets)`. A boolean
    label is float32. The arguments are those of `load`, and rows come in the same order.

    Every iteration is the next epoch; `len()` is the number of batches of a whole one. Two threads decode ahead of the
    loop, without TensorFlow and Dask. `iterator.state()` is the position as JSON types, `state=` continues there. Most
    batches are parts of a window's arrays, some 65,000 rows, which stay in memory as long as one of its batches does.

    `on_bad_record="skip"` replaces damaged records by rows of weight 0, at most 100 in an epoch, or as many as
    `{"skip": 1000}` says; `stats()` counts them.

    `skip`, `take`, `where`, `resample` and `class_weights` choose rows and weigh them, as in `load`; of a Mixture they
    hold for all components, which may have their own.

    Raises JobError for wrong arguments and for a state of something else, DataError for a split without rows,
    OutputError for a dataset that is not finished or is damaged, StorageError for one that cannot be reached.
    """
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
    return Batches(source, options, state)


class Batches:
    """Batches of one split. Every iteration is the next epoch; `len()` is the number of batches of a whole one."""

    def __init__(self, source: BatchSource, options: BatchOptions, state: Mapping[str, Any] | None):
        self._source, self._options = source, options
        self._next = source.start(state, options)
        self._loop = LoopMeter(source.read_so_far)

    @property
    def vectors(self) -> dict[str, list[str]]:
        """With `as_vectors` the features of each matrix, in the order of its columns."""
        return self._options.names

    def __len__(self) -> int:
        found = self._source.cardinality(self._options)
        if found < 0:
            raise TypeError(NO_LENGTH)
        return found

    def __iter__(self) -> BatchIterator:
        return BatchIterator(self)

    def stats(self) -> dict[str, Any]:
        """How fast the current or last loop is fed, and what it waits for; see `dtap-dask docs loading`, Feed rate.

        `skipped_records`: the damaged records left out so far, in all epochs.
        """
        loop = self._loop
        return {**loop.stats(loop.times, self._options.size), "skipped_records": self._source.skipped.count}

    def state(self) -> dict[str, Any]:
        """The state before the next iteration."""
        return self._source.state(self._next)

    def _begin(self) -> tuple[Any, Generator[Any], LoopMeter]:
        """The position where the next iteration begins, its batches, and its meter."""
        begin, self._next = self._next, self._source.next_epoch(self._next)
        self._loop = LoopMeter(self._source.read_so_far)
        return begin, epoch_batches(self._source, self._options, begin, self._loop), self._loop

    def _after(self, position: Any) -> Any:
        """The position after the next batch."""
        return self._source.after(position, self._options, 1)


class BatchIterator:
    """One epoch of batches, from where a position begins."""

    def __init__(self, batches: Batches):
        self._of = batches
        self._position: Any = None  # before the next batch; None until the first one is asked for
        self._made: Generator[Any] = _nothing()

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Any:
        clock = perf_counter()
        if self._position is None:
            self._position, self._made, self._loop = self._of._begin()
        batch = next(self._made)
        self._loop.took(clock)
        self._position = self._of._after(self._position)
        return batch

    def close(self) -> None:
        """End the loop: its threads stop, and nothing more is fetched."""
        self._made.close()

    def state(self) -> dict[str, Any]:
        """The state from which `batches(..., state=...)` continues with the batch after the last one."""
        return self._of.state() if self._position is None else self._of._source.state(self._position)


def epoch_batches(
    source: BatchSource, options: BatchOptions, position: Any, loop: LoopMeter | None = None
) -> Generator[Any]:
    """What is left of an epoch in batches; `loop` measures what the calling thread waits for."""
    decoder = source.decoder(options)
    unpacker = Unpacker(decoder, options.dtypes, options.vectors)
    parts = source.packed(position, options, decoder, THREADS, unpacker.fixed)
    for fixed in _cut(parts if loop is None else loop.received(parts), options.size):
        yield delivered(unpacker, options, fixed)


def delivered(unpacker: Unpacker, options: BatchOptions, fixed: Rows) -> Any:
    """Rows as `Unpacker.fixed` returns them in the structure of a batch."""
    return structured(
        options.infos,
        unpacker.finished(fixed),
        kept=options.kept,
        as_float=_as_float,
        vectors=[*options.vectors],
        weight=fixed.get(PADDING_WEIGHT),
    )


def _nothing() -> Generator[Any]:
    yield from ()


def _cut(parts: Iterable[Rows], size: int) -> Iterator[Rows]:
    """Packed rows in batches of `size`, the last of which may be smaller."""
    held, count = list[Rows](), 0
    for part in parts:
        at, total = 0, columns.row_count(part)
        while total - at >= size - count:
            stop = at + size - count
            yield columns.join([*held, columns.cut(part, at, stop)])
            held, count, at = [], 0, stop
        if at < total:
            held.append(columns.cut(part, at, total))
            count += total - at
    if held:
        yield columns.join(held)


def _as_float(label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return label.astype(np.float32) if label.dtype == np.bool_ else label
