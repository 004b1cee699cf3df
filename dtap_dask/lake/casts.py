"""CAST on Arrow arrays with SQL's rounding; whole columns by Arrow's kernels, only misfits value by distinct value."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.lake.expression import Family, family
from dtap_dask.lake.literals import parse_text

_TIMES: frozenset[Family] = frozenset(("date", "timestamp"))
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
    source, kind = family(values.type), family(target)
    if kind == "text":
        return _to_text(values)
    if source == "text" and kind == "timestamp":
        return pc.cast(pc.cast(values, pa.timestamp(target.unit)), target)
    if source == "text" and kind == "binary":
        return pc.cast(values, target)
    if kind == "float":
        return _to_float(values, target)
    if kind == "int" and source == "float":
        return pc.cast(pc.round(values, round_mode="half_to_even"), target)
    if kind == "int" and source == "decimal":
        return pc.cast(pc.round(values, round_mode="half_towards_infinity"), target)
    if kind == "decimal":
        return _to_decimal(values, target)
    if kind == "date" and source == "timestamp":
        return pc.cast(pc.floor_temporal(_naive(values), unit="day"), target)
    if kind == "time" and source == "timestamp":
        return pc.cast(_naive(values), target)
    if kind == "timestamp" and source == "timestamp":
        units = {"s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond"}
        if list(units).index(target.unit) < list(units).index(values.type.unit):
            values = pc.floor_temporal(values, unit=units[target.unit])
    return pc.cast(values, target)


def _naive(values: pa.Array) -> pa.Array:
    return pc.cast(values, pa.timestamp(values.type.unit))


def _to_float(values: pa.Array, target: pa.DataType) -> pa.Array:
    if family(values.type) == "bool":
        values = pc.cast(values, pa.int64())
    return pc.cast(values, target, safe=family(values.type) == "text")


def _to_decimal(values: pa.Array, target: pa.DataType) -> pa.Array:
    kind = family(values.type)
    if kind in ("bool", "int"):
        values = pc.cast(pc.cast(values, pa.int64() if kind == "bool" else values.type), pa.decimal128(20, 0))
    if kind == "decimal" and target.scale < values.type.scale:
        values = pc.round(values, ndigits=target.scale, round_mode="half_towards_infinity")
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
