"""The lake's fixed schema: one type a column for the whole job, checked file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from dtap_dask.errors import SourceError, did_you_mean
from dtap_dask.lake.discover import SourceFile

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


def canonical_type(kind: pa.DataType) -> pa.DataType:
    """What a type holds, whatever way it is stored: dictionaries are their values, large and view types the plain
    ones, any time zone UTC (the instants are the same), small decimals decimal128. Lists of a fixed length keep it
    where they hold numbers (vectors) or vectors (tensors); others are plain lists.
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


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is of lists, in whatever layout."""
    return any(is_layout(kind) for is_layout in _LISTS)


def is_empty_group(kind: pa.DataType) -> bool:
    """Whether a type is a struct without any field, as Protocol Buffers' writers have it: files store nothing of it."""
    return pa.types.is_struct(kind) and all(is_empty_group(field.type) for field in kind)


def _is_place(kind: pa.DataType) -> bool:
    """Whether a canonical type can be one of the places of a vector or tensor."""
    types = pa.types
    plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    return bool(plain or types.is_fixed_size_list(kind))


def _canonical_nested(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_map(kind):
        return pa.map_(canonical_type(kind.key_type), canonical_type(kind.item_type))
    if is_list(kind):
        item = canonical_type(kind.value_type)
        vector = types.is_fixed_size_list(kind) and kind.list_size > 0 and _is_place(item)
        return pa.list_(item, kind.list_size if vector else -1)
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
    there = Counter(found.names)
    names = list(found.names if columns is None else columns)
    twice = sorted({name for name in names if there[name] > 1})
    if twice:
        raise SourceError(
            f"{file.path} has several columns of the name {twice[0]!r}, so it is not clear which one is meant. "
            "Rewrite the file with distinct column names, or move it into a folder whose name begins with `_`."
        )
    missing = [name for name in names if name not in there]
    if missing:
        hint = did_you_mean(missing[0], found.names)
        raise SourceError(
            f"{file.path} has no column {', '.join(map(repr, missing))}, which the job uses.{hint} "
            "Correct the job, or move the file into a folder whose name begins with `_` if it does not belong here."
        )
    return canonical_schema(pa.schema([found.field(name) for name in names]))


def _fits(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether canonical types are the same, but for the length of lists where one of the two does not state it."""
    types = pa.types
    if is_list(found) and is_list(expected):
        sizes = {kind.list_size for kind in (found, expected) if types.is_fixed_size_list(kind)}
        return len(sizes) < 2 and _fits(found.value_type, expected.value_type)
    if types.is_struct(found) and types.is_struct(expected) and found.names == expected.names:
        return all(_fits(one.type, other.type) for one, other in zip(found, expected, strict=True))
    return bool(found == expected)


def check_schema(file: SourceFile, found: pa.Schema, expected: pa.Schema) -> None:
    """SourceError with a diff of the job's columns unless a file's full schema has them in their expected types.

    Nullability, metadata, order, encodings and columns that the job does not use are left alone; a column of
    Arrow's null type (no value was ever written) fits any type. Lists of a fixed length and of any fit each other: only
    Arrow's writers note a length, and what is read is held against it.
    """
    lines = []
    for field in expected:
        index = found.get_field_index(field.name)
        if index < 0:
            missing = "occurs more than once" if field.name in found.names else "is missing"
            lines.append(f"{field.name}: {missing}, expected {field.type}")
        else:
            kind = canonical_type(found.field(index).type)
            if not pa.types.is_null(kind) and not _fits(kind, field.type):
                lines.append(f"{field.name}: is {kind}, expected {field.type}")
    if lines:
        raise SourceError(
            f"{file.path} does not have the source's schema, which its first file sets: {'; '.join(lines)}. Rewrite "
            "the file with these types, or move it into a folder whose name begins with `_` to leave it out."
        )
