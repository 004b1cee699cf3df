"""The twins of the steps that learn nothing and treat each value on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.elementwise import Cast, Clip, Log1p, Passthrough
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.train.serving.sql import parsing
from dtap_dask.train.serving.tensors import (
    NumberTensor,
    Tensor,
    TensorBound,
    TensorColumn,
    TextTensor,
    fixed,
    floats,
    numbers,
    refuse,
)

_INTEGER = "-?[0-9]+"
_FLOAT = r"(?i)-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|-?inf(inity)?|-?nan"
_SPELLINGS = {"bool": "(?i)true|false|0|1"}


def clip(step: Clip, fitted: Fitted, value: Value) -> TensorBound:
    """Values within the bounds; NaN stays NaN."""

    def apply(column: TensorColumn) -> TensorColumn:
        given = numbers(column)
        whole = value.type.base == "int"
        made = given.values if whole else floats(column)
        for bound, beyond in ((step.min, tf.less), (step.max, tf.greater)):
            if bound is not None:
                limit = tf.constant(bound, tf.int64) if whole else fixed(float(bound))
                made = tf.where(beyond(made, limit), limit, made)
        return NumberTensor(made, given.null if whole else None)

    return apply


def log1p(step: Log1p, fitted: Fitted, value: Value) -> TensorBound:
    """The natural logarithm of 1 + x; another library than NumPy's computes it, with the same result to the last bit
    but one."""
    return lambda column: NumberTensor(tf.math.log1p(floats(column)))


def passthrough(step: Passthrough, fitted: Fitted, value: Value) -> TensorBound:
    """The column as it is."""
    return lambda column: column


def cast(step: Cast, fitted: Fitted, value: Value) -> TensorBound:
    """Another type. What it cannot hold is an error, as is text that spells no number."""

    def apply(column: TensorColumn) -> TensorColumn:
        if isinstance(column, TextTensor):
            return column if step.dtype == "string" else _limited(_parsed(step.dtype, column, value), step.dtype, value)
        return _spelt(numbers(column)) if step.dtype == "string" else _limited(numbers(column), step.dtype, value)

    return apply


def _spelt(given: NumberTensor) -> TextTensor:
    if given.values.dtype == tf.bool:
        return TextTensor(tf.where(given.values, tf.constant("true"), tf.constant("false")), given.null)
    return TextTensor(tf.strings.as_string(given.values), given.null)


def _parsed(dtype: str, given: TextTensor, value: Value) -> NumberTensor:
    zero = tf.constant("0")
    words = given.values if given.null is None else tf.where(given.null, zero, given.values)
    spelling = _SPELLINGS.get(dtype, _FLOAT if dtype.startswith("float") else _INTEGER)
    right = tf.strings.regex_full_match(words, spelling)
    refuse(~right, value, f"text that does not spell a {dtype}")
    words = tf.where(right, words, zero)
    made: Any
    if dtype == "bool":
        made = tf.strings.regex_full_match(words, "(?i)true|1")
    elif dtype.startswith("float"):
        made, _, unknown = parsing.floating(words, tf.float64)
        refuse(unknown, value, "a number of more digits than are parsed here")
    else:
        made = tf.strings.to_number(words, tf.int64)
    if made.dtype == tf.float64 and given.null is not None:
        return NumberTensor(tf.where(given.null, fixed(np.nan), made))
    return NumberTensor(made, given.null)


def _limited(given: NumberTensor, dtype: str, value: Value) -> NumberTensor:
    """Numbers as `dtype` holds them, in the wider dtype of tensors here."""
    what = f"a value that does not fit {dtype}"
    if dtype.startswith("float"):
        made = floats(given)
        cut = tf.cast(tf.cast(made, tf.as_dtype(dtype)), tf.float64)
        refuse(tf.math.is_inf(cut) & tf.math.is_finite(made), value, what)
        return NumberTensor(cut)
    null: Any = tf.math.is_nan(given.values) if given.values.dtype == tf.float64 else given.null
    if dtype == "bool":
        return NumberTensor(tf.cast(given.values, tf.bool), null)
    return NumberTensor(_whole(given.values, null, dtype, value, what), null)


def _whole(values: Tensor, null: Any, dtype: str, value: Value, what: str) -> Tensor:
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if values.dtype == tf.bool:
        return tf.cast(values, tf.int64)
    if values.dtype == tf.float64:
        held = tf.where(tf.math.is_nan(values), tf.zeros_like(values), values)
        cut = tf.where(held < 0, tf.math.ceil(held), tf.math.floor(held))
        wrong = (cut < low) | (cut >= float(high) + 1.0)
        refuse(wrong, value, what)
        return tf.cast(tf.where(wrong, tf.zeros_like(cut), cut), tf.int64)
    wrong = (values < low) | (values > high)
    refuse(wrong if null is None else wrong & ~_beside(null, values), value, what)
    return values


def _beside(null: Tensor, values: Tensor) -> Tensor:
    return null[:, tf.newaxis] if values.shape.rank == 2 else null
