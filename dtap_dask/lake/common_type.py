"""The common type of a column that files of one source store in two types, if one type holds all values exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from dtap_dask.lake.schema import is_list
from dtap_dask.lake.sql.coercion import as_decimal
from dtap_dask.lake.sql.types import MAX_PRECISION, UNITS

_EXACT_BITS = {16: 11, 32: 24, 64: 53}  # bits of an integer that are exact in a float, by the float's width


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The narrowest canonical type for values of two canonical types; None if no type holds all of them exactly.

    Where only some values may not fit (int64 in double, timestamps in nanoseconds, binary as text), the reader checks
    each value. A struct field that one side lacks is null there. A timestamp without a zone is taken as UTC.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for left, right in ((one, other), (other, one)):
        for fits, fits_other, common in _PAIRS:
            if fits(left) and fits_other(right):
                return common(left, right)
    return None


def holds_every(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether a canonical type holds each value that another one can have exactly, so that none needs to be checked."""
    types = pa.types
    if wide == narrow or types.is_null(narrow):
        return True
    if is_list(wide) and is_list(narrow):
        sizes = {kind.list_size if types.is_fixed_size_list(kind) else -1 for kind in (wide, narrow)}
        return len(sizes) == 1 and holds_every(wide.value_type, narrow.value_type)
    if types.is_struct(wide) and types.is_struct(narrow):
        pairs = list(zip(wide, narrow, strict=False))
        alike = wide.num_fields == narrow.num_fields and all(one.name == other.name for one, other in pairs)
        return alike and all(holds_every(one.type, other.type) for one, other in pairs)
    if types.is_integer(narrow) and types.is_floating(wide):
        return _bits(narrow) <= _EXACT_BITS[wide.bit_width]
    if types.is_date32(narrow) and types.is_timestamp(wide):
        return wide.tz is None and wide.unit in ("s", "ms")  # in finer units 64 bits do not reach all dates
    numbers = (types.is_integer, types.is_floating, types.is_decimal)
    return any(is_kind(narrow) for is_kind in numbers) and common_type(narrow, wide) == wide


def _bits(integer: pa.DataType) -> int:
    """The bits of an integer type without its sign."""
    return int(integer.bit_width) - int(pa.types.is_signed_integer(integer))


def _integers(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    signed = pa.types.is_signed_integer
    if signed(one) == signed(other):
        return one if one.bit_width >= other.bit_width else other
    plus, minus = (other, one) if signed(one) else (one, other)
    bits = max(2 * plus.bit_width, minus.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits)


def _floats(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return one if one.bit_width >= other.bit_width else other


def _integer_and_float(integer: pa.DataType, number: pa.DataType) -> pa.DataType:
    bits = _bits(integer)
    return number if bits <= _EXACT_BITS[number.bit_width] and number.bit_width > 16 else pa.float64()


def _decimals(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, other.scale)
    digits = max(one.precision - one.scale, other.precision - other.scale) + scale
    if digits <= MAX_PRECISION:
        return pa.decimal128(digits, scale)
    return pa.decimal256(digits, scale) if digits <= 2 * MAX_PRECISION and _is_wide(one, other) else None


def _is_wide(*kinds: pa.DataType) -> bool:
    return any(map(pa.types.is_decimal256, kinds))


def _integer_and_decimal(integer: pa.DataType, decimal: pa.DataType) -> pa.DataType | None:
    return _decimals(as_decimal(integer), decimal)


def _timestamps(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.timestamp(max(one.unit, other.unit, key=UNITS.index), one.tz or other.tz)


def _lists(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A length that one side has holds for both: only Arrow's writers record it, and the reader checks each list."""
    inner = common_type(one.value_type, other.value_type)
    sizes = {kind.list_size for kind in (one, other) if pa.types.is_fixed_size_list(kind)}
    if inner is None or len(sizes) > 1:
        return None
    return pa.list_(inner, *sizes)


def _maps(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    key, item = common_type(one.key_type, other.key_type), common_type(one.item_type, other.item_type)
    return pa.map_(key, item) if key is not None and item is not None else None


def _structs(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    fields: dict[str, pa.DataType] = {}
    for field in (*one, *other):
        kind = common_type(fields.get(field.name, pa.null()), field.type)
        if kind is None:
            return None
        fields[field.name] = kind
    distinct = len(fields) >= max(one.num_fields, other.num_fields)
    return pa.struct([pa.field(name, kind) for name, kind in fields.items()]) if distinct else None


_Is = Callable[[pa.DataType], bool]
_PAIRS: Sequence[tuple[_Is, _Is, Callable[[pa.DataType, pa.DataType], pa.DataType | None]]] = (
    (pa.types.is_integer, pa.types.is_integer, _integers),
    (pa.types.is_floating, pa.types.is_floating, _floats),
    (pa.types.is_integer, pa.types.is_floating, _integer_and_float),
    (pa.types.is_decimal, pa.types.is_decimal, _decimals),
    (pa.types.is_integer, pa.types.is_decimal, _integer_and_decimal),
    (pa.types.is_timestamp, pa.types.is_timestamp, _timestamps),
    (pa.types.is_date32, pa.types.is_timestamp, lambda _, timestamp: timestamp),
    (pa.types.is_binary, pa.types.is_string, lambda _, text: text),
    (is_list, is_list, _lists),
    (pa.types.is_map, pa.types.is_map, _maps),
    (pa.types.is_struct, pa.types.is_struct, _structs),
)
