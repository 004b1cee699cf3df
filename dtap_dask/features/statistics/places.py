"""A statistic of vectors for each of their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from dtap_dask.features.columns.column import Numbers
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import ColumnStatistic, Statistic


class PlacesStatistic(Statistic):
    """A statistic of one kind of each place of vectors, in `places`; none before the first row.

    `count` is the number of rows, `nulls` and `infinities` are those of all places together.
    """

    def __init__(self, kind: type[ColumnStatistic]):
        super().__init__()
        self.kind = kind
        self.places: list[ColumnStatistic] = []

    def empty(self) -> Self:
        return type(self)(self.kind)

    def add(self, *samples: Sample) -> None:
        """Take in a batch of vectors [n, k]; a null in one place leaves the others of its row."""
        [sample] = samples
        rows = sample.rows_as_numbers
        if not self.places:
            self.places = [self.kind() for _ in range(rows.values.shape[1])]
        for statistic, values in zip(self.places, rows.values.T, strict=True):
            statistic.add(Sample(Numbers(values, rows.valid)))
        self.count += len(rows)
        self.nulls = sum(one.nulls for one in self.places)
        self.infinities = sum(one.infinities for one in self.places)

    def settle(self) -> None:
        for statistic in self.places:
            statistic.settle()

    def _merge(self, parts: Sequence[Self]) -> None:
        if parts:
            self.places = [self.kind.merged(several) for several in zip(*(one.places for one in parts), strict=True)]
