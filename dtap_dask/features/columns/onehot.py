"""One-hot vectors, and sparse matrices of columns."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from dtap_dask.features.columns.column import Array, Mask, Numbers, offsets_of
from dtap_dask.lake.fingerprint import Offsets


class OneHot(Numbers):
    """One-hot vectors of shape [n, width], held as `places`, int64 [n]: where the 1 of each row is, -1 for none.

    `values`, uint8 [n, width], are made when they are first asked for.
    """

    places: Offsets
    width: int

    def __init__(self, places: Offsets, width: int, valid: Mask | None = None):
        for name, value in (("places", places), ("width", width), ("valid", valid)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def is_float(self) -> bool:
        return False

    @cached_property
    def values(self) -> Array:
        made = np.zeros((len(self.places), self.width), np.uint8)
        rows = np.flatnonzero(self.places >= 0)
        made[rows, self.places[rows]] = 1
        return made

    def at(self, index: Offsets) -> OneHot:
        """The rows at `index`."""
        return OneHot(self.places[index], self.width, None if self.valid is None else self.valid[index])


def is_sparse(column: Numbers) -> bool:
    """Whether most of a column's numbers are taken to be 0: one-hot vectors, and vectors of small whole numbers."""
    if isinstance(column, OneHot):
        return True
    return column.values.ndim == 2 and column.values.dtype.kind in "iub" and column.values.dtype.itemsize <= 2


def sparse_rows(column: Numbers) -> Any:
    """A sparse column as an int64 scipy.sparse.csr_array of its shape."""
    from scipy import sparse  # only few jobs need it

    if not isinstance(column, OneHot):
        return sparse.csr_array(column.values.astype(np.int64))
    found = column.places >= 0
    ones = np.ones(np.count_nonzero(found), np.int64)
    return sparse.csr_array((ones, column.places[found], offsets_of(found)), shape=(len(column), column.width))
