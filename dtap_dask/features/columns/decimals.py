"""Exact operations on decimals: truncation to integers, conversion to text, bounds, filling, constants."""

from __future__ import annotations

from decimal import Decimal, DecimalException, localcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.columns.column import Array, Mask

DIGITS = 76  # of the widest decimal


def constant(value: Any, kind: pa.DataType) -> pa.Scalar | None:
    """A number, or its digits, as a scalar of a decimal type; None where the type does not hold it exactly."""
    try:
        with localcontext(prec=2 * DIGITS):
            return pa.scalar(Decimal(str(value)), kind)
    except (pa.ArrowInvalid, DecimalException):
        return None


def clipped(array: pa.Array, low: float | None, high: float | None) -> pa.Array | None:
    """The values within the bounds, nulls as they are; None where the type does not hold the bounds exactly."""
    bounds = [None if bound is None else constant(bound, array.type) for bound in (low, high)]
    if any(found is None and bound is not None for found, bound in zip(bounds, (low, high), strict=True)):
        return None
    for bound, beyond in zip(bounds, (pc.less, pc.greater), strict=True):
        if bound is not None:
            array = pc.if_else(beyond(array, bound), bound, array)
    return array


def filled(array: pa.Array, value: Any) -> pa.Array | None:
    """The values with `value` in place of nulls; None where the type does not hold it exactly."""
    found = constant(value, array.type)
    return None if found is None else array.fill_null(found)


def spelled(array: pa.Array) -> pa.Array:
    """The values as text, with all digits after the point that the type has: 12.30, -5."""
    if array.type.scale <= 6:
        return array.cast(pa.string())
    encoded = array.dictionary_encode()  # Arrow writes 0.0000001 as 1E-7
    words = pa.array([format(value, "f") for value in encoded.dictionary.to_pylist()], pa.string())
    return words.take(encoded.indices)


def whole(array: pa.Array, dtype: np.dtype[Any]) -> tuple[Array, Mask | None]:
    """The values cut to integers towards zero, shape [n], 0 where null; and which of them the dtype does not hold."""
    wide = pa.decimal256(DIGITS, 0)
    cut = array.cast(wide, safe=False).fill_null(0)  # cuts, as the property test has it
    limits = np.iinfo(dtype)
    low, high = (pa.scalar(Decimal(int(bound)), wide) for bound in (limits.min, limits.max))
    bad = pc.or_(pc.less(cut, low), pc.greater(cut, high)).to_numpy(zero_copy_only=False)
    if bad.any():
        return np.zeros(len(array), dtype), bad
    return cut.cast(pa.from_numpy_dtype(dtype)).to_numpy(zero_copy_only=False), None
