"""Raw columns of the lake as tensors: what a serving model is given, and how nulls are spelt in it.

Scalars are of shape [n] or [n, 1]. Floats and decimals are float64 (float32 where the lake has these), NaN is null.
Integers, dates and times are int64, the latter two in microseconds since 1970; booleans are bool, text is string.
Vectors are [n, k], lists ragged [n, None]. A value is also null where a second tensor, bool [n], named
`RawColumn.null_name`, is true; without that tensor, what has no NaN has no nulls.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import item_of
from dtap_dask.features.steps.valuetype import Base, ValueType, source_type
from dtap_dask.train.serving.tensors import ListTensor, NumberTensor, Tensor, TensorColumn, TextTensor, fixed, row_count

RawTensors = Mapping[str, Any]


def beside(name: str, ending: str, names: Collection[str]) -> str:
    """`name` with an ending, and with as many `_` behind it as it takes to be none of `names`."""
    made = name + ending
    while made in names:
        made += "_"
    return made


def lengths_name(name: str, names: Collection[str]) -> str:
    """The name of the tensor of the numbers of elements of lists, beside the names of others."""
    return beside(name, "_lengths", names)


@dataclass(frozen=True)
class RawColumn:
    """A column of the lake that features are made from.

    `null_name` names the tensor that says where it is null, `lengths_name` that of the numbers of elements of lists.
    """

    name: str
    type: ValueType
    null_name: str
    lengths_name: str

    @classmethod
    def of(cls, field: pa.Field, names: Collection[str] = ()) -> RawColumn:
        """The column of a field of the lake's schema; `names` are those of all columns."""
        name = field.name
        return cls(name, source_type(field.type, name), beside(name, "_null", names), lengths_name(name, names))

    @property
    def base(self) -> Base:
        """The kind of its values, of lists that of their elements."""
        return (self.type.element or self.type).base

    @property
    def dtype(self) -> Any:
        """The dtype of its tensor."""
        if self.base == "float":
            own = item_of(self.type.source)
            return tf.float32 if pa.types.is_float32(own) or pa.types.is_float16(own) else tf.float64
        return {"bool": tf.bool, "text": tf.string}.get(self.base, tf.int64)

    @property
    def has_null_tensor(self) -> bool:
        """Whether nulls need a tensor of their own."""
        return self.type.element is not None or self.base != "float"

    @property
    def spec(self) -> Any:
        """What its tensor is, in a signature."""
        if self.type.element is not None:
            return tf.RaggedTensorSpec([None, None], self.dtype, 1, tf.int64)
        shape = [None] if self.type.width is None else [None, self.type.width]
        return tf.TensorSpec(shape, self.dtype, self.name)

    def column(self, given: RawTensors) -> TensorColumn:
        """The column of a batch."""
        null = None
        if self.null_name in given:
            null = tf.reshape(tf.cast(given[self.null_name], tf.bool), [-1])
        values = given[self.name]
        if self.type.element is not None:
            return self._lists(values, null)
        return self._plain(self._row_by_row(self._typed(values)), null)

    def _row_by_row(self, values: Tensor) -> Tensor:
        """The values as [n], those of vectors as [n, k].

        DataError for rows of another number of values; InvalidArgumentError where it is known only as the graph runs.
        """
        width, inner = self.type.width or 1, values.shape[1:].num_elements() if values.shape.rank != 0 else 1
        if inner is None:
            rows = tf.reduce_prod(tf.shape(values, tf.int64)[:1])
            text = f"column {self.name!r}: a row does not hold {width} value{'s' * (width > 1)}"
            right = tf.debugging.Assert(tf.size(values, tf.int64) == rows * width, [tf.constant(text)])
            with tf.control_dependencies([right]):  # or the error is that of the reshaping, without the column
                values = tf.identity(values)
        elif inner != width:
            wanted = "[n]" if self.type.width is None else f"[n, {width}]"
            raise DataError(f"The raw tensor of column {self.name!r} is to be of shape {wanted}, not {values.shape}.")
        return tf.reshape(values, [-1] if self.type.width is None else [-1, width])

    def _typed(self, values: Any) -> Tensor:
        given = self._tensor(values)
        if not self._takes(given.dtype):
            raise DataError(
                f"The raw tensor of column {self.name!r} is to be {self.dtype.name}, and it is {given.dtype.name}. "
                "Convert it: values would be lost or mean something else."
            )
        if self.base == "text":
            return given
        held = tf.cast(given, self.dtype)
        lost = _lost(given, held)
        if lost is not None:
            text = (
                f"column {self.name!r}: the rows hold a number of {given.dtype.name} that is none of {self.dtype.name}"
            )
            tf.debugging.Assert(~tf.reduce_any(lost), [tf.constant(text)])
        return tf.cast(held, tf.float64) if self.base == "float" else held

    def _tensor(self, values: Any) -> Tensor:
        """A tensor as it is; lists and arrays in the dtype that NumPy gives them, as TensorFlow's is float32."""
        try:
            if not tf.is_tensor(values) and self.base != "text":
                values = np.asarray(values)
            return tf.convert_to_tensor(values)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"The values of column {self.name!r} are no tensor of {self.dtype.name}: {error} {self._hint}"
            ) from error

    @property
    def _hint(self) -> str:
        if self.type.element is not None:
            return "Lists of any length are a ragged tensor, as tf.ragged.constant makes it."
        if self.base == "float":
            return "NaN is null."
        return f"A value is null where the bool tensor {self.null_name!r} is true."

    def _takes(self, dtype: tf.DType) -> bool:
        """Whether values of a dtype are meant as those of the column; Examples hold booleans as integers."""
        if self.base == "text":
            return bool(dtype == tf.string)
        if self.base == "float":
            return bool(dtype.is_floating or dtype.is_integer)
        return bool(dtype.is_integer or (self.base == "bool" and dtype.is_bool))

    def _plain(self, values: Tensor, null: Any) -> NumberTensor | TextTensor:
        if self.base == "text":
            return TextTensor(values, null)
        if self.base != "float" or null is None:
            return NumberTensor(values, null)
        rows = null if self.type.width is None else null[:, tf.newaxis]
        return NumberTensor(tf.where(rows, fixed(np.nan), values))

    def _lists(self, values: Any, null: Any) -> ListTensor:
        if not isinstance(values, tf.RaggedTensor):
            values = self._tensor(values)
        if values.shape.rank not in (2, None):
            raise DataError(
                f"The raw tensor of column {self.name!r} is to be of shape [n, None], not {values.shape}. {self._hint}"
            )
        if not isinstance(values, tf.RaggedTensor):
            values = tf.RaggedTensor.from_tensor(values)
        if null is not None:  # null lists have no elements, whatever is given
            values = tf.ragged.boolean_mask(values, values.with_values(~tf.gather(null, values.value_rowids())))
        splits = tf.cast(values.row_splits, tf.int64)
        return ListTensor(splits, self._plain(self._typed(values.flat_values), None), null)


def _lost(given: Tensor, held: Tensor) -> Tensor | None:
    """Where numbers are others in the dtype of `held`; None where none can be."""
    if given.dtype == held.dtype:
        return None
    if given.dtype.is_floating:
        return tf.math.is_inf(held) & tf.math.is_finite(given)
    if held.dtype.is_floating:
        return (tf.cast(held, tf.int64) != tf.cast(given, tf.int64)) | (held >= 2.0**63)
    if held.dtype == tf.bool:
        return tf.cast(held, given.dtype) != given
    return held < 0 if given.dtype == tf.uint64 else None


def raw_columns_of(given: RawTensors, columns: Sequence[RawColumn]) -> dict[str, TensorColumn]:
    """All columns of a batch.

    DataError lists those that are missing, names one of another type, and those of different numbers of rows;
    InvalidArgumentError where these numbers are known only as the graph runs.
    """
    if not isinstance(given, Mapping):
        raise DataError(f"The raw tensors are a dict with one for each column, by name, not {type(given)}.")
    missing = [one for one in columns if one.name not in given]
    if missing:
        raise DataError(
            f"The raw tensors lack {', '.join(repr(one.name) for one in missing)}, which the features need. Of values "
            f"that are not known, floats are NaN; others are null where a bool tensor such as {missing[0].null_name!r} "
            "is true."
        )
    names = [name for one in columns for name in (one.name, one.null_name) if name in given]
    rows = {name: found for name in names if (found := _known_rows(given[name])) is not None}
    if len(set(rows.values())) > 1:
        each = ", ".join(f"{name!r} {count:,}" for name, count in rows.items())
        raise DataError(f"The raw tensors have different numbers of rows: {each}.")
    made = {one.name: one.column(given) for one in columns}
    if len(rows) < len(names):
        counts = {name: row_count(made[name]) if name in made else tf.size(given[name], tf.int64) for name in names}
        _refuse_different(counts)
    return made


def _refuse_different(counts: Mapping[str, Tensor]) -> None:
    """InvalidArgumentError, as the graph runs, for tensors of different numbers of rows: a single one is broadcast."""
    found = tf.stack(list(counts.values()))
    text = f"the raw tensors {', '.join(map(repr, counts))} have different numbers of rows:"
    tf.debugging.Assert(tf.reduce_all(found == found[0]), [tf.constant(text), found], summarize=len(counts))


def _known_rows(values: Any) -> int | None:
    """The number of rows, 1 of a scalar; None within a function that takes any number."""
    shape = getattr(values, "shape", None)
    if shape is None:
        many = isinstance(values, Sequence) and not isinstance(values, str | bytes)
        return len(values) if many else None if values is None else 1
    if getattr(shape, "rank", 0) is None:
        return None
    return shape[0] if len(shape) else 1


def example_spec(columns: Sequence[RawColumn]) -> dict[str, Any]:
    """How raw columns are parsed from serialized tf.train.Examples, where a missing or empty feature is null."""
    return {one.name: _example_feature(one) for one in columns}


def _example_feature(column: RawColumn) -> Any:
    dtype = {"float": tf.float32, "text": tf.string}.get(column.base, tf.int64)
    return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)


def from_examples(serialized: Tensor, columns: Sequence[RawColumn]) -> dict[str, Any]:
    """The raw tensors of serialized tf.train.Examples, string [n]."""
    parsed = tf.io.parse_example(serialized, example_spec(columns))
    made: dict[str, Any] = {}
    for one in columns:
        values = parsed[one.name]
        if one.type.element is not None:
            made[one.name] = values
            continue
        width = one.type.width or 1
        default: Any = {"float": float("nan"), "text": ""}.get(one.base, 0)
        made[one.name] = values.to_tensor(default, shape=[None, width])
        counts = values.row_lengths()
        text = f"column {one.name!r}: an Example holds another number of values than {width}"
        tf.debugging.Assert(tf.reduce_all((counts == width) | (counts == 0)), [tf.constant(text)])
        if one.has_null_tensor:
            made[one.null_name] = counts == 0
    return made
