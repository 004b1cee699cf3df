"""Converts columns as a file stores them to the types that a scan delivers; no value changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.parquet import int96
from dtap_dask.lake.schema import delivered_type, is_list

_OFFSETS = pa.int32()


def to_delivered_type(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """`values` in the delivered type of the canonical type `kind`; same length.

    pa.ArrowException if `values` cannot become `kind`, ValueError for a value that does not fit.
    """
    wanted = delivered_type(kind)
    if values.type == wanted:
        return values
    if pa.types.is_dictionary(wanted) and not pa.types.is_dictionary(values.type):
        return _canonical(values, kind).cast(wanted)
    return _canonical(values, wanted)


def _canonical(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if values.type == kind:
        return values
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), kind)
    if pa.types.is_dictionary(values.type) and pa.types.is_dictionary(kind):
        words = _canonical(values.dictionary, kind.value_type)
        return pa.DictionaryArray.from_arrays(values.indices.cast(kind.index_type), words)
    if values.type == int96.RAW and pa.types.is_timestamp(kind):
        return int96.timestamps(values, kind)
    for wanted, given, rebuild in _NESTED:
        if wanted(kind) and given(values.type):
            return rebuild(values, kind)
    return values.cast(kind)


def _list(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """pyarrow's own cast (26.0) fails for a list view that ends in null."""
    entries = _canonical(values.flatten(), kind.value_type)
    return pa.ListArray.from_arrays(_offsets(values), entries, kind, mask=_mask(values))


def _vector(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Lists of a fixed length; ValueError for a list of another length. A null list has elements, all null."""
    size = kind.list_size
    if not pa.types.is_fixed_size_list(values.type):
        lengths = pc.unique(pc.list_value_length(values).drop_null()).to_pylist()
        other = [length for length in lengths if length != size]
        if other:
            raise ValueError(f"a list has {other[0]} values, and other files have {size} in each")
        values = _list(values, pa.list_(values.type.value_type)).cast(pa.list_(values.type.value_type, size))
    elif values.type.list_size != size:
        raise ValueError(f"its lists have {values.type.list_size} values, and those of other files {size}")
    elements = values.values.slice(values.offset * size, len(values) * size)
    return pa.FixedSizeListArray.from_arrays(_canonical(elements, kind.value_type), type=kind, mask=_mask(values))


def _struct(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Fields by name; a field that the file lacks is null."""
    if not kind.num_fields:
        return values
    indices = {field.name: index for index, field in enumerate(values.type)}
    children = [
        _canonical(values.field(indices[field.name]), field.type)
        if field.name in indices
        else pa.nulls(len(values), field.type)
        for field in kind
    ]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=_mask(values))


def _map(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Converted as a list of entries: there is no kernel for the number of entries of a map."""
    entries = values.cast(pa.list_(pa.struct([("key", values.type.key_type), ("value", values.type.item_type)])))
    inside = entries.flatten()
    keys, items = _canonical(inside.field(0), kind.key_type), _canonical(inside.field(1), kind.item_type)
    return pa.MapArray.from_arrays(_offsets(entries), keys, items, kind, mask=_mask(values))


def _offsets(lists: pa.Array) -> pa.Array:
    """Offsets of lists into their concatenated entries, int32 [n + 1]; a null list has no entries."""
    lengths = pc.list_value_length(lists).fill_null(0).cast(pa.int64())
    return pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)]).cast(_OFFSETS)


def _mask(values: pa.Array) -> pa.Array | None:
    return values.is_null() if values.null_count else None


_IsKind = Callable[[pa.DataType], bool]
# By wanted and given type: how to build the one from the other.
_NESTED: Sequence[tuple[_IsKind, _IsKind, Callable[[pa.Array, pa.DataType], pa.Array]]] = (
    (pa.types.is_fixed_size_list, is_list, _vector),
    (is_list, is_list, _list),
    (pa.types.is_struct, pa.types.is_struct, _struct),
    (pa.types.is_map, pa.types.is_map, _map),
)
