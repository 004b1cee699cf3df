"""What users say of a mixture: its components, with their weights."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal

from dtap_dask.errors import JobError, Problem


@dataclass(frozen=True)
class Component:
    """One split of the dataset at `path`, as a component of a Mixture.

    `weight` is its share of the rows, relative to the other components' weights. With `repeat` it begins its next epoch
    where one ends; without, each of its rows comes once in an epoch of the mixture.

    `skip`, `take`, `where`, `resample` and `class_weights` choose and weigh its rows, as they do in `load`.
    """

    path: str | os.PathLike[str]
    split: str = "train"
    weight: float = 1.0
    repeat: bool = False
    _: KW_ONLY
    skip: int = 0
    take: int | None = None
    where: str | None = None
    resample: Mapping[Any, float] | Literal["balanced"] | None = None
    class_weights: Mapping[Any, float] | Literal["balanced"] | None = None

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments that choose and weigh rows, without those that were not given."""
        return choice_of(vars(self))


class Mixture:
    """Several datasets in one stream of rows, for `load`, `batches` and `torch_batches` in place of a path.

        trips = dtap_dask.Component("lake/tfrecords/trips", weight=3)
        rides = dtap_dask.Component("lake/tfrecords/rides", repeat=True)
        data = dtap_dask.load(dtap_dask.Mixture({"trips": trips, "rides": rides}))

    Each row is of a component drawn at random by the weights; a component's rows keep its own order. An epoch ends when
    all components without `repeat` have given all their rows; there is no end where all have it. The components must
    give the same columns. JobError, with every problem, for what are no components.
    """

    def __init__(self, components: Mapping[str, Component]):
        if not isinstance(components, Mapping) or not components:
            raise JobError(Problem("components", f"{components!r} is not a dict of components by name; give some"))
        problems = [problem for name, component in components.items() for problem in _problems(name, component)]
        problems = problems or _tiny(components)
        if problems:
            raise JobError(problems)
        self.components = dict(components)


def choice_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments that choose and weigh rows and differ from what they are by default."""
    return {name: arguments[name] for name, default in _CHOICE.items() if arguments.get(name, default) is not default}


_CHOICE = {field.name: field.default for field in fields(Component) if field.kw_only}


def _problems(name: Any, component: Any) -> list[Problem]:
    place = f"components.{name}"
    if not isinstance(name, str) or not name:
        return [Problem("components", f"the name {name!r} is not a text, such as 'trips'")]
    if not isinstance(component, Component):
        return [Problem(place, f"{component!r} is not a Component, such as Component('lake/tfrecords/trips')")]
    problems = []
    if not _is_weight(component.weight):
        problems.append(Problem(f"{place}.weight", f"{component.weight!r} is not a positive number, such as 1.0"))
    if not isinstance(component.repeat, bool):
        problems.append(Problem(f"{place}.repeat", f"{component.repeat!r} is neither True nor False"))
    return problems


def _tiny(components: Mapping[str, Component]) -> list[Problem]:
    """Weights so small that a row of the component would hardly ever come."""
    largest = max(float(component.weight) for component in components.values())
    return [
        Problem(f"components.{name}.weight", f"{component.weight!r} is less than a billionth of {largest!r}, another's")
        for name, component in components.items()
        if component.weight < largest * 1e-9
    ]


def _is_weight(value: Any) -> bool:
    try:
        return not isinstance(value, bool | str | bytes) and 0 < float(value) < math.inf
    except (TypeError, ValueError, OverflowError):
        return False
