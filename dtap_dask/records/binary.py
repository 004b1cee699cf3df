"""LargeBinaryArrays as NumPy arrays and back, without a copy, and texts as the values of a bytes_list."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.records.wire import VALUE, Bytes, put_varints


def as_array(data: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """A LargeBinaryArray without nulls as (offsets[n + 1], bytes), without a copy."""
    _, offsets, values = data.buffers()
    if not len(data):
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)[data.offset : data.offset + len(data) + 1]
    flat = np.frombuffer(values, np.uint8) if values is not None else np.empty(0, np.uint8)
    return ends - ends[0], flat[ends[0] : ends[-1]]


def as_binary(offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> pa.LargeBinaryArray:
    """bytes[offsets[i]:offsets[i + 1]] for every i as a LargeBinaryArray, without a copy."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def bytes_list_values(texts: pa.LargeBinaryArray, length_bytes: int) -> pa.LargeBinaryArray:
    """Each text (none may be null) as a value of a bytes_list: a tag, its length padded to `length_bytes`, the text."""
    sizes = np.diff(as_array(texts)[0])
    heads = np.empty((len(sizes), 1 + length_bytes), np.uint8)
    heads[:, 0] = VALUE
    put_varints(heads, 1, sizes, length_bytes)
    return pc.binary_join_element_wise(matrix_as_binary(heads), texts, pa.scalar(b"", pa.large_binary()))


def matrix_as_binary(matrix: Bytes) -> pa.LargeBinaryArray:
    """Each row of a matrix of bytes as one value."""
    ends = np.arange(len(matrix) + 1, dtype=np.int64) * matrix.shape[1]
    return as_binary(ends, matrix.reshape(-1))
