"""Types of columns: canonical types, independent of how a file stores them, and the types that a scan delivers."""

from __future__ import annotations

from functools import partial

import pyarrow as pa

from dtap_dask.lake.sql.types import without_layout

MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}  # in a unit of timestamps
MICROSECONDS_PER_DAY = 86_400_000_000
_TEXTS = frozenset(
    kind.id
    for kind in (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(1),
    )
)
_LISTS = frozenset(
    make(pa.int64()).id
    for make in (pa.list_, pa.large_list, partial(pa.list_, list_size=1), pa.list_view, pa.large_list_view)
)


def canonical_type(kind: pa.DataType) -> pa.DataType:
    """The type of the same values however they are stored: see `without_layout`, also inside nested types.

    Lists of a fixed length keep it where they hold numbers (vectors) or vectors (tensors); others are plain lists.
    """
    return _canonical_nested(without_layout(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text or binary, in whatever layout."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind.id in _TEXTS


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list, in whatever layout."""
    return kind.id in _LISTS


def is_empty_group(kind: pa.DataType) -> bool:
    """Whether a type is a struct without fields, as Protocol Buffers writers produce it: files store nothing for it."""
    return pa.types.is_struct(kind) and all(is_empty_group(field.type) for field in kind)


def _is_element(kind: pa.DataType) -> bool:
    """Whether a canonical type can be an element of a vector or tensor."""
    types = pa.types
    plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    return bool(plain or types.is_fixed_size_list(kind))


def _canonical_nested(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_map(kind):
        return pa.map_(canonical_type(kind.key_type), canonical_type(kind.item_type))
    if is_list(kind):
        item = canonical_type(kind.value_type)
        vector = types.is_fixed_size_list(kind) and kind.list_size > 0 and _is_element(item)
        return pa.list_(item, kind.list_size if vector else -1)
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, canonical_type(f.type)) for f in kind])
    return kind


def canonical_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` with canonical types, every column nullable, without metadata."""
    return pa.schema([pa.field(field.name, canonical_type(field.type)) for field in schema])


def delivered_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a scan delivers a canonical type: text and binary dictionary-encoded, all others unchanged."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.dictionary(pa.int32(), kind)
    return kind
