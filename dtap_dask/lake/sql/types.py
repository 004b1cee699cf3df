"""The types of values in expressions: one plain Arrow type for each kind of value, however a column is stored."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa

Family = Literal[
    "null",
    "bool",
    "int",
    "float",
    "decimal",
    "text",
    "binary",
    "date",
    "timestamp",
    "time",
    "interval",
    "nested",
    "other",
]
NUMBERS: frozenset[Family] = frozenset(("int", "float", "decimal"))
MAX_PRECISION = 38  # of decimal128
UNITS = ("s", "ms", "us", "ns")  # of timestamps and times of day, the coarsest first
BOOL = pa.bool_()
INT64 = pa.int64()
UINT64 = pa.uint64()
DOUBLE = pa.float64()
TEXT = pa.string()
_LAYOUTS = (
    (pa.types.is_large_string, TEXT),
    (pa.types.is_string_view, TEXT),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
    (pa.types.is_date64, pa.date32()),
)


def without_layout(dtype: pa.DataType) -> pa.DataType:
    """The type of the same values in the usual layout.

    Dictionary and run-end encoding are undone, large and view types become the small ones, date64 becomes date32, small
    decimals become decimal128. Any time zone becomes UTC: the instants are the same. Nested types stay as they are.
    """
    types = pa.types
    if isinstance(dtype, pa.BaseExtensionType):
        return without_layout(dtype.storage_type)
    if types.is_dictionary(dtype) or types.is_run_end_encoded(dtype):
        return without_layout(dtype.value_type)
    if types.is_timestamp(dtype) and dtype.tz is not None:
        return pa.timestamp(dtype.unit, "UTC")
    if types.is_decimal32(dtype) or types.is_decimal64(dtype):
        return pa.decimal128(dtype.precision, dtype.scale)
    return next((usual for is_layout, usual in _LAYOUTS if is_layout(dtype)), dtype)


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """The type that a column of `dtype` has in an expression: no layouts, no fixed-size binary, no float16."""
    usual = without_layout(dtype)
    if pa.types.is_fixed_size_binary(usual):
        return pa.binary()
    return pa.float32() if pa.types.is_float16(usual) else usual


@lru_cache(maxsize=1024)
def family(dtype: pa.DataType) -> Family:
    """What a plain type holds, as far as comparing and computing are concerned."""
    types = pa.types
    families: tuple[tuple[Any, Family], ...] = (
        (types.is_null, "null"),
        (types.is_boolean, "bool"),
        (types.is_integer, "int"),
        (types.is_floating, "float"),
        (types.is_decimal128, "decimal"),
        (types.is_string, "text"),
        (types.is_binary, "binary"),
        (types.is_date32, "date"),
        (types.is_timestamp, "timestamp"),
        (types.is_time, "time"),
        (types.is_interval, "interval"),
        (types.is_nested, "nested"),
    )
    return next((name for is_family, name in families if is_family(dtype)), "other")
