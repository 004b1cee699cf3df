"""Rows of the lake as the raw tensors that serving takes, and rows made up for a check of what was exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dtap_dask.features import FittedState
from dtap_dask.features.columns.arrow import from_arrow
from dtap_dask.features.columns.column import numbers
from dtap_dask.features.steps.operation import Source
from dtap_dask.lake.schema import is_list, is_text
from dtap_dask.train.serving.raw import RawColumn

LEAST, MOST = 32, 256  # rows that are made up
ODD = 5  # odd values of a column
_STRANGE = "never seen\n"


def raw_tensors(rows: pa.RecordBatch) -> dict[str, Any]:
    """A tensor for each column, and one that says where it is null for those without NaN."""
    made: dict[str, Any] = {}
    for field in rows.schema:
        column, array = RawColumn.of(field, rows.schema.names), rows.column(field.name)
        made[field.name] = _values(array, column)
        if column.has_null_tensor:
            made[column.null_name] = tf.constant(array.is_null().to_numpy(zero_copy_only=False))
    return made


def _values(array: pa.Array, column: RawColumn) -> Any:
    if column.type.element is not None:
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
        return tf.RaggedTensor.from_row_lengths(tf.constant(_flat(array.flatten(), column), column.dtype), lengths)
    return tf.constant(_flat(array, column), column.dtype)


def _flat(array: pa.Array, column: RawColumn) -> Any:
    if column.base == "text":
        words = [one.encode() if isinstance(one, str) else one or b"" for one in array.to_pylist()]
        return np.array(words, object)
    found = numbers(from_arrow(array))
    nulls = found.nulls()
    if nulls is None or found.is_float:
        return found.values
    mask = nulls[:, None] if found.values.ndim == 2 else nulls
    return np.where(mask, found.values.dtype.type(0), found.values)


def made_up(schema: pa.Schema, state: FittedState) -> Iterator[pa.RecordBatch]:
    """Batches of one row: usual values, known words among them; from the second row on one column has null, an extreme,
    or a value that was never seen, column after column. As many as that takes, within LEAST and MOST; the same rows for
    the same state."""
    known = _known_words(state)
    for row in range(min(max(LEAST, 1 + ODD * len(schema)), MOST)):
        at, kind = divmod(row - 1, len(schema) or 1)[::-1] if row else (-1, 0)
        arrays = [
            _one(field.type, _odd(field.type, kind) if place == at else _usual(field, row, known))
            for place, field in enumerate(schema)
        ]
        yield pa.record_batch(arrays, schema=schema)


def _known_words(state: FittedState) -> dict[str, pa.Array]:
    """The vocabulary of each column of the lake that is encoded as it is read."""
    found: dict[str, pa.Array] = {}
    for value, fitted in state.fitted.items():
        words = fitted.get("vocabulary", fitted.get("categories_"))
        if isinstance(words, pa.Array) and len(words) and isinstance(value.inputs[0].operation, Source):
            found.setdefault(value.inputs[0].operation.column, words)
    return found


def _usual(field: pa.Field, row: int, known: dict[str, pa.Array]) -> Any:
    words = known.get(field.name)
    if words is not None and is_text(field.type):
        return words[row % len(words)].as_py()
    return row + 1


def _odd(kind: pa.DataType, number: int) -> Any:
    if number == 0:
        return None
    if pa.types.is_dictionary(kind):
        return _odd(kind.value_type, number)
    odd = _odd_texts(kind) if is_text(kind) else _extremes(kind)
    return odd[(number - 1) % len(odd)]


def _odd_texts(kind: pa.DataType) -> Sequence[Any]:
    whole = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return ("", _STRANGE, "é", b"\xff" if whole else " ")


def _extremes(kind: pa.DataType) -> Sequence[Any]:
    if is_list(kind):
        return _extremes(kind.value_type)
    if pa.types.is_floating(kind):
        return (0, -1, 1e30, float("inf"))
    if pa.types.is_integer(kind):
        limits = np.iinfo(kind.to_pandas_dtype())
        return (0, -1, int(limits.max), int(limits.min))
    return (0, -1, 127, 100)


def _one(kind: pa.DataType, value: Any) -> pa.Array:
    """An array of one value, which is brought to the type."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _one(kind.storage_type, value))
    return pa.array([None if value is None else _as(kind, value)], kind)


def _as(kind: pa.DataType, value: Any) -> Any:
    """A value as Python has those of a type."""
    if pa.types.is_dictionary(kind):
        return _as(kind.value_type, value)
    if is_list(kind):
        return [_as(kind.value_type, value)] * (kind.list_size if pa.types.is_fixed_size_list(kind) else 2)
    if is_text(kind):
        return value if isinstance(value, str | bytes) else f"word {value}"
    if pa.types.is_temporal(kind):
        return datetime(2013, 6, 1, tzinfo=UTC) + timedelta(hours=25 * int(value))
    return _number(kind, value)


def _number(kind: pa.DataType, value: Any) -> Any:
    if pa.types.is_boolean(kind):
        return bool(value % 2)
    if pa.types.is_decimal(kind):
        return Decimal(int(value) % 10 ** min(3, kind.precision - kind.scale))
    if pa.types.is_float16(kind):
        return np.float16(min(value, 1000))
    if pa.types.is_floating(kind):
        return float(value)
    return abs(value) if pa.types.is_unsigned_integer(kind) else value
