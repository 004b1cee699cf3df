"""The lake's fixed schema: one type a column for the whole job, checked file by file; types of hive partitions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from dtap_dask.errors import SourceError, did_you_mean
from dtap_dask.lake.discover import SourceFile

_NAMES: dict[str, pa.DataType] = {
    **{f"int{width}": getattr(pa, f"int{width}")() for width in (8, 16, 32, 64)},
    **{f"uint{width}": getattr(pa, f"uint{width}")() for width in (8, 16, 32, 64)},
    **{"tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(), "integer": pa.int32(), "bigint": pa.int64()},
    **{"float32": pa.float32(), "float": pa.float32(), "float64": pa.float64(), "double": pa.float64()},
    **{"string": pa.string(), "varchar": pa.string(), "text": pa.string(), "str": pa.string()},
    **{"bool": pa.bool_(), "boolean": pa.bool_(), "date": pa.date32(), "date32": pa.date32()},
    **{"timestamp": pa.timestamp("us")},
}
_PLAIN = (
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
    (pa.types.is_date64, pa.date32()),
)
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def canonical_type(kind: pa.DataType) -> pa.DataType:
    """What a type holds, whatever way it is stored: dictionaries are their values, large and view types the plain
    ones, lists of a fixed length lists, any time zone UTC (the instants are the same), small decimals decimal128.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return canonical_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return canonical_type(kind.value_type)
    if types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    if types.is_decimal32(kind) or types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    plain = next((plain for is_kind, plain in _PLAIN if is_kind(kind)), kind)
    return _canonical_nested(plain)


def _canonical_nested(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_map(kind):
        return pa.map_(canonical_type(kind.key_type), canonical_type(kind.item_type))
    if any(is_list(kind) for is_list in _LISTS):
        return pa.list_(canonical_type(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, canonical_type(f.type)) for f in kind])
    return kind


def canonical_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` with canonical types, every column nullable, without metadata."""
    return pa.schema([pa.field(field.name, canonical_type(field.type)) for field in schema])


def delivered_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a scan hands over a canonical type: text and binary dictionary-encoded, the rest as it is."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.dictionary(pa.int32(), kind)
    return kind


def select_columns(file: SourceFile, found: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """The canonical types of `columns` (all when None) in one file's schema, in the order asked for.

    SourceError when one is missing or occurs twice.
    """
    names = list(found.names if columns is None else columns)
    twice = sorted({name for name in names if found.names.count(name) > 1})
    if twice:
        raise SourceError(
            f"{file.path} has several columns of the name {twice[0]!r}, so it is not clear which one is meant. "
            "Rewrite the file with distinct column names, or move it into a folder whose name begins with `_`."
        )
    missing = [name for name in names if name not in found.names]
    if missing:
        hint = did_you_mean(missing[0], found.names)
        raise SourceError(
            f"{file.path} has no column {', '.join(map(repr, missing))}, which the job uses.{hint} "
            "Correct the job, or move the file into a folder whose name begins with `_` if it does not belong here."
        )
    return canonical_schema(pa.schema([found.field(name) for name in names]))


def check_schema(file: SourceFile, found: pa.Schema, expected: pa.Schema) -> None:
    """SourceError with a diff of the job's columns unless a file's full schema has them in their expected types.

    Nullability, metadata, order, encodings and columns that the job does not use are left alone; a column of
    Arrow's null type (no value was ever written) fits any type.
    """
    lines = []
    for field in expected:
        index = found.get_field_index(field.name)
        if index < 0:
            missing = "occurs more than once" if field.name in found.names else "is missing"
            lines.append(f"{field.name}: {missing}, expected {field.type}")
        else:
            kind = canonical_type(found.field(index).type)
            if not pa.types.is_null(kind) and kind != field.type:
                lines.append(f"{field.name}: is {kind}, expected {field.type}")
    if lines:
        raise SourceError(
            f"{file.path} does not have the source's schema, which its first file sets: {'; '.join(lines)}. Rewrite "
            "the file with these types, or move it into a folder whose name begins with `_` to leave it out."
        )


def parse_type(place: str, name: str) -> pa.DataType:
    """The Arrow type of a declared partition column (`int32`, `string`, `date`, ...); SourceError if unknown."""
    kind = _NAMES.get(name.strip().lower())
    if kind is None:
        raise SourceError(f"{place}: {name!r} is not a type of partition columns.{did_you_mean(name, _NAMES)}")
    return kind


def partition_schema(files: Sequence[SourceFile], declared: Mapping[str, str] | None = None) -> pa.Schema:
    """The types of the hive partition columns, in path order: as `declared`, else int64 if all values are integers,
    else string. SourceError for a declared column that the paths lack or a value that does not parse.

    A partition column stands above a column of the same name inside the files (as in Hive, Spark and DuckDB).
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
        if name in declared:
            kind = parse_type(f"source.partitions.{name}", declared[name])
        else:
            kind = _infer(value for value in values if value is not None)
        for value, file in values.items():
            _check_value(file, name, value, kind)
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def partition_scalar(value: str | None, kind: pa.DataType) -> pa.Scalar:
    """A partition value from a path as a scalar of its type; ValueError when it does not parse as that."""
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
    return pa.scalar(value, pa.string()).cast(kind)


def _infer(values: Iterable[str]) -> pa.DataType:
    found = list(values)
    fits = (_INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63 for value in found)
    return pa.int64() if found and all(fits) else pa.string()


def _check_value(file: SourceFile, name: str, value: str | None, kind: pa.DataType) -> None:
    try:
        partition_scalar(value, kind)
    except (ValueError, OverflowError) as error:
        raise SourceError(
            f"{file.path}: the partition value {name}={value} does not parse as {kind}. Declare another type in "
            f"source.partitions.{name} (string takes any value), or rename the folder."
        ) from error
