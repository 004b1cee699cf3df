"""Rows as columns, the form in which the transform returns them: count, slice, take, join and check them.

A fixed-width column is a NumPy array [n] or [n, k] in its stored dtype, text is a LargeBinaryArray, a list column a
LargeListArray of numbers or of large_binary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.binary import as_array

ColumnArray: TypeAlias = "npt.NDArray[np.generic] | pa.Array"


def is_fixed(info: FeatureInfo) -> bool:
    """Whether all rows of the column take the same number of bytes."""
    return info.stored != "bytes" and None not in info.shape


def is_text(info: FeatureInfo) -> bool:
    """Whether the column holds one text per row."""
    return info.stored == "bytes" and info.shape == ()


def width(info: FeatureInfo) -> int:
    """Values in a row of a fixed-width column."""
    return math.prod(size or 0 for size in info.shape)


def row_count(rows: Mapping[str, ColumnArray]) -> int:
    """The number of rows; 0 without columns."""
    return next((len(column) for column in rows.values()), 0)


def cut(rows: Mapping[str, ColumnArray], start: int, stop: int) -> Rows:
    """The rows from `start` to before `stop`, without a copy."""
    return {name: column[start:stop] for name, column in rows.items()}


def take(rows: Mapping[str, ColumnArray], index: npt.NDArray[np.int64]) -> Rows:
    """The rows at `index`, in that order."""
    return {
        name: column.take(index, axis=0) if isinstance(column, np.ndarray) else column.take(pa.array(index))
        for name, column in rows.items()
    }


def join(parts: Sequence[Mapping[str, ColumnArray]]) -> Rows:
    """The rows of all parts, one after the other. There must be at least one part."""
    if len(parts) == 1:
        return dict(parts[0])
    return {
        name: np.concatenate([part[name] for part in parts])
        if isinstance(column, np.ndarray)
        else pa.concat_arrays([part[name] for part in parts])
        for name, column in parts[0].items()
    }


def matrix(info: FeatureInfo, rows: Mapping[str, ColumnArray]) -> npt.NDArray[np.generic]:
    """A fixed-width column as [n, width] in its stored dtype. DataError where it is a different kind of column."""
    column = rows[info.name]
    if not isinstance(column, np.ndarray) or column.dtype != np.dtype(info.stored) or column.shape[1:] != info.shape:
        found = f"{column.dtype} {column.shape[1:]}" if isinstance(column, np.ndarray) else str(column.type)
        raise DataError(
            f"Column {info.name!r} came as {found}, but is declared as {info.stored} {info.shape}. This is a mistake "
            "in the step that made it; please report it with the job file."
        )
    return column.reshape(len(column), width(info))


def text_column(info: FeatureInfo, rows: Mapping[str, ColumnArray]) -> pa.LargeBinaryArray:
    """A text column; nulls become empty texts, as a record cannot hold a null."""
    return _binary(info, rows[info.name])


def list_column(info: FeatureInfo, rows: Mapping[str, ColumnArray]) -> tuple[npt.NDArray[np.int64], ColumnArray]:
    """A list column as (elements per row, all elements): elements as [m] in the stored dtype, or a LargeBinaryArray.

    A null list becomes an empty one. A null inside a list becomes NaN among floats and an empty text among texts;
    among integers it is a DataError.
    """
    column = rows[info.name]
    if not isinstance(column, pa.Array) or not pa.types.is_large_list(column.type):
        raise DataError(f"Column {info.name!r} must come as a LargeListArray, not as {_kind(column)}.")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    for size in info.shape:
        if size is not None and not (lengths == size).all():
            raise DataError(f"Column {info.name!r} must have {size} values in every row; some rows have others.")
    values = column.flatten()
    if info.stored == "bytes":
        return lengths, _binary(info, values)
    return lengths, _numbers(info, values)


def _binary(info: FeatureInfo, column: ColumnArray) -> pa.LargeBinaryArray:
    if not isinstance(column, pa.Array) or not pa.types.is_large_binary(column.type):
        raise DataError(f"Column {info.name!r} must come as a LargeBinaryArray, not as {_kind(column)}.")
    return pc.fill_null(column, b"") if column.null_count else column


def _numbers(info: FeatureInfo, values: pa.Array) -> npt.NDArray[np.generic]:
    if values.null_count and not pa.types.is_floating(values.type):
        raise DataError(
            f"A list in column {info.name!r} holds a null, which integers cannot express. Fill it (impute) or drop it "
            "before it is written."
        )
    if values.null_count:
        values = pc.fill_null(values, pa.scalar(math.nan, values.type))
    numbers: npt.NDArray[np.generic] = values.to_numpy(zero_copy_only=False)
    if numbers.dtype != np.dtype(info.stored):
        raise DataError(f"Column {info.name!r} holds lists of {numbers.dtype}, but is declared as {info.stored}.")
    return numbers


def _kind(column: ColumnArray) -> str:
    return f"a NumPy array of {column.dtype}" if isinstance(column, np.ndarray) else str(column.type)


def bytes_per_row(infos: Sequence[FeatureInfo], rows: Mapping[str, ColumnArray]) -> npt.NDArray[np.int64]:
    """Bytes of values in each row, as [n]: the size by which a window of rows is measured."""
    total = np.full(row_count(rows), sum(fixed_bytes(info) for info in infos), np.int64)
    for info in infos:
        if is_text(info):
            total += np.diff(as_array(text_column(info, rows))[0])
        elif not is_fixed(info):
            total += list_bytes(info, rows)
    return total


def fixed_bytes(info: FeatureInfo) -> int:
    """Bytes of values in a row of a fixed-width column; 0 for other columns."""
    return width(info) * np.dtype(info.stored).itemsize if is_fixed(info) else 0


def list_bytes(info: FeatureInfo, rows: Mapping[str, ColumnArray]) -> npt.NDArray[np.int64]:
    """Bytes of values in each row of a list column, as [n]."""
    lengths, values = list_column(info, rows)
    if isinstance(values, np.ndarray):
        return lengths * values.dtype.itemsize
    ends = offsets_of(lengths)
    starts = as_array(values)[0]
    return starts[ends[1:]] - starts[ends[:-1]]
