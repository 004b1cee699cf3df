"""Rows as the raw tensors that serving takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dtap_dask.features.columns.arrow import from_arrow
from dtap_dask.features.columns.column import numbers
from dtap_dask.train.serving.raw import RawColumn, null_name


def raw_tensors(rows: pa.RecordBatch) -> dict[str, Any]:
    """A tensor for each column, and one that says where it is null for those without NaN."""
    made: dict[str, Any] = {}
    for field in rows.schema:
        column, array = RawColumn.of(field), rows.column(field.name)
        made[field.name] = _values(array, column)
        if column.has_null_tensor:
            made[null_name(field.name)] = tf.constant(array.is_null().to_numpy(zero_copy_only=False))
    return made


def _values(array: pa.Array, column: RawColumn) -> Any:
    if column.type.element is not None:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        return tf.RaggedTensor.from_row_lengths(tf.constant(_flat(array.flatten(), column)), lengths)
    return tf.constant(_flat(array, column), column.dtype)


def _flat(array: pa.Array, column: RawColumn) -> Any:
    if column.base == "text":
        return [one.encode() if isinstance(one, str) else one or b"" for one in array.to_pylist()] or np.array(
            [], object
        )
    found = numbers(from_arrow(array))
    nulls = found.nulls()
    if nulls is None or found.is_float:
        return found.values
    return np.where(nulls, found.values.dtype.type(0), found.values)
