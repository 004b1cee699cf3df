"""Derived columns of a batch, from the raw columns of the lake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.schema import MICROSECONDS
from dtap_dask.lake.sql.expression import Expression
from dtap_dask.lake.sql.kernels.calendar import PER_DAY
from dtap_dask.lake.sql.parsing import abbreviated
from dtap_dask.lake.sql.types import family, plain_type
from dtap_dask.train.serving.sql.arithmetic import times
from dtap_dask.train.serving.sql.casts import cast
from dtap_dask.train.serving.sql.evaluate import evaluate
from dtap_dask.train.serving.sql.tensor import SqlTensor, any_of, dtype_of, is_null
from dtap_dask.train.serving.tensors import ListTensor, NumberTensor, TensorColumn, TextTensor, fixed

TensorColumns = Mapping[str, TensorColumn]
_EXACT = 10**15  # decimals with more digits are not the only ones near a double


def derived(
    expressions: Sequence[tuple[str, Expression]], schema: pa.Schema
) -> Callable[[TensorColumns], dict[str, TensorColumn]]:
    """A function from columns of the lake, of the types in `schema`, to these and the derived ones, in order.

    A row for which an expression cannot be computed is an InvalidArgumentError. The expressions are ones that can be
    served, see lake.sql.serving.
    """
    needed = sorted(
        frozenset[str]().union(*(one.columns for _, one in expressions)) - {name for name, _ in expressions}
    )
    kinds = {name: plain_type(schema.field(name).type) for name in needed}

    def compute(columns: TensorColumns) -> dict[str, TensorColumn]:
        given = {name: _from_column(columns[name], kind) for name, kind in kinds.items()}
        made: dict[str, TensorColumn] = dict(columns)
        rows = _rows(next(iter(columns.values())))
        for name, expression in expressions:
            value = _whole(evaluate(expression.tree, given), rows)
            given[name] = value
            column, bad = _to_column(value)
            _refuse(name, expression, any_of(value.bad, bad))
            made[name] = column
        return made

    return compute


def _rows(column: TensorColumn) -> Any:
    if isinstance(column, ListTensor):
        return tf.shape(column.splits, tf.int64)[0] - 1
    return tf.shape(column.values, tf.int64)[0]


def _whole(value: SqlTensor, rows: Any) -> SqlTensor:
    """A value of shape [n], also where it is the same for every row."""
    parts = [None if one is None else tf.broadcast_to(one, [rows]) for one in (value.values, value.null, value.bad)]
    return SqlTensor(value.type, *parts)


def _refuse(name: str, expression: Expression, bad: Any) -> None:
    if bad is not None:
        text = (
            f"derived column {name!r}: {abbreviated(expression.sql)} cannot be computed for every row. CAST to a wider "
            "type, use TRY_CAST or NULLIF, or exclude such values with CASE."
        )
        tf.debugging.Assert(~tf.reduce_any(bad), [tf.constant(text)])


def _from_column(column: TensorColumn, kind: pa.DataType) -> SqlTensor:
    """A column of the lake in the units of expressions."""
    assert not isinstance(column, ListTensor)
    values, null, what = column.values, column.null, family(kind)
    if what == "float":
        return SqlTensor(kind, tf.cast(values, dtype_of(kind)), tf.math.is_nan(values))
    if what == "decimal":
        counts = tf.round(values * fixed(10.0**kind.scale))
        bad = tf.abs(counts) >= min(_EXACT, 10**kind.precision)
        missing = tf.math.is_nan(values)
        return SqlTensor(kind, tf.cast(tf.where(bad | missing, tf.zeros_like(counts), counts), tf.int64), missing, bad)
    if what == "date":
        return SqlTensor(kind, values // PER_DAY["us"], null)
    if what in ("timestamp", "time"):
        if kind.unit == "ns":
            finer, over = times(values, 1000)
            return SqlTensor(kind, finer, null, over)
        return SqlTensor(kind, values // MICROSECONDS[kind.unit], null)
    return SqlTensor(kind, values, null)


def _to_column(value: SqlTensor) -> tuple[TensorColumn, Any]:
    """An expression's value as a column of a batch, and the rows in which that does not hold it."""
    what, values = family(value.type), value.values
    if what in ("text", "binary"):
        return TextTensor(values, value.null), None
    if what == "decimal":
        value = cast(value, pa.float64())
        values, what = value.values, "float"
    if what == "float":
        floats = tf.cast(values, tf.float64)
        return NumberTensor(tf.where(is_null(value), tf.constant(float("nan"), tf.float64), floats)), value.bad
    if what == "date":
        return _microseconds(value, PER_DAY["us"])
    if what in ("timestamp", "time"):
        if value.type.unit == "ns":
            return NumberTensor(values // 1000, value.null), None
        return _microseconds(value, MICROSECONDS[value.type.unit])
    return NumberTensor(values, value.null), None


def _microseconds(value: SqlTensor, factor: int) -> tuple[TensorColumn, Any]:
    values, over = times(value.values, factor)
    return NumberTensor(values, value.null), over if over is None or value.null is None else over & ~value.null
