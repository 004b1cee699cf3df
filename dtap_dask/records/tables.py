"""Rows as an Arrow table, in the dtypes in which a loader delivers them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dtap_dask.features.columns.column import Array
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo


def as_table(rows: Rows, infos: Sequence[FeatureInfo]) -> pa.Table:
    """The columns `infos` of rows; vectors and tensors are (nested) lists of a fixed size, text is large_binary."""
    return pa.table({info.name: _as_arrow(rows[info.name], info) for info in infos})


def _as_arrow(values: Array | pa.Array, info: FeatureInfo) -> pa.Array:
    if isinstance(values, pa.Array):
        numbers = info.shape == (None,) and info.dtype != "bytes"
        return values.cast(pa.large_list(pa.from_numpy_dtype(np.dtype(info.dtype)))) if numbers else values
    array = pa.array(np.ascontiguousarray(values.astype(info.dtype, copy=False)).reshape(-1))
    for axis in reversed(range(1, values.ndim)):
        size, rows = values.shape[axis], math.prod(values.shape[:axis])
        empty = pa.list_(array.type, 0)  # of which from_arrays makes none
        array = pa.FixedSizeListArray.from_arrays(array, size) if size else pa.array([[]] * rows, empty)
    return array
