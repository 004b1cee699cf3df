"""Rows in the forms that users have them, as record batches of the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.apply import objects
from dtap_dask.apply.dicts import Pieces, columns_of_dicts
from dtap_dask.apply.encoded import encoded, one_array
from dtap_dask.errors import DataError
from dtap_dask.lake.schema import is_list, is_text
from dtap_dask.lake.sql.kernels.decimals import to_floating

FEW_ROWS = 16  # of a DataFrame, which are read faster as Python objects
PLAIN = frozenset({bool, int, float, str, bytes, type(None)})  # objects that are exactly what a Series has
UTC = frozenset({"UTC", "Etc/UTC", "+00:00", "Z"})  # as pandas, Python and ISO 8601 name it
SPAN_ROWS = 1 << 20  # rows whose text is encoded together


def as_batch(rows: Any, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `schema`, of its types, taken from `rows`: see `GivenRows`."""
    return GivenRows.of(rows, schema).batch(schema)


@dataclass(frozen=True)
class GivenRows:
    """Rows in a form that users have: their columns by name, and the number of rows."""

    columns: Mapping[str, Any]
    count: int

    @classmethod
    def of(cls, rows: Any, schema: pa.Schema) -> GivenRows:
        """The columns of `schema`, whatever their types; further ones are ignored.

        `rows` is a pandas DataFrame, an Arrow Table or RecordBatch, a dict of columns, a dict that is one row (of
        scalars), or a list of such dicts. A key that only some of these dicts have is null in the others. DataError
        lists the columns that are missing, that occur twice, or that are of other lengths.
        """
        _check_distinct(rows, schema)
        columns, count = _columns(rows, schema)
        missing = [name for name in schema.names if name not in columns]
        if missing:
            raise DataError(
                f"The rows lack {'columns' if len(missing) > 1 else 'column'} {', '.join(map(repr, missing))}, which "
                f"the features need. Add {'them' if len(missing) > 1 else 'it'}; values that are not known may be null."
            )
        columns = {name: columns[name] for name in schema.names}
        _check_lengths({name: values for name, values in columns.items() if hasattr(values, "__len__")}, count)
        return cls(columns, count)

    def batch(self, schema: pa.Schema, *, encode: bool = False) -> pa.RecordBatch:
        """All rows, with the columns of `schema` and of its types.

        With `encode`, text that comes as a dictionary, or that repeats its words in many rows, is dictionary-encoded,
        as scans deliver it. DataError for a column with values that its type in the lake does not hold exactly.
        """
        arrays = [_of_type(self.columns[field.name], field, encode) for field in schema]
        _check_lengths(dict(zip(schema.names, arrays, strict=True)), self.count)
        if not arrays:
            return pa.RecordBatch.from_struct_array(pa.StructArray.from_buffers(pa.struct([]), self.count, [None]))
        return pa.RecordBatch.from_arrays(arrays, schema.names)

    @property
    def are_objects(self) -> bool:
        """Whether any column holds Python objects."""
        return any(map(objects.are_objects, self.columns.values()))

    def read(self, schema: pa.Schema, turn: AbstractContextManager[Any]) -> GivenRows:
        """The columns of `schema` alone, as Arrow arrays; `turn` is held while objects are read."""
        return GivenRows({field.name: _read(self.columns[field.name], field, turn) for field in schema}, self.count)

    def batches(self, schema: pa.Schema, size: int) -> Iterator[pa.RecordBatch]:
        """As `batch` with `encode`, `size` rows at a time; the text of many batches is encoded together.

        The columns are those that `read` gives.
        """
        for begin in range(0, self.count, SPAN_ROWS):
            parts = {name: values.slice(begin, SPAN_ROWS) for name, values in self.columns.items()}
            span = GivenRows(parts, min(SPAN_ROWS, self.count - begin)).batch(schema, encode=True)
            for start in range(0, span.num_rows, size):
                yield span.slice(start, size)


def _check_distinct(rows: Any, schema: pa.Schema) -> None:
    """DataError if a table or DataFrame has several columns of one name that is needed."""
    names = list(rows.schema.names if isinstance(rows, pa.RecordBatch | pa.Table) else getattr(rows, "columns", ()))
    if len(names) > len(set(names)):
        twice = [name for name in schema.names if names.count(name) > 1]
        if twice:
            raise DataError(
                f"The rows have several columns of the name {twice[0]!r}, so it is not clear which one is meant. Leave "
                "all but one out, or rename them."
            )


def _check_lengths(columns: Mapping[str, Sized], count: int) -> None:
    if any(len(values) != count for values in columns.values()):
        lengths = ", ".join(f"{name!r} {len(values):,}" for name, values in columns.items())
        raise DataError(f"The columns differ in their number of rows: {lengths}. Give all of them the same.")


def _columns(rows: Any, schema: pa.Schema) -> tuple[Mapping[str, Any], int]:
    """The columns by name, and the number of rows."""
    if isinstance(rows, pa.RecordBatch | pa.Table):
        names = rows.schema.names
        return {name: rows.column(position) for position, name in enumerate(names)}, rows.num_rows
    if isinstance(rows, Mapping):
        if _is_one_row(rows, schema):
            return {name: [value] for name, value in rows.items()}, 1
        return rows, len(next(iter(rows.values()), ()))
    if isinstance(rows, Sequence) and all(issubclass(kind, Mapping) for kind in set(map(type, rows))):
        return columns_of_dicts(rows, schema), len(rows)
    if hasattr(rows, "columns") and hasattr(rows, "__getitem__") and hasattr(rows, "__len__"):
        return _of_frame(rows, schema.names), len(rows)
    given = type(rows).__name__
    if isinstance(rows, list | tuple):
        given += f" of {' and '.join(sorted({type(row).__name__ for row in rows}))}"
    raise DataError(
        f"Rows are a pandas DataFrame, an Arrow table, a dict of columns, a dict or a list of dicts, not {given}."
    )


def _of_frame(frame: Any, names: Sequence[str]) -> dict[str, Any]:
    """The columns that a DataFrame has."""
    names = [name for name in names if name in frame.columns]
    columns: dict[str, Any] = {}
    if hasattr(frame, "iloc") and len(frame) <= FEW_ROWS and len(frame.columns) <= 2 * len(names):
        lists = frame.to_numpy(object).T.tolist()  # faster than Series by Series
        columns = dict(zip(frame.columns, lists, strict=True))
    plain = {name for name in names if columns.get(name) and PLAIN.issuperset(map(type, columns[name]))}
    return {name: columns[name] if name in plain else _without_index(frame[name]) for name in names}


def _without_index(series: Any) -> Any:
    """The values of a Series where Arrow reads the same from them, which is faster; otherwise the Series."""
    values = getattr(series, "array", None)
    if hasattr(values, "__arrow_array__"):
        return values
    return series.to_numpy() if isinstance(getattr(series, "dtype", None), np.dtype) else series


def _is_one_row(rows: Mapping[str, Any], schema: pa.Schema) -> bool:
    """Whether the first needed column of a dict is the value of one row, rather than those of several."""
    field = next((field for field in schema if field.name in rows), None)
    if field is None:
        return False
    value = rows[field.name]
    if not is_list(field.type) or not _has_elements(value):
        return not _has_elements(value)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return not (is_list(value.type) or pa.types.is_null(value.type))
    if any(map(_has_elements, value)):
        return False
    with _Naming(field):
        return any(pa.scalar(one, from_pandas=True).is_valid for one in value)


def _has_elements(value: Any) -> bool:
    """Whether a value is a list or an array."""
    if isinstance(value, list | tuple | pa.Array | pa.ChunkedArray):
        return True
    return hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0


def _as_arrow(values: Any, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    """The values of a column in whatever type Arrow finds for them."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, Pieces):
        return values.joined().encoded()
    values = values.tolist() if getattr(values, "ndim", 1) > 1 else values
    with _Naming(field):
        try:
            return pa.array(values, from_pandas=True)
        except OverflowError:  # Arrow takes all integers for int64 if the first one fits
            if not pa.types.is_uint64(_item(field.type)):
                raise
            return pa.array(values, _with_item(field.type, pa.decimal128(38, 0)), from_pandas=True)


def _read(values: Any, field: pa.Field, turn: AbstractContextManager[Any]) -> pa.Array | pa.ChunkedArray:
    """As `_as_arrow`, of many values; `turn` is held while objects are read."""
    if isinstance(values, Pieces | pa.Array | pa.ChunkedArray):
        return _as_arrow(values, field)
    with turn:
        made = objects.read(values, text=is_text(field.type))
        made = _as_arrow(values, field) if made is None else made
    return made.encoded() if isinstance(made, objects.Joined) else made


def _item(kind: pa.DataType) -> pa.DataType:
    """The type of the elements of lists, of lists of lists, ...; any other type itself."""
    return _item(kind.value_type) if is_list(kind) else kind


def _with_item(kind: pa.DataType, item: pa.DataType) -> pa.DataType:
    return pa.list_(_with_item(kind.value_type, item)) if is_list(kind) else item


def _of_type(values: Any, field: pa.Field, encode: bool) -> pa.Array:
    """The values as the type of `field`; with `encode`, text may be a dictionary."""
    array = _as_arrow(values, field)
    with _Naming(field):
        if encode and is_text(field.type):
            array = encoded(array, field.type)
            if pa.types.is_dictionary(array.type) and array.type.value_type == field.type:
                return array
        return _converted(one_array(array), field.type)


@dataclass(frozen=True, slots=True)
class _Naming:
    """Errors of Arrow within it become the DataError that names the column."""

    # a class, as a context manager made of a generator takes longer

    field: pa.Field

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, pa.ArrowException | ValueError | TypeError | OverflowError):
            why = " ".join(str(error).split()).rstrip(".")
            raise DataError(
                f"Column {self.field.name!r} is {self.field.type} in the lake, and the rows have values that this "
                f"does not hold exactly: {why}. Convert the column, or leave such rows out."
            ) from error


def _converted(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type) and not pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), None, values)
    if values.null_count == len(values):
        return pa.nulls(len(values), kind)  # pandas has float64 for any column without values
    if not _is_alike(values.type, kind):
        raise TypeError(f"they are {values.type}")
    if pa.types.is_decimal(values.type) and pa.types.is_floating(kind):
        return to_floating(values, kind)
    made = values.cast(kind)  # not pa.array(values, kind), which cuts 1.5 to an integer
    _refuse_loss(values, made)
    return made


def _is_alike(given: pa.DataType, kind: pa.DataType) -> bool:
    """Whether values of one type can be meant for another: truth values, text, numbers and times are not mixed up.

    Only dates, times and decimals may be spelled as text. Times of a zone other than UTC are not taken for times
    without one: these may be those of UTC as well as those of the zone's clock.
    """
    if is_list(given) and is_list(kind):
        return _is_alike(given.value_type, kind.value_type)
    if pa.types.is_struct(given) and pa.types.is_struct(kind):
        return all(_is_alike(given.field(field.name).type, field.type) for field in kind if field.name in given.names)
    if pa.types.is_timestamp(given) and pa.types.is_timestamp(kind) and kind.tz is None and given.tz is not None:
        return given.tz in UTC
    families = (is_text, pa.types.is_boolean, _is_number, pa.types.is_temporal, pa.types.is_nested)
    spelled = is_text(given) and (pa.types.is_temporal(kind) or pa.types.is_decimal(kind))
    return pa.types.is_null(given) or spelled or any(one(given) and one(kind) for one in families)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _refuse_loss(given: pa.Array, made: pa.Array) -> None:
    """ValueError for what Arrow casts silently: numbers beyond a float, digits of a decimal, the time of a date."""
    while is_list(made.type) and is_list(given.type):
        given, made = given.flatten(), made.flatten()
    if pa.types.is_floating(made.type) and pa.types.is_floating(given.type):
        lost = pc.and_(pc.is_inf(made), pc.is_finite(given))
    elif (pa.types.is_decimal(made.type) and pa.types.is_floating(given.type)) or (
        pa.types.is_date(made.type) and pa.types.is_timestamp(given.type)
    ):
        lost = pc.not_equal(made.cast(given.type), given)
    else:
        return
    if pc.any(lost, min_count=0).as_py():
        raise ValueError(f"one of them is {given.filter(lost)[0]}")
