"""One feature: as the job wants it, and checked, with the levels in which its steps are fitted."""

from __future__ import annotations

from dataclasses import dataclass

from dtap_dask.features.info import Role
from dtap_dask.features.reduce import Pca
from dtap_dask.features.step import DropNulls, Step, ValueType


@dataclass(frozen=True)
class FeatureSpec:
    """One feature as the job wants it: `columns` through `steps` into the output `name`.

    `vector`: all columns side by side in one output; without it there is one column. `allow_null`: nulls of a float
    feature become NaN. `place` is where it stands in the job file, for messages: 'features[2]'.
    """

    name: str
    role: Role
    columns: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    vector: bool = False
    allow_null: bool = False
    place: str = ""


@dataclass(frozen=True)
class Chain:
    """A column after some steps: the values that a statistic is of, and the name of what a step has learnt."""

    column: str
    steps: tuple[Step, ...] = ()

    def __hash__(self) -> int:  # equal steps hash alike; their options need not be hashed
        return hash((self.column, *(step.name for step in self.steps)))


@dataclass(frozen=True)
class Block:
    """Several chains side by side and the step on all of them."""

    chains: tuple[Chain, ...]
    step: Step


@dataclass(frozen=True)
class Lane:
    """One column of a feature on its way through the steps.

    `kinds[i]` is what step i is given, `kinds[-1]` the result. `levels[i]` is where step i is fitted, None if it
    learns nothing; `folds[i]` is the imputer of the same level whose value must be folded into its statistic.
    """

    column: str
    steps: tuple[Step, ...]
    kinds: tuple[ValueType, ...]
    levels: tuple[int | None, ...]
    folds: tuple[int | None, ...]

    def chain(self, count: int) -> Chain:
        """The column after its first `count` steps."""
        return Chain(self.column, self.steps[:count])

    def measured(self, index: int) -> Chain:
        """What step `index` takes its statistic of: an unfitted imputer before it leaves nulls out instead."""
        fold = self.folds[index]
        if fold is None:
            return self.chain(index)
        between = self.steps[fold + 1 : index]
        drop: tuple[Step, ...] = () if all(step.keeps_nulls for step in between) else (DropNulls(),)
        return Chain(self.column, self.steps[:fold] + drop + between)

    @property
    def result(self) -> Chain:
        return self.chain(len(self.steps))

    @property
    def last_level(self) -> int:
        return max((level for level in self.levels if level is not None), default=0)


@dataclass(frozen=True)
class Feature:
    """A feature, checked: its lanes, and for principal components the step on all of them.

    `scalers[j]` says that lane j ends in a scaler fitted in the same level as `reduce`, whose effect on the
    covariance is worked out.
    """

    spec: FeatureSpec
    lanes: tuple[Lane, ...]
    reduce: Pca | None = None
    reduce_level: int = 0
    scalers: tuple[bool, ...] = ()
    tail: tuple[Step, ...] = ()
    indicator: int | None = None  # index of the imputer whose nulls this feature shows instead of its values

    @property
    def block(self) -> Block:
        """The name of what `reduce` has learnt."""
        assert self.reduce is not None
        return Block(tuple(lane.result for lane in self.lanes), self.reduce)

    @property
    def measured(self) -> tuple[Chain, ...]:
        """The chains whose covariance is taken."""
        pairs = zip(self.lanes, self.scalers, strict=True)
        return tuple(lane.chain(len(lane.steps) - scaled) for lane, scaled in pairs)
