"""Where the iterators over a loaded dataset are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtap_dask.errors import JobError, Problem, StorageError
from dtap_dask.loading.order.sharing import integer
from dtap_dask.loading.reading.batch_source import BatchSource
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.train.passes import Passes

_TWO = (
    "The position of this iterator is not known: another iterator over the same dataset began an epoch since this one "
    "began its first. Load the dataset once for each of them."
)


@dataclass(frozen=True)
class Place:
    """Positions of iterators over a loaded dataset, or over one with the same batches, repeated or not.

    `start` is where the dataset was loaded.
    """

    source: BatchSource
    options: BatchOptions
    passes: Passes
    start: Any

    def state(self, begun: int | None, batches: int) -> dict[str, Any]:
        """The state after `batches` of an iterator whose first pass had the number `begun`; None is before the first.

        StorageError where another iterator began a pass between two of this one's, so that these are unknown.
        """
        if begun is None:
            return self.source.state(self.passes.next)
        position = self.passes.begun[begun]
        after = self.source.after(position, self.options, batches)
        if self.passes.first & {*range(begun + 1, begun + 1 + after.epoch - position.epoch)}:
            raise StorageError(_TWO)
        return self.source.state(after)

    def state_after(self, batches: Any) -> dict[str, Any]:
        """The state that many batches after the start. JobError for a wrong number."""
        number = integer(batches)
        if number is None or number < 0:
            raise JobError(Problem("batches", f"{batches!r} is not a number of batches, such as 1000"))
        return self.source.state(self.source.after(self.start, self.options, number))

    def seek(self, state: Mapping[str, Any]) -> None:
        """Let the next pass begin at a state."""
        self.passes.next = self.source.start(state, self.options)
