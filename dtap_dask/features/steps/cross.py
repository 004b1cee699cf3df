"""Several columns as one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.columns.column import Array, Coded, Column, Mask, Text, Words, numbers
from dtap_dask.features.steps.encode import Encoder
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted
from dtap_dask.features.steps.valuetype import Unfit, ValueType

MOST_CODES = 1 << 62


class Cross(Encoder):
    """The values of a block's columns, in the block's order, joined by `separator` to one text, as tf.strings.join.

    Integers are written as decimal digits, booleans as 0 and 1. A null in any column gives null. Values that hold the
    separator may make different rows equal, such as (a_b, c) and (a, b_c) joined by _; the default, U+001F (the unit
    separator), hardly occurs in text.
    """

    name: ClassVar[str] = "cross"
    scalar: ClassVar[str | None] = "separator"
    on_block: ClassVar[bool] = True

    separator: str = "\x1f"

    def check_input(self, given: ValueType) -> None:
        self.categories_only(given)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        if not others:
            raise Unfit("cross joins several columns, and the block has one. Name more of them, or leave it out.")
        return given.joined(*others).become("text", source=pa.large_binary())

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return 1

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        separator = pa.scalar(self.separator.encode(), pa.large_binary())

        def apply(*columns: Column) -> Column:
            coded = [_coded(column) for column in columns]
            nulls = [one.codes == len(one.words) for one in coded if one.nulls]
            null = np.logical_or.reduce(nulls) if nulls else None
            rows, places = _distinct(coded, null)
            words = [one.words.binary.take(pa.array(own)) for one, own in zip(coded, places, strict=True)]
            joined = Words(pc.binary_join_element_wise(*words, separator))
            return Text(Coded(rows, joined, nulls=null is not None and bool(null.any())))

        return apply


def _coded(column: Column) -> Coded:
    """Text or integers as codes into distinct words; the code after the last word is null."""
    if isinstance(column, Text):
        return column.coded
    given = numbers(column)
    values = given.values.astype(np.uint8) if given.values.dtype == np.bool_ else given.values
    encoded = pa.array(values).dictionary_encode()
    words = Words(encoded.dictionary.cast(pa.string()).cast(pa.large_binary()))
    codes = encoded.indices.to_numpy().astype(np.int64)
    if given.valid is None:
        return Coded(codes, words, nulls=False)
    return Coded(np.where(given.valid, codes, len(words)), words, nulls=True)


def _distinct(coded: Sequence[Coded], null: Mask | None) -> tuple[Array, list[npt.NDArray[np.int64]]]:
    """The combinations that occur without null: the place of each row's among them, [n], their number for null; and of
    each combination the codes, an array [m] for each column."""
    sizes = [max(1, len(one.words)) for one in coded]
    rows = np.arange(len(coded[0].codes)) if null is None else np.flatnonzero(~null)
    places: list[npt.NDArray[np.int64]] = []
    found = np.zeros(len(rows), np.int64)  # the combination of the columns so far
    for one, size in zip(coded, sizes, strict=True):
        codes = one.codes[rows].astype(np.int64)
        assert len(rows) * size < MOST_CODES
        combined, found = np.unique(found * size + codes, return_inverse=True)
        places = [own[combined // size] for own in places] + [combined % size]
    if null is None:
        return found, places
    spread = np.full(len(null), len(places[0]), np.int64)
    spread[rows] = found
    return spread, places
