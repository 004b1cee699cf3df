"""CAST on Arrow arrays with SQL's rounding: by Arrow's kernels; value by value only if some value does not fit."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.lake.sql.kernels import decimals
from dtap_dask.lake.sql.kernels.spelling import to_text
from dtap_dask.lake.sql.literals import NANOSECONDS, parse_text
from dtap_dask.lake.sql.tree import scalar_text
from dtap_dask.lake.sql.types import INT64, MAX_PRECISION, Family, family

Rule = Callable[[pa.Array, pa.DataType], pa.Array]
_MICROS = pa.timestamp("us")


def castable(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether there is a CAST between two plain types."""
    return source == target or (family(source), family(target)) in _RULES


def cast(values: pa.Array, target: pa.DataType, *, lenient: bool = False) -> pa.Array:
    """`values` as `target`; values that do not fit are null if `lenient`, else DataError shows the first."""
    if values.type == target:
        return values
    if pa.types.is_decimal256(target):  # for comparisons only
        wide = _whole(values, pa.decimal128(20, 0)) if family(values.type) == "int" else values
        return pc.cast(wide, target)
    try:
        return _whole(values, target)
    except (pa.ArrowInvalid, OverflowError):
        return _by_distinct_value(values, target, lenient)


def _whole(values: pa.Array, target: pa.DataType) -> pa.Array:
    """The whole array at once; ArrowInvalid if some value does not fit."""
    rule = _RULES.get((family(values.type), family(target)))
    if rule is None:
        raise DataError(f"there is no CAST from {values.type} to {target}.")
    return rule(values, target)


def _kernel(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.cast(values, target)


def _by_value(values: pa.Array, target: pa.DataType) -> pa.Array:
    raise pa.ArrowInvalid("no kernel does this")


def _float_to_int(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.cast(pc.round(values, round_mode="half_to_even"), target)


def _decimal_to_int(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.cast(decimals.rescaled(values, pa.decimal128(values.type.precision, 0)), target)


def _bool_to(values: pa.Array, target: pa.DataType) -> pa.Array:
    return _whole(pc.cast(values, INT64), target)


def _decimal_to_bool(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.not_equal(values, pa.scalar(0, values.type))


def _float_to_float(values: pa.Array, target: pa.DataType) -> pa.Array:
    narrowed = pc.cast(values, target, safe=False)
    if target.bit_width < values.type.bit_width:
        infinite = pc.is_inf(narrowed)
        if infinite.true_count and pc.any(pc.and_(infinite, pc.is_finite(values))).as_py():
            raise pa.ArrowInvalid("out of range")
    return narrowed


def _int_to_decimal(values: pa.Array, target: pa.DataType) -> pa.Array:
    return decimals.rescaled(pc.cast(values, pa.decimal128(20, 0)), target)


def _to_date(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.cast(pc.floor_temporal(_naive(_to_stamp(values, _MICROS)), unit="day"), target)


def _to_time(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.cast(_naive(_to_stamp(values, _MICROS)), target)


def _to_stamp(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Timestamps in another unit, rounded half away from 1970 as in DuckDB; ArrowInvalid on overflow."""
    ratio = NANOSECONDS[target.unit] // NANOSECONDS[values.type.unit]
    if ratio <= 1:
        return pc.cast(values, target)
    halves = pc.divide(pc.cast(values, INT64), ratio // 2)
    whole = pc.divide(pc.add(halves, pc.sign(halves)), 2)
    return pc.cast(pc.cast(whole, pa.timestamp(target.unit)), target)


def _naive(values: pa.Array) -> pa.Array:
    return pc.cast(values, pa.timestamp(values.type.unit))


def _text_to_stamp(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Text parsed to microseconds (nanoseconds for that unit), then rounded to the unit."""
    unit = "ns" if target.unit == "ns" else "us"
    return _to_stamp(pc.cast(pc.cast(values, pa.timestamp(unit)), pa.timestamp(unit, target.tz)), target)


def _text_to_decimal(values: pa.Array, target: pa.DataType) -> pa.Array:
    """By Arrow's kernel if all texts are short enough: with more than 38 digits it wraps around."""
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    if longest + target.scale > MAX_PRECISION or pc.any(pc.match_substring_regex(values, "[eE]")).as_py():
        raise pa.ArrowInvalid("too long")
    return pc.cast(values, target)


_COUNTS: tuple[Family, ...] = ("bool", "int", "float", "decimal")
_ALL: tuple[Family, ...] = (*_COUNTS, "text", "binary", "date", "timestamp", "time")
_RULES: dict[tuple[Family, Family], Rule] = {
    **{("null", kind): _kernel for kind in _ALL},
    **{(kind, "text"): lambda values, _: to_text(values) for kind in _ALL if kind != "text"},
    ("bool", "int"): _kernel,
    ("bool", "float"): _kernel,
    ("bool", "decimal"): _bool_to,
    ("int", "bool"): _kernel,
    ("int", "int"): _kernel,
    ("int", "float"): lambda values, target: pc.cast(values, target, safe=False),
    ("int", "decimal"): _int_to_decimal,
    ("float", "bool"): _kernel,
    ("float", "int"): _float_to_int,
    ("float", "float"): _float_to_float,
    ("float", "decimal"): decimals.from_floating,
    ("decimal", "bool"): _decimal_to_bool,
    ("decimal", "int"): _decimal_to_int,
    ("decimal", "float"): decimals.to_floating,
    ("decimal", "decimal"): decimals.rescaled,
    ("text", "bool"): _kernel,
    ("text", "int"): _kernel,
    ("text", "float"): _kernel,
    ("text", "decimal"): _text_to_decimal,
    ("text", "binary"): _by_value,
    ("text", "date"): _kernel,
    ("text", "timestamp"): _text_to_stamp,
    ("text", "time"): _by_value,
    ("date", "date"): _kernel,
    ("date", "timestamp"): _kernel,
    ("timestamp", "date"): _to_date,
    ("timestamp", "timestamp"): _to_stamp,
    ("timestamp", "time"): _to_time,
    ("time", "time"): _kernel,
}


def _by_distinct_value(values: pa.Array, target: pa.DataType, lenient: bool) -> pa.Array:
    encoded = values.dictionary_encode()
    results = [_one(value, target, lenient) for value in encoded.dictionary]
    return pa.array(results, target).take(encoded.indices)


def _one(value: pa.Scalar, target: pa.DataType, lenient: bool) -> pa.Scalar | None:
    try:
        if family(value.type) == "text":
            return parse_text(value.as_py(), target)
        return _whole(pa.array([value], value.type), target)[0]
    except (ValueError, OverflowError, pa.ArrowInvalid) as error:
        if lenient:
            return None
        reason = f": {error}" if family(value.type) == "text" else ""
        raise DataError(
            f"the value {scalar_text(value)} cannot be cast from {value.type} to {target}{reason}. "
            "Use TRY_CAST to get NULL for such values, or leave these rows out."
        ) from error
