"""Operators that Arrow has no kernel for: exact arithmetic, remainders and intervals, on whole arrays with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.kernels import decimals
from dtap_dask.lake.sql.types import family

NS_DAYS = 106_700  # days from 1970 in the range of 64-bit nanoseconds, less a month


def calculate(op: str, dtype: pa.DataType, left: Any, right: Any) -> pa.Array:
    """`left op right` (+, -, *, //, %) of two numbers; ArrowInvalid for overflow or a divisor of 0."""
    if family(dtype) == "decimal":
        return decimals.calculate(op, left, right, dtype)
    if op == "%":
        return _remainder(dtype, left, right)
    return _CHECKED[op](left, right)


_CHECKED: dict[str, Callable[..., Any]] = {
    "+": pc.add_checked,
    "-": pc.subtract_checked,
    "*": pc.multiply_checked,
    "//": pc.divide_checked,
}


def _remainder(dtype: pa.DataType, left: Any, right: Any) -> pa.Array:
    """The remainder with the sign of the dividend, as SQL's %; of integers or floats of one type."""
    if pa.types.is_signed_integer(dtype):  # dividing the least integer by -1 overflows; by 1 the remainder is 0 as well
        one = pa.scalar(1, dtype)
        right = pc.if_else(pc.equal(right, pc.negate(one)), one, right)
    if pa.types.is_integer(dtype):
        return pc.subtract(left, pc.multiply(right, pc.divide(left, right)))
    a, b = decimals.same_length(left, right)
    with np.errstate(invalid="ignore"):
        values = np.fmod(a.to_numpy(zero_copy_only=False), b.to_numpy(zero_copy_only=False))
    return pa.array(values, dtype, mask=np.asarray(pc.invert(pc.and_(a.is_valid(), b.is_valid()))))


def floor_time(values: pa.Array, unit: str) -> pa.Array:
    """Timestamps at the start of their `unit`; ArrowInvalid where nanoseconds overflow (Arrow wraps)."""
    floored = pc.floor_temporal(values, unit=unit)
    if values.type.unit == "ns" and pc.any(pc.greater(floored, values)).as_py():
        raise pa.ArrowInvalid(f"the start of the {unit} is before the first nanosecond timestamp, in 1677")
    return floored


def add_interval(values: pa.Array, interval: pa.Scalar, dtype: pa.DataType, sign: int) -> pa.Array:
    """Timestamps of `dtype` plus `sign` times an interval; a day beyond the end of a month becomes its last day."""
    months, days, nanoseconds = interval.as_py()
    stamps = pc.cast(values, dtype)
    if months:
        stamps = _add_months(stamps, sign * months)
    micros = sign * (days * 86_400_000_000 + nanoseconds // 1000)
    moved = pc.add_checked(_counts(stamps), pa.scalar(micros * (1000 if dtype.unit == "ns" else 1)))
    return pc.cast(moved, pa.timestamp(dtype.unit)).cast(dtype)


def _counts(stamps: pa.Array) -> pa.Array:
    return pc.cast(stamps, pa.int64())


def _add_months(stamps: pa.Array, months: int) -> pa.Array:
    unit = stamps.type.unit
    missing = np.asarray(stamps.is_null())
    times = _counts(stamps).fill_null(0).to_numpy().view(f"M8[{unit}]")
    days = times.astype("M8[D]")
    month = days.astype("M8[M]")
    target = month + months
    last = (target + 1).astype("M8[D]") - np.timedelta64(1, "D")
    if unit == "ns" and np.abs(target.astype("M8[D]").astype(np.int64)).max(initial=0) > NS_DAYS:
        raise pa.ArrowInvalid("a nanosecond timestamp beyond the years 1678 to 2262")
    day = np.minimum(target.astype("M8[D]") + (days - month.astype("M8[D]")), last)
    moved = day.astype(f"M8[{unit}]") + (times - days.astype(f"M8[{unit}]"))
    return pa.array(moved.view(np.int64), mask=missing).cast(pa.timestamp(unit)).cast(stamps.type)
