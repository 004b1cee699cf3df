"""Exact arithmetic and conversion of decimals: by Arrow's kernels where they are exact, else with Python integers.

A decimal128 value is two 64-bit words, low word first: its number of units in the last place ("counts" here).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.types import MAX_PRECISION

_EXACT_POWER = 22  # 10^22 is the largest power of ten that is a double
_WORD = 2**64
_BELOW_HALF = np.nextafter(0.5, 0)  # added to a double and cut off, rounds halves away from zero
_SHORT = 18  # digits that always fit a signed 64-bit word


def words(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Low and high words [n] (uint64, int64) of a decimal128 array, 0 where it is null."""
    if not len(values) or values.null_count == len(values):
        return np.zeros(len(values), np.uint64), np.zeros(len(values), np.int64)
    data = np.frombuffer(values.buffers()[1], np.uint64)[2 * values.offset : 2 * (values.offset + len(values))]
    low, high = data[::2], data[1::2].view(np.int64)
    if values.null_count:
        missing = np.asarray(values.is_null())
        return np.where(missing, np.uint64(0), low), np.where(missing, 0, high)
    return low, high


def from_words(low: np.ndarray, high: np.ndarray, valid: np.ndarray, dtype: pa.DataType) -> pa.Array:
    """The inverse of `words`; `valid` [n] is false for nulls. The values must fit `dtype`."""
    data = np.empty(2 * len(low), np.uint64)
    data[::2], data[1::2] = low.astype(np.uint64, copy=False), high.view(np.uint64)
    bits = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(dtype, len(low), [bits, pa.py_buffer(data)])


def unscaled(values: pa.Array) -> np.ndarray:
    """Counts of the last digit, int64 [n], of a decimal128 array whose values have at most 18 digits."""
    return words(values)[0].view(np.int64)


def scaled(counts: np.ndarray, valid: np.ndarray, dtype: pa.DataType) -> pa.Array:
    """The inverse of `unscaled`."""
    return from_words(counts.view(np.uint64), counts >> 63, valid, dtype)


def whole_numbers(values: pa.Array) -> np.ndarray:
    """Counts of the last digit as Python integers, object [n], 0 for null."""
    low, high = words(values)
    counts: np.ndarray = high.astype(object) * _WORD + low.astype(object)
    return counts


def from_whole_numbers(counts: np.ndarray, valid: np.ndarray, dtype: pa.DataType) -> pa.Array:
    """The inverse of `whole_numbers`; ArrowInvalid if a value has more digits than `dtype`."""
    if len(counts) and abs(counts).max() >= 10**dtype.precision:
        raise pa.ArrowInvalid(f"overflow: a value has more than {dtype.precision} digits")
    return from_words((counts % _WORD).astype(np.uint64), (counts // _WORD).astype(np.int64), valid, dtype)


def same_length(left: Any, right: Any) -> tuple[pa.Array, pa.Array]:
    """Both as arrays; a scalar is repeated. At least one is an array."""
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


def calculate(op: str, left: Any, right: Any, dtype: pa.DataType) -> pa.Array:
    """`left op right` (+, -, *, //, %) as exact decimals of `dtype`; ArrowInvalid for overflow or a divisor of 0.

    An operand may be a scalar; `dtype` has the scale that the operator gives.
    """
    kernel = _KERNELS.get(op)
    digits = _kernel_precision(op, left.type, right.type)
    if kernel is not None and digits <= MAX_PRECISION:
        return _as(kernel(left, right), dtype)
    if kernel is not None and digits <= 2 * MAX_PRECISION:
        return pc.cast(kernel(_longer(left), _longer(right)), dtype)
    if op == "%" and dtype.precision <= _SHORT and isinstance(right, pa.Scalar) and right.is_valid:
        return _short_remainder_of(left, right, dtype)
    a, b = same_length(left, right)
    if op == "%" and dtype.precision <= _SHORT:
        return _short_remainder(a, b, dtype)
    return _with_whole_numbers(op, a, b, dtype)


def _longer(value: Any) -> Any:
    return pc.cast(value, pa.decimal256(value.type.precision, value.type.scale))


_KERNELS: dict[str, Callable[..., Any]] = {"+": pc.add, "-": pc.subtract, "*": pc.multiply}


def _kernel_precision(op: str, left: pa.DataType, right: pa.DataType) -> int:
    """The precision of the result of Arrow's kernel."""
    if op == "*":
        return int(left.precision + right.precision + 1)
    whole = max(left.precision - left.scale, right.precision - right.scale)
    return int(whole + max(left.scale, right.scale) + 1)


def _as(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    """`values` as a type of the same scale that they are known to fit."""
    if values.type == dtype:
        return values
    return pa.Array.from_buffers(dtype, len(values), values.buffers(), values.null_count, values.offset)


def _valid(left: pa.Array, right: pa.Array) -> np.ndarray:
    both: np.ndarray = np.asarray(left.is_valid()) & np.asarray(right.is_valid())
    return both


def _short_remainder(left: pa.Array, right: pa.Array, dtype: pa.DataType) -> pa.Array:
    valid = _valid(left, right)
    a, b = (unscaled(side) * 10 ** (dtype.scale - side.type.scale) for side in (left, right))
    _no_zero(b, valid)
    b = np.where(valid, b, 1)
    return scaled(np.fmod(np.where(valid, a, 0), b), valid, dtype)


def _short_remainder_of(left: pa.Array, right: pa.Scalar, dtype: pa.DataType) -> pa.Array:
    valid = np.asarray(left.is_valid())
    divisor = int(right.as_py().scaleb(dtype.scale))
    _no_zero(np.array([divisor]), valid)
    counts = unscaled(left)
    if dtype.scale > left.type.scale:
        counts = counts * 10 ** (dtype.scale - left.type.scale)
    return scaled(np.fmod(counts, divisor or 1), valid, dtype)


def _with_whole_numbers(op: str, left: pa.Array, right: pa.Array, dtype: pa.DataType) -> pa.Array:
    valid = _valid(left, right)
    a, b = (np.where(valid, whole_numbers(side), fill) for side, fill in ((left, 0), (right, 1)))
    scale = left.type.scale + right.type.scale if op == "*" else max(left.type.scale, right.type.scale)
    if op == "*":
        return from_whole_numbers(a * b, valid, dtype)
    a, b = a * 10 ** (scale - left.type.scale), b * 10 ** (scale - right.type.scale)
    if op in ("+", "-"):
        return from_whole_numbers(a + b if op == "+" else a - b, valid, dtype)
    _no_zero(b, valid)
    quotient = abs(a) // abs(b)
    quotient = np.where((a < 0) ^ (b < 0), -quotient, quotient)
    return from_whole_numbers(quotient if op == "//" else a - b * quotient, valid, dtype)


def _no_zero(divisor: np.ndarray, valid: np.ndarray) -> None:
    if ((divisor == 0) & valid).any():
        raise pa.ArrowInvalid("divide by zero")


def to_floating(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    """The float or double nearest to each decimal; Arrow 26 misses it for some, such as 1.255.

    Dividing two exact doubles rounds once; values that do not fit them are converted through their text.
    """
    if not pa.types.is_decimal128(values.type):
        return pc.cast(pc.cast(values, pa.string()), dtype)
    low, high = words(values)
    counts, scale = low.view(np.int64), values.type.scale
    if not 0 <= scale <= _EXACT_POWER or (high != counts >> 63).any() or (np.abs(counts) > 2**53).any():
        return pc.cast(pc.cast(values, pa.string()), dtype)
    nearest = counts / 10.0**scale
    if pa.types.is_float32(dtype):
        if (np.frombuffer(nearest.data, np.uint64) & 0x1FFFFFFF == 0x10000000).any():  # halfway: would round twice
            return pc.cast(pc.cast(values, pa.string()), dtype)
        nearest = nearest.astype(np.float32)
    return pa.array(nearest, dtype, mask=np.asarray(values.is_null()) if values.null_count else None)


def from_floating(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Floats as decimals, rounded half away from zero in double as in DuckDB; ArrowInvalid if one does not fit."""
    valid = np.asarray(values.is_valid())
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        product = numbers * np.float64(10.0**dtype.scale)
    counts = np.trunc(product + np.copysign(_BELOW_HALF, product))
    largest = np.abs(counts).max(initial=0)
    if not largest < 10.0**dtype.precision:
        raise pa.ArrowInvalid(f"a value has more than {dtype.precision - dtype.scale} digits before the point")
    if largest < 2.0**63:
        return scaled(counts.astype(np.int64), valid, dtype)
    size, negative = np.abs(counts), counts < 0
    high = np.floor(size * 2.0**-64)
    low, high = (size - high * 2.0**64).astype(np.uint64), high.astype(np.int64)  # exact for absolute values only
    carry = (low == 0).astype(np.int64)
    return from_words(
        np.where(negative, ~low + np.uint64(1), low), np.where(negative, ~high + carry, high), valid, dtype
    )


def rescaled(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Decimals with another precision and scale, rounded half away from zero; ArrowInvalid if one does not fit."""
    source = values.type
    down = source.scale - dtype.scale
    if down > 0:
        return rounded(values, dtype.scale, HALF_AWAY, dtype)
    # Arrow 26 wraps around where a product has more than 38 digits
    return pc.cast(values if source.precision - down <= MAX_PRECISION else _longer(values), dtype)


def rounded(values: pa.Array, digits: int, mode: str, dtype: pa.DataType) -> pa.Array:
    """Decimals rounded to `digits` after the point, fewer than they have, as `dtype`; ArrowInvalid if one does not fit.

    `digits` is negative for digits before the point. `mode` is one of Arrow's.
    """
    source = values.type
    unit = source.scale - digits
    if source.precision > _SHORT or unit > _SHORT:
        wide = pa.decimal256(source.precision + 1, source.scale)  # rounding may need a digit more
        return pc.cast(pc.round(pc.cast(values, wide), ndigits=digits, round_mode=mode), dtype)
    counts = _ROUNDINGS[mode](unscaled(values), 10**unit) * 10 ** (dtype.scale - digits)
    if dtype.precision <= _SHORT and (np.abs(counts) >= 10**dtype.precision).any():
        raise pa.ArrowInvalid(f"a value has more than {dtype.precision} digits")
    return scaled(counts, np.asarray(values.is_valid()), dtype)


def _half_away(counts: np.ndarray, unit: int) -> np.ndarray:
    whole = (np.abs(counts) + unit // 2) // unit
    halves: np.ndarray = np.where(counts < 0, -whole, whole)
    return halves


HALF_AWAY = "half_towards_infinity"
_ROUNDINGS: dict[str, Callable[[Any, int], Any]] = {
    HALF_AWAY: _half_away,
    "towards_zero": lambda counts, unit: np.sign(counts) * (np.abs(counts) // unit),
    "down": lambda counts, unit: counts // unit,
    "up": lambda counts, unit: -(-counts // unit),
}
