"""Lists as vectors that say which of the values of a vocabulary they hold, or how often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array, Column, Lists, Numbers, Text, lists, numbers
from dtap_dask.features.columns.vocabulary import Places, Vocabulary, WordTables
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.features.steps.encode import (
    GUESSED_CATEGORIES,
    VocabularyEncoder,
    as_text,
    class_name,
    refuse_unseen,
)
from dtap_dask.features.steps.lists import element_of
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation, StatisticSpec, need_values
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe

Mode = Literal["binary", "count"]

WIDEST = 1 << 20
MOST_VALUES = 1000


class MultiHot(VocabularyEncoder):
    """A vector with a place for each value of a vocabulary: 1 where a list holds it, or how often it does.

    The vocabulary is the `top_k` most frequent values of all elements, in rising order; without `top_k` all of them,
    at most 1,000. With `places` nothing is learnt: the elements are whole numbers or ids from 0 to `places` - 1, each
    its own place, as in Keras' CategoryEncoding. Behind an encoder they are as many as it has ids: `places: ids`. Other
    values are left out, or are errors. Fitted: `categories_`, or `places_` where it follows from an encoder.
    """

    name: ClassVar[str] = "multi_hot"
    scalar: ClassVar[str | None] = "top_k"

    top_k: Annotated[int, Field(ge=1, le=WIDEST)] | None = None
    places: Annotated[int, Field(ge=1, le=WIDEST)] | Literal["ids"] | None = None
    mode: Mode = "binary"
    unseen: Literal["zeros", "error"] = "zeros"

    @property
    def counts_ids(self) -> bool:
        return self.places == "ids"

    def taking(self, ids: int | None) -> Operation:
        if self.top_k is not None:
            raise Unfit("multi_hot of ids has a place for each of them. Give the encoder `top_k`, or leave it out: "
                        "multi_hot has a vocabulary of its own.")  # fmt: skip
        if self.places is not None and not self.counts_ids:
            return self
        return self.model_copy(update={"places": "ids" if ids is None else self._at_most(ids)})

    def of_ids(self, ids: int) -> Fitted:
        return {"places_": self._at_most(ids)}

    def _at_most(self, ids: int) -> int:
        if ids > WIDEST:
            raise Unfit(f"multi_hot of {ids:,} ids would have as many places, and {WIDEST:,} are the most. Give the "
                        "encoder fewer ids (`top_k`, `min_count`, `buckets`), or use an embedding.")  # fmt: skip
        return ids

    def places_of(self, fitted: Fitted) -> int | None:
        """The number of places where each whole number or id is its own; None where values are looked up."""
        return fitted["places_"] if self.places == "ids" else self.places

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        element = element_of(self, given)
        if self.counts_ids and not element.ids:
            raise Unfit(f"multi_hot with `places: ids` needs lists of ids, and it is {given.source}. Put an encoder "
                        "before it, or give the number of `places`.")  # fmt: skip
        if self.places is not None and element.base != "int":
            raise Unfit("multi_hot with `places`, or behind an encoder, needs lists of whole numbers or ids, and the "
                        f"elements are {describe(element)}.")  # fmt: skip
        try:
            self.categories_only(element)
        except Unfit as error:
            raise Unfit(f"it is a list ({given.source}), and of each element: {error}") from None
        return given.become("onehot", holds="uint8" if self.mode == "binary" else "uint16", infinities=frozenset())

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Counts) if self.places is None else None

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context)
        values, _ = statistic.by_count()
        if self.top_k is None and len(values) > MOST_VALUES:
            raise DataError(
                f"The {context} meets {len(values):,} distinct values, and without `top_k` it takes {MOST_VALUES:,}. "
                "Give it `top_k`, or use ordinal_encode or hash_encode with an embedding."
            )
        values = values[: self.top_k]
        return {"categories_": as_text(values.take(pc.sort_indices(values))), "n_samples_seen_": statistic.count}

    def classes(self, fitted: Fitted) -> tuple[str, ...] | None:
        return tuple(map(class_name, fitted["categories_"].to_pylist())) if self.places is None else None

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return self.places_of(fitted) or len(fitted["categories_"])

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        sizes = (min(self.top_k or rows, rows, most) for most in GUESSED_CATEGORIES)
        least, most = ({"categories_": pa.nulls(size)} for size in sizes)
        return least, most

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        places, width = self.places_of(fitted), self.width(fitted, ())
        find: Callable[[Column], Places] = _Known(fitted["categories_"]) if places is None else _within(places)

        def apply(column: Column) -> Column:
            rows = lists(column)
            found = find(rows.elements)
            nulls = rows.elements.nulls()
            if nulls is not None:
                found = np.where(nulls, -1, found)
            if self.unseen == "error":
                bad = found < 0 if nulls is None else (found < 0) & ~nulls
                if bad.any():
                    refuse_unseen(rows.elements, bad, context, *_without_place(places))
            wrong = rows.nulls()
            return Numbers(tallied(rows, found, width, self.mode, context), None if wrong is None else ~wrong)

        return apply


def _without_place(places: int | None) -> tuple[str, str]:
    """What to do about values without a place, and what is wrong with them."""
    if places is None:
        return "add such rows to the fitted part, or give it `unseen: zeros`", "have no place in the vocabulary"
    return "raise `places`, or give it `unseen: zeros`", f"are outside the places 0 to {places - 1:,}"


class _Known:
    """The places of values in a vocabulary, -1 for others; with a cache for dictionaries."""

    def __init__(self, values: pa.Array):
        self._vocabulary = vocabulary = Vocabulary(values)
        self._tables = WordTables(lambda words: np.append(vocabulary.find_words(words.binary), -1))

    def __call__(self, column: Column) -> Places:
        if isinstance(column, Text):
            return np.asarray(self._tables(column.coded.words)[column.coded.codes])
        return self._vocabulary.find_numbers(numbers(column).values)


def _within(places: int) -> Callable[[Column], Places]:
    def find(column: Column) -> Places:
        values = numbers(column).values
        within = (values >= 0) & (values < places)
        return np.where(within, values.astype(np.int64), -1)  # of ids in bytes -1 would be a place

    return find


def tallied(
    rows: Lists, place: Places, width: int, mode: Mode, context: ErrorContext, *, signs: Array | None = None
) -> Array:
    """How often each place came in each row, [n, width], or with `binary` whether it did; -1 is no place.

    uint8 if `binary`, uint16 counts, int16 with the `signs` 1 and -1 of the elements. DataError beyond that.
    """
    row = np.repeat(np.arange(len(rows)), rows.lengths)
    there = place >= 0
    if mode == "binary":
        out = np.zeros((len(rows), width), np.uint8)
        out[row[there], place[there]] = 1
        return out
    at, which = np.unique(row[there] * width + place[there], return_inverse=True)
    weights = None if signs is None else signs[there]
    sums = np.bincount(which, weights, len(at)).astype(np.int64)
    dtype = np.uint16 if signs is None else np.int16
    if len(sums) and np.abs(sums).max() > np.iinfo(dtype).max:
        raise DataError(
            f"A row of {context} holds an element {np.abs(sums).max():,} times, and counts go up to "
            f"{np.iinfo(dtype).max:,}. Put `last` before it, or use `mode: binary`."
        )
    counts = np.zeros(len(rows) * width, dtype)
    counts[at] = sums
    return counts.reshape(len(rows), width)
