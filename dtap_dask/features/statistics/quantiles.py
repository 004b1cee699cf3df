"""A deterministic, mergeable summary of a column's distribution.

A summary is a sorted list of weighted points. Up to `POINTS` distinct values it is exact. Beyond, it keeps the value in
the middle of each of `POINTS` runs of equal weight, so that no rank moves by more than half a run: 0.006 % of the rows
of that summary. Summaries are kept by level: eight of one level are merged into one of the next, so that errors add up
once per level, however the partial results are merged: 1,000 tasks of 16 million rows reach level 8,
0.05 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from dtap_dask.features.columns.column import Floats
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import ColumnStatistic

POINTS = 8192  # kept by a summary
FAN_IN = 8  # summaries of one level that make one of the next
BUFFER = 1 << 18  # values kept until they are sorted together


@dataclass(frozen=True)
class Summary:
    """Sorted distinct points, how many values each represents, and how often values were merged into it."""

    points: Floats
    weights: npt.NDArray[np.int64]
    level: int

    @property
    def exact(self) -> bool:
        return self.level == 0


class Quantiles(ColumnStatistic):
    """Quantiles of the non-null values, float64."""

    def __init__(self) -> None:
        super().__init__()
        self.summaries: list[Summary] = []
        self.smallest = np.inf
        self.largest = -np.inf
        self._buffer: list[Floats] = []
        self._buffered = 0

    def _add(self, sample: Sample, weight: int) -> None:
        values = sample.floats + 0.0  # -0.0 is 0.0; and a copy
        self.smallest = min(self.smallest, float(values.min()))
        self.largest = max(self.largest, float(values.max()))
        if weight != 1:
            points, repeats = np.unique(values, return_counts=True)
            self._add_summary(Summary(points, repeats.astype(np.int64) * weight, 0))
            return
        while len(values):
            part = values[: BUFFER - self._buffered]
            self._buffer.append(part)
            self._buffered += len(part)
            values = values[len(part) :]
            if self._buffered == BUFFER:
                self._sort_buffer()

    def _sort_buffer(self) -> None:
        if self._buffered:
            points, repeats = np.unique(np.concatenate(self._buffer), return_counts=True)
            self._buffer, self._buffered = [], 0
            self._add_summary(Summary(points, repeats.astype(np.int64), 0))

    def settle(self) -> None:
        self._sort_buffer()

    def _merge(self, parts: Sequence[Self]) -> None:
        assert not any(part._buffered for part in parts), "settle before merging"
        for part in parts:
            self.smallest = min(self.smallest, part.smallest)
            self.largest = max(self.largest, part.largest)
            for summary in part.summaries:
                self._add_summary(summary)

    def _add_summary(self, summary: Summary) -> None:
        """Add a summary; merge those of one level when there are enough of them. At most one is exact."""
        if len(summary.points) > POINTS:
            summary = self.compressed(summary)
        self.summaries.append(summary)
        level = summary.level
        while True:
            same = [each for each in self.summaries if each.level == level]
            if len(same) < (2 if level == 0 else FAN_IN):
                return
            self.summaries = [each for each in self.summaries if each.level != level]
            merged = _united(same)
            if len(merged.points) > POINTS:
                merged = self.compressed(merged)
            self.summaries.append(merged)
            if merged.level == level:
                return
            level = merged.level

    @staticmethod
    def compressed(summary: Summary) -> Summary:
        """At most POINTS points: the middle value of every run of equal weight, which then represents the run."""
        ends = np.cumsum(summary.weights)
        total = int(ends[-1])
        bounds = np.array([total * i // POINTS for i in range(POINTS + 1)], np.int64)
        middles = bounds[:-1] + (bounds[1:] - bounds[:-1]) // 2
        chosen = np.searchsorted(ends, middles, side="right")
        first = np.flatnonzero(np.concatenate(([True], chosen[1:] != chosen[:-1])))
        weights = np.add.reduceat(bounds[1:] - bounds[:-1], first)
        return Summary(summary.points[chosen[first]], weights, summary.level + 1)

    def summary(self) -> Summary:
        """All values as one summary; count > 0."""
        return _united(self.summaries)

    def quantiles(self, fractions: Floats) -> Floats:
        """The values at `fractions` of the way, between neighbours linearly, as numpy.quantile; count > 0."""
        summary = self.summary()
        ends = np.cumsum(summary.weights)
        place = fractions * (ends[-1] - 1)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, ends[-1] - 1)
        low = summary.points[np.searchsorted(ends, below, side="right")]
        high = summary.points[np.searchsorted(ends, above, side="right")]
        between = _between(low, high, place - below)
        between[fractions <= 0] = self.smallest
        between[fractions >= 1] = self.largest
        return between


def _between(low: Floats, high: Floats, share: Floats) -> Floats:
    """numpy's own interpolation: exact at both ends."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = high - low
        near = np.where(share >= 0.5, high - step * (1 - share), low + step * share)
    return np.where(np.isfinite(near) & (low != high), near, np.where(share >= 0.5, high, low))


def _united(summaries: Sequence[Summary]) -> Summary:
    if len(summaries) == 1:
        return summaries[0]
    points = np.concatenate([each.points for each in summaries])
    weights = np.concatenate([each.weights for each in summaries])
    order = np.argsort(points, kind="stable")
    points, weights = points[order], weights[order]
    first = np.flatnonzero(np.concatenate(([True], points[1:] != points[:-1])))
    return Summary(points[first], np.add.reduceat(weights, first), max(each.level for each in summaries))
