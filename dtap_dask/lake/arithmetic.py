"""What Arrow has no kernel for: remainders and calendar arithmetic, on whole arrays with NumPy."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.expression import MAX_PRECISION, family

_EXACT_POWER = 22  # 10^22 is the largest power of ten that is a double
_NS_DAYS = 106_700  # days from 1970 that nanoseconds in 64 bits reach, less a month


def _pair(left: Any, right: Any) -> tuple[pa.Array, pa.Array]:
    """Both as arrays of the same length."""
    rows = len(left) if isinstance(left, pa.Array) else len(right)
    a, b = (
        value
        if isinstance(value, pa.Array)
        else pa.repeat(value, rows)
        if value.is_valid
        else pa.nulls(rows, value.type)
        for value in (left, right)
    )
    return a, b


def _both_valid(a: pa.Array, b: pa.Array) -> pa.Array:
    return pc.and_(a.is_valid(), b.is_valid())


def remainder(dtype: pa.DataType, left: Any, right: Any) -> pa.Array:
    """The remainder with the sign of the dividend, as SQL's %; of numbers of one type."""
    a, b = _pair(left, right)
    kind = family(dtype)
    if kind == "float":
        with np.errstate(invalid="ignore"):
            values = np.fmod(a.to_numpy(zero_copy_only=False), b.to_numpy(zero_copy_only=False))
        return pa.array(values, dtype, mask=np.asarray(pc.invert(_both_valid(a, b))))
    if kind == "decimal":
        whole = remainder(pa.int64(), unscaled(a), unscaled(b))
        return scaled(whole, dtype)
    return pc.subtract(a, pc.multiply(b, pc.divide_checked(a, b)))


def round_number(values: pa.Array, digits: int, mode: str) -> pa.Array:
    """Floats or decimals rounded to `digits` after the point; a decimal gets one more digit to carry into.

    Where rounding needs a digit more than the precision, Arrow 26 writes 0 and forgets the error if a later value of
    the array is fine. With all 38 digits in use none can be added: such a 0 is looked for, and raises ArrowInvalid.
    """
    if family(values.type) != "decimal":
        return pc.round(values, ndigits=digits, round_mode=mode)
    values = pc.cast(values, wider(values.type))
    rounded = pc.round(values, ndigits=digits, round_mode=mode)
    if values.type.precision == MAX_PRECISION:
        least = Decimal(10) ** min(max(-digits, 0), MAX_PRECISION - 1)  # does not round to 0
        lost = pc.and_(pc.equal(rounded, pa.scalar(Decimal(0))), pc.greater_equal(pc.abs(values), pa.scalar(least)))
        if pc.any(lost).as_py():
            raise pa.ArrowInvalid("a value has more than 38 digits after rounding")
    return rounded


def floor_time(values: pa.Array, unit: str) -> pa.Array:
    """Timestamps at the start of their `unit`; ArrowInvalid where nanoseconds cannot reach it (Arrow wraps)."""
    floored = pc.floor_temporal(values, unit=unit)
    if values.type.unit == "ns" and pc.any(pc.greater(floored, values)).as_py():
        raise pa.ArrowInvalid(f"the start of the {unit} lies before the first nanosecond timestamp, in 1677")
    return floored


def wider(dtype: pa.DataType) -> pa.DataType:
    """A decimal with room for the digit that rounding may add; other types as they are."""
    if family(dtype) != "decimal":
        return dtype
    return pa.decimal128(min(dtype.precision + 1, MAX_PRECISION), dtype.scale)


def unscaled(values: pa.Array) -> pa.Array:
    """A decimal128 array of at most 18 digits as int64 counts of its last digit."""
    data = np.frombuffer(values.buffers()[1] or b"", np.int64)[
        2 * values.offset : 2 * (values.offset + len(values)) : 2
    ]
    return pa.array(data, mask=np.asarray(values.is_null()))


def decimal_to_double(values: pa.Array) -> pa.Array:
    """The double nearest to each decimal, which Arrow 26 misses for some (1.255 by one unit in the last place).

    One division of two exact doubles rounds once; what does not fit two exact doubles goes through its text.
    """
    if not len(values) or values.null_count == len(values):
        return pa.nulls(len(values), pa.float64())
    words = np.frombuffer(values.buffers()[1], np.int64).reshape(-1, 2)[values.offset : values.offset + len(values)]
    missing = np.asarray(values.is_null())
    low, high = (np.where(missing, 0, word) for word in words.T)
    scale = values.type.scale
    if not 0 <= scale <= _EXACT_POWER or (high != low >> 63).any() or (low > 2**53).any() or (low < -(2**53)).any():
        return pc.cast(pc.cast(values, pa.string()), pa.float64())
    return pa.array(low / 10.0**scale, mask=missing)


def scaled(counts: pa.Array, dtype: pa.DataType) -> pa.Array:
    """The inverse of `unscaled`."""
    low = counts.fill_null(0).to_numpy()
    words = np.stack((low, low >> 63), axis=1)
    valid = (
        None if counts.null_count == 0 else pa.py_buffer(np.packbits(np.asarray(counts.is_valid()), bitorder="little"))
    )
    return pa.Array.from_buffers(dtype, len(counts), [valid, pa.py_buffer(words)])


def add_interval(values: pa.Array, interval: pa.Scalar, dtype: pa.DataType, sign: int) -> pa.Array:
    """Timestamps of `dtype` plus `sign` times an interval; a day that a month lacks becomes its last."""
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
    if unit == "ns" and np.abs(target.astype("M8[D]").astype(np.int64)).max(initial=0) > _NS_DAYS:
        raise pa.ArrowInvalid("a nanosecond timestamp beyond the years 1678 to 2262")
    day = np.minimum(target.astype("M8[D]") + (days - month.astype("M8[D]")), last)
    moved = day.astype(f"M8[{unit}]") + (times - days.astype(f"M8[{unit}]"))
    return pa.array(moved.view(np.int64), mask=missing).cast(pa.timestamp(unit)).cast(stamps.type)
