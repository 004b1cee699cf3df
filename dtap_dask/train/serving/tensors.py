"""A column of a batch as tensors: what features.columns.column has in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Tensor = Any


@dataclass(frozen=True)
class NumberTensor:
    """Numbers of shape [n], or [n, k] for vectors: float64 with NaN for null, int64 or bool.

    `null` is None for floats; for the others it is a bool tensor [n], or None where there are no nulls. Dates and
    timestamps are int64 microseconds since 1970.
    """

    values: Tensor
    null: Tensor | None = None


@dataclass(frozen=True)
class TextTensor:
    """Text as raw bytes, a string tensor of shape [n]; `null` as in NumberTensor."""

    values: Tensor
    null: Tensor | None = None


@dataclass(frozen=True)
class ListTensor:
    """Lists of any length, a ragged tensor of n rows; `null` as in NumberTensor."""

    values: Any
    null: Tensor | None = None


def fixed(value: Any, dtype: Any = tf.float64) -> Tensor:
    """A constant of floats, of any shape, that TensorFlow's graph optimizer leaves alone.

    In a graph it would compute x / 3 as x * (1 / 3), and (x * a) * b as x * (a * b), which are other floats.
    """
    constant = tf.constant(value, dtype)
    return tf.raw_ops.PlaceholderWithDefault(input=constant, shape=constant.shape)


TensorColumn = NumberTensor | TextTensor | ListTensor
TensorBound = Callable[..., TensorColumn]  # one column for each input
