"""Positions in a mixture as they are saved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dtap_dask import validation
from dtap_dask.errors import JobError, Problem
from dtap_dask.loading.reading.state import StepEntry, as_json, refuse_turn


class _MixtureModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ComponentState(_MixtureModel):
    """A component at the beginning of a chunk, the weight it has in it, and the rows that were taken of it since."""

    weight: float = Field(gt=0)
    repeat: bool
    rows: int = Field(ge=0)
    position: dict[str, Any]


class MixtureState(_MixtureModel):
    """A place in an epoch of a mixture: the beginning of a chunk, and the rows that each reader took since.

    `chunk` is the number of its first row in the epoch.
    """

    version: int = 1
    epoch: int = Field(ge=0)
    readers: int = Field(ge=1)
    chunk: int = Field(ge=0)
    rows: int = Field(ge=0)
    step: StepEntry | None = None
    components: dict[str, ComponentState]


def read_state(state: Mapping[str, Any], names: Collection[str]) -> MixtureState:
    """A state. JobError, with every problem, for one of something else, or of components that are not among `names`."""
    if isinstance(state, Mapping) and "components" not in state and "dataset" in state:
        raise JobError(Problem("state", "it is of a single dataset, but this is a mixture; load that dataset alone"))
    refuse_turn(state)
    try:
        read = MixtureState.model_validate_json(as_json(state))
    except ValidationError as error:
        raise JobError(validation.problems(MixtureState, error, "state")) from error
    problems = [
        Problem(f"state.components.{name}", "the mixture lacks this component; add it, or start without a state")
        for name in read.components
        if name not in names
    ]
    if read.version != 1:
        message = f"the state is of {read.version}, but this is 1; load it with the version of dtap_dask that saved it"
        problems.append(Problem("state.version", message))
    if problems:
        raise JobError(problems)
    return read
