"""What batches and loops need of the source of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.feed import FeedTotals
from dtap_dask.loading.order.position import Readers
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.shards.damage import SkippedRecords
from dtap_dask.loading.shards.decode import Decoder

ENDLESS, UNKNOWN = -1, -2  # numbers of batches of an epoch, as tf.data has them


class BatchSource(Protocol):
    """Where batches come from: a sequence of epochs, and positions in it.

    A position is of the source's own kind; it has the number of its `epoch`, and `taken`, which is true where an
    iteration that begins there has fewer batches than a whole epoch.
    """

    @property
    def readers(self) -> Readers:
        """Which reader this is."""

    def of_reader(self, readers: Readers) -> BatchSource:
        """The same rows for another reader, also of another process: with files of its own, but counted only once."""

    @property
    def skipped(self) -> SkippedRecords:
        """The damaged records that were left out."""

    def read_so_far(self) -> FeedTotals:
        """What reading has taken since the source was made."""

    def decoder(self, options: BatchOptions) -> Decoder:
        """What describes the packed rows, and decodes records to them."""

    def cardinality(self, options: BatchOptions) -> int:
        """The batches of every whole epoch; ENDLESS, or UNKNOWN where epochs differ."""

    def start(self, state: Mapping[str, Any] | None, options: BatchOptions) -> Any:
        """The position of a state, None being the beginning; DataError without batches, JobError for a wrong state."""

    def next_epoch(self, position: Any) -> Any:
        """The beginning of the epoch after that of a position."""

    def epoch(self, number: int, since: Any) -> Any:
        """The beginning of an epoch, which comes after that of position `since`; without such one from the first on."""

    def left(self, position: Any, options: BatchOptions) -> int | None:
        """The batches that are left of an epoch, the same for all readers; None in an endless one."""

    def after(self, position: Any, options: BatchOptions, batches: int) -> Any:
        """The position `batches` later, in the same epoch or a later one."""

    def further(self, position: Any, options: BatchOptions, batches: int) -> Any:
        """The position `batches` further in the same epoch; at its end it remains there."""

    def state(self, position: Any) -> dict[str, Any]:
        """A position as JSON types."""

    def packed(
        self, position: Any, options: BatchOptions, decoder: Decoder, threads: int, then: Callable[[Rows], Rows]
    ) -> Iterator[Rows]:
        """What `then` makes of the packed rows that are left of an epoch for this reader, decoded ahead by threads."""
