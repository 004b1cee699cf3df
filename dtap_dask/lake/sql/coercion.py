"""The common type of two values: for comparing them, choosing between them, and computing with them."""

from __future__ import annotations

import pyarrow as pa

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.tree import Constant, Node
from dtap_dask.lake.sql.types import DOUBLE, INT64, MAX_PRECISION, NUMBERS, UINT64, UNITS, family

_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}  # decimal digits of an integer, by its bits


def compared_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type in which two values are compared: that of `common_type`, but decimals are always compared exactly."""
    if {family(left), family(right)} == {"decimal"}:
        scale = max(left.scale, right.scale)
        digits = max(left.precision - left.scale, right.precision - right.scale) + scale
        return pa.decimal128(digits, scale) if digits <= MAX_PRECISION else pa.decimal256(digits, scale)
    if {family(left), family(right)} == {"decimal", "int"}:
        return compared_type(as_decimal(left), as_decimal(right))
    return common_type(left, right)


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type for values of both, None if the user must cast one of them. Floats and decimals become floats."""
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
        return pa.timestamp(max(units, key=UNITS.index), zone)
    if kinds == {"time"}:
        unit = max(left.unit, right.unit, key=UNITS.index)
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
        return _decimal(whole + scale, scale)
    unsigned = [pa.types.is_unsigned_integer(dtype) for dtype in (left, right)]
    if pa.uint64() in (left, right):
        return pa.uint64() if all(unsigned) else pa.decimal128(20, 0)
    return INT64


def _decimal(precision: int, scale: int) -> pa.DataType:
    """The exact decimal of at most 38 digits: a value with more is an error when it is computed."""
    return pa.decimal128(min(precision, MAX_PRECISION), scale)


def as_decimal(dtype: pa.DataType) -> pa.Decimal128Type:
    """The decimal that holds every integer of `dtype`; decimals unchanged."""
    if pa.types.is_integer(dtype):
        return pa.decimal128(20 if dtype == pa.uint64() else _DIGITS[dtype.bit_width], 0)
    return dtype


def _operand(node: Node, op: str) -> pa.Decimal128Type:
    """An operand as a decimal; an integer literal has as many digits as it needs, for % as many as in DuckDB."""
    if family(node.type) == "null":
        return pa.decimal128(1, 0)
    if isinstance(node, Constant) and pa.types.is_integer(node.type) and not node.is_null:
        digits = len(str(abs(node.value.as_py())))
        return pa.decimal128(digits if op != "%" else _DIGITS[32 if digits < _DIGITS[32] else 64], 0)
    return as_decimal(node.type)


def _unsigned(left: Node, right: Node) -> bool:
    """Whether two integers are computed as uint64: one of them is, and the other is never negative."""
    return UINT64 in (left.type, right.type) and all(
        pa.types.is_unsigned_integer(node.type)
        or (isinstance(node, Constant) and not node.is_null and node.value.as_py() >= 0)
        for node in (left, right)
    )


def arithmetic_types(op: str, left: Node, right: Node) -> tuple[tuple[pa.DataType, pa.DataType], pa.DataType]:
    """Types of the operands and of the result for two numbers: a 64-bit integer, exact decimal, float32 or double."""
    kinds = {family(left.type), family(right.type)} - {"null"}
    if "float" in kinds:
        target = common_type(left.type, right.type)
        return (target, target), target
    if kinds <= {"int"} and UINT64 not in (left.type, right.type):
        return (INT64, INT64), INT64
    if kinds <= {"int"} and _unsigned(left, right):
        return (UINT64, UINT64), UINT64
    return _decimal_types(op, _operand(left, op), _operand(right, op))


def _decimal_types(
    op: str, a: pa.Decimal128Type, b: pa.Decimal128Type
) -> tuple[tuple[pa.DataType, pa.DataType], pa.DataType]:
    if op == "*":
        scale = a.scale + b.scale
        if scale > MAX_PRECISION:
            raise ExpressionError(
                f"the product of {a} and {b} needs {scale} digits after the point, and decimals have 38 digits; "
                "CAST one of them to fewer, or to DOUBLE."
            )
        return (a, b), _decimal(a.precision + b.precision, scale)
    scale = max(a.scale, b.scale)
    whole = max(a.precision - a.scale, b.precision - b.scale)
    if op == "%" and whole + scale > MAX_PRECISION:  # as in DuckDB
        return (DOUBLE, DOUBLE), DOUBLE
    return (a, b), _decimal(whole + scale + (op in ("+", "-")), scale)
