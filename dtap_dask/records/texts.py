"""Texts as the values of a bytes_list, for whole columns at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.records import columns
from dtap_dask.records.wire import VALUE, Bytes, put_varints


def as_values(texts: pa.LargeBinaryArray, length_bytes: int) -> pa.LargeBinaryArray:
    """Each of the texts (no nulls) as a value of a bytes_list: a tag, a length padded to `length_bytes`, the text."""
    sizes = np.diff(columns.as_array(texts)[0])
    heads = np.empty((len(sizes), 1 + length_bytes), np.uint8)
    heads[:, 0] = VALUE
    put_varints(heads, 1, sizes, length_bytes)
    return pc.binary_join_element_wise(matrix_as_binary(heads), texts, pa.scalar(b"", pa.large_binary()))


def matrix_as_binary(matrix: Bytes) -> pa.LargeBinaryArray:
    """Each row of a matrix of bytes as one value."""
    ends = np.arange(len(matrix) + 1, dtype=np.int64) * matrix.shape[1]
    return columns.as_binary(ends, matrix.reshape(-1))
