"""Statistics that add up: fed batch by batch, merged across tasks, and finished once.

Each counts the nulls that it skipped, so that the value an imputer puts in their place can be added afterwards with
their number as its weight: an imputer and the scaler behind it then need only one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from dtap_dask.features.columns.column import Floats
from dtap_dask.features.statistics.sample import Sample


class Statistic:
    """The base: how many rows were seen with values, with nulls, and with infinities."""

    def __init__(self) -> None:
        self.count = 0
        self.nulls = 0
        self.infinities = 0

    def add(self, *samples: Sample) -> None:
        """Take in a batch: one sample for each input, all of the same rows."""
        raise NotImplementedError

    def settle(self) -> None:
        """Bring pending values into the compact form that is sent to other processes."""

    def empty(self) -> Self:
        """Another one of this kind, before any row was added."""
        return type(self)()

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """One statistic of all the rows of `parts` (at least one), which stay as they are."""
        total = parts[0].empty()
        for part in parts:
            total.count += part.count
            total.nulls += part.nulls
            total.infinities += part.infinities
        total._merge([part for part in parts if part.count])
        return total

    def _merge(self, parts: Sequence[Self]) -> None:
        """Take in parts with at least one row each; the counts of the base are up to date already."""
        raise NotImplementedError


class ColumnStatistic(Statistic):
    """A statistic of the values of one column, each of which may count several times."""

    def add(self, *samples: Sample) -> None:
        """Take in a batch of the column."""
        [sample] = samples
        self.add_weighted(sample, 1)

    def add_weighted(self, sample: Sample, weight: int) -> None:
        """Take in a batch; every row counts `weight` times."""
        if weight == 0 or sample.rows == 0:
            return
        self.infinities += sample.infinities
        self.nulls += weight * (sample.rows - len(sample.values))
        self.count += weight * len(sample.values)
        if len(sample.values) and not sample.infinities:
            self._add(sample, weight)

    def _add(self, sample: Sample, weight: int) -> None:
        raise NotImplementedError

    def folded(self, sample: Sample, weight: int) -> Self:
        """This statistic with the one value of `sample` added `weight` times."""
        extra = self.empty()
        extra.add_weighted(sample, weight)
        extra.settle()
        return type(self).merged([self, extra])


class Moments(ColumnStatistic):
    """Count, mean and sum of squared deviations (Chan, Golub and LeVeque's pairwise merge), float64."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = 0.0
        self.squares = 0.0
        self._weight = 0

    def _add(self, sample: Sample, weight: int) -> None:
        values = sample.floats
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.sum() / len(values))
            if not np.isfinite(mean):  # the sum is too large, not the mean
                mean = float((values / len(values)).sum())
            deviations = values - mean
            squares = float((deviations * deviations).sum())
        if _may_be_rounding(squares, mean, len(values)) and (values == values[0]).all():
            mean, squares = float(values[0]), 0.0  # a constant has no variance, whatever rounding says
        self._chan(len(values) * weight, mean, squares * weight)

    def _chan(self, weight: int, mean: float, squares: float) -> None:
        if self._weight == 0:
            self._weight, self.mean, self.squares = weight, mean, squares
            return
        total = self._weight + weight
        with np.errstate(over="ignore", invalid="ignore"):
            delta = np.float64(mean) - self.mean
            self.squares = float(self.squares + squares + delta * delta * (self._weight * (weight / total)))
            if np.isfinite(delta):
                self.mean = float(self.mean + delta * (weight / total))
            else:  # the difference is too large, not the mean
                self.mean = self.mean * (self._weight / total) + mean * (weight / total)
        self._weight = total

    def _merge(self, parts: Sequence[Self]) -> None:
        for part in parts:
            if part._weight:
                self._chan(part._weight, part.mean, part.squares)


def _may_be_rounding(squares: float, mean: float, count: int) -> bool:
    """Whether a constant could have this sum of squared deviations; asked before every value is looked at."""
    return not math.isfinite(squares) or math.sqrt(squares / count) <= count * 2.3e-16 * abs(mean)


class Extremes(ColumnStatistic):
    """The smallest and the largest value, float64."""

    def __init__(self) -> None:
        super().__init__()
        self.smallest = np.inf
        self.largest = -np.inf

    def _add(self, sample: Sample, weight: int) -> None:
        self.smallest = min(self.smallest, float(sample.values.min()))
        self.largest = max(self.largest, float(sample.values.max()))

    def _merge(self, parts: Sequence[Self]) -> None:
        self.smallest = min((part.smallest for part in parts), default=np.inf)
        self.largest = max((part.largest for part in parts), default=-np.inf)


class Covariance(Statistic):
    """Means [k] and co-moments [k, k] of k columns at once; rows with a null in any of them are skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.means: Floats = np.zeros(0)
        self.products: Floats = np.zeros((0, 0))

    def add(self, *samples: Sample) -> None:
        """Take in a batch, with one sample for each column or for several side by side."""
        block = np.column_stack([sample.rows_as_floats for sample in samples])
        finite = np.isfinite(block)
        if not finite.all():
            self.infinities += int(np.isinf(block).sum())
            whole = np.asarray(finite.all(axis=1))
            self.nulls += int(len(whole) - whole.sum())
            block = block[whole]
        self.add_rows(block)

    def add_rows(self, block: Floats) -> None:
        """Take in rows [n, k] without nulls and infinities."""
        if len(block) == 0:
            return
        columns = np.ascontiguousarray(block.T)
        means = columns.sum(axis=1) / len(block)
        columns = columns - means[:, None]
        # einsum, not @: BLAS may add in another order with another number of threads
        self._chan(len(block), means, np.einsum("in,jn->ij", columns, columns))
        self.count += len(block)

    def _chan(self, count: int, means: Floats, products: Floats) -> None:
        """Take in `count` further rows; `self.count` does not have them yet."""
        if not len(self.means):
            self.means, self.products = np.zeros(len(means)), np.zeros((len(means), len(means)))
        total = self.count + count
        delta = means - self.means
        self.products = self.products + products + np.outer(delta, delta) * (self.count * (count / total))
        self.means = self.means + delta * (count / total)

    def _merge(self, parts: Sequence[Self]) -> None:
        self.count = 0
        for part in parts:
            self._chan(part.count, part.means, part.products)
            self.count += part.count

    def scaled(self, factors: Floats, shifts: Floats) -> Covariance:
        """The covariance of x * factors + shifts, column by column; of at least one row."""
        other = Covariance()
        other.count = self.count
        other.means = self.means * factors + shifts
        other.products = self.products * np.outer(factors, factors)
        return other
