"""Which rows of a split a loader reads, how often, and what they weigh: the arguments, checked.

`skip` and `take` choose rows by their place in the manifest's order, `where` by a condition; `resample` then sets how
many rows of each class an epoch has, and `class_weights` what they weigh.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from dtap_dask.errors import JobError, Problem
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.choice.conditions import Condition, condition_of
from dtap_dask.loading.choice.labels import ByClass, by_class, the_label
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.order.sharing import integer
from dtap_dask.loading.shards.decode import Decoder

_LONGEST = 200  # characters of a setting in a state; of a longer one it has a digest


@dataclass(frozen=True)
class Selection:
    """The rows that a loader reads of a split whose shards are `whole.shards`.

    `split` has those of its shards in which `skip` and `take` leave rows, and as many `rows` as they leave, beginning
    with number `first` of its first shard. `label` is the column of classes, where `factors` or `weights` need it.
    `settings` are the arguments that determine which rows come, by name, without those that were not given. `skips` is
    the number of damaged records that counting the rows may leave out.
    """

    whole: DatasetSplit
    split: DatasetSplit
    first: int = 0
    condition: Condition | None = None
    label: FeatureInfo | None = None
    factors: ByClass = None
    weights: ByClass = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    skips: int = 0

    @property
    def is_all(self) -> bool:
        """Whether it is all rows, once each, and no class has a weight."""
        return self.split is self.whole and self.decoder is None

    @property
    def given(self) -> list[str]:
        """The names of the arguments that were given."""
        return [*self.settings, *(["class_weights"] if self.weights is not None else [])]

    @property
    def drawn(self) -> bool:
        """Whether the values of rows determine which come, not their places and weights alone."""
        return self.condition is not None or self.factors is not None

    @property
    def counted(self) -> bool:
        """Whether the rows must be counted before the first epoch."""
        return self.drawn or self.counts_classes

    @property
    def counts_classes(self) -> bool:
        """Whether they are counted by class."""
        return self.factors is not None or self.weights == "balanced"

    @cached_property
    def decoder(self) -> Decoder | None:
        """The decoder of the columns that the choice depends on; None if it depends on none."""
        names = {info.name for info in (self.condition.infos if self.condition else ())}
        names |= {self.label.name} if self.label is not None else set()
        return Decoder(self.split, names) if names else None


def selection_of(
    split: DatasetSplit, skips: int, *, skip: Any, take: Any, where: Any, resample: Any, class_weights: Any
) -> Selection:
    """The selection that these arguments of `load` describe. JobError, with every problem, for wrong ones."""
    problems = list[Problem]()
    first, rows = _range(split, skip, take, problems)
    condition = None if where is None else condition_of(split, where, problems)
    label = None
    factors, weights = None, None
    if resample is not None or class_weights is not None:
        label = the_label(split, "class_weights" if resample is None else "resample", problems)
    if label is not None:
        factors = by_class(label, "resample", resample, problems)
        weights = by_class(label, "class_weights", class_weights, problems)
    if problems:
        raise JobError(problems)
    given = {"skip": first, "take": None if take is None else integer(take), "where": where, "resample": factors}
    settings = {name: _brief(value) for name, value in given.items() if value}
    part, first = _part(split, first, rows)
    return Selection(split, part, first, condition, label, factors, weights, settings, skips)


def _range(split: DatasetSplit, skip: Any, take: Any, problems: list[Problem]) -> tuple[int, int]:
    """The rows to leave out at the beginning, and the number of those that follow."""
    first, most = integer(skip), split.rows if take is None else integer(take)
    if first is None or first < 0:
        problems.append(Problem("skip", f"{skip!r} is not a number of rows, such as 10_000"))
        first = 0
    elif first >= split.rows:
        problems.append(
            Problem("skip", f"{first:,} leaves none of the {split.rows:,} rows of the split {split.name!r}")
        )
    if most is None or most < 1:
        problems.append(Problem("take", f"{take!r} is not a positive number of rows, such as 10_000"))
        most = split.rows
    return first, min(most, split.rows - first)


def _part(split: DatasetSplit, first: int, rows: int) -> tuple[DatasetSplit, int]:
    """The split with only the shards that hold `rows` rows from number `first` on, and where these begin in them."""
    if rows == split.rows:
        return split, 0
    ends = np.cumsum([shard.rows for shard in split.shards])
    start, stop = int(np.searchsorted(ends, first, "right")), int(np.searchsorted(ends, first + rows, "left")) + 1
    shards = split.shards[start:stop]
    records = sum(shard.records for shard in shards)
    begin = int(ends[start]) - split.shards[start].rows
    return replace(split, shards=shards, paths=split.paths[start:stop], rows=rows, records=records), first - begin


def _brief(value: Any) -> Any:
    """A setting as it is in a state: a number, or text that is not long."""
    if isinstance(value, int):
        return value
    text = value if isinstance(value, str) else ", ".join(f"{key!r}: {one!r}" for key, one in sorted(value.items()))
    return text if len(text) <= _LONGEST else f"{text[:40]}... {hashlib.sha256(text.encode()).hexdigest()[:16]}"
