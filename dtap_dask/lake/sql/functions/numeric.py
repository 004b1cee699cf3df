"""Functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.functions.definition import Args, Function, Kernel, Types, always, constant, plain
from dtap_dask.lake.sql.kernels import decimals
from dtap_dask.lake.sql.tree import Node
from dtap_dask.lake.sql.types import BOOL, DOUBLE, INT64, MAX_PRECISION, family

MOST_DIGITS = 400  # more digits change no double


def _held(dtype: pa.DataType) -> pa.DataType:
    """The type a number is computed in: integers as BIGINT (UBIGINT stays)."""
    kind = family(dtype)
    if kind == "int":
        return dtype if dtype == pa.uint64() else INT64
    return DOUBLE if kind == "null" else dtype


def _same(name: str, args: Sequence[Node]) -> Types:
    kind = _held(args[0].type)
    return (kind,), kind


def _cut(name: str, args: Sequence[Node]) -> Types:
    """trunc: a decimal keeps `digits` digits after the point."""
    source, digits = _held(args[0].type), constant(args, 1) or 0
    result = source
    if family(source) == "decimal" and digits < source.scale:
        result = pa.decimal128(source.precision, max(digits, 0))
    return (source, INT64)[: len(args)], result


def _rounded(name: str, args: Sequence[Node]) -> Types:
    """round: as trunc, with one more digit before the point, as rounding may add one."""
    targets, result = _cut(name, args)
    digits = constant(args, 1) or 0
    if family(result) == "decimal" and result.scale == targets[0].scale == 0 and -result.precision <= digits < 0:
        return targets, pa.decimal128(min(result.precision + 1, MAX_PRECISION), 0)
    if result == pa.uint64() and digits < 0:
        return targets, pa.decimal128(MAX_PRECISION, 0)  # DuckDB's HUGEINT
    return targets, result


def _floored(name: str, args: Sequence[Node]) -> Types:
    """floor and ceil: integers become DOUBLE."""
    if family(args[0].type) == "int":
        return (DOUBLE,), DOUBLE
    return _cut(name, args)


def _round(mode: str) -> Kernel:
    """Rounding in one of Arrow's modes: exact for decimals and integers, by scaling for floats, as in DuckDB."""

    def run(dtype: pa.DataType, args: Args) -> Any:
        values, digits = args[0], args[1].as_py() if len(args) == 2 else 0
        kind = family(values.type)
        if kind == "float":
            return _round_float(values, max(min(digits, MOST_DIGITS), -MOST_DIGITS), mode)
        if digits >= (values.type.scale if kind == "decimal" else 0):
            return values
        if kind == "int":
            return _round_integer(values, dtype, digits, mode)
        digits = max(digits, -MAX_PRECISION)
        if digits < values.type.scale - values.type.precision:
            return _zeros(values, dtype)
        return decimals.rounded(values, digits, mode, dtype)

    return run


def _zeros(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    zero = Decimal(0) if family(dtype) == "decimal" else 0
    return pc.if_else(values.is_valid(), pa.scalar(zero, dtype), pa.scalar(None, dtype))


def _round_integer(values: pa.Array, dtype: pa.DataType, digits: int, mode: str) -> pa.Array:
    if digits < -20:
        return _zeros(values, dtype)
    wide = pc.cast(values, pa.decimal128(20, 0))
    if family(dtype) == "decimal":
        return decimals.rounded(wide, digits, mode, dtype)
    return pc.cast(decimals.rounded(wide, digits, mode, pa.decimal128(MAX_PRECISION, 0)), dtype)


def _round_float(values: pa.Array, digits: int, mode: str) -> pa.Array:
    if digits == 0:
        return pc.round(values, round_mode=mode)
    numbers = pc.cast(values, DOUBLE)
    with np.errstate(over="ignore"):
        factor = pa.scalar(float(np.power(10.0, abs(digits))))
    if digits < 0:
        rounded = pc.multiply(pc.round(pc.divide(numbers, factor), round_mode=mode), factor)
        return pc.if_else(pc.is_nan(rounded), 0.0, rounded).cast(values.type, safe=False)
    products = pc.multiply(numbers, factor)
    whole = pc.round(products, round_mode=mode)
    if mode == "half_towards_infinity":
        whole = _without_false_halves(whole, products, numbers, factor.as_py())
    rounded = pc.divide(whole, factor)
    return pc.if_else(pc.is_finite(rounded), rounded, numbers).cast(values.type, safe=False)


def _without_false_halves(whole: pa.Array, products: pa.Array, numbers: pa.Array, factor: float) -> pa.Array:
    """`whole`, corrected where a product was rounded up to a half when multiplying, so its exact value is below."""
    rounded, product = (column.to_numpy(zero_copy_only=False) for column in (whole, products))
    with np.errstate(all="ignore"):
        halves = np.flatnonzero(np.abs(product - rounded) == 0.5)
        if not len(halves):
            return whole
        a, near = numbers.to_numpy(zero_copy_only=False)[halves], product[halves]
        high_a, high_b = (part * 134217729.0 - (part * 134217729.0 - part) for part in (a, np.float64(factor)))
        low_a, low_b = a - high_a, factor - high_b  # Dekker's product: the rounding error of the multiplication
        rest = low_a * low_b - (((near - high_a * high_b) - low_a * high_b) - high_a * low_b)
        exact = rounded.copy()
        exact[halves] -= np.where(rest * np.sign(near) < 0, np.sign(near), 0.0)
    return pa.array(exact, mask=np.asarray(whole.is_null()))


def _log(dtype: pa.DataType, args: Args) -> Any:
    if len(args) == 1:
        return pc.log10(args[0])
    return pc.divide(pc.log10(args[1]), pc.log10(args[0]))


def _numpy(function: Callable[[Any], Any]) -> Kernel:
    def run(dtype: pa.DataType, args: Args) -> Any:
        missing = np.asarray(args[0].is_null())
        with np.errstate(all="ignore"):
            return pa.array(function(args[0].to_numpy(zero_copy_only=False)), dtype, mask=missing)

    return run


def _math(run: Kernel, doc: str, example: str, rising: bool = False) -> Function:
    return Function("x number", DOUBLE, run, doc, example, rising=always if rising else lambda args: False)


def _is(kernel: Callable[..., Any], doc: str, example: str) -> Function:
    return Function("x number", BOOL, plain(kernel), doc, example)


_SAME = "as x; integers BIGINT"
NUMERIC: dict[str, Function] = {
    "abs": Function("x numeric", _same, plain(pc.abs_checked), "the absolute value", "abs(-2.5)", _SAME),
    "sign": Function("x numeric", INT64, plain(pc.sign), "-1, 0 or 1", "sign(-2.5)", rising=always),
    "round": Function(
        "x numeric, [digits constant integer]",
        _rounded,
        _round("half_towards_infinity"),
        "rounded to `digits` after the point (0), halves away from zero; negative digits round before the point",
        "round(2.345, 2)",
        f"{_SAME}; a decimal keeps `digits` after the point",
        rising=always,
    ),
    "trunc": Function(
        "x numeric, [digits constant integer]",
        _cut,
        _round("towards_zero"),
        "cut off after `digits` (0) digits after the point",
        "trunc(-2.7)",
        f"{_SAME}; a decimal keeps `digits` after the point",
        rising=always,
    ),
    "floor": Function(
        "x numeric",
        _floored,
        _round("down"),
        "the largest whole number that is not above x",
        "floor(-2.5)",
        "as x; integers DOUBLE",
        rising=always,
    ),
    "ceil": Function(
        "x numeric",
        _floored,
        _round("up"),
        "the smallest whole number that is not below x",
        "ceil(2.1)",
        "as x; integers DOUBLE",
        rising=always,
    ),
    "power": Function("x number, y number", DOUBLE, plain(pc.power), "x to the power of y; also x ^ y", "power(2, 10)"),
    "sqrt": _math(plain(pc.sqrt), "the square root; NULL for negative numbers", "sqrt(2)", True),
    "cbrt": _math(_numpy(np.cbrt), "the cube root", "cbrt(-8)"),
    "exp": _math(plain(pc.exp), "e to the power of x", "exp(1)", True),
    "ln": _math(plain(pc.ln), "the natural logarithm; -infinity for 0, NULL for negative numbers", "ln(10)"),
    "log10": _math(plain(pc.log10), "the logarithm to base 10", "log10(1000)"),
    "log2": _math(plain(pc.log2), "the logarithm to base 2", "log2(8)"),
    "log": Function(
        "base number, [x number]",
        DOUBLE,
        _log,
        "log(x) is the logarithm to base 10, log(base, x) to `base`",
        "log(2, 8)",
    ),
    "sin": _math(plain(pc.sin), "the sine of an angle in radians", "sin(1)"),
    "cos": _math(plain(pc.cos), "the cosine of an angle in radians", "cos(1)"),
    "tan": _math(plain(pc.tan), "the tangent of an angle in radians", "tan(1)"),
    "cot": _math(lambda dtype, args: pc.divide(1.0, pc.tan(args[0])), "the cotangent of an angle in radians", "cot(1)"),
    "asin": _math(plain(pc.asin), "the angle whose sine is x; NULL outside -1 to 1", "asin(1)"),
    "acos": _math(plain(pc.acos), "the angle whose cosine is x; NULL outside -1 to 1", "acos(1)"),
    "atan": _math(plain(pc.atan), "the angle whose tangent is x", "atan(1)"),
    "atan2": Function("y number, x number", DOUBLE, plain(pc.atan2), "the angle of the point (x, y)", "atan2(1, 2)"),
    "degrees": _math(
        lambda dtype, args: pc.multiply(args[0], 180.0 / math.pi), "radians in degrees", "degrees(pi())", True
    ),
    "radians": _math(
        lambda dtype, args: pc.multiply(args[0], math.pi / 180.0), "degrees in radians", "radians(180)", True
    ),
    "pi": Function(
        "",
        DOUBLE,
        lambda dtype, args: pa.scalar(math.pi),
        "the ratio of a circle's circumference to its diameter",
        "pi()",
    ),
    "isnan": _is(pc.is_nan, "whether x is NaN; NaN counts as NULL here, so this is false or NULL", "isnan(1.5)"),
    "isinf": _is(pc.is_inf, "whether x is infinite", "isinf(1.5)"),
    "isfinite": _is(pc.is_finite, "whether x is finite", "isfinite(1.5)"),
}
