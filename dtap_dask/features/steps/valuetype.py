"""The type of a value: what is known of it before any row is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from dtap_dask.features.columns.column import item_of, shape_of
from dtap_dask.lake.schema import is_text

Base = Literal["float", "int", "bool", "text", "time", "list", "onehot"]


class Unfit(Exception):
    """An operation cannot take such an input; the text goes into a Problem."""


class UnfitKey(Unfit):
    """The column of a key cannot be used, whatever other input the operation has."""


@dataclass(frozen=True)
class ValueType:
    """What is known of a value before anything is read.

    `source`: the Arrow type in the lake of what it is made from. `nulls`, `infinities`: the columns of the lake whose
    nulls or infinities may still be there. `cast`: the dtype that a cast, as the last operation, gave it. `ids`:
    whether it is ids. `width`: the numbers of a vector of fixed length, all together in one of several dimensions, 0
    where only fitting tells.
    `holds`: of integers, and of the numbers in one-hot vectors, the dtype that holds every value that may be there.
    `element`: the type of the elements of lists. The `nulls`, `infinities` and `ids` of lists include theirs, and
    null elements of a column of the lake are named `elements_in(column)` among nulls.
    """

    base: Base
    source: pa.DataType
    nulls: frozenset[str] = frozenset()
    infinities: frozenset[str] = frozenset()
    cast: str | None = None
    ids: bool = False
    width: int | None = None
    holds: str = "int64"
    element: ValueType | None = None

    def become(self, base: Base, **changes: Any) -> ValueType:
        """The type after an operation: no longer as cast, no ids, any integers, no lists, unless `changes` say so."""
        return replace(self, **{"cast": None, "ids": False, "holds": "int64", "element": None, "base": base, **changes})

    def listing(self, element: ValueType) -> ValueType:
        """The type of the same lists with other elements."""
        nulls = self.nulls - (self.element.nulls if self.element else frozenset()) | element.nulls
        return self.become("list", element=element, nulls=nulls, infinities=element.infinities, ids=element.ids)

    def joined(self, *others: ValueType) -> ValueType:
        """The type with the nulls and infinities of further inputs."""
        nulls = self.nulls.union(*(other.nulls for other in others))
        return replace(self, nulls=nulls, infinities=self.infinities.union(*(other.infinities for other in others)))

    @property
    def is_number(self) -> bool:
        """Whether it is one number a row."""
        return self.base in ("float", "int", "bool") and self.width is None


def has_null_places(given: ValueType) -> bool:
    """Whether places of vectors are null one by one; a null among whole numbers or booleans makes the row null."""
    item = item_of(given.source)
    return bool(pa.types.is_floating(item) or pa.types.is_decimal(item))


def describe(kind: ValueType) -> str:
    """A type in words."""
    if kind.width is not None:
        return f"a {'tensor' if len(shape_of(kind.source)) > 1 else 'vector'} ({kind.source})"
    if kind.base == "time" or (kind.base == "float" and pa.types.is_decimal(kind.source)):
        return str(kind.source)
    return {"list": f"a list ({kind.source})", "onehot": "one-hot vectors, or counts of words"}.get(
        kind.base, kind.base
    )


def elements_in(column: str) -> str:
    """The name of the elements of a column of lists, among `ValueType.nulls`."""
    return f"{column}[]"


def source_type(source: pa.DataType, column: str) -> ValueType:
    """The type of a column of the lake. Raises `Unfit` for Arrow types that cannot be features."""
    kind = _type_of(source)
    infinities = frozenset([column] if (kind.element or kind).base == "float" else [])
    kind = replace(kind, nulls=frozenset([column]), infinities=infinities)
    if kind.element is None:
        return kind
    return kind.listing(replace(kind.element, nulls=frozenset([elements_in(column)]), infinities=infinities))


def _type_of(source: pa.DataType) -> ValueType:
    base = source
    if isinstance(base, pa.BaseExtensionType):
        base = base.storage_type
    if pa.types.is_dictionary(base):
        base = base.value_type
    if is_text(base):
        return ValueType("text", source)
    if pa.types.is_fixed_size_list(base):
        inner = _type_of(base.value_type)
        if not inner.is_number and inner.width is None:
            raise Unfit(f"it is {source}; of fixed-size lists only those of numbers can be features.")
        return ValueType(inner.base, source, width=base.list_size * (inner.width or 1), holds=inner.holds)
    if pa.types.is_list(base) or pa.types.is_large_list(base):
        inner = _type_of(base.value_type)
        if not inner.is_number and inner.base != "text":
            raise Unfit(f"it is {source}; of lists only those of numbers or text can be features.")
        return ValueType("list", source, element=inner)
    return ValueType(_base_of(base), source, holds=str(base) if pa.types.is_integer(base) else "int64")


def _base_of(kind: pa.DataType) -> Base:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "float"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "time"
    if pa.types.is_null(kind):
        raise Unfit("its Arrow type is null: no file holds a value of it. Leave it out.")
    raise Unfit(f"it is {kind}, which cannot be a feature. Derive plain columns from it with `derive`.")
