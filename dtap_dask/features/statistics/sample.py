"""The fitted rows of a column, in the forms that statistics need; each form is computed once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from dtap_dask.features.columns.column import (
    Array,
    Coded,
    Column,
    Decimals,
    Floats,
    Lists,
    Mask,
    Numbers,
    elements_of,
    numbers,
    rows_at,
    text,
)
from dtap_dask.features.columns.onehot import OneHot


class Sample:
    """A column and the rows to fit (`fit` is None for all of them). Of lists it holds the elements as its rows."""

    def __init__(self, column: Column, fit: Mask | None = None):
        if fit is not None and isinstance(column, Lists):
            fit = np.repeat(fit, column.lengths)
        self.column = elements_of(column)
        self._fit = fit

    @cached_property
    def rows(self) -> int:
        return len(self.column) if self._fit is None else int(np.count_nonzero(self._fit))

    @cached_property
    def values(self) -> Array:
        """The non-null numbers in their own dtype, shape [m]."""
        column = numbers(self.column)
        nulls = column.nulls()
        keep = self._fit if nulls is None else ~nulls if self._fit is None else self._fit & ~nulls
        return column.values if keep is None else column.values[keep]

    @cached_property
    def floats(self) -> Floats:
        """The non-null numbers as float64, shape [m]."""
        return self.values.astype(np.float64, copy=False)

    @cached_property
    def present(self) -> Mask:
        """Which rows of the column are fitted and not null, shape [n]."""
        nulls = self.column.nulls()
        there = np.ones(len(self.column), np.bool_) if nulls is None else ~nulls
        return there if self._fit is None else there & self._fit

    @property
    def decimals(self) -> pa.Array:
        """The non-null values of a decimal column, shape [m]."""
        assert isinstance(self.column, Decimals)
        array = self.column.array
        return (array if self._fit is None else array.filter(pa.array(self._fit))).drop_null()

    @property
    def rows_as_floats(self) -> Floats:
        """All fitted rows as float64, NaN where null, shape [rows]."""
        values = numbers(self.column).floats()
        return values if self._fit is None else values[self._fit]

    def chosen(self, rows: Array) -> Array:
        """What an array of one entry for each row has for the fitted ones."""
        return rows if self._fit is None else rows[self._fit]

    @cached_property
    def rows_as_numbers(self) -> Numbers:
        """All fitted rows, shape [rows], or [rows, k] for vectors."""
        column = numbers(self.column)
        if self._fit is None:
            return column
        index = np.flatnonzero(self._fit)
        return column.at(index) if isinstance(column, OneHot) else numbers(rows_at(column, index))

    @cached_property
    def infinities(self) -> int:
        if self.values.dtype.kind != "f" or np.isfinite(self.values).all():
            return 0
        return int(np.isinf(self.values).sum())

    @cached_property
    def coded(self) -> Coded:
        """The text of the rows as codes, nulls included."""
        coded = text(self.column).coded
        return coded if self._fit is None else Coded(coded.codes[self._fit], coded.words, coded.nulls)
