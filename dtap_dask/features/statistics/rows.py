"""A bounded sample of rows, the same one however they are cut into batches and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from dtap_dask.features.columns.column import Array, Floats
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import Statistic

MOST_NUMBERS = 1 << 23
"""In a sample, 64 MiB of them: rows of many places are fewer."""


class RowSample(Statistic):
    """The rows with the smallest hashes, at most `most`, as float64 of all inputs side by side.

    The last input is the hash of each row; equal hashes are ordered by the rows' values. Rows with a null are skipped
    unless `with_nulls`, which makes them NaN.
    """

    def __init__(self, most: int, with_nulls: bool) -> None:
        super().__init__()
        self.most = most
        self.with_nulls = with_nulls
        self.widths: tuple[int, ...] = ()
        """Of each input the places of a vector, 0 for a number."""
        self._hashes: Array = np.zeros(0, np.int64)
        self._rows: Floats = np.zeros((0, 0))

    @property
    def rows(self) -> Floats:
        """The sample, shape [rows, places], in the order of the hashes."""
        return self._rows

    def empty(self) -> Self:
        """Another one of this kind, before any row was added."""
        return type(self)(self.most, self.with_nulls)

    def add(self, *samples: Sample) -> None:
        """Take in a batch: the columns, numbers or vectors, then the hash of each row."""
        *columns, hashes = samples
        blocks = [column.rows_as_numbers.floats() for column in columns]
        self.widths = tuple(0 if block.ndim == 1 else block.shape[1] for block in blocks)
        self.add_rows(np.column_stack(blocks) + 0.0, hashes.rows_as_numbers.values)

    def add_rows(self, rows: Floats, hashes: Array) -> None:
        """Take in rows [n, places] with the hash of each [n]."""
        self.infinities += int(np.isinf(rows).sum())
        null = np.isnan(rows).any(axis=1)
        self.nulls += int(null.sum())
        if null.any() and not self.with_nulls:
            rows, hashes = rows[~null], hashes[~null]
        self.count += len(rows)
        self._keep([(self._rows, self._hashes), (rows, hashes)])

    def _merge(self, parts: Sequence[Self]) -> None:
        self.widths = next((part.widths for part in parts), ())
        self._keep([(part._rows, part._hashes) for part in parts])

    def _keep(self, parts: Sequence[tuple[Floats, Array]]) -> None:
        """Keep the first rows of all parts together."""
        parts = [(rows, hashes) for rows, hashes in parts if len(rows)]
        if not parts:
            return
        hashes = np.concatenate([hashes for _, hashes in parts])
        rows = np.concatenate([rows for rows, _ in parts])
        most = min(self.most, MOST_NUMBERS // rows.shape[1])
        if len(hashes) > most:
            near = np.flatnonzero(hashes <= np.partition(hashes, most - 1)[most - 1])
            hashes, rows = hashes[near], rows[near]
        order = np.lexsort((*rows.T[::-1], hashes))[:most]
        self._hashes, self._rows = hashes[order], rows[order]
