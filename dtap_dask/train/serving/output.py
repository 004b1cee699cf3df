"""The features of a batch as `load` gives them: dtypes, shapes, and an error where a record could not hold a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dtap_dask.features.engine.checks import null_is_wrong
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value
from dtap_dask.features.info import FeatureInfo
from dtap_dask.train.serving.lists import holes
from dtap_dask.train.serving.tensors import (
    ListTensor,
    NumberTensor,
    Tensor,
    TensorColumn,
    TextTensor,
    floats,
    null_of,
    numbers,
)


def feature(output: Output, info: FeatureInfo, columns: Mapping[Value, TensorColumn]) -> Any:
    """A feature: [n], [n, ...] or ragged. InvalidArgumentError for nulls and infinities that no record would hold."""
    for value in output.values:
        column = columns[value]
        null = holes(column) if isinstance(column, ListTensor) else null_of(column)
        if null is not None and null_is_wrong(output, value):
            _refuse(tf.reduce_any(null), info, "a null (or NaN)")
    if output.vector:
        return _vector([numbers(columns[value]) for value in output.values], info)
    column = columns[output.values[0]]
    if isinstance(column, ListTensor):
        elements = _plain(column.elements, info)
        return tf.RaggedTensor.from_row_splits(elements, column.splits, validate=False)
    made = _plain(column, info)
    return tf.reshape(made, [-1, *info.shape]) if len(info.shape) > 1 else made


def _plain(column: NumberTensor | TextTensor, info: FeatureInfo) -> Tensor:
    if isinstance(column, TextTensor):
        return column.values
    values = floats(column) if info.dtype.startswith("float") else column.values
    return _stored(values, info)


def _vector(parts: list[NumberTensor], info: FeatureInfo) -> Tensor:
    """The values side by side, [n, k]."""
    as_floats = info.dtype.startswith("float")
    blocks = [floats(part) if as_floats else tf.cast(part.values, tf.int64) for part in parts]
    wide = [block if block.shape.rank == 2 else block[:, tf.newaxis] for block in blocks]
    made = _stored(tf.concat(wide, axis=1), info)
    return tf.ensure_shape(made, [None, *info.shape])


def _stored(values: Tensor, info: FeatureInfo) -> Tensor:
    """Numbers in the dtype of the feature, checked for what its records do not hold."""
    made = tf.cast(values, tf.as_dtype(info.dtype))
    if made.dtype.is_floating:
        _refuse(tf.reduce_any(tf.math.is_inf(made)), info, "an infinity")
    elif info.stored != "int64" and values.dtype == tf.int64 and np.dtype(info.stored).kind in "iu":
        limits = np.iinfo(info.stored)
        wrong = (values < int(limits.min)) | (values > int(limits.max))
        _refuse(tf.reduce_any(wrong), info, f"an integer beyond {info.stored}")
    return made


def _refuse(wrong: Tensor, info: FeatureInfo, what: str) -> None:
    text = f"feature {info.name!r}, of column {', '.join(info.columns[:4])!r}: the rows would make {what}"
    tf.debugging.Assert(~wrong, [tf.constant(text)])
