"""What a loader reads: a split in an order, its epochs, and states to continue from."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dtap_dask import validation
from dtap_dask.errors import JobError, Problem
from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.choice import RowChoice
from dtap_dask.loading.counting import counted
from dtap_dask.loading.damage import Repair, SkippedRecords
from dtap_dask.loading.dataset import DatasetSplit, open_split
from dtap_dask.loading.decode import Decoder
from dtap_dask.loading.epoch import ReaderPass, SpansPass
from dtap_dask.loading.feed import FeedMeter, FeedTotals
from dtap_dask.loading.files import LocalShards, ShardFiles, StagedShards, staged_bytes
from dtap_dask.loading.options import BatchOptions, batch_options, checked
from dtap_dask.loading.order import EpochOrder, group_size
from dtap_dask.loading.position import Position, Readers, Span, Taken, cut, size
from dtap_dask.loading.runs import Runs, runs_of
from dtap_dask.loading.selection import Selection, selection_of
from dtap_dask.records.memory import keep_freed_memory
from dtap_dask.storage import local_copies
from dtap_dask.storage.cache import Cache
from dtap_dask.words import count


def open_loader(
    path: str | os.PathLike[str],
    split: str,
    batch_size: Any,
    shuffle: bool | None,
    seed: Any,
    *,
    readers: Any,
    storage: Mapping[str, Any] | None,
    skip: Any = 0,
    take: Any = None,
    where: Any = None,
    resample: Any = None,
    class_weights: Any = None,
    **batch: Any,
) -> tuple[RowSource, BatchOptions]:
    """The source and the batches for the arguments of `load` and `batches`, whose errors these are.

    `batch`: the arguments of `batch_options`.
    """
    size, number, reader = checked(batch_size, seed, readers)
    keep_freed_memory()
    whole = open_split(path, split, storage)
    options = batch_options(whole, reader, size, class_weighted=class_weights is not None, **batch)
    selection = selection_of(
        whole,
        options.skips * reader.count,
        skip=skip,
        take=take,
        where=where,
        resample=resample,
        class_weights=class_weights,
    )
    found = selection.split
    cache = local_copies.cache(storage or {}) if not found.paths else None
    source = RowSource(found, number, found.fitted if shuffle is None else shuffle, reader, cache, selection)
    if cache is not None:
        least, _ = staged_bytes(found, source.shuffle)
        together = count(min(group_size(found, source.shuffle), len(found.shards)), "shard")
        cache.check_fits(least, f"the {together} of {found.store.url} read at the same time")
    return source, options


ENDLESS, UNKNOWN = -1, -2  # numbers of batches of an epoch, as tf.data has them


class BatchSource(Protocol):
    """Where batches come from: a sequence of epochs, and positions in it.

    A position is of the source's own kind; it has the number of its `epoch`, and `taken`, which is true where an
    iteration that begins there has fewer batches than a whole epoch.
    """

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

    def left(self, position: Any, options: BatchOptions) -> int | None:
        """The batches that are left of an epoch, the same for all readers; None in an endless one."""

    def after(self, position: Any, options: BatchOptions, batches: int) -> Any:
        """The position `batches` later, in the same epoch or a later one."""

    def state(self, position: Any) -> dict[str, Any]:
        """A position as JSON types."""

    def packed(self, position: Any, options: BatchOptions, decoder: Decoder, threads: int) -> Iterator[Rows]:
        """The packed rows of what is left of an epoch for this reader, decoded ahead by threads."""


class _StateModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TakenEntry(_StateModel):
    """Rows of an epoch that were taken by each of a number of readers."""

    readers: int = Field(ge=1)
    rows: int = Field(ge=0)


class LoaderState(_StateModel):
    """A position as it is saved, and what it is a position in."""

    version: int = 1
    dataset: str
    split: str
    seed: int
    shuffle: bool
    epoch: int = Field(ge=0)
    taken: tuple[TakenEntry, ...] = ()
    skip: int = 0
    take: int | None = None
    where: str | None = None
    resample: str | None = None
    counts: str | None = None


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
        """The same rows for another reader, also of another process: with files of its own, but counted only once."""
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
        return options.count(*self.sizes(position), position.done(self.readers.count) // options.size)

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
        spans = [cut(part, rows)[0], self._again(position, missing if options.remainder == "repeat" else 0)]
        passes = [
            SpansPass(self.split, self.runs, order, each, self._files, repair=repair, chosen=chosen)
            for each in spans
            if each
        ]
        return ReaderPass(passes, missing if options.remainder == "pad" else 0, self.feed)

    def packed(self, position: Position, options: BatchOptions, decoder: Decoder, threads: int) -> Iterator[Rows]:
        """See BatchSource."""
        return self.reader_pass(position, options).ahead(decoder, threads)

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
            return position.after(self.readers.count, batches * options.size)
        epochs, more = divmod(batches - left, self.left(Position(), options))
        return Position(position.epoch + 1 + epochs).after(self.readers.count, more * options.size)

    def unless_done(self, position: Position, options: BatchOptions) -> Position:
        """The position, or the beginning of the next epoch where no batch is left."""
        return position if self.left(position, options) else self.next_epoch(position)

    def next_epoch(self, position: Position) -> Position:
        """See BatchSource."""
        return Position(position.epoch + 1)

    def state(self, position: Position) -> dict[str, Any]:
        """A position as JSON types: a few hundred bytes."""
        taken = tuple(TakenEntry(readers=each.readers, rows=each.rows) for each in position.taken)
        return LoaderState(
            dataset=self.dataset,
            split=self.split.name,
            seed=self.seed,
            shuffle=self.shuffle,
            epoch=position.epoch,
            taken=taken,
            **self._chosen,
        ).model_dump(mode="json", exclude=_CHOSEN - self._chosen.keys())

    @property
    def _chosen(self) -> dict[str, Any]:
        """What a state says of the selection: the settings that were given, and a digest of what was counted."""
        counts = self.choice.counts if self.selection.drawn and self.choice is not None else None
        if counts is None:
            return dict(self.selection.settings)
        return {**self.selection.settings, "counts": counts.digest(by_class=self.selection.factors is not None)}

    def position(self, state: Mapping[str, Any] | None) -> Position:
        """The position that a state holds; None is the beginning. JobError for a state of something else."""
        if state is None:
            return Position()
        if isinstance(state, Mapping) and "turn" in state:
            raise JobError(Problem("state.turn", _TURN))
        try:
            read = LoaderState.model_validate_json(json.dumps(state))
        except ValidationError as error:
            raise JobError(validation.problems(LoaderState, error, "state")) from error
        self._refuse_other(read)
        return Position(read.epoch, tuple(Taken(each.readers, each.rows) for each in read.taken if each.rows))

    def _refuse_other(self, state: LoaderState) -> None:
        """JobError, with every difference, for a state of another split or order."""
        mine = {
            **dict.fromkeys(_CHOSEN),
            "skip": 0,
            **self._chosen,
            "version": 1,
            "dataset": self.dataset,
            "split": self.split.name,
            "seed": self.seed,
            "shuffle": self.shuffle,
        }
        problems = [
            Problem(f"state.{name}", f"the state is of {getattr(state, name)!r}, but this is {value!r}; {_SAME[name]}")
            for name, value in mine.items()
            if getattr(state, name) != value
        ]
        if problems:
            raise JobError(problems)


_SAME = {
    "version": "load it with the version of dtap_dask that saved it, or a later one",
    "dataset": "load the dataset that it was saved with, or start without a state",
    "split": "give the same `split`",
    "seed": "give the same `seed`",
    "shuffle": "give the same `shuffle`",
    **{name: f"give the same `{name}`" for name in ("skip", "take", "where", "resample")},
    "counts": "records were damaged or mended since, or a class was named or not; start without a state",
}
_CHOSEN = {"skip", "take", "where", "resample", "counts"}  # what states have only where rows are chosen

_TURN = (
    "the state is in the middle of a turn of the workers of a DataLoader; continue with `torch_batches`, or from a "
    "state after a multiple of `workers` batches"
)
_COUNTED = ("runs", "choice", "dataset")  # what is found once, and the same for all readers
