"""What the workers of a DataLoader read, and what a loop over it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch

from dtap_dask.loading.feed import FeedTotals, LoopMeter
from dtap_dask.loading.reading.batch_source import BatchSource
from dtap_dask.train.feed_warning import REMEDIES, FeedWatch

_TOTALS = len(FeedTotals._fields)
_READING = FeedTotals._fields.index("reading")


class SharedFeed:
    """What each worker has read so far, in memory that it shares with the process that made the dataset.

    A worker writes it after each batch, with the rows that came to the thread that makes batches, the seconds that this
    waited for them, and the damaged records that were left out.
    """

    def __init__(self, workers: int):
        self._lines = torch.zeros(workers, _TOTALS + 3, dtype=torch.float64).share_memory_()

    def writer(self, worker: int, source: BatchSource) -> Callable[[LoopMeter], None]:
        """Writes what a worker has read in an iteration that begins now, of which the LoopMeter is."""
        line = self._lines[worker].numpy()

        def read(received: int, waited: float) -> Any:
            return np.array([*source.read_so_far(), received, waited, source.skipped.count])

        before = line - read(0, 0.0)
        before[_READING] = 0  # what is being read is no sum

        def write(loop: LoopMeter) -> None:
            received, waited = loop.came()
            line[:] = before + read(received or 0, waited)

        return write

    def totals(self) -> FeedTotals:
        """What all workers have read."""
        found = self._sums[:_TOTALS]
        types = [type(value) for value in FeedTotals()]
        return FeedTotals._make(kind(value) for kind, value in zip(types, found, strict=True))

    def came(self) -> tuple[int, Any]:
        """The rows that came to the threads that make batches, and the seconds that each of these waited, [workers]."""
        return int(self._sums[_TOTALS]), self._lines[:, _TOTALS + 1].numpy().copy()

    @property
    def skipped(self) -> int:
        """The damaged records that were left out."""
        return int(self._sums[-1])

    @property
    def _sums(self) -> list[float]:
        found: list[float] = self._lines.sum(0).tolist()
        return found


class WorkersMeter(LoopMeter):
    """What one loop takes from workers and waits for."""

    def __init__(self, shared: SharedFeed):
        super().__init__(shared.totals)
        self._shared = shared
        self._begin = self._at_first = shared.came()

    def first(self) -> None:
        """See LoopMeter."""
        super().first()
        self._at_first = self._shared.came()

    def came(self) -> tuple[int, float]:
        """See LoopMeter; the seconds are those of the worker that waited longest."""
        received, waited = self._shared.came()
        return received - self._begin[0], float((waited - self._at_first[1]).max())


class Measurable(Protocol):
    """A dataset whose loops are measured."""

    def stats(self) -> dict[str, Any]:
        """What the current or last loop was fed and waited for."""

    def begin_loop(self) -> LoopMeter | None:
        """Measure a loop that begins now; None where the dataset measures it as it makes the batches."""


class MeasuredLoader:
    """The batches of a DataLoader; every iteration is measured, and one FeedWarning says that it waits for them."""

    def __init__(self, data: Measurable, loader: Iterable[Any]):
        self._data, self._loader = data, loader
        self._watch = FeedWatch(
            {"decode": f"{REMEDIES['decode']}, or have more `workers` if there are processors for them"}
        )

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        loop, first = self._data.begin_loop(), 0.0
        batches, clock = iter(self._loader), perf_counter()
        for batch in batches:
            if loop is not None:
                loop.took(clock)
            first = first or perf_counter()
            self._watch.check_early(first, self._data.stats)
            yield batch
            clock = perf_counter()
        self._watch.check(self._data.stats())
