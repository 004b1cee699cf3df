"""Positions as they are saved: a few hundred bytes of JSON, and what they are positions in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dtap_dask import validation
from dtap_dask.errors import JobError, Problem
from dtap_dask.loading.order.position import Position, Taken


class _StateModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TakenEntry(_StateModel):
    """Rows of an epoch that were taken by each of a number of readers."""

    readers: int = Field(ge=1)
    rows: int = Field(ge=0)


class StepEntry(_StateModel):
    """A place within a step of several replicas of a reader: the batches of the step that were taken."""

    batches: int = Field(ge=1)
    replicas: int = Field(ge=2)

    @classmethod
    def of(cls, batches: int, replicas: int) -> StepEntry | None:
        """None where all replicas have equally many batches."""
        return cls(batches=batches % replicas, replicas=replicas) if batches % replicas else None


def batches_of(step: StepEntry | None, replicas: int) -> int:
    """The batches of a step that were taken; others than the replicas that took them begin a step."""
    return step.batches if step is not None and step.replicas == replicas else 0


class LoaderState(_StateModel):
    """A position as it is saved, and what it is a position in."""

    version: int = 1
    dataset: str
    split: str
    seed: int
    shuffle: bool
    epoch: int = Field(ge=0)
    taken: tuple[TakenEntry, ...] = ()
    step: StepEntry | None = None
    skip: int = 0
    take: int | None = None
    where: str | None = None
    resample: str | None = None
    counts: str | None = None


def saved(position: Position, identity: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """A position as JSON types; `identity` has the values of LoaderState that say what it is a position in."""
    taken = tuple(TakenEntry(readers=each.readers, rows=each.rows) for each in position.taken)
    step = StepEntry.of(position.batches, replicas)
    found = LoaderState(epoch=position.epoch, taken=taken, step=step, **identity)
    absent = _CHOSEN - identity.keys() | ({"step"} if step is None else set())
    return found.model_dump(mode="json", exclude=absent)


def restored(state: Mapping[str, Any] | None, identity: Mapping[str, Any], replicas: int) -> Position:
    """The position that a state holds; None is the beginning. JobError for a state of something else."""
    if state is None:
        return Position()
    refuse_turn(state)
    try:
        read = LoaderState.model_validate_json(as_json(state))
    except ValidationError as error:
        raise JobError(validation.problems(LoaderState, error, "state")) from error
    _refuse_other(read, identity)
    taken = tuple(Taken(each.readers, each.rows) for each in read.taken if each.rows)
    return Position(read.epoch, taken, batches_of(read.step, replicas))


def refuse_turn(state: Mapping[str, Any]) -> None:
    """JobError for a state of `torch_batches` between two turns of its workers."""
    if isinstance(state, Mapping) and "turn" in state:
        raise JobError(Problem("state.turn", _TURN))


def as_json(state: Any) -> str:
    """A state as text. JobError where it has values that no state has; numbers of NumPy become plain ones."""
    try:
        return json.dumps(state, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise JobError(Problem("state", f"{error}; give what `state()` returned, from JSON or pickle")) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is no value of a state")


def _refuse_other(state: LoaderState, identity: Mapping[str, Any]) -> None:
    """JobError, with every difference, for a state of another split, order or choice of rows."""
    mine = {**dict.fromkeys(_CHOSEN), "skip": 0, "version": 1, **identity}
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
