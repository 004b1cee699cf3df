"""Which type two values meet in: for comparing them, for choosing between them, for computing with them."""

from __future__ import annotations

import pyarrow as pa

from dtap_dask.lake.expression import DOUBLE, INT64, MAX_PRECISION, NUMBERS, Constant, Node, family

_UNITS = ("s", "ms", "us", "ns")
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type that holds values of both, None if a person must cast first. Floats meet decimals as floats."""
    if left == right or family(right) == "null":
        return left
    kinds = {family(left), family(right)}
    if "null" in kinds:
        return right
    if kinds <= NUMBERS:
        return _common_number(left, right)
    if kinds <= {"date", "timestamp"}:
        stamps = [dtype for dtype in (left, right) if pa.types.is_timestamp(dtype)]
        zone = next((dtype.tz for dtype in stamps if dtype.tz), None)
        units = [dtype.unit for dtype in stamps] + (["us"] if len(stamps) == 1 else [])
        return pa.timestamp(max(units, key=_UNITS.index), zone)
    if kinds == {"time"}:
        unit = max(left.unit, right.unit, key=_UNITS.index)
        return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)
    return None


def _common_number(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    kinds = {family(left), family(right)}
    if "float" in kinds:
        return DOUBLE if DOUBLE in (left, right) else pa.float32()
    if "decimal" in kinds:
        left, right = as_decimal(left), as_decimal(right)
        scale = max(left.scale, right.scale)
        whole = max(left.precision - left.scale, right.precision - right.scale)
        return decimal_or_double(whole + scale, scale)
    unsigned = [pa.types.is_unsigned_integer(dtype) for dtype in (left, right)]
    if pa.uint64() in (left, right):
        return pa.uint64() if all(unsigned) else pa.decimal128(20, 0)
    return INT64


def decimal_or_double(precision: int, scale: int) -> pa.DataType:
    """The exact decimal while its precision is possible, otherwise double."""
    return pa.decimal128(precision, scale) if precision <= MAX_PRECISION else DOUBLE


def as_decimal(dtype: pa.DataType) -> pa.Decimal128Type:
    """The decimal that holds every integer of `dtype`; decimals as they are."""
    if pa.types.is_integer(dtype):
        return pa.decimal128(20 if dtype == pa.uint64() else _DIGITS[dtype.bit_width], 0)
    return dtype


def _operand(node: Node) -> pa.Decimal128Type:
    if isinstance(node, Constant) and pa.types.is_integer(node.type) and not node.is_null:
        return pa.decimal128(max(len(str(abs(node.value.as_py()))), 1), 0)
    return as_decimal(node.type)


def arithmetic_types(op: str, left: Node, right: Node) -> tuple[tuple[pa.DataType, pa.DataType], pa.DataType]:
    """Types of the operands and of the result for two numbers: int64, exact decimal, float32 or double."""
    kinds = {family(left.type), family(right.type)} - {"null"}
    if kinds <= {"int"}:
        return (INT64, INT64), INT64
    if "float" in kinds:
        target = common_type(left.type, right.type)
        return (target, target), target
    a, b = (_operand(node) if family(node.type) != "null" else pa.decimal128(1, 0) for node in (left, right))
    if op == "*":
        result = decimal_or_double(a.precision + b.precision + 1, a.scale + b.scale)
    else:
        scale = max(a.scale, b.scale)
        whole = max(a.precision - a.scale, b.precision - b.scale)
        result = decimal_or_double(whole + scale + 1, scale)
        if op == "%":
            result = pa.decimal128(whole + scale, scale) if whole + scale <= 18 else DOUBLE
            return (result, result), result
    return ((a, b), result) if result != DOUBLE else ((DOUBLE, DOUBLE), DOUBLE)
