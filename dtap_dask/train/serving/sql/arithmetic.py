"""Operators of numbers, dates and intervals, exact as those of lake.sql.kernels.arithmetic and decimals."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.kernels.arithmetic import NS_DAYS
from dtap_dask.lake.sql.kernels.calendar import PER_DAY
from dtap_dask.lake.sql.types import family
from dtap_dask.train.serving.calendar import civil, first_of, months_of
from dtap_dask.train.serving.sql.tensor import SqlTensor, Twin, any_of, strict
from dtap_dask.train.serving.tensors import Tensor

LEAST, MOST = -(2**63), 2**63 - 1
Checked = tuple[Tensor, Tensor]
"""Values, and where they overflow."""


def added(a: Tensor, b: Tensor) -> Checked:
    """a + b of int64."""
    total = a + b
    return total, ((a ^ total) & (b ^ total)) < 0


def subtracted(a: Tensor, b: Tensor) -> Checked:
    """a - b of int64."""
    rest = a - b
    return rest, ((a ^ b) & (a ^ rest)) < 0


def multiplied(a: Tensor, b: Tensor) -> Checked:
    """a * b of int64. The product modulo 2^64 is off by a multiple of 2^64 where it overflows, which a product in
    float64 shows."""
    product = a * b
    rough = tf.cast(a, tf.float64) * tf.cast(b, tf.float64)
    return product, tf.abs(rough - tf.cast(product, tf.float64)) > 2.0**62


def times(values: Tensor, factor: int) -> tuple[Tensor, Tensor | None]:
    """`values` times a constant of at least 1, any number of digits; overflow is None where there cannot be any."""
    if factor == 1:
        return values, None
    if factor > MOST:
        return tf.zeros_like(values), values != 0
    most = MOST // factor
    return values * factor, (values > most) | (values < -most)


def beyond(values: Tensor, digits: int) -> Tensor | None:
    """Where whole numbers have more than `digits` digits; None where 64 bits hold no such number."""
    return (values >= 10**digits) | (values <= -(10**digits)) if digits <= 18 else None


def truncated_division(a: Tensor, b: Tensor) -> Checked:
    """a // b rounded towards zero; by 0, and of the least integer by -1, it is an error."""
    wrong = (b == 0) | ((a == LEAST) & (b == -1))
    return tf.truncatediv(a, tf.where(wrong, tf.ones_like(b), b)), wrong


def remainder(a: Tensor, b: Tensor) -> Checked:
    """The remainder with the sign of the dividend; by 0 it is an error."""
    one = (b == 0) | (b == -1)
    return tf.truncatemod(a, tf.where(one, tf.ones_like(b), b)), b == 0


_WHOLE = {"+": added, "-": subtracted, "*": multiplied, "//": truncated_division, "%": remainder}
_FLOATS: dict[str, Any] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": tf.truncatemod,
}


def operator(op: str) -> Twin:
    """The twin of a binary operator."""

    def kernel(dtype: pa.DataType, left: SqlTensor, right: SqlTensor) -> Any:
        if family(right.type) == "interval":
            return _moved(left, right.constant, dtype, 1 if op == "+" else -1)
        if family(dtype) == "float":
            return _FLOATS[op](left.values, right.values)
        if family(dtype) == "decimal":
            return _decimals(op, left, right, dtype)
        values, wrong = _WHOLE[op](left.values, right.values)
        if family(dtype) == "date":
            wrong = wrong | (values < -(2**31)) | (values >= 2**31)
        return values, wrong

    return strict(kernel)


def _decimals(op: str, left: SqlTensor, right: SqlTensor, dtype: pa.DataType) -> Any:
    if op == "*":
        return multiplied(left.values, right.values)
    (a, over_a), (b, over_b) = (times(one.values, 10 ** (dtype.scale - one.type.scale)) for one in (left, right))
    values, wrong = _WHOLE[op](a, b)
    return values, any_of(wrong, over_a, over_b)


def negated(dtype: pa.DataType, value: SqlTensor) -> Any:
    """-x; the least integer has none."""
    return -value.values if family(dtype) == "float" else (-value.values, value.values == LEAST)


def _moved(given: SqlTensor, interval: Any, dtype: pa.DataType, sign: int) -> Checked:
    """Timestamps plus `sign` times an interval (months, days, nanoseconds); a day beyond the end of a month becomes its
    last day."""
    months, days, nanoseconds = interval
    values, wrong = given.values, None
    if months:
        values, wrong = _months_later(values, sign * months, dtype.unit)
    micros = sign * (days * PER_DAY["us"] + nanoseconds // 1000)
    moved, over = added(values, tf.constant(micros * (1000 if dtype.unit == "ns" else 1), tf.int64))
    return moved, any_of(over, wrong)


def _months_later(values: Tensor, months: int, unit: str) -> tuple[Tensor, Tensor | None]:
    days = values // PER_DAY[unit]
    target = months_of(days) + months
    first = first_of(target)
    last = first_of(target + 1) - 1
    moved = tf.minimum(first + civil(days)[2] - 1, last)
    wrong = tf.abs(first) > NS_DAYS if unit == "ns" else None
    return moved * PER_DAY[unit] + (values - days * PER_DAY[unit]), wrong
