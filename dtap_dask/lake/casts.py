"""CAST on Arrow arrays with SQL's rounding; whole columns by Arrow's kernels, only misfits value by distinct value."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.lake.arithmetic import decimal_to_double, floor_time, round_number
from dtap_dask.lake.expression import Family, family
from dtap_dask.lake.literals import parse_text

_TIMES: frozenset[Family] = frozenset(("date", "timestamp"))
_UNITS = ("s", "ms", "us", "ns")
_UNIT_NAMES = ("second", "millisecond", "microsecond", "nanosecond")
_COUNTS: frozenset[Family] = frozenset(("bool", "int", "float", "decimal"))


def castable(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether CAST knows a way between two plain types."""
    a, b = family(source), family(target)
    if "other" in (a, b) or "nested" in (a, b) or "interval" in (a, b):
        return False
    return (
        a in ("null", b, "text")
        or b == "text"
        or {a, b} <= _COUNTS
        or {a, b} <= _TIMES
        or (a, b) == ("timestamp", "time")
    )


def cast(values: pa.Array, target: pa.DataType, *, lenient: bool = False) -> pa.Array:
    """`values` as `target`; what does not fit is null when `lenient`, else a DataError shows the first such value."""
    if values.type == target:
        return values
    try:
        return _whole(values, target)
    except pa.ArrowInvalid:
        return _by_distinct_value(values, target, lenient)


def _whole(values: pa.Array, target: pa.DataType) -> pa.Array:
    """The cast by Arrow's kernels; ArrowInvalid if some value does not fit."""
    source, kind = family(values.type), family(target)
    rule = _RULES.get((source, kind)) or _RULES.get((None, kind))
    return rule(values, target) if rule else pc.cast(values, target)


def _to_int(values: pa.Array, target: pa.DataType) -> pa.Array:
    mode = "half_to_even" if family(values.type) == "float" else "half_towards_infinity"
    return pc.cast(round_number(values, 0, mode), target)


def _to_date(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.cast(floor_time(_naive(values), "day"), target)


def _to_stamp(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Another unit: never rounded up, so that an instant stays on its day."""
    if _UNITS.index(target.unit) < _UNITS.index(values.type.unit):
        values = floor_time(values, _UNIT_NAMES[_UNITS.index(target.unit)])
    return pc.cast(values, target)


def _naive(values: pa.Array) -> pa.Array:
    return pc.cast(values, pa.timestamp(values.type.unit))


def _to_float(values: pa.Array, target: pa.DataType) -> pa.Array:
    if family(values.type) == "bool":
        values = pc.cast(values, pa.int64())
    if family(values.type) == "decimal":
        values = decimal_to_double(values)
    return pc.cast(values, target, safe=family(values.type) == "text")


def _to_decimal(values: pa.Array, target: pa.DataType) -> pa.Array:
    kind = family(values.type)
    if kind in ("bool", "int"):
        values = pc.cast(pc.cast(values, pa.int64() if kind == "bool" else values.type), pa.decimal128(20, 0))
    if kind == "decimal" and target.scale < values.type.scale:
        values = round_number(values, target.scale, "half_towards_infinity")
    return pc.cast(values, target)


def _to_text(values: pa.Array) -> pa.Array:
    kind = family(values.type)
    if kind == "timestamp":
        text = pc.cast(_naive(values), pa.string())
        text = pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1")
        text = pc.replace_substring_regex(text, r"\.$", "")
        return pc.binary_join_element_wise(text, "+00", "") if values.type.tz else text
    text = pc.cast(values, pa.string())
    if kind == "float":
        whole = pc.match_substring_regex(text, r"^-?\d+$")
        return pc.if_else(whole, pc.binary_join_element_wise(text, ".0", ""), text)
    return text


_RULES: dict[tuple[Family | None, Family], Callable[[pa.Array, pa.DataType], pa.Array]] = {
    (None, "text"): lambda values, _: _to_text(values),
    (None, "float"): _to_float,
    ("text", "decimal"): pc.cast,
    (None, "decimal"): _to_decimal,
    ("float", "int"): _to_int,
    ("decimal", "int"): _to_int,
    ("timestamp", "date"): _to_date,
    ("timestamp", "time"): lambda values, target: pc.cast(_naive(values), target),
    ("timestamp", "timestamp"): _to_stamp,
    ("text", "timestamp"): lambda values, target: pc.cast(pc.cast(values, pa.timestamp(target.unit)), target),
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
    except (ValueError, pa.ArrowInvalid) as error:
        if lenient:
            return None
        reason = f": {error}" if family(value.type) == "text" else ""
        raise DataError(
            f"the value {value.as_py()!r} cannot be cast from {value.type} to {target}{reason}. "
            "Use TRY_CAST to get NULL for such values, or leave these rows out."
        ) from error
