"""A value of a SQL expression for every row, as a tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.types import family
from dtap_dask.train.serving.tensors import Tensor

RowMask = Any  # a tensor of bool; None where it is false in every row


@dataclass(frozen=True)
class SqlTensor:
    """The values of an expression of Arrow type `type`; those of rows where `null` is true mean nothing.

    `values` is of shape [n], or [] where they are the same for every row: bool; float32 and float64; string for text
    and binary; else int64: whole numbers, decimals in units of the last digit, dates in days, timestamps and times of
    day in units of their type. `bad` is true in rows for which the value cannot be computed. `constant` is the Python
    value of a constant that is not null.
    """

    type: pa.DataType
    values: Tensor
    null: RowMask = None
    bad: RowMask = None
    constant: Any = None

    def but(self, **changes: Any) -> SqlTensor:
        """The same with some changes; no longer constant."""
        return replace(self, **{"constant": None, **changes})


Twin = Callable[[pa.DataType, Sequence[SqlTensor]], SqlTensor]
"""A function of the type of the result and the arguments."""


def dtype_of(kind: pa.DataType) -> Any:
    """The dtype of the values of an Arrow type."""
    if pa.types.is_float32(kind):
        return tf.float32
    named = {"bool": tf.bool, "float": tf.float64, "text": tf.string, "binary": tf.string}
    return named.get(family(kind), tf.int64)


def any_of(*masks: RowMask) -> RowMask:
    """Where any of the masks is true."""
    found = None
    for mask in masks:
        found = mask if found is None else found if mask is None else found | mask
    return found


def unless(mask: RowMask, excluded: RowMask) -> RowMask:
    """Where `mask` is true and `excluded` is not."""
    return mask if mask is None or excluded is None else mask & ~excluded


def is_null(given: SqlTensor) -> Tensor:
    """Where it is null, as a tensor."""
    return tf.zeros_like(given.values, tf.bool) if given.null is None else given.null


def strict(kernel: Callable[..., Any]) -> Twin:
    """A twin that is null where any argument is. `kernel` gets the type and the arguments, and gives the values, or
    these and where they cannot be computed."""

    def twin(dtype: pa.DataType, args: Sequence[SqlTensor]) -> SqlTensor:
        made = kernel(dtype, *args)
        values, own = made if isinstance(made, tuple) else (made, None)
        null = any_of(*(arg.null for arg in args))
        return SqlTensor(dtype, values, null, any_of(*(arg.bad for arg in args), unless(own, null)))

    return twin


def of_values(kernel: Callable[..., Tensor]) -> Twin:
    """A strict twin of a kernel that takes only the values."""
    return strict(lambda dtype, *args: kernel(*(arg.values for arg in args)))


def choose(condition: Tensor, first: SqlTensor, second: SqlTensor) -> SqlTensor:
    """`first` where the condition is true, else `second`."""
    null = bad = None
    if first.null is not None or second.null is not None:
        null = tf.where(condition, is_null(first), is_null(second))
    if first.bad is not None or second.bad is not None:
        bad = any_of(unless(first.bad, ~condition), None if second.bad is None else second.bad & ~condition)
        bad = any_of(None if first.bad is None else first.bad & condition, unless(second.bad, condition))
    return SqlTensor(first.type, tf.where(condition, first.values, second.values), null, bad)
