"""Steps on whole lists: how long they are, their first or last elements, and vectors of a fixed length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dtap_dask.features.columns.column import (
    Array,
    Column,
    Lists,
    Mask,
    Numbers,
    lists,
    numbers,
    offsets_of,
    rows_at,
)
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation, Part, fits
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe
from dtap_dask.lake.fingerprint import Offsets

Side = Literal["pre", "post"]

LARGEST = 1 << 20
"""The most elements that a list is padded to, or cut to."""


def element_of(step: Operation, given: ValueType) -> ValueType:
    """The type of the elements of lists. Raises `Unfit` for anything else."""
    if given.element is None:
        remedy = " Put `tokenize` before it." if given.base == "text" else ""
        raise Unfit(f"{step.name} needs lists, and the column is {describe(given)}.{remedy}")
    return given.element


class NullAsEmpty(Operation):
    """An empty list in place of null. Nulls inside lists stay."""

    name: ClassVar[str] = "null_as_empty"
    keeps_ids: ClassVar[bool] = True

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return replace(given, nulls=element_of(self, given).nulls)

    @property
    def keeps_nulls(self) -> bool:
        return False

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        return lambda column: replace(lists(column), valid=None)


class ListLength(Operation):
    """The number of elements, those that are null among them. Null stays null."""

    name: ClassVar[str] = "list_length"

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        nulls = given.nulls - element_of(self, given).nulls
        return given.become("int", source=pa.int32(), nulls=nulls, infinities=frozenset(), holds="int32")

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            rows = lists(column)
            return Numbers(rows.lengths.astype(np.int32), rows.valid)

        return apply


class Last(Operation):
    """The last `count` elements; all of a list that has no more. Null stays null."""

    name: ClassVar[str] = "last"
    scalar: ClassVar[str | None] = "count"
    keeps_ids: ClassVar[bool] = True
    cuts: ClassVar[bool] = True

    count: Annotated[int, Field(ge=1, le=LARGEST)]

    cut_off: ClassVar[Side] = "pre"

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        element_of(self, given)
        return given

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            rows = lists(column)
            kept = np.minimum(rows.lengths, self.count)
            elements = rows_at(rows.elements, places(rows, kept, self.cut_off))
            return Lists(offsets_of(kept), elements, rows.valid)

        return apply


class First(Last):
    """The first `count` elements; all of a list that has no more. Null stays null."""

    name: ClassVar[str] = "first"

    cut_off: ClassVar[Side] = "post"


class Pad(Operation):
    """A vector of `length` numbers: the elements, and `value` in the places that are left.

    `side` says where these are, `truncating` which end of a longer list is cut off; `pre` is the beginning and `post`
    the end, as in Keras' pad_sequences. Ids are padded with 0, which no element of a list has as its id. `mask` adds
    an output `<name>_mask`, true where an element is. A list that is null, or of which a kept element is, becomes null.
    """

    name: ClassVar[str] = "pad"
    scalar: ClassVar[str | None] = "length"
    keeps_ids: ClassVar[bool] = True
    cuts: ClassVar[bool] = True

    length: Annotated[int, Field(ge=1, le=LARGEST)]
    side: Side = "post"
    truncating: Side = "pre"
    value: int | float = 0
    mask: bool = False

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if not math.isfinite(self.value):
            raise ValueError("`value` must be finite")
        return self

    def parts(self) -> Sequence[Part]:
        masks = (Part("mask", PadMask(length=self.length, side=self.side), extra=True),) if self.mask else ()
        return (Part("", self), *masks)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        element = element_of(self, given)
        if not element.is_number:
            raise Unfit(f"pad makes vectors of numbers, and the lists hold {describe(element)}. Put `ordinal_encode` "
                        "or `hash_encode` before it.")  # fmt: skip
        holds = self._holds(element)
        return given.become(
            element.base, source=element.source, width=self.length, cast=element.cast, ids=element.ids, holds=holds
        )

    def _holds(self, element: ValueType) -> str:
        """The dtype that holds the elements and `value`."""
        whole = self.value == int(self.value)
        if element.ids and self.value != 0:
            raise Unfit(f"pad: ids are padded with 0, and `value` is {self.value!r}. Leave it out.")
        if element.base == "float":
            return element.holds
        if element.base == "bool" and self.value not in (0, 1):
            raise Unfit(f"pad: `value` {self.value!r} does not go with lists of bool; valid: 0, 1.")
        if not whole or not fits(self.value, element.cast or "int64"):
            raise Unfit(f"pad: `value` {self.value!r} does not go with lists of {element.cast or 'integers'}. Put "
                        "`cast: float32` before it.")  # fmt: skip
        return element.holds if fits(self.value, element.holds) else "int64"

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return self.length

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            rows = lists(column)
            kept = np.minimum(rows.lengths, self.length)
            elements = numbers(rows_at(rows.elements, places(rows, kept, self.truncating)))
            out = np.full((len(rows), self.length), self.value, self._dtype(elements.values))
            out[filled(kept, self.length, self.side)] = elements.values
            if elements.is_float:
                if rows.valid is not None:
                    out[~rows.valid] = np.nan
                return Numbers(out)
            nulls = Lists(offsets_of(kept), elements, rows.valid).nulls()
            return Numbers(out, None if nulls is None else ~nulls)

        return apply

    def _dtype(self, values: Array) -> np.dtype[np.generic]:
        if values.dtype.kind not in "iu" or fits(self.value, values.dtype.name):
            return values.dtype
        return np.dtype(np.int64)


class PadMask(Operation):
    """Where `pad` puts elements: true there, false in the places that are left; the further output with `mask`."""

    name: ClassVar[str] = "pad_mask"

    length: Annotated[int, Field(ge=1, le=LARGEST)]
    side: Side = "post"

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        nulls = given.nulls - element_of(self, given).nulls
        return given.become(
            "bool", source=pa.bool_(), width=self.length, cast="bool", nulls=nulls, infinities=frozenset()
        )

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return self.length

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(column: Column) -> Column:
            rows = lists(column)
            return Numbers(filled(np.minimum(rows.lengths, self.length), self.length, self.side), rows.valid)

        return apply


def places(rows: Lists, kept: Offsets, cut_off: Side) -> Offsets:
    """Where the elements that are kept are in `rows.elements`: `kept` [n] of each row, others cut off on one side."""
    starts = rows.offsets[:-1] if cut_off == "post" else rows.offsets[1:] - kept
    ends = offsets_of(kept)
    return np.repeat(starts - ends[:-1], kept) + np.arange(ends[-1])


def filled(kept: Offsets, length: int, side: Side) -> Mask:
    """The places of a padded vector that hold elements, [n, length]; `kept` [n] of them."""
    at = np.arange(length)
    return np.asarray(at < kept[:, None] if side == "post" else at >= length - kept[:, None])
