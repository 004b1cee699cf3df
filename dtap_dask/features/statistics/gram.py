"""Sums of products of the columns of a block, sparse where the columns are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dtap_dask.features.columns.column import Floats, Numbers
from dtap_dask.features.columns.onehot import OneHot, is_sparse, sparse_rows
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import Covariance, Statistic

# What a Gram matrix may need: 128 MiB for each of its parts, or nearly so.
MOST_DENSE = 4096  # places of numbers
MOST_PLACES = 1 << 17
MOST_PRODUCTS = 1 << 24  # of places of numbers with sparse ones
MOST_PAIRS = 1 << 23  # of sparse places that are not 0 in the same row


class Gram(Statistic):
    """The Gram matrix XᵀX [k, k] of the rows X [n, k] of a block; rows with a null are skipped.

    Inputs are sparse (see `is_sparse`) or dense. Of dense places it holds the covariance, of sparse ones whole counts
    [s], sums of products with dense ones [d, s] and a sparse matrix of sums of products with each other [s, s].
    `excess` says what is too large, and then nothing else is held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.excess = ""
        self.layout: tuple[tuple[bool, int], ...] = ()  # of each input: whether it is sparse, and its places
        self.widths: tuple[int, ...] = ()  # of each input: the places of a vector, 0 for one number
        self.dense = Covariance()
        self.crossed: Floats = np.zeros((0, 0))
        self.totals: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._pairs: list[Any] = []  # sparse matrices that add up

    @property
    def width(self) -> int:
        """The number of places, k."""
        return sum(places for _, places in self.layout)

    def add(self, *samples: Sample) -> None:
        """Take in a batch: a sample for each input."""
        columns = [sample.rows_as_numbers for sample in samples]
        self.infinities += sum(column.infinities() for column in columns)
        present = np.ones(len(columns[0]), np.bool_)
        for nulls in (column.nulls() for column in columns):
            if nulls is not None:
                present &= ~nulls
        rows = int(present.sum())
        self.nulls += len(present) - rows
        self.count += rows
        if rows and not self.infinities and not self.excess and self._fits(columns):
            with np.errstate(over="ignore", invalid="ignore"):  # the step that is fitted refuses what is not finite
                self._add(columns, present)

    def _fits(self, columns: Sequence[Numbers]) -> bool:
        self.layout = tuple((is_sparse(column), _places(column)) for column in columns)
        self.widths = tuple(_places(column) if _is_vector(column) else 0 for column in columns)
        dense = sum(places for sparse, places in self.layout if not sparse)
        if dense > MOST_DENSE:
            self.excess = f"{dense:,} numbers that are not one-hot vectors, and at most {MOST_DENSE:,} are possible"
        elif self.width > MOST_PLACES:
            self.excess = f"{self.width:,} numbers a row, and at most {MOST_PLACES:,} are possible"
        elif dense * (self.width - dense) > MOST_PRODUCTS:
            self.excess = (
                f"{dense:,} numbers beside {self.width - dense:,} places of one-hot vectors, and the product of the "
                f"two can be at most {MOST_PRODUCTS:,}"
            )
        return not self.excess

    def _add(self, columns: Sequence[Numbers], present: npt.NDArray[np.bool_]) -> None:
        from scipy import sparse

        dense = [one.floats().reshape(len(one), -1)[present] for one in columns if not is_sparse(one)]
        block = np.concatenate([np.zeros((int(present.sum()), 0)), *dense], axis=1)
        self.dense.add_rows(block)
        coded = [sparse_rows(one)[present] for one in columns if is_sparse(one)]
        if not coded:
            return
        rows = sparse.hstack(coded, format="csr")
        across = rows.T.tocsr()
        self.totals = _sum(self.totals, np.asarray(rows.sum(axis=0)))
        self.crossed = _sum(self.crossed, (across @ block).T)
        self._pairs.append(across @ rows)
        if sum(one.nnz for one in self._pairs[1:]) > max(1 << 20, self._pairs[0].nnz):
            self.settle()

    def settle(self) -> None:
        """One matrix of pairs instead of several."""
        if len(self._pairs) > 1:
            self._pairs = [sum(self._pairs[1:], self._pairs[0])]
        if self._pairs and self._pairs[0].nnz > MOST_PAIRS:
            self.excess = f"{self._pairs[0].nnz:,} pairs of places in one row, and at most {MOST_PAIRS:,} are possible"
        if self.excess:
            self.dense, self._pairs = Covariance(), []

    def _merge(self, parts: Sequence[Self]) -> None:
        self.excess = next((part.excess for part in parts if part.excess), "")
        if self.excess or not parts:
            return
        self.layout, self.widths = parts[0].layout, parts[0].widths
        with np.errstate(over="ignore", invalid="ignore"):  # the step that is fitted refuses what is not finite
            self.dense = Covariance.merged([part.dense for part in parts])
        for part in parts:
            self.totals, self.crossed = _sum(self.totals, part.totals), _sum(self.crossed, part.crossed)
            self._pairs += part._pairs
        self.settle()

    @cached_property
    def pairs(self) -> Any:
        """Sums of products of sparse places, a scipy.sparse array [s, s]."""
        from scipy import sparse

        self.settle()
        made = self._pairs[0].tocsr() if self._pairs else sparse.csr_array((0, 0), dtype=np.int64)
        made.sort_indices()
        return made.astype(np.float64)

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """Where each place of a row is among the dense places, which come first, and the sparse ones; int64 [k]."""
        at = [0, sum(places for sparse, places in self.layout if not sparse)]
        found = [np.zeros(0, np.int64)]
        for sparse, places in self.layout:
            found.append(np.arange(at[sparse], at[sparse] + places))
            at[sparse] += places
        return np.concatenate(found)

    def times(self, vectors: Floats, *, centred: bool = False) -> Floats:
        """The product of the matrix, or that of centred rows, with `vectors` [k, m]; both as `order` has it."""
        split, means = len(self.dense.means), self.dense.means[:, None]
        upper, lower = vectors[:split], vectors[split:]
        shares = (self.totals / self.count)[:, None]
        crossed = self.crossed if self.crossed.size else np.zeros((split, len(lower)))
        made_upper = self.dense.products @ upper + crossed @ lower
        made_lower = crossed.T @ upper + self.pairs @ lower
        if centred:
            made_upper -= self.count * means * (shares.T @ lower)
            made_lower -= self.count * shares * (means.T @ upper + shares.T @ lower)
        else:
            made_upper += self.count * means * (means.T @ upper)
        return np.concatenate([made_upper, made_lower])

    @property
    def variance(self) -> float:
        """The sum of the variances of all places, each divided by the number of rows."""
        shares = self.totals / self.count
        sparse = self.pairs.diagonal() / self.count - shares * shares
        return float(np.trace(self.dense.products) / self.count + sparse.sum())


def _is_vector(column: Numbers) -> bool:
    return isinstance(column, OneHot) or column.values.ndim == 2


def _places(column: Numbers) -> int:
    if isinstance(column, OneHot):
        return column.width
    return 1 if column.values.ndim == 1 else column.values.shape[1]


def _sum(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The sum; what is still empty is 0."""
    return other if not one.size else one if not other.size else one + other
