"""What a loader reads: the rows of a split in an order, epoch after epoch."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.choice.rows import RowChoice
from dtap_dask.loading.choice.selection import Selection
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.feed import FeedMeter, FeedTotals
from dtap_dask.loading.order.epoch_order import EpochOrder
from dtap_dask.loading.order.position import Position, Readers, Span, cut, size
from dtap_dask.loading.order.runs import Runs, runs_of
from dtap_dask.loading.reading.counting import counted
from dtap_dask.loading.reading.epoch import ReaderPass, SpansPass
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.reading.state import restored, saved
from dtap_dask.loading.shards.damage import Repair, SkippedRecords
from dtap_dask.loading.shards.decode import Decoder
from dtap_dask.loading.shards.files import LocalShards, ShardFiles, StagedShards
from dtap_dask.storage.cache import Cache

_COUNTED = ("runs", "choice", "dataset")  # what is found once, and the same for all readers


@dataclass(frozen=True)
class RowSource:
    """Rows of a split in an order that is a function of the seed and the epoch.

    `cache` is where its shards are fetched to. `split` is that of the selection.
    """

    split: DatasetSplit
    seed: int
    shuffle: bool
    readers: Readers
    cache: Cache | None
    selection: Selection

    @cached_property
    def runs(self) -> Runs:
        """The runs of the split."""
        return runs_of(self.split)

    @cached_property
    def choice(self) -> RowChoice | None:
        """What the selection makes of the runs; None if it has all rows once, without weights.

        Rows that must be counted for it are read here; see RowChoice.refuse.
        """
        if self.selection.is_all:
            return None
        choice = RowChoice(self.selection, self.runs, None)
        if self.selection.counted:
            found = SkippedRecords()
            repair = Repair(self.split, self.selection.skips, found, padded=not self.selection.drawn)
            choice = RowChoice(self.selection, self.runs, counted(choice, self._files, repair))
            self.skipped.warned = found.warned
            choice.refuse()
        return choice

    def of_reader(self, readers: Readers) -> RowSource:
        """See BatchSource."""
        split = replace(self.split, store=copy.copy(self.split.store))
        found = replace(self, readers=readers, split=split)
        found.__dict__.update({name: value for name, value in self.__dict__.items() if name in _COUNTED})
        return found

    def __getstate__(self) -> dict[str, Any]:
        kept = {*_COUNTED, *(field.name for field in fields(self))}
        return {name: value for name, value in self.__dict__.items() if name in kept}

    @property
    def rows(self) -> int:
        """The rows of every epoch, of all readers."""
        return self.choice.rows if self.selection.drawn and self.choice is not None else self.split.rows

    @cached_property
    def dataset(self) -> str:
        """16 hexadecimal digits that are the same for datasets with the same shards, wherever they are."""
        shards = self.selection.whole.shards
        lines = [f"{shard.path} {shard.rows} {shard.bytes} {shard.crc32c:08x}\n" for shard in shards]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    def decoder(self, options: BatchOptions) -> Decoder:
        """See BatchSource."""
        return Decoder(self.split, options.dtypes.keys(), weighted=options.weighted, narrowed=options.narrowed)

    def cardinality(self, options: BatchOptions) -> int:
        """See BatchSource."""
        return self.left(Position(), options)

    def sizes(self, position: Position) -> tuple[int, int]:
        """The rows that are left for the reader with the most, and for the one with the fewest."""
        sizes = [size(part) for part in position.parts(self.rows, self.readers.count)]
        return max(sizes), min(sizes)

    def left(self, position: Position, options: BatchOptions) -> int:
        """The batches that are left of an epoch, the same for all readers."""
        return options.count(*self.sizes(position), position.batches)

    def reader_pass(self, position: Position, options: BatchOptions) -> ReaderPass:
        """A pass over what is left of an epoch for this reader, so that it fills its batches as `remainder` says."""
        part = position.parts(self.rows, self.readers.count)[self.readers.index]
        rows = self.left(position, options) * options.size
        missing = rows - size(part)
        key = (self.seed, position.epoch)
        chosen = None if self.choice is None else self.choice.epoch(key)
        counts = None if chosen is None else chosen.rows
        order = EpochOrder(self.split, self.runs, key if self.shuffle else None, counts)
        repair = Repair(self.split, options.skips, self.skipped, padded=not self.selection.drawn)
        spans = [*cut(part, rows)[0], *self._again(position, missing if options.remainder == "repeat" else 0)]
        found = SpansPass(self.split, self.runs, order, spans, self._files, repair=repair, chosen=chosen)
        return ReaderPass(found, missing if options.remainder == "pad" else 0, self.feed)

    def packed(
        self, position: Position, options: BatchOptions, decoder: Decoder, threads: int, then: Callable[[Rows], Rows]
    ) -> Iterator[Rows]:
        """See BatchSource."""
        return self.reader_pass(position, options).ahead(decoder, threads, then)

    def _files(self, order: EpochOrder, groups: Sequence[int]) -> ShardFiles:
        return self._local if self.cache is None else StagedShards(self.split, self.cache, order, groups, self.feed)

    @cached_property
    def skipped(self) -> SkippedRecords:
        """The damaged records that were left out."""
        return SkippedRecords()

    @cached_property
    def feed(self) -> FeedMeter:
        """What reading takes."""
        return FeedMeter()

    def read_so_far(self) -> FeedTotals:
        """See BatchSource."""
        return self.feed.totals

    @cached_property
    def _local(self) -> LocalShards:
        return LocalShards(self.split, self.shuffle)

    def _again(self, position: Position, rows: int) -> list[Span]:
        """`rows` from the beginning of this reader's part of the epoch, over and over if it has fewer.

        A reader without a row repeats the first one of the epoch. Rows that were repeated before the position are not
        repeated again.
        """
        if rows <= 0:
            return []
        begin = position.begin(self.readers.count)
        part = begin.parts(self.rows, self.readers.count)[self.readers.index]
        done = max(0, position.taken[-1].rows - size(part)) if begin is not position else 0
        part = part or [(0, 1)]
        whole, rest = divmod(done + rows, size(part))
        return cut([*part * whole, *cut(part, rest)[0]], done)[1]

    def start(self, state: Mapping[str, Any] | None, options: BatchOptions) -> Position:
        """Where a loader of such batches begins. DataError where it has none; see `position` for the state."""
        options.refuse_none(self.split, *self.sizes(Position()))
        return self.unless_done(self.position(state), options)

    def after(self, position: Position, options: BatchOptions, batches: int) -> Position:
        """The position `batches` later, in the same epoch or a later one."""
        left = self.left(position, options)
        if batches < left:
            return self.further(position, options, batches)
        epochs, more = divmod(batches - left, self.left(Position(), options))
        return self.further(Position(position.epoch + 1 + epochs), options, more)

    def further(self, position: Position, options: BatchOptions, batches: int) -> Position:
        """See BatchSource."""
        return position.after(self.readers.count, batches * options.size, batches)

    def unless_done(self, position: Position, options: BatchOptions) -> Position:
        """The position, or the beginning of the next epoch where no batch is left."""
        return position if self.left(position, options) else self.next_epoch(position)

    def next_epoch(self, position: Position) -> Position:
        """See BatchSource."""
        return Position(position.epoch + 1)

    def epoch(self, number: int, since: Position) -> Position:
        """See BatchSource."""
        return Position(number)

    def state(self, position: Position) -> dict[str, Any]:
        """A position as JSON types: a few hundred bytes."""
        return saved(position, self._identity, self.readers.replicas)

    def position(self, state: Mapping[str, Any] | None) -> Position:
        """The position that a state holds; None is the beginning. JobError for a state of something else."""
        return restored(state, self._identity, self.readers.replicas)

    @property
    def _identity(self) -> dict[str, Any]:
        """What a state says of this source; of a selection the settings given, and a digest of what was counted."""
        found = {"dataset": self.dataset, "split": self.split.name, "seed": self.seed, "shuffle": self.shuffle}
        found.update(self.selection.settings)
        counts = self.choice.counts if self.selection.drawn and self.choice is not None else None
        if counts is not None:
            found["counts"] = counts.digest(by_class=self.selection.factors is not None)
        return found
