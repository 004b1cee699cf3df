"""Comparisons with SQL's semantics: a literal takes the type of the other side, exactly, or both sides are widened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pyarrow as pa

from dtap_dask.errors import DataError, ExpressionError
from dtap_dask.lake.sql.coercion import compared_type
from dtap_dask.lake.sql.evaluate import evaluate
from dtap_dask.lake.sql.literals import at_step, exact, has_grid, limits, literal, step
from dtap_dask.lake.sql.tree import (
    Always,
    Compare,
    ComparisonOperator,
    Constant,
    In,
    IsNull,
    Logic,
    Node,
    Not,
    TypeCast,
    describe,
)
from dtap_dask.lake.sql.types import BOOL, DOUBLE, NUMBERS, Family, family

_FLIPPED: dict[ComparisonOperator, ComparisonOperator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ONE_ROW = pa.record_batch({"": pa.nulls(1)})
_NULL = Constant(BOOL, pa.nulls(1, BOOL)[0])  # pa.scalar would import pandas here
_SAME_GRID: tuple[frozenset[Family], ...] = (
    frozenset(("int", "decimal")),
    frozenset(("date", "timestamp")),
    frozenset(("time",)),
)


def fold(node: Node) -> Node:
    """`node` as a constant if it depends on no column and can be computed."""
    if node.columns or isinstance(node, Constant):
        return node
    try:
        return computed(node)
    except DataError:  # inside a CASE perhaps no row reaches it
        return node


def computed(node: Node) -> Constant:
    """`node`, which depends on no column, as a constant; DataError if it cannot be computed."""
    return Constant(node.type, evaluate(node, _ONE_ROW)[0])


def cast_to(node: Node, dtype: pa.DataType) -> Node:
    """`node` widened to `dtype`."""
    if node.type == dtype:
        return node
    if isinstance(node, Constant) and node.is_null:
        return Constant(dtype, pa.scalar(None, dtype))
    return fold(TypeCast(dtype, node))


def compare(op: ComparisonOperator, left: Node, right: Node) -> Node:
    """`left op right`; ExpressionError if the two cannot be compared."""
    if isinstance(left, Constant) and not isinstance(right, Constant):
        left, right, op = right, left, _FLIPPED.get(op, op)
    if isinstance(left, Constant) and family(left.type) in ("text", "null") and family(right.type) != "text":
        left, right, op = right, left, _FLIPPED.get(op, op)
    for side in (left, right):
        if family(side.type) in ("nested", "interval", "other"):
            raise ExpressionError(f"{describe(side)} cannot be compared; of such columns use IS NULL or a field.")
    if isinstance(right, Constant) and right.is_null:
        return Not(BOOL, IsNull(BOOL, left)) if op == "distinct" else _NULL
    if isinstance(right, Constant):
        return _with_literal(op, left, right)
    return _widened(op, left, right)


def _with_literal(op: ComparisonOperator, left: Node, right: Constant) -> Node:
    kind, other = family(left.type), family(right.type)
    if other == "text" and kind != "text":
        try:
            meant = literal(right.value.as_py(), left.type)
        except ValueError as error:
            raise ExpressionError(
                f"{describe(left)} is compared with {right.value.as_py()!r}, which is not a valid {left.type}: {error}."
            ) from None
        if isinstance(meant, Fraction):
            return _on_grid(op, left, meant)
        if not meant.is_valid:
            raise ExpressionError(f"{describe(left)} is compared with NaN, which counts as NULL; write IS NULL.")
        return Compare(BOOL, op, left, Constant(left.type, meant))
    if has_grid(left.type) and any({kind, other} <= kinds for kinds in _SAME_GRID):
        return _on_grid(op, left, exact(right.value))
    if kind == "bool" and other == "int" and right.value.as_py() in (0, 1):
        return Compare(BOOL, op, left, Constant(BOOL, pa.scalar(bool(right.value.as_py()))))
    return _widened(op, left, right)


def _widened(op: ComparisonOperator, left: Node, right: Node) -> Node:
    dtype = compared_type(left.type, right.type)
    if dtype is None:
        raise ExpressionError(
            f"{describe(left)} cannot be compared with {describe(right)}. CAST one of them, if that is meant"
            + (", or put the value in single quotes." if family(left.type) == "text" else ".")
        )
    return Compare(BOOL, op, cast_to(left, dtype), cast_to(right, dtype))


def _on_grid(op: ComparisonOperator, node: Node, value: Fraction) -> Node:
    """`node op value` for a type whose values form a grid, as a comparison with a value on the grid."""
    steps = value / step(node.type)
    low, high = limits(node.type)
    if steps.denominator == 1 and low <= steps <= high:
        return Compare(BOOL, op, node, Constant(node.type, at_step(int(steps), node.type)))
    if op == "distinct":
        return Constant(BOOL, pa.scalar(True))
    if op in ("=", "<>"):
        return Always(BOOL, node, op == "<>")
    if not low <= steps <= high:
        return Always(BOOL, node, (steps > high) == (op in ("<", "<=")))
    between: ComparisonOperator = "<=" if op in ("<", "<=") else ">"
    return Compare(BOOL, between, node, Constant(node.type, at_step(math.floor(steps), node.type)))


def as_floats(nodes: Sequence[Node]) -> list[Node]:
    """The operands of IN or BETWEEN: if one is a float, all numbers are compared as the widest float type."""
    numbers = [node.type for node in nodes if family(node.type) in NUMBERS]
    if not any(family(dtype) == "float" for dtype in numbers):
        return list(nodes)
    target = DOUBLE if DOUBLE in numbers else pa.float32()
    return [cast_to(node, target) if family(node.type) in NUMBERS else node for node in nodes]


def one_of(arg: Node, options: Sequence[Node]) -> Node:
    """`arg IN (options)`."""
    arg, *options = as_floats([arg, *options])
    tests = [compare("=", arg, option) for option in options]
    values: list[pa.Scalar] = []
    has_null = False
    for test in tests:
        if test is _NULL:
            has_null = True
        elif isinstance(test, Compare) and test.left == arg and isinstance(test.right, Constant):
            values.append(test.right.value)
        elif not (isinstance(test, Always) and test.arg == arg):
            return _any_of(tests)
    if not values:
        return _NULL if has_null else Always(BOOL, arg, False)
    return In(BOOL, arg, tuple(dict.fromkeys(values)), has_null)


def _any_of(tests: Sequence[Node]) -> Node:
    result = tests[0]
    for test in tests[1:]:
        result = Logic(BOOL, "or", result, test)
    return result
