"""The types of columns: what they hold, whatever way a file stores it, and how a scan hands them over."""

from __future__ import annotations

import pyarrow as pa

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
