"""Evaluates bound expressions on record batches, column by column with Arrow's kernels.

Two shortcuts keep it fast: what depends on a single dictionary-encoded column is computed once per dictionary entry and
spread by index; NaN is searched once per column and batch. A part that fails on rows which another part of AND, OR or
CASE rules out is computed again without these rows, so `b <> 0 and a // b > 1` is safe in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError, DtapError
from dtap_dask.lake.sql.functions.definition import one_row
from dtap_dask.lake.sql.functions.registry import FUNCTIONS
from dtap_dask.lake.sql.kernels.casts import cast
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
    describe,
)
from dtap_dask.lake.sql.types import BOOL, plain_type

Datum: TypeAlias = "pa.Array | pa.Scalar"
_KERNELS = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def evaluate(node: Node, batch: pa.RecordBatch) -> pa.Array:
    """`node` for every row of `batch`: an array of `node.type` and the batch's length.

    DataError where a value cannot be computed (integer overflow, a cast that fails, an integer divided by 0).
    """
    return _Evaluator(batch).array(node)


def without_nan(values: pa.Array) -> pa.Array:
    """`values` with NaN replaced by null; the same array if there is none."""
    if not pa.types.is_floating(values.type):
        return values
    nan = pc.is_nan(values)
    return pc.if_else(nan, pa.scalar(None, values.type), values) if nan.true_count else values


def _spread(values: pa.Array, indices: pa.Array) -> pa.Array:
    """`values` taken at `indices` (without nulls); for booleans NumPy on bytes is faster than Arrow on bits."""
    if not pa.types.is_boolean(values.type):
        return values.take(indices)
    places = indices.to_numpy()
    missing = np.asarray(values.is_null())[places] if values.null_count else None
    return pa.array(np.asarray(values.fill_null(False))[places], mask=missing)


def like_regex(pattern: str) -> str:
    """A LIKE pattern as a regular expression: Arrow's match_like misreads some patterns with escapes."""
    parts = []
    escaped = False
    for char in pattern:
        if char == "\\" and not escaped:
            escaped = True
            continue
        wild = {"%": ".*", "_": "."}.get(char) if not escaped else None
        parts.append(wild or (char if char.isalnum() or ord(char) > 127 else f"\\x{ord(char):02x}"))
        escaped = False
    return f"(?s)\\A{''.join(parts)}\\z"


class _Evaluator:
    def __init__(self, batch: pa.RecordBatch):
        self.batch = batch
        self.rows = batch.num_rows
        self.loaded: dict[ColumnReference, pa.Array] = {}

    def array(self, node: Node) -> pa.Array:
        """`node` as an array of `node.type`."""
        value = self.value(node)
        if isinstance(value, pa.Scalar):
            if not value.is_valid:
                return pa.nulls(self.rows, node.type)
            return pa.repeat(value, self.rows)
        return value

    def value(self, node: Node) -> Datum:
        """`node` as an array, or as a scalar when it is the same for every row."""
        spread = self.by_dictionary(node)
        if spread is not None:
            return spread
        try:
            return _RULES[type(node)](self, node)
        except (DtapError, MemoryError):
            raise
        except Exception as error:  # of Arrow, NumPy or Python; the message names the expression
            raise DataError(
                f"{describe(node)} cannot be computed: {type(error).__name__}: {error}. "
                "CAST its operands to types for which it can, or leave out the other rows with CASE or AND."
            ) from error

    def by_dictionary(self, node: Node) -> pa.Array | None:
        """`node` computed once per dictionary entry and once for null, spread by index.

        None if it depends on anything but one dictionary column, or if it fails for an entry, used or not.
        """
        if isinstance(node, ColumnReference | Not) or len(node.columns) != 1:
            return None
        (name,) = node.columns
        column = self.batch.column(name)
        if not pa.types.is_dictionary(column.type) or len(column.dictionary) >= self.rows:
            return None
        entries, indices = column.dictionary, column.indices
        if isinstance(node, IsNull) and isinstance(node.arg, ColumnReference) and not entries.null_count:
            return indices.is_null()
        if indices.null_count:
            indices = indices.cast(pa.int64()).fill_null(len(entries))
            entries = pa.concat_arrays([entries, pa.nulls(1, entries.type)])
        try:
            values = _Evaluator(pa.record_batch([entries], names=[name])).array(node)
        except DataError:
            return None
        return _spread(values, indices)

    def column(self, node: ColumnReference) -> pa.Array:
        if node not in self.loaded:
            values = self.batch.column(node.name)
            for field in node.path:
                values = pc.struct_field(values, [field])
            if pa.types.is_dictionary(values.type):
                values = values.dictionary_decode()
            if values.type != node.type:
                values = pc.cast(values, plain_type(values.type))
                values = cast(values, node.type)
            self.loaded[node] = without_nan(values)
        return self.loaded[node]

    def call(self, node: Call) -> Datum:
        if self.rows == 0:  # a constant that fails does no harm without rows
            return pa.nulls(0, node.type)
        try:
            args: list[Datum] = [self.value(arg) for arg in node.args]
        except DataError:
            if node.name != "coalesce":
                raise
            present = tuple((Not(BOOL, IsNull(BOOL, arg)), arg) for arg in node.args[:-1])
            return self.guarded_case(Case(node.type, present, node.args[-1]))
        try:
            value: Datum = FUNCTIONS[node.name].compute(node.type, args)
            return without_nan(one_row(value))[0] if isinstance(value, pa.Scalar) else without_nan(value)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{node.text} cannot be computed for every row: {error}. "
                "Cast to double, use NULLIF for a divisor of 0, or leave these rows out with CASE or AND."
            ) from error

    def cast(self, node: TypeCast) -> Datum:
        values = self.array(node.arg)
        try:
            return without_nan(cast(values, node.type, lenient=node.lenient))
        except DataError as error:
            raise DataError(f"{node.text or describe(node.arg)}: {error}") from error

    def compare(self, node: Compare) -> Datum:
        left, right = self.value(node.left), self.value(node.right)
        if node.op != "distinct":
            return _KERNELS[node.op](left, right)
        both_null = pc.and_(pc.is_null(left), pc.is_null(right))
        return pc.invert(pc.coalesce(pc.equal(left, right), both_null))

    def logic(self, node: Logic) -> Datum:
        kernel = pc.and_kleene if node.op == "and" else pc.or_kleene
        first, second = node.left, node.right
        try:
            known = self.array(first)
        except DataError:
            first, second = second, first
            known = self.array(first)
        try:
            return kernel(known, self.value(second))
        except DataError:
            undecided = known if node.op == "and" else pc.invert(known)
            return kernel(known, self.masked(second, undecided.fill_null(True)))

    def masked(self, node: Node, mask: pa.BooleanArray) -> pa.Array:
        """`node` where `mask` is true, computed on these rows only; null elsewhere."""
        if not pc.any(mask).as_py():  # a constant that fails does no harm either
            return pa.nulls(len(mask), node.type)
        values = _Evaluator(self.batch.filter(mask)).array(node)
        place = pc.subtract(pc.cumulative_sum(pc.cast(mask, pa.int64())), 1)
        return values.take(pc.if_else(mask, place, pa.scalar(None, pa.int64())))

    def case(self, node: Case) -> Datum:
        try:
            result = self.value(node.default)
            for condition, value in reversed(node.branches):
                result = pc.if_else(self.array(condition).fill_null(False), self.value(value), result)
        except DataError:
            return self.guarded_case(node)
        return result

    def guarded_case(self, node: Case) -> pa.Array:
        """CASE in written order, each part computed only on the rows that reach it."""
        open_rows = pa.repeat(pa.scalar(True), self.rows)
        result = pa.nulls(self.rows, node.type)
        for condition, value in node.branches:
            hit = self.masked(condition, open_rows).fill_null(False)
            result = pc.if_else(hit, self.masked(value, hit), result)
            open_rows = pc.and_not(open_rows, hit)
        return pc.if_else(open_rows, self.masked(node.default, open_rows), result)

    def is_in(self, node: In) -> Datum:
        values = self.array(node.arg)
        if pa.types.is_floating(values.type):
            values = pc.add(values, pa.scalar(0.0, values.type))  # -0.0 hashes unlike 0.0
        found = pc.is_in(values, value_set=pa.array(node.values, node.arg.type))
        if node.has_null:
            return pc.if_else(found, found, pa.scalar(None, pa.bool_()))
        return pc.if_else(values.is_valid(), found, pa.scalar(None, pa.bool_())) if values.null_count else found

    def like(self, node: Like) -> Datum:
        values, pattern = self.array(node.arg), node.pattern
        if node.ignore_case:  # as DuckDB; Arrow would ignore case as regular expressions do
            values, pattern = pc.utf8_lower(values), pc.utf8_lower(pattern).as_py()
        if "\\" not in pattern:
            return pc.match_like(values, pattern)
        return pc.match_substring_regex(values, like_regex(pattern))

    def always(self, node: Always) -> Datum:
        valid = self.array(node.arg).is_valid()
        return pc.if_else(valid, pa.scalar(node.value), pa.scalar(None, pa.bool_()))

    def is_truth(self, node: Is) -> Datum:
        value = self.array(node.arg)
        return (value if node.value else pc.invert(value)).fill_null(False)


_RULES: dict[type[Node], Callable[[_Evaluator, Any], Datum]] = {
    Constant: lambda _, node: node.value.cast(node.type) if node.value.type != node.type else node.value,
    ColumnReference: _Evaluator.column,
    Compare: _Evaluator.compare,
    Logic: _Evaluator.logic,
    Not: lambda self, node: pc.invert(self.value(node.arg)),
    IsNull: lambda self, node: self.array(node.arg).is_null(),
    Is: _Evaluator.is_truth,
    Always: _Evaluator.always,
    In: _Evaluator.is_in,
    Like: _Evaluator.like,
    TypeCast: _Evaluator.cast,
    Call: _Evaluator.call,
    Case: _Evaluator.case,
}
