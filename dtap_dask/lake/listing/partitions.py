"""Hive partition columns: types, declared or inferred, and values; different values never become one silently."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation

import pyarrow as pa

from dtap_dask.errors import SourceError, did_you_mean
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.schema import delivered_type

_NAMES: dict[str, pa.DataType] = {
    **{f"int{width}": getattr(pa, f"int{width}")() for width in (8, 16, 32, 64)},
    **{f"uint{width}": getattr(pa, f"uint{width}")() for width in (8, 16, 32, 64)},
    **{"tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(), "integer": pa.int32(), "bigint": pa.int64()},
    **{"float32": pa.float32(), "float": pa.float32(), "float64": pa.float64(), "double": pa.float64()},
    **{"string": pa.string(), "varchar": pa.string(), "text": pa.string(), "str": pa.string()},
    **{"bool": pa.bool_(), "boolean": pa.bool_(), "date": pa.date32(), "date32": pa.date32()},
    **{"timestamp": pa.timestamp("us")},
}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_CANONICAL = re.compile(r"0|-?[1-9][0-9]*")
_DIGITS = re.compile(r"[0-9]+")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def parse_type(place: str, name: str) -> pa.DataType:
    """The Arrow type of a declared partition column (`int32`, `string`, `date`, ...); SourceError if unknown."""
    kind = _NAMES.get(name.strip().lower())
    if kind is None:
        raise SourceError(f"{place}: {name!r} is not a type of partition columns.{did_you_mean(name, _NAMES)}")
    return kind


def partition_schema(
    files: Sequence[SourceFile],
    declared: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> pa.Schema:
    """The types of the hive partition columns, in path order: as `declared`, else inferred.

    int64 is inferred if all values are integers and no two of them can be equal: without leading zeros (`9`, `10`), or
    all with the same number of digits (`09`, `10`). Every other column is text; if its values are integers, `warn` is
    called. SourceError for a declared column that the paths lack, a value that does not parse, or different values that
    become equal. A partition column hides a column of the files with the same name in any case (as in Hive, Spark and
    DuckDB).
    """
    declared = declared or {}
    names = [name for name, _ in files[0].partition] if files else []
    unknown = [name for name in declared if name not in names]
    if unknown:
        raise SourceError(
            f"source.partitions.{unknown[0]}: the source's paths have no partition folder {unknown[0]}=... ; they "
            f"have {', '.join(names) or 'none'}.{did_you_mean(unknown[0], names)}"
        )
    fields = []
    for position, name in enumerate(names):
        values: dict[str | None, SourceFile] = {}
        for file in files:
            values.setdefault(file.partition[position][1], file)
        written = [value for value in values if value is not None]
        if name in declared:
            kind = parse_type(f"source.partitions.{name}", declared[name])
        else:
            kind = _infer(written)
            if pa.types.is_string(kind) and written and all(map(_INTEGER.fullmatch, written)):
                warn(_kept_as_text(name, written))
        for value, file in values.items():
            _check_value(file, name, value, kind)
        if pa.types.is_floating(kind):
            _refuse_merged(name, written, kind)
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def without_partition_columns(
    schema: pa.Schema, partitions: pa.Schema, warn: Callable[[str], None] = lambda text: None
) -> pa.Schema:
    """The columns of files without those that a partition column hides; names are compared without case."""
    folders = {name.lower(): name for name in partitions.names}
    hidden = {name for name in schema.names if name.lower() in folders}
    for name in sorted(hidden):
        above = folders[name.lower()]
        if name != above:
            warn(
                f"The folders {above}=... hide the column {name!r} of the files, as names in SQL have no case: it is "
                "not read. Rename the folders if it is needed."
            )
    return pa.schema([field for field in schema if field.name not in hidden])


def partition_scalar(value: str | None, kind: pa.DataType) -> pa.Scalar:
    """A partition value as a scalar of type `kind`, NaN as null; ValueError if it does not parse."""
    if value is None:
        return pa.scalar(None, kind)
    if pa.types.is_string(kind):
        return pa.scalar(value, kind)
    if pa.types.is_boolean(kind):
        if value.lower() not in _BOOLEANS:
            raise ValueError(f"{value!r} is neither true nor false")
        return pa.scalar(_BOOLEANS[value.lower()], kind)
    if pa.types.is_integer(kind):
        if not _INTEGER.fullmatch(value):
            raise ValueError(f"{value!r} is not an integer")
        return pa.scalar(int(value), kind)
    parsed = pa.scalar(value, pa.string()).cast(kind)
    return pa.scalar(None, kind) if pa.types.is_floating(kind) and math.isnan(parsed.as_py()) else parsed


def partition_array(value: str | None, kind: pa.DataType, rows: int) -> pa.Array:
    """A partition value repeated for `rows` rows, in its delivered type: text as a dictionary with one entry."""
    scalar = partition_scalar(value, kind)
    if not pa.types.is_dictionary(delivered_type(kind)):
        return pa.repeat(scalar, rows)
    if not scalar.is_valid:
        return pa.nulls(rows, delivered_type(kind))
    codes = pa.repeat(pa.scalar(0, pa.int32()), rows)
    return pa.DictionaryArray.from_arrays(codes, pa.array([scalar.as_py()], kind))


def _infer(values: Collection[str]) -> pa.DataType:
    alike = all(map(_CANONICAL.fullmatch, values)) or (
        all(map(_DIGITS.fullmatch, values)) and len(set(map(len, values))) == 1
    )
    fits = values and alike and all(len(value) <= 20 and -(2**63) <= int(value) < 2**63 for value in values)
    return pa.int64() if fits else pa.string()


def _kept_as_text(name: str, values: Sequence[str]) -> str:
    odd = next((value for value in values if not _CANONICAL.fullmatch(value)), max(values, key=len))
    return (
        f"The folders {name}=... are read as text, as {odd!r} may be a code and not a number. Declare "
        f"source.partitions.{name}: int64 if they are numbers, or string to leave them text without this warning."
    )


def _check_value(file: SourceFile, name: str, value: str | None, kind: pa.DataType) -> None:
    try:
        partition_scalar(value, kind)
    except (ValueError, OverflowError) as error:
        raise SourceError(
            f"{file.path}: the partition value {name}={value} does not parse as {kind}. Declare another type in "
            f"source.partitions.{name} (string takes any value), or rename the folder."
        ) from error


def _refuse_merged(name: str, values: Sequence[str], kind: pa.DataType) -> None:
    """SourceError if values that are different numbers become the same float."""
    found: dict[float, str] = {}
    for value in values:
        number = partition_scalar(value, kind).as_py()
        if number is None:
            continue
        other = found.setdefault(number, value)
        if _exact(other) != _exact(value):
            raise SourceError(
                f"The folders {name}={other} and {name}={value} would become one value as {kind}, {number!r}. Declare "
                f"source.partitions.{name}: string, or a wider type."
            )


def _exact(value: str) -> Decimal | str:
    """A number without rounding; text that only Arrow reads as a number (`inf`) unchanged."""
    try:
        return Decimal(value.strip())
    except InvalidOperation:
        return value
