"""Columns of a batch as tensors of expressions, and the values of such tensors, for comparison with rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dtap_dask.errors import DataError
from dtap_dask.lake.sql.evaluate import evaluate as evaluate_rows
from dtap_dask.lake.sql.expression import Expression
from dtap_dask.lake.sql.literals import exact, has_grid, step
from dtap_dask.lake.sql.tree import ColumnReference, TypeCast
from dtap_dask.lake.sql.types import family, plain_type
from dtap_dask.train.serving.sql.tensor import SqlTensor, dtype_of
from sql_rows import FLOATS, Failed

SMALLEST = {"f32": float(np.finfo(np.float32).tiny), "f64": float(np.finfo(np.float64).tiny)}
_EMPTY = {tf.string: b"", tf.bool: False}


def normal(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with 0 in place of denormal floats, for which TensorFlow takes them."""
    for name in FLOATS:
        column = batch.column(name)
        tiny = pc.less(pc.abs(column), SMALLEST[name]).fill_null(False)
        values = pc.if_else(tiny, pa.scalar(0.0, column.type), column)
        batch = batch.set_column(batch.schema.get_field_index(name), name, values)
    return batch


def tensors(batch: pa.RecordBatch) -> dict[str, SqlTensor]:
    """Every column that 64 bits hold; decimals beyond them cannot be computed."""
    return {name: tensor(batch, name) for name in batch.schema.names if batch.column(name).type != pa.uint64()}


def tensor(batch: pa.RecordBatch, name: str) -> SqlTensor:
    kind = plain_type(batch.column(name).type)
    kind = plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind
    values = plain_values(evaluate_rows(ColumnReference(kind, name), batch))
    null = [value is None for value in values]
    beyond = [type(value) is int and not -(2**63) <= value < 2**63 for value in values]
    empty = _EMPTY.get(dtype_of(kind), 0)
    held = [empty if a or b else value for value, a, b in zip(values, null, beyond, strict=True)]
    masks = [tf.constant(mask, tf.bool) if any(mask) else None for mask in (null, beyond)]
    return SqlTensor(kind, tf.constant(held, dtype_of(kind)), *masks)


def plain_values(array: pa.Array) -> list[Any]:
    """Values as tensors have them: see SqlTensor."""
    if has_grid(array.type):
        return [int(exact(one) / step(array.type)) if one.is_valid else None for one in array]
    values: list[Any] = array.to_pylist()
    return [one.encode() if isinstance(one, str) else one for one in values]


def served_values(made: SqlTensor, rows: int) -> list[Any]:
    """The value of each row, None for null, Failed where it cannot be computed."""
    values = tf.broadcast_to(made.values, [rows]).numpy().tolist()
    null, bad = (np.zeros(rows, bool) if one is None else np.broadcast_to(one, [rows]) for one in (made.null, made.bad))
    failed = Failed("not computed")
    return [failed if b else None if n else value for value, n, b in zip(values, null, bad, strict=True)]


def row_values(expression: Expression, batch: pa.RecordBatch) -> list[Any]:
    """The same of the expression as rows are computed."""
    try:
        return plain_values(expression.evaluate(batch))
    except DataError:
        found: list[Any] = []
        for row in range(batch.num_rows):
            try:
                found += plain_values(expression.evaluate(batch.slice(row, 1)))
            except DataError as error:
                found.append(Failed(error))
        return found


def may_lack(expression: Expression) -> bool:
    """Whether there may be values that a graph cannot compute: decimals beyond 64 bits, and text as numbers."""
    nodes = list(expression.tree.walk())
    texts = any(isinstance(one, TypeCast) and family(one.arg.type) == "text" for one in nodes)
    return texts or any(pa.types.is_decimal(one.type) for one in nodes)
