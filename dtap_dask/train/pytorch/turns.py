"""Positions of a DataLoader, whose workers hand over one batch each in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dtap_dask import validation
from dtap_dask.errors import JobError, Problem
from dtap_dask.loading.order.position import Readers, size
from dtap_dask.loading.reading.batch_source import BatchSource
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.reading.source import RowSource


class TurnState(BaseModel):
    """A position within a turn: the first `batches` workers of each reader have taken one batch more."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    readers: int = Field(ge=1)
    workers: int = Field(ge=2)
    batch_size: int = Field(ge=1)
    batches: int = Field(ge=1)


@dataclass(frozen=True)
class TurnPosition:
    """The position of all workers after whole turns, and how many of them have taken one batch more."""

    position: Any  # of the source's own kind
    ahead: int = 0


class Turns:
    """The workers of one reader: each is a reader of `source`, a part of the rows of an epoch.

    `workers` is 1 where there are none. The workers of reader i are the readers i * workers to (i + 1) * workers - 1.
    Workers have equally many batches, or with "keep", which a mixture does not have, the first ones may have one more.
    `source` is that of the first worker.
    """

    def __init__(self, source: BatchSource, options: BatchOptions, workers: int):
        self._options, self.workers, self._readers = options, workers, source.readers
        self.source = source.of_reader(self._reader(0))

    def _reader(self, worker: int) -> Readers:
        workers = self.workers
        return replace(self._readers, index=self._readers.index * workers + worker, count=self._readers.count * workers)

    def left(self, position: Any) -> int | None:
        """The batches of all workers of this reader after a position of whole turns; None in an endless epoch."""
        if self._options.remainder == "keep" and isinstance(self.source, RowSource):
            parts = position.parts(self.source.rows, self.workers)  # there is one reader
            return sum(-(-size(part) // self._options.size) for part in parts)
        left = self.source.left(position, self._options)
        return None if left is None else self.workers * left

    def epoch(self, number: int, start: TurnPosition) -> TurnPosition:
        """The beginning of an epoch: the one of `start` at its position, and the following ones after it."""
        if number == start.position.epoch:
            return start
        return TurnPosition(self.source.epoch(number, start.position))

    def after(self, start: TurnPosition, batches: int) -> TurnPosition:
        """The position after a number of batches of the same epoch. JobError if there are fewer."""
        total = self.left(start.position)
        left = None if total is None else total - start.ahead
        if batches < 0 or (left is not None and batches > left):
            most = "or more" if left is None else f"to {left:,}, the batches of this iteration"
            raise JobError(Problem("batches", f"{batches!r} is not 0 {most}"))
        if batches == left:
            return TurnPosition(self.source.next_epoch(start.position))
        turns, ahead = divmod(start.ahead + batches, self.workers)
        return TurnPosition(self._turned(start.position, turns), ahead)

    def _turned(self, position: Any, turns: int) -> Any:
        return self.source.further(position, self._options, turns)

    def of_worker(self, start: TurnPosition, worker: int) -> tuple[Readers, Any]:
        """Which reader a worker is, and where it begins: the worker that is next in the turn comes first."""
        number = (worker + start.ahead) % self.workers
        return self._reader(number), self._turned(start.position, int(number < start.ahead))

    def start(self, state: Mapping[str, Any] | None) -> TurnPosition:
        """The position that a state holds. JobError for one of something else, DataError where there are no batches."""
        if not isinstance(state, Mapping) or "turn" not in state:
            return TurnPosition(self.source.start(state, self._options))
        position = self.source.start({name: value for name, value in state.items() if name != "turn"}, self._options)
        return TurnPosition(position, self._ahead(state["turn"]))

    def _ahead(self, turn: Any) -> int:
        try:
            found = TurnState.model_validate(turn)
        except ValidationError as error:
            raise JobError(validation.problems(TurnState, error, "state.turn")) from error
        mine = self._turn(found.batches)
        if found != mine:
            raise JobError(Problem("state.turn", _IN_TURN.format(found=found, mine=mine)))
        return found.batches

    def state(self, position: TurnPosition) -> dict[str, Any]:
        """A position as JSON types; after whole turns it is a state of `load` and `batches`."""
        found = self.source.state(position.position)
        return {**found, "turn": self._turn(position.ahead).model_dump()} if position.ahead else found

    def _turn(self, ahead: int) -> TurnState:
        return TurnState(
            readers=self._readers.count, workers=self.workers, batch_size=self._options.size, batches=ahead
        )


_IN_TURN = (
    "the state is in the middle of a turn of {found.readers} x {found.workers} workers with batches of "
    "{found.batch_size:,}, but here are {mine.readers} x {mine.workers} with batches of {mine.batch_size:,}. Give the "
    "same `readers`, `workers` and `batch_size`; a state after a multiple of {found.workers} batches may be continued "
    "with others"
)
