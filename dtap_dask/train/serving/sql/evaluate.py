"""Computes the typed tree of a SQL expression on tensors, row for row as lake.sql.evaluate computes it on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.literals import exact, has_grid, step
from dtap_dask.lake.sql.tree import (
    Always,
    Call,
    Case,
    ColumnReference,
    Compare,
    Constant,
    In,
    Is,
    IsNull,
    Like,
    Logic,
    Node,
    Not,
    TypeCast,
)
from dtap_dask.lake.sql.types import BOOL, family
from dtap_dask.train.serving.sql.casts import cast
from dtap_dask.train.serving.sql.functions import TWINS
from dtap_dask.train.serving.sql.regexps import like
from dtap_dask.train.serving.sql.tensor import SqlTensor, any_of, choose, dtype_of, is_null, unless
from dtap_dask.train.serving.sql.texts import before
from dtap_dask.train.serving.tensors import Tensor, fixed

Columns = Mapping[str, SqlTensor]


def evaluate(node: Node, columns: Columns) -> SqlTensor:
    """`node` for every row, or of shape [] where it is the same for all. The tree is one that can be served."""
    made = _RULES[type(node)](node, columns)
    if family(made.type) != "float" or isinstance(node, ColumnReference):
        return made
    return made.but(null=any_of(made.null, tf.math.is_nan(made.values)), constant=made.constant)


def constant(value: pa.Scalar, kind: pa.DataType) -> SqlTensor:
    """A scalar as a tensor of shape []."""
    dtype = dtype_of(kind)
    if not value.is_valid:
        empty = {tf.string: "", tf.bool: False}.get(dtype, 0)
        return SqlTensor(kind, tf.constant(empty, dtype), tf.constant(True))
    if value.type != kind:
        value = value.cast(kind)
    if family(kind) == "interval":
        return SqlTensor(kind, tf.constant(0, tf.int64), constant=value.as_py())
    number = int(exact(value) / step(kind)) if has_grid(kind) else value.as_py()
    made = fixed(number, dtype) if family(kind) == "float" else tf.constant(number, dtype)
    return SqlTensor(kind, made, constant=number)


def _column(node: ColumnReference, columns: Columns) -> SqlTensor:
    return columns[node.name]


def _call(node: Call, columns: Columns) -> SqlTensor:
    return TWINS[node.name](node.type, [evaluate(arg, columns) for arg in node.args])


def _compare(node: Compare, columns: Columns) -> SqlTensor:
    left, right = evaluate(node.left, columns), evaluate(node.right, columns)
    bad = any_of(left.bad, right.bad)
    if node.op != "distinct":
        return SqlTensor(BOOL, compared(node.op, left, right), any_of(left.null, right.null), bad)
    equal = compared("=", left, right)
    if left.null is None and right.null is None:
        return SqlTensor(BOOL, ~equal, None, bad)
    one, other = is_null(left), is_null(right)
    return SqlTensor(BOOL, ~tf.where(one | other, one & other, equal), None, bad)


_OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def compared(op: str, left: SqlTensor, right: SqlTensor) -> Tensor:
    """`left op right` of two values of one type, where neither is null."""
    a, b = left.values, right.values
    if op in ("=", "<>"):
        return (a == b) == (op == "=")
    if a.dtype == tf.bool:
        a, b = tf.cast(a, tf.int64), tf.cast(b, tf.int64)
    if a.dtype != tf.string:
        return _OPERATORS[op](a, b)
    if op in (">", "<="):
        a, b = b, a
    return before(a, b) == (op in ("<", ">"))


def _logic(node: Logic, columns: Columns) -> SqlTensor:
    """Kleene's logic; what cannot be computed does no harm where the other side decides."""
    left, right = evaluate(node.left, columns), evaluate(node.right, columns)
    decisive = node.op == "or"
    decides = [unless(unless(one.values == decisive, one.null), one.bad) for one in (left, right)]
    decided = decides[0] | decides[1]
    bad = any_of(unless(left.bad, decides[1]), unless(right.bad, decides[0]))
    null = any_of(left.null, right.null)
    value = decided if decisive else ~decided
    return SqlTensor(BOOL, value, unless(null, decided), bad)


def _not(node: Not, columns: Columns) -> SqlTensor:
    arg = evaluate(node.arg, columns)
    return arg.but(values=~arg.values)


def _is_null(node: IsNull, columns: Columns) -> SqlTensor:
    arg = evaluate(node.arg, columns)
    return SqlTensor(BOOL, is_null(arg), None, arg.bad)


def _is(node: Is, columns: Columns) -> SqlTensor:
    arg = evaluate(node.arg, columns)
    return SqlTensor(BOOL, unless(arg.values == node.value, arg.null), None, arg.bad)


def _always(node: Always, columns: Columns) -> SqlTensor:
    arg = evaluate(node.arg, columns)
    same = tf.fill(tf.shape(arg.values), node.value)
    return SqlTensor(BOOL, same, arg.null, arg.bad)


def _in(node: In, columns: Columns) -> SqlTensor:
    arg = evaluate(node.arg, columns)
    options = [constant(value, node.arg.type).values for value in node.values]
    found = tf.reduce_any(arg.values[..., tf.newaxis] == tf.stack(options), axis=-1)
    return SqlTensor(BOOL, found, any_of(arg.null, ~found if node.has_null else None), arg.bad)


def _like(node: Like, columns: Columns) -> SqlTensor:
    arg = evaluate(node.arg, columns)
    return SqlTensor(BOOL, like(node, arg.values), arg.null, arg.bad)


def _cast(node: TypeCast, columns: Columns) -> SqlTensor:
    return cast(evaluate(node.arg, columns), node.type, lenient=node.lenient)


def _case(node: Case, columns: Columns) -> SqlTensor:
    """The first branch whose condition is true; what cannot be computed matters only where it is reached."""
    result = evaluate(node.default, columns)
    for condition, value in reversed(node.branches):
        test = evaluate(condition, columns)
        chosen = choose(unless(test.values, test.null), evaluate(value, columns), result)
        result = chosen.but(bad=any_of(chosen.bad, test.bad), type=node.type)
    return result


_RULES: dict[type[Node], Callable[[Any, Columns], SqlTensor]] = {
    Constant: lambda node, columns: constant(node.value, node.type),
    ColumnReference: _column,
    Compare: _compare,
    Logic: _logic,
    Not: _not,
    IsNull: _is_null,
    Is: _is,
    Always: _always,
    In: _in,
    Like: _like,
    TypeCast: _cast,
    Call: _call,
    Case: _case,
}
