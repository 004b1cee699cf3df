"""What the batches of a mixture come from: its components' sources, the draws of its epochs, and positions in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from dtap_dask.errors import DataError, JobError, Problem, within
from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.feed import FeedMeter, FeedTotals
from dtap_dask.loading.mixture.draws import EpochDraws
from dtap_dask.loading.mixture.rows import Member, mixed_rows
from dtap_dask.loading.mixture.state import ComponentState, MixtureState, read_state
from dtap_dask.loading.order.epoch_order import WINDOW_BYTES, WINDOW_ROWS
from dtap_dask.loading.order.position import Position, Readers
from dtap_dask.loading.reading.batch_source import ENDLESS, UNKNOWN
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.reading.state import StepEntry, batches_of
from dtap_dask.loading.shards.damage import SkippedRecords
from dtap_dask.loading.shards.decode import Decoder


@dataclass(frozen=True)
class MixtureEpoch:
    """An epoch from where it began or was continued; `bases` are the components' positions there.

    `partial`: rows of it were taken before, divided among another number of readers.
    """

    number: int
    bases: tuple[Position, ...]
    draws: EpochDraws
    partial: bool = False


@dataclass(frozen=True)
class MixturePosition:
    """A place in an epoch: the rows that each reader took of it since it was last divided.

    `batches` of each reader were taken since all replicas last had equally many.
    """

    of: MixtureEpoch
    row: int = 0
    batches: int = 0

    @property
    def epoch(self) -> int:
        """The number of the epoch."""
        return self.of.number

    @property
    def taken(self) -> bool:
        """Whether rows of the epoch were taken before."""
        return self.row > 0 or self.of.partial


@dataclass(frozen=True)
class MixtureSource:
    """The components by name, in the order of their names; see BatchSource.

    `split` has the columns that all give, and is that of no dataset.
    """

    members: tuple[Member, ...]
    split: DatasetSplit
    seed: int
    readers: Readers

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def of_reader(self, readers: Readers) -> MixtureSource:
        """See BatchSource."""
        members = [replace(each, source=each.source.of_reader(readers)) for each in self.members]
        return replace(self, members=tuple(members), readers=readers)

    @cached_property
    def chunk(self) -> int:
        """The number of rows in a chunk: as in a window, fewer where rows are long."""
        wholes = [each.source.selection.whole for each in self.members]
        longest = max(-(-each.record_bytes * each.records // each.rows) for each in wholes)
        return max(1, min(WINDOW_ROWS, WINDOW_BYTES // longest))

    @property
    def staged(self) -> bool:
        """Whether shards of a component are fetched to a cache."""
        return any(each.source.cache is not None for each in self.members)

    @property
    def skipped(self) -> SkippedRecords:
        """The damaged records that were left out, of all components together."""
        found = SkippedRecords()
        found.count = sum(each.source.skipped.count for each in self.members)
        return found

    @cached_property
    def feed(self) -> FeedMeter:
        """What mixing takes, which is counted as shuffling."""
        return FeedMeter()

    def read_so_far(self) -> FeedTotals:
        """See BatchSource."""
        return functools.reduce(FeedTotals.plus, (each.source.read_so_far() for each in self.members), self.feed.totals)

    def decoder(self, options: BatchOptions) -> Decoder:
        """See BatchSource."""
        return Decoder(self.split, options.dtypes.keys(), weighted=options.weighted)

    def cardinality(self, options: BatchOptions) -> int:
        """See BatchSource."""
        if any(each.repeat for each in self.members):
            return ENDLESS if all(each.repeat for each in self.members) else UNKNOWN
        rows = self._first().of.draws.end
        return options.count(rows, rows)

    def start(self, state: Mapping[str, Any] | None, options: BatchOptions) -> MixturePosition:
        """See BatchSource."""
        self._refuse_wrong()
        once = sum(each.left(Position()) for each in self.members if not each.repeat)
        if once and not options.count(once, once):
            raise DataError(
                f"The components have {once:,} rows for a reader, so that dropping incomplete batches of "
                f"{options.size * options.replicas:,} rows may drop them all. Use smaller batches, or keep "
                "the last one."
            )
        position = self._first() if state is None else self._position(state)
        return self.next_epoch(position) if self.left(position, options) == 0 else position

    def next_epoch(self, position: MixturePosition) -> MixturePosition:
        """See BatchSource. Repeated components continue where they were; in an endless epoch that is not known."""
        return self.epoch(position.epoch + 1, position)

    def epoch(self, number: int, since: MixturePosition) -> MixturePosition:
        """See BatchSource. Where some components are repeated, all epochs before it are drawn."""
        position = since if since.epoch < number else self._first()
        while position.epoch < number:
            epoch = position.of
            drawn = self._drawn(epoch)
            epochs = number - epoch.number if drawn.count(None) == len(drawn) else 1
            bases = [
                each.source.epoch(base.epoch + epochs, base) if rows is None else each.after(base, rows)
                for each, base, rows in zip(self.members, epoch.bases, drawn, strict=True)
            ]
            position = MixturePosition(self._epoch(epoch.number + epochs, bases))
        return position

    def left(self, position: MixturePosition, options: BatchOptions) -> int | None:
        """See BatchSource."""
        draws = position.of.draws
        if draws.endless:
            return None
        rows = max(0, draws.end - position.row)
        return options.count(rows, rows, position.batches)

    def after(self, position: MixturePosition, options: BatchOptions, batches: int) -> MixturePosition:
        """See BatchSource."""
        while (left := self.left(position, options)) is not None and batches >= left:
            position, batches = self.next_epoch(position), batches - left
        return self.further(position, options, batches)

    def further(self, position: MixturePosition, options: BatchOptions, batches: int) -> MixturePosition:
        """See BatchSource."""
        row, taken = position.row + batches * options.size, position.batches + batches
        return replace(position, row=row, batches=taken)

    def state(self, position: MixturePosition) -> dict[str, Any]:
        """A position as JSON types: some 300 bytes for each component."""
        epoch = position.of
        place, within = epoch.draws.located(position.row)
        taken = np.bincount(epoch.draws.choices(place)[:within], minlength=len(self.members)).tolist()
        components = {
            each.name: ComponentState(
                weight=each.weight,
                repeat=each.repeat,
                rows=rows,
                position=each.source.state(each.after(base, drawn)),
            )
            for each, base, drawn, rows in zip(self.members, epoch.bases, place.drawn, taken, strict=True)
        }
        step = StepEntry.of(position.batches, self.readers.replicas)
        return MixtureState(
            epoch=epoch.number,
            readers=self.readers.count,
            chunk=place.row,
            rows=within,
            step=step,
            components=components,
        ).model_dump(mode="json", exclude={"step"} if step is None else None)

    def packed(
        self,
        position: MixturePosition,
        options: BatchOptions,
        decoder: Decoder,
        threads: int,
        then: Callable[[Rows], Rows],
    ) -> Iterator[Rows]:
        """See BatchSource."""
        epoch, left = position.of, self.left(position, options)
        how: dict[str, Any] = {"decoder": decoder, "options": options, "threads": threads}
        how |= {"feed": self.feed, "then": then}
        if left is None:
            yield from mixed_rows(self.members, epoch.bases, epoch.draws, position.row, None, **how)
            return
        rows, found = left * options.size, max(0, epoch.draws.end - position.row)
        if found:
            yield from mixed_rows(self.members, epoch.bases, epoch.draws, position.row, min(rows, found), **how)
        if options.remainder == "pad" and rows > found:
            yield then(decoder.zeros(rows - found))
        elif options.remainder == "repeat" and rows > found:
            members, bases, draws = self._again(epoch)
            yield from mixed_rows(members, bases, draws, max(0, position.row - epoch.draws.end), rows - found, **how)

    def _refuse_wrong(self) -> None:
        """JobError, with every problem, where a component lacks classes that are named; DataError without batches."""
        problems = list[Problem]()
        for each in self.members:
            try:
                each.source.start(None, each.options)
            except JobError as error:
                problems += within(f"components.{each.name}", error)
        if problems:
            raise JobError(problems)

    def _first(self) -> MixturePosition:
        return MixturePosition(self._epoch(0, [Position()] * len(self.members)))

    def _epoch(self, number: int, bases: Sequence[Position], row: int = 0, *, partial: bool = False) -> MixtureEpoch:
        left = [None if each.repeat else each.left(base) for each, base in zip(self.members, bases, strict=True)]
        return MixtureEpoch(number, tuple(bases), self._draws(number, left, row), partial)

    def _draws(self, epoch: int, left: Sequence[int | None], row: int = 0) -> EpochDraws:
        return EpochDraws((self.seed, epoch), [each.weight for each in self.members], left, self.chunk, row)

    def _drawn(self, epoch: MixtureEpoch) -> list[int | None]:
        """The rows of each component in the rest of an epoch; None where the next one does not depend on it."""
        if epoch.draws.endless or not any(each.repeat for each in self.members):
            return [None] * len(self.members)
        drawn = epoch.draws.last.drawn
        return [rows if each.repeat else None for each, rows in zip(self.members, drawn, strict=True)]

    def _again(self, epoch: MixtureEpoch) -> tuple[list[Member], list[Position], EpochDraws]:
        """Rows to fill the last batches with: those of all components without an end, from the epoch's beginning."""
        bases = [
            Position(base.epoch) if rows is None else each.after(base, rows)
            for each, base, rows in zip(self.members, epoch.bases, self._drawn(epoch), strict=True)
        ]
        draws = self._draws(epoch.number, [None] * len(self.members))
        return [replace(each, repeat=True) for each in self.members], bases, draws

    def _position(self, state: Mapping[str, Any]) -> MixturePosition:
        """The position of a state; with other weights, components or readers a new chunk begins there."""
        read = read_state(state, {each.name for each in self.members})
        bases = self._bases(read)
        mine = {each.name: (each.weight, each.repeat) for each in self.members}
        divided, batches = read.readers != self.readers.count, batches_of(read.step, self.readers.replicas)
        if not divided and mine == {name: (each.weight, each.repeat) for name, each in read.components.items()}:
            return MixturePosition(self._epoch(read.epoch, bases, read.chunk), read.chunk + read.rows, batches)
        row = read.chunk + read.rows
        bases = [
            _before(each, read).after(base, read.components[each.name].rows) if each.name in read.components else base
            for each, base in zip(self.members, bases, strict=True)
        ]
        if divided:
            return MixturePosition(self._epoch(read.epoch, bases, partial=row > 0))
        return MixturePosition(self._epoch(read.epoch, bases, row), row, batches)

    def _bases(self, state: MixtureState) -> list[Position]:
        """The components' positions in a state. JobError, with every problem, where it is of other datasets."""
        found, problems = list[Position](), list[Problem]()
        for each in self.members:
            saved = state.components.get(each.name)
            try:
                found.append(each.source.position(None if saved is None else saved.position))
            except JobError as error:
                place = f"state.components.{each.name}"
                problems += [replace(one, place=one.place.replace("state", place, 1)) for one in error.problems]
        if problems:
            raise JobError(problems)
        return found


def _before(member: Member, state: MixtureState) -> Member:
    """A component as it was when a state was saved."""
    source = member.source.of_reader(Readers(0, state.readers))
    return replace(member, repeat=state.components[member.name].repeat, source=source)
