"""Batches as an IterableDataset, for a DataLoader with or without workers."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from dtap_dask.errors import JobError, Problem
from dtap_dask.loading.batches import NO_LENGTH, epoch_batches
from dtap_dask.loading.feed import LoopMeter
from dtap_dask.loading.order.position import Readers
from dtap_dask.loading.order.sharing import integer
from dtap_dask.loading.reading.batch_source import BatchSource
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.records.memory import keep_freed_memory
from dtap_dask.train.pytorch.epochs import EPOCHS, SharedEpochs
from dtap_dask.train.pytorch.feed import MeasuredLoader, SharedFeed, WorkersMeter
from dtap_dask.train.pytorch.tensors import tensors_of
from dtap_dask.train.pytorch.turns import TurnPosition, Turns


class TorchBatches(IterableDataset):  # type: ignore[misc]
    """Batches of one split: `DataLoader(data, batch_size=None, num_workers=workers)`. Every iteration is an epoch."""

    def __init__(self, source: BatchSource, options: BatchOptions, workers: int, state: Mapping[str, Any] | None):
        super().__init__()
        self._options, self._workers = options, workers
        self._turns = Turns(source, options, max(1, workers))
        self._start = self._begun = self._turns.start(state)
        self._epochs = SharedEpochs(max(1, workers), self._start.position.epoch)
        self._feed = SharedFeed(max(1, workers))
        self._loop: LoopMeter = WorkersMeter(self._feed)
        self._opened: tuple[int, BatchSource] | None = None
        self._iterations = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_iterations": 0, "_loop": WorkersMeter(self._feed)}

    @property
    def vectors(self) -> dict[str, list[str]]:
        """With `as_vectors` the features of each matrix, in the order of its columns."""
        return self._options.names

    def __len__(self) -> int:
        """The batches of a whole epoch, of all workers together."""
        source = self._turns.source
        certain = source.cardinality(self._options) >= 0
        found = self._turns.left(source.epoch(0, self._start.position)) if certain else None
        if found is None:
            raise TypeError(NO_LENGTH)
        return found

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        self._iterations += 1
        if (info.num_workers if info else 0) != self._workers:
            raise JobError(Problem("workers", _OTHER.format(self._workers, info.num_workers if info else 0)))
        worker, seed = (info.id, info.seed - info.id) if info else (0, "")
        epoch = self._epochs.begin(worker, f"{seed} {self._iterations}")
        return self._batches(worker, *self._turns.of_worker(self._begin(epoch), worker))

    def _begin(self, epoch: int) -> TurnPosition:
        """Where an epoch begins: the one of the state at its position."""
        if self._begun.position.epoch != epoch:
            self._begun = self._turns.epoch(epoch, self._start)
        return self._begun

    def _batches(self, worker: int, reader: Readers, position: Any) -> Generator[Any]:
        source = self._own(reader)
        loop, write = LoopMeter(source.read_so_far), self._feed.writer(worker, source)
        if not self._workers:
            self._loop = loop
        batches, clock = epoch_batches(source, self._options, position, loop), perf_counter()
        for batch in batches:
            found = tensors_of(batch, self._options.kept)
            if not self._workers:
                loop.took(clock)
            write(loop)
            yield found
            clock = perf_counter()
        write(loop)

    def begin_loop(self) -> LoopMeter | None:
        """See Measurable."""
        if not self._workers:
            return None
        self._loop = WorkersMeter(self._feed)
        return self._loop

    def measured(self, loader: Iterable[Any]) -> MeasuredLoader:
        """The batches of a DataLoader of this dataset, for loops whose waiting is measured.

            for features, label in data.measured(DataLoader(data, batch_size=None, num_workers=2)):

        `stats()` says what such a loop waits for. Where that takes more than a tenth of its time, one FeedWarning names
        the stage of reading that takes most, and what to do. JobError for what is no DataLoader of this dataset.
        """
        if not isinstance(loader, Iterable) or getattr(loader, "dataset", self) is not self:
            raise JobError(Problem("loader", f"{loader!r} is no DataLoader of this dataset; give {_LOADER}"))
        return MeasuredLoader(self, loader)

    def _own(self, reader: Readers) -> BatchSource:
        """The source of this process, whose files and threads a forked one must not use."""
        process = os.getpid()
        if self._opened is None or (self._opened[0], self._opened[1].readers) != (process, reader):
            keep_freed_memory()
            self._opened = process, self._turns.source.of_reader(reader)
        return self._opened[1]

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be epoch number `epoch`, also in workers that persist.

        The epoch of a state continues from there; every other one begins with its first batch.
        """
        number = integer(epoch)
        if number is None or not 0 <= number < EPOCHS:
            raise JobError(Problem("epoch", f"{epoch!r} is not the number of an epoch, such as 0"))
        self._epochs.set(number)

    def state(self, batches: int) -> dict[str, Any]:
        """The position after the first `batches` of the iteration that began last, as JSON types.

        A loop counts the batches that it takes, because workers are ahead of it. Before the first iteration, and after
        `set_epoch`, 0 is the beginning of the next one. JobError if the iteration has fewer batches.
        """
        number = integer(batches)
        if number is None:
            raise JobError(Problem("batches", f"{batches!r} is not a number of batches"))
        return self._turns.state(self._turns.after(self._begin(self._epochs.current), number))

    def stats(self) -> dict[str, Any]:
        """How fast the current or last loop is fed, and what it waits for; see `dtap-dask docs loading`, Feed rate.

        With workers, what a loop takes and waits for is known only where it is over `measured(loader)`.
        `skipped_records`: the damaged records left out so far, in all epochs, by each worker that read them.
        """
        loop = self._loop
        return {**loop.stats(loop.times, self._options.size), "skipped_records": self._feed.skipped}


_OTHER = (
    "the batches were divided among {0} workers, but the DataLoader has {1}. Give it num_workers={0}, or make the "
    "dataset with workers={1}"
)
_LOADER = "DataLoader(data, batch_size=None, num_workers=...), where `data` is it"
