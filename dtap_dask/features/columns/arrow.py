"""Columns of record batches as NumPy sees them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.columns.buffers import unpack, validity, view
from dtap_dask.features.columns.column import Column, Decimals, Lists, Mask, Numbers, Text, offsets_of, shape_of
from dtap_dask.lake.schema import MICROSECONDS, MICROSECONDS_PER_DAY, is_text


def from_arrow(array: pa.Array) -> Column:
    """A column of a record batch; `array` is of a type that `valuetype.source_type` accepts."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_dictionary(kind):
        if is_text(kind.value_type):
            return Text(array)
        return from_arrow(array.dictionary_decode())
    if is_text(kind):
        return Text(array)
    if pa.types.is_fixed_size_list(kind):
        return _vectors(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(array)
    return Decimals(array) if pa.types.is_decimal(kind) else _numbers(array)


def _lists(array: pa.Array) -> Lists:
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    elements = from_arrow(array.flatten())
    assert not isinstance(elements, Lists)
    return Lists(offsets_of(lengths), elements, validity(array))


def _numbers(array: pa.Array) -> Numbers:
    kind = array.type
    if pa.types.is_null(kind):
        return Numbers(np.full(len(array), np.nan))
    if pa.types.is_decimal(kind):
        return Decimals(array).numbers
    valid = validity(array)
    if pa.types.is_boolean(kind):
        return Numbers(unpack(array.buffers()[1], array.offset, len(array)), valid)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return Numbers(_microseconds(array, valid), valid)
    values = view(array, kind.to_pandas_dtype())
    if valid is not None and values.dtype.kind == "f":
        return Numbers(np.where(valid, values, values.dtype.type(np.nan)))
    return Numbers(values, valid)


def _microseconds(array: pa.Array, valid: Mask | None) -> npt.NDArray[np.int64]:
    kind = array.type
    if pa.types.is_date32(kind):
        return _times(view(array, np.int32).astype(np.int64), MICROSECONDS_PER_DAY, valid)
    values = view(array, np.int64)
    if pa.types.is_date64(kind):
        return _times(values, 1_000, valid)
    if kind.unit == "ns":
        return np.asarray(np.floor_divide(values, 1_000))
    return _times(values, MICROSECONDS[kind.unit], valid)


def _times(values: npt.NDArray[np.int64], factor: int, valid: Mask | None) -> npt.NDArray[np.int64]:
    """`values * factor`. OverflowError where int64 does not hold that."""
    most = np.iinfo(np.int64).max // factor
    if len(values) and (values.max() > most or values.min() < -most):
        beyond = np.abs(values.astype(np.float64)) > most  # near the bound either way is centuries off
        count = int(np.count_nonzero(beyond if valid is None else beyond & valid))
        if count:
            raise OverflowError(f"{count:,} dates or times lie beyond what microseconds since 1970 hold in 64 bits")
    return values * factor


def _vectors(array: pa.Array) -> Numbers:
    """[n, k] of a fixed-size list of numbers, or of such lists; a null row is null in every place."""
    size = array.type.list_size
    places = array.values.slice(array.offset * size, len(array) * size)
    inner = _vectors(places) if pa.types.is_fixed_size_list(places.type) else _numbers(places)
    values = inner.values.reshape(len(array), math.prod(shape_of(array.type)))
    valid = None if inner.valid is None else np.asarray(inner.valid.reshape(len(array), size).all(axis=1))
    rows = validity(array)
    if rows is None:
        return Numbers(values, valid)
    if inner.is_float:
        return Numbers(np.where(rows[:, None], values, values.dtype.type(np.nan)))
    return Numbers(values, rows if valid is None else rows & valid)
