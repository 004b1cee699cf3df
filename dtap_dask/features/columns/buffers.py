"""Arrow arrays as NumPy arrays: their values, and the bits that say where they are null."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def view(array: pa.Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The values as they are in memory, nulls included."""
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * np.dtype(dtype).itemsize)


def validity(array: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Where the array is not null, shape [n]; None if it never is."""
    if array.null_count == 0:
        return None
    return unpack(array.buffers()[0], array.offset, len(array))


def unpack(bits: pa.Buffer, offset: int, count: int) -> npt.NDArray[np.bool_]:
    """`count` bits from the bit `offset` on, shape [count]."""
    if count == 0:
        return np.empty(0, np.bool_)
    first = offset // 8
    block = np.frombuffer(bits, np.uint8)[first : (offset + count + 7) // 8]
    return np.unpackbits(block, bitorder="little")[offset - first * 8 :][:count].view(np.bool_)


def bits(array: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    """The values of an array without nulls, shape [n]."""
    return unpack(array.buffers()[1], array.offset, len(array))
