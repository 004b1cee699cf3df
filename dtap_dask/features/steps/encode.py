"""Categories into numbers: one-hot vectors, hash buckets, and what all encoders have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NoReturn

import numpy as np
import pyarrow as pa
from pydantic import Field

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array, Column, Mask, Numbers, Text, Words, numbers
from dtap_dask.features.columns.onehot import OneHot
from dtap_dask.features.columns.vocabulary import Vocabulary, WordTables
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    Inverse,
    Operation,
    StatisticSpec,
    narrow,
    need_values,
)
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe
from dtap_dask.lake.hashing import fingerprint64

GUESSED_CATEGORIES = (1, 64)
"""The least and the most distinct values to expect of a column that is not read yet; the most is a guess."""


class Encoder(Operation):
    """A step that takes integers, booleans or text."""

    def categories_only(self, given: ValueType) -> None:
        """Refuse floats, dates and lists."""
        if given.width is not None:
            what = f"{self.name} needs one integer, boolean or text a row, and the column is {describe(given)}."
            raise Unfit(what + self.before_pad(given))
        if given.base in ("int", "bool", "text"):
            return
        digits = pa.types.is_decimal(given.source) and given.source.scale > 0
        cast = "`cast: string`" if digits else "`cast: int64` or `cast: string`"
        remedy = {
            "float": f" Put {cast} before it, or `bucketize` the column.",
            "time": " Put `cast: int64` before it (microseconds since 1970).",
            "list": " Use `multi_hot`.",
        }.get(given.base, "")
        raise Unfit(f"{self.name} needs integers, booleans or text, and the column is {describe(given)}.{remedy}")


class VocabularyEncoder(Encoder):
    """An encoder that learns which values there are."""

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Counts)


class OneHotEncode(VocabularyEncoder):
    """A vector with a 1 at the value's place among the values in rising order; k places for k values.

    Null and unseen values are all zeros, or errors. More than `max_values` values are an error.
    Fitted: `categories_`.
    """

    name: ClassVar[str] = "one_hot_encode"

    max_values: Annotated[int, Field(ge=1)] = 1000
    null: Literal["zeros", "error"] = "zeros"
    unseen: Literal["zeros", "error"] = "zeros"

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.categories_only(given)
        return given.become("onehot", holds="uint8", nulls=given.nulls if self.keeps_nulls else frozenset())

    @property
    def keeps_nulls(self) -> bool:
        return self.null == "error"

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context)
        values, _ = statistic.by_value()
        refuse_many(values, self.max_values, context, "ordinal_encode or hash_encode with an embedding")
        return {"categories_": as_text(values), "n_samples_seen_": statistic.count}

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """The value at the largest number of each vector; null for zeros. ValueError for NaN."""

        def apply(column: Column) -> Sequence[Column]:
            hot = numbers(column).values
            if np.isnan(hot).any():  # a model's prediction may hold it: the largest number would be at its place
                raise ValueError(f"row {np.isnan(hot).any(axis=1).argmax():,} holds NaN")
            place = hot.argmax(axis=1) if hot.shape[1] else np.full(len(hot), -1)
            return (words_at(fitted["categories_"], np.where(hot.any(axis=1), place, -1)),)

        return apply

    def classes(self, fitted: Fitted) -> tuple[str, ...] | None:
        return tuple(map(class_name, fitted["categories_"].to_pylist()))

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return len(fitted["categories_"])

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        least, most = ({"categories_": pa.nulls(min(self.max_values, rows, most))} for most in GUESSED_CATEGORIES)
        return least, most

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        width = len(fitted["categories_"])
        find = place_finder(fitted["categories_"], null=-1, unseen=-1)

        def apply(column: Column) -> Column:
            found, nulls = find(column), column.nulls()
            if self.unseen == "error":
                there = found >= 0
                bad = ~there if nulls is None else ~(there | nulls)
                if bad.any():
                    remedy = "add such rows to the fitted part (of a feature, `unseen: zeros` takes them)"
                    refuse_unseen(column, bad, context, remedy)
            return OneHot(found, width, ~nulls if nulls is not None and self.keeps_nulls else None)

        return apply


class HashEncode(Encoder):
    """0 for null, else 1 + Fingerprint64 of the bytes mod `buckets`: nothing is learnt.

    As tf.strings.to_hash_bucket_fast, plus 1. Integers and booleans (0, 1) are hashed as their decimal digits.
    """

    name: ClassVar[str] = "hash_encode"
    on_elements: ClassVar[bool] = True
    scalar: ClassVar[str | None] = "buckets"
    makes_ids: ClassVar[bool] = True

    buckets: Annotated[int, Field(ge=1, le=1 << 31)]

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.categories_only(given)
        return given.become("int", nulls=frozenset(), ids=True)

    @property
    def keeps_nulls(self) -> bool:
        return False

    @property
    def planned_ids(self) -> int | None:
        return self.buckets + 1

    def ids(self, fitted: Fitted) -> int | None:
        return self.planned_ids

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        dtype = np.dtype(narrow(self.buckets))

        def table(array: pa.Array) -> Array:
            hashes = fingerprint64(array) % np.uint64(self.buckets)
            return np.append(hashes + np.uint64(1), np.uint64(0)).astype(dtype)

        tables = WordTables(lambda words: table(words.binary))

        def apply(column: Column) -> Column:
            if isinstance(column, Text):
                return Numbers(np.take(tables(column.coded.words), column.coded.codes))
            given = numbers(column)
            values = given.values.astype(np.uint8) if given.values.dtype == np.bool_ else given.values
            encoded = pa.array(values).dictionary_encode()
            ids = table(encoded.dictionary.cast(pa.string()))[encoded.indices.to_numpy()]
            return Numbers(ids if given.valid is None else np.where(given.valid, ids, dtype.type(0)))

        return apply


def place_finder(values: pa.Array, *, null: int, unseen: int) -> Callable[[Column], Array]:
    """A function of columns of text or integers: the place of each value among `values`, which are distinct and not
    null, [n]; `null` and `unseen` for all others. Places of words are kept for the next batch."""
    vocabulary = Vocabulary(values)
    # not a method: that would be a reference cycle, which keeps the tables in memory until a garbage collection
    tables = WordTables(partial(_places_of_words, vocabulary, null, unseen))

    def find(column: Column) -> Array:
        if isinstance(column, Text):
            return np.asarray(tables(column.coded.words)[column.coded.codes])
        given = numbers(column)
        found = vocabulary.find_numbers(given.values)
        found = np.where(found < 0, unseen, found)
        return found if given.valid is None else np.where(given.valid, found, null)

    return find


def _places_of_words(vocabulary: Vocabulary, null: int, unseen: int, words: Words) -> Array:
    found = vocabulary.find_words(words.binary)
    return np.append(np.where(found < 0, unseen, found), null)


def refuse_many(values: pa.Array, most: int, context: ErrorContext, instead: str) -> None:
    """Refuse more distinct values than `max_values`, which is `most`; `instead` is what else to use."""
    if len(values) > most:
        raise DataError(
            f"The {context} meets {len(values):,} distinct values, and max_values is {most:,}. Raise `max_values`, or "
            f"use {instead}."
        )


def class_name(value: object) -> str:
    """A value of a vocabulary as text; bytes that are not UTF-8 are replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def whole_ids(column: Column, count: int) -> Array:
    """Ids as int64, shape [n]. ValueError for what is no whole number, or not below `count`."""
    values = numbers(column).values
    with np.errstate(invalid="ignore"):
        ids = values.astype(np.int64)
    if (ids != values).any() or ((ids < 0) | (ids >= count)).any():
        bad = values[(ids != values) | (ids < 0) | (ids >= count)][:1]
        raise ValueError(f"{bad[0]} is no id: ids are whole numbers from 0 to {count - 1:,}")
    return ids


def words_at(vocabulary: pa.Array, places: Array) -> Column:
    """The values at these places of a vocabulary, null for negative ones."""
    taken = vocabulary.take(pa.array(places, mask=places < 0))
    if pa.types.is_integer(taken.type):
        return Numbers(taken.fill_null(0).to_numpy(), places >= 0)
    return Text(taken)


def as_text(values: pa.Array) -> pa.Array:
    """Bytes as text where they are UTF-8."""
    if not pa.types.is_large_binary(values.type):
        return values
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        return values


def as_bytes(words: pa.Array) -> pa.Array:
    """Text or bytes as large_binary."""
    return words.cast(pa.large_binary())


def refuse_unseen(
    column: Column, bad: Mask, context: ErrorContext, remedy: str, what: str = "did not occur in the fitted rows"
) -> NoReturn:
    """Raise the DataError for the values where `bad` is True (at least one); `what` says what is wrong with them."""
    if isinstance(column, Text):
        which = np.unique(column.coded.codes[bad])[:3]
        words = column.coded.words.binary.take(pa.array(which)).to_pylist()
        sample = [word.decode(errors="replace") for word in words]
    else:
        sample = np.unique(numbers(column).values[bad])[:3].tolist()
    shown = ", ".join(map(repr, sample))
    raise DataError(
        f"{int(bad.sum()):,} values of {context} {what}, among them {shown}. Leave such rows "
        f"out with `source.where`, or {remedy}."
    )
