"""Twins of the functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.functions.numeric import MOST_DIGITS
from dtap_dask.lake.sql.types import family
from dtap_dask.train.serving.sql.arithmetic import LEAST, beyond, times
from dtap_dask.train.serving.sql.tensor import SqlTensor, Twin, any_of, of_values, strict
from dtap_dask.train.serving.tensors import Tensor, fixed

_SPLIT = 134_217_729.0  # 2^27 + 1, of Dekker's product


def cut(values: Tensor) -> Tensor:
    """Floats without what is after the point."""
    return tf.where(values < 0, tf.math.ceil(values), tf.math.floor(values))


def half_away(values: Tensor) -> Tensor:
    """Floats rounded, halves away from zero."""
    whole = cut(values)
    return tf.where(tf.abs(values - whole) >= 0.5, whole + tf.sign(values), whole)


_FLOATS: dict[str, Callable[[Tensor], Tensor]] = {
    "half": half_away,
    "cut": cut,
    "down": tf.math.floor,
    "up": tf.math.ceil,
}


def rounded_counts(values: Tensor, digits: int, mode: str) -> Tensor:
    """int64 rounded at its last `digits` decimal digits, as the number of 10^digits."""
    if digits > 18:
        far = (values >= 5 * 10**18) | (values <= -5 * 10**18)
        up = {"half": far if digits == 19 else None, "down": values < 0, "up": values > 0}.get(mode)
        return tf.zeros_like(values) if up is None else tf.where(up, tf.sign(values), tf.zeros_like(values))
    unit = 10**digits
    whole = tf.truncatediv(values, tf.constant(unit, tf.int64))
    rest = values - whole * unit
    if mode == "half":
        return whole + tf.where(tf.abs(rest) * 2 >= unit, tf.sign(values), tf.zeros_like(values))
    if mode == "down":
        return whole - tf.cast(rest < 0, tf.int64)
    return whole + tf.cast(rest > 0, tf.int64) if mode == "up" else whole


def _rounding(mode: str) -> Twin:
    def kernel(dtype: pa.DataType, given: SqlTensor, digits: SqlTensor | None = None) -> Any:
        wanted = 0 if digits is None else digits.constant
        kind = family(given.type)
        if kind == "float":
            return _round_float(given.values, max(min(wanted, MOST_DIGITS), -MOST_DIGITS), mode)
        scale = given.type.scale if kind == "decimal" else 0
        if wanted >= scale:
            return given.values
        counts = rounded_counts(given.values, scale - max(wanted, -40), mode)
        values, over = times(counts, 10 ** ((dtype.scale if family(dtype) == "decimal" else 0) - max(wanted, -40)))
        digits_over = beyond(values, dtype.precision) if family(dtype) == "decimal" else None
        return values, any_of(over, digits_over)

    return strict(kernel)


def _round_float(values: Tensor, digits: int, mode: str) -> Tensor:
    if digits == 0:
        return _FLOATS[mode](values)
    numbers = tf.cast(values, tf.float64)
    with np.errstate(over="ignore"):
        number = float(np.power(10.0, abs(digits)))
    factor = fixed(number)
    if digits < 0:
        rounded = _FLOATS[mode](numbers / factor) * factor
        return tf.cast(tf.where(tf.math.is_nan(rounded), tf.zeros_like(rounded), rounded), values.dtype)
    products = numbers * factor
    whole = _FLOATS[mode](products)
    if mode == "half":
        whole = _without_false_halves(whole, products, numbers, number)
    rounded = whole / factor
    return tf.cast(tf.where(tf.math.is_finite(rounded), rounded, numbers), values.dtype)


def _without_false_halves(whole: Tensor, product: Tensor, numbers: Tensor, factor: float) -> Tensor:
    """`whole`, corrected where a product was rounded up to a half when multiplying, so its exact value is below."""
    high = factor * _SPLIT - (factor * _SPLIT - factor)
    high_b, low_b = fixed(high), fixed(factor - high)
    spread = numbers * fixed(_SPLIT)
    high_a = spread - (spread - numbers)
    low_a = numbers - high_a
    rest = low_a * low_b - (((product - high_a * high_b) - low_a * high_b) - high_a * low_b)
    false = (tf.abs(product - whole) == 0.5) & (rest * tf.sign(product) < 0)
    return whole - tf.where(false, tf.sign(product), tf.zeros_like(product))


def _absolute(dtype: pa.DataType, given: SqlTensor) -> Any:
    if family(dtype) == "float":
        return tf.abs(given.values)
    return tf.abs(given.values), given.values == LEAST


def _sign(dtype: pa.DataType, given: SqlTensor) -> Tensor:
    return tf.cast(tf.sign(given.values), tf.int64)


def _cube_root(x: Tensor) -> Tensor:
    near = tf.sign(x) * tf.pow(tf.abs(x), 1 / 3)
    better = near - (near * near * near - x) / (3 * near * near)
    return tf.where(tf.math.is_finite(better), better, near)


def _log(base: Tensor, x: Tensor | None = None) -> Tensor:
    if x is None:
        return _log10(base)
    return _log10(x) / _log10(base)


def _log10(x: Tensor) -> Tensor:
    return tf.math.log(x) / fixed(math.log(10))


NUMERIC_TWINS: dict[str, Twin] = {
    "abs": strict(_absolute),
    "sign": strict(_sign),
    "round": _rounding("half"),
    "trunc": _rounding("cut"),
    "floor": _rounding("down"),
    "ceil": _rounding("up"),
    "power": of_values(tf.pow),
    "sqrt": of_values(tf.sqrt),
    "cbrt": of_values(_cube_root),
    "exp": of_values(tf.exp),
    "ln": of_values(tf.math.log),
    "log10": of_values(_log10),
    "log2": of_values(lambda x: tf.math.log(x) / fixed(math.log(2))),
    "log": of_values(_log),
    "sin": of_values(tf.sin),
    "cos": of_values(tf.cos),
    "tan": of_values(tf.tan),
    "cot": of_values(lambda x: 1.0 / tf.tan(x)),
    "asin": of_values(tf.asin),
    "acos": of_values(tf.acos),
    "atan": of_values(tf.atan),
    "atan2": of_values(tf.atan2),
    "degrees": of_values(lambda x: x * fixed(180.0 / math.pi)),
    "radians": of_values(lambda x: x * fixed(math.pi / 180.0)),
    "pi": lambda dtype, args: SqlTensor(dtype, tf.constant(math.pi, tf.float64)),
    "isnan": of_values(tf.math.is_nan),
    "isinf": of_values(tf.math.is_inf),
    "isfinite": of_values(tf.math.is_finite),
}
