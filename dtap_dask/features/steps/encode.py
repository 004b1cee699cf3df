"""Categories into numbers: ids of a vocabulary, one-hot vectors, hash buckets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array, Column, Mask, Numbers, Text, Words, numbers
from dtap_dask.features.columns.vocabulary import Vocabulary, WordTables
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation, StatisticSpec, narrow
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe
from dtap_dask.lake.hashing import fingerprint64

# The least and the most distinct values to expect of a column that is not read yet. The largest vocabulary needs ids of
# four bytes; the widest one-hot vector is a guess.
GUESSED_WORDS = (1, 1 << 17)
GUESSED_CATEGORIES = (1, 64)


class Encoder(Operation):
    """A step that takes integers, booleans or text."""

    def categories_only(self, given: ValueType) -> None:
        """Refuse floats, dates and lists."""
        if given.base in ("int", "bool", "text") and given.width is None:
            return
        digits = pa.types.is_decimal(given.source) and given.source.scale > 0
        cast = "`cast: string`" if digits else "`cast: int64` or `cast: string`"
        remedy = {
            "float": f" Put {cast} before it, or `bucketize` the column.",
            "time": " Put `cast: int64` before it (microseconds since 1970).",
            "list": " Use `multi_hot`.",
        }.get(given.base, "")
        raise Unfit(f"{self.name} needs integers, booleans or text, and the column is {describe(given)}.{remedy}")


class OrdinalEncode(Encoder):
    """Ids: 0 is null, 1..oov_buckets are unseen values, then the vocabulary by falling count, ties by rising value.

    An unseen string goes to bucket 1 + Fingerprint64(its UTF-8 bytes) mod oov_buckets, an unseen integer to
    1 + value mod oov_buckets; without buckets it is an error. `top_k` and `min_count` bound the vocabulary.
    The same ids as Keras' StringLookup and IntegerLookup with a mask token. Fitted: `vocabulary`, `counts`.
    """

    name: ClassVar[str] = "ordinal_encode"
    on_elements: ClassVar[bool] = True
    scalar: ClassVar[str | None] = "top_k"
    makes_ids: ClassVar[bool] = True

    top_k: Annotated[int, Field(ge=1)] | None = None
    min_count: Annotated[int, Field(ge=1)] = 1
    oov_buckets: Annotated[int, Field(ge=0, le=1 << 31)] = 1
    null: Literal["id", "error"] = "id"

    remedy: ClassVar[str] = "give it `oov_buckets`"
    """What to do about unseen values."""

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.categories_only(given)
        return given.become("int", nulls=given.nulls if self.keeps_nulls else frozenset(), ids=True)

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Counts)

    @property
    def keeps_nulls(self) -> bool:
        return self.null == "error"

    @property
    def first(self) -> int:
        """The id of the vocabulary's first word."""
        return 1 + self.oov_buckets

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        _need_values(statistic, context)
        values, counts = statistic.by_count()
        size = int(np.count_nonzero(counts >= self.min_count))
        if self.top_k is not None:
            size = min(size, self.top_k)
        return {
            "vocabulary": _as_text(values[:size]),
            "counts": pa.array(counts[:size]),
            "n_samples_seen_": statistic.count,
        }

    def ids(self, fitted: Fitted) -> int | None:
        return self.first + len(fitted["vocabulary"])

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        sizes = (min(self.top_k or rows, rows, most) for most in GUESSED_WORDS)
        least, most = ({"vocabulary": pa.nulls(size)} for size in sizes)
        return least, most

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        return _Ids(self, fitted, context)


class LabelEncode(OrdinalEncode):
    """The ordinal_encode of a label: ids start at 0; null and unseen values are errors."""

    oov_buckets: Annotated[int, Field(ge=0)] = 0
    null: Literal["id", "error"] = "error"

    remedy: ClassVar[str] = "add such rows to the fitted part"

    @property
    def first(self) -> int:
        return 0

    def classes(self, fitted: Fitted) -> tuple[str, ...] | None:
        return tuple(map(_class_name, fitted["vocabulary"].to_pylist()))


class _Ids:
    """A fitted ordinal encoder with a cache for dictionaries."""

    def __init__(self, step: OrdinalEncode, fitted: Fitted, context: ErrorContext):
        self._step, self._context = step, context
        self._vocabulary = Vocabulary(fitted["vocabulary"])
        self._dtype = np.dtype(narrow(max(0, (step.ids(fitted) or 0) - 1)))
        # not a method: that would be a reference cycle, which keeps the tables in memory until a garbage collection
        self._tables = WordTables(partial(_ids_of, step, self._vocabulary, self._dtype))

    def __call__(self, column: Column) -> Numbers:
        return self._text(column) if isinstance(column, Text) else self._integers(numbers(column))

    def _text(self, column: Text) -> Numbers:
        coded = column.coded
        ids, refused = self._tables(coded.words)
        step = self._step
        if refused is not None:
            bad = refused[coded.codes]
            if bad.any():
                which = np.unique(coded.codes[bad][:1000])[:3]
                sample = [word.decode(errors="replace") for word in coded.words.binary.take(which).to_pylist()]
                _refuse_unseen(int(bad.sum()), sample, self._context, step.remedy)
        valid = coded.codes != len(coded.words) if coded.nulls and step.keeps_nulls else None
        return Numbers(np.take(ids, coded.codes), valid)

    def _integers(self, column: Numbers) -> Numbers:
        step = self._step
        found = self._vocabulary.find_numbers(column.values)
        ids = found + step.first
        unseen = found < 0
        if column.valid is not None:
            unseen &= column.valid
        if unseen.any():
            strange = column.values[unseen]
            if step.oov_buckets == 0:
                _refuse_unseen(len(strange), np.unique(strange)[:3].tolist(), self._context, step.remedy)
            ids[unseen] = 1 + _modulo(strange, step.oov_buckets)
        if column.valid is not None:
            ids[~column.valid] = 0
        return Numbers(ids.astype(self._dtype), column.valid if step.keeps_nulls else None)


def _ids_of(
    step: OrdinalEncode, vocabulary: Vocabulary, dtype: np.dtype[Any], words: Words
) -> tuple[Array, Mask | None]:
    """The id of every word, then that of null; and which words are refused."""
    found = vocabulary.find_words(words.binary)
    unseen = found < 0
    ids = found + step.first
    if step.oov_buckets == 1:
        ids[unseen] = 1
    elif step.oov_buckets and unseen.any():
        hashes = fingerprint64(words.binary.filter(pa.array(unseen)))
        ids[unseen] = 1 + (hashes % np.uint64(step.oov_buckets)).astype(np.int64)
    elif unseen.any():
        ids[unseen] = 0
        return np.append(ids, 0).astype(dtype), np.append(unseen, False)
    return np.append(ids, 0).astype(dtype), None


class OneHotEncode(Encoder):
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
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Counts)

    @property
    def keeps_nulls(self) -> bool:
        return self.null == "error"

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        _need_values(statistic, context)
        values, _ = statistic.by_value()
        if len(values) > self.max_values:
            raise DataError(
                f"The {context} meets {len(values):,} distinct values, and max_values is {self.max_values:,}. Raise "
                "`max_values`, or use ordinal_encode or hash_encode with an embedding."
            )
        return {"categories_": _as_text(values), "n_samples_seen_": statistic.count}

    def classes(self, fitted: Fitted) -> tuple[str, ...] | None:
        return tuple(map(_class_name, fitted["categories_"].to_pylist()))

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return len(fitted["categories_"])

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        least, most = ({"categories_": pa.nulls(min(self.max_values, rows, most))} for most in GUESSED_CATEGORIES)
        return least, most

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        vocabulary = Vocabulary(fitted["categories_"])
        width = len(fitted["categories_"])
        tables = WordTables(lambda words: np.append(vocabulary.find_words(words.binary), -1))

        def apply(column: Column) -> Column:
            if isinstance(column, Text):
                found = tables(column.coded.words)[column.coded.codes]
            else:
                found = vocabulary.find_numbers(numbers(column).values)
            nulls = column.nulls()
            if nulls is not None:
                found = np.where(nulls, -1, found)
            there = found >= 0
            if self.unseen == "error" and not there.all():
                self._refuse(column, ~there if nulls is None else ~(there | nulls), context)
            out = np.zeros((len(found), width), np.uint8)
            rows = np.flatnonzero(there)
            out[rows, found[rows]] = 1
            return Numbers(out, ~nulls if nulls is not None and self.keeps_nulls else None)

        return apply

    def _refuse(self, column: Column, bad: Mask, context: ErrorContext) -> None:
        if not bad.any():
            return
        if isinstance(column, Text):
            coded = column.coded
            which = np.unique(coded.codes[bad])[:3]
            sample = [word.decode(errors="replace") for word in coded.words.binary.take(which).to_pylist()]
        else:
            sample = np.unique(numbers(column).values[bad])[:3].tolist()
        remedy = "add such rows to the fitted part (of a feature, `unseen: zeros` takes them)"
        _refuse_unseen(int(bad.sum()), sample, context, remedy)


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

    def ids(self, fitted: Fitted) -> int | None:
        return self.buckets + 1

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


def _class_name(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _modulo(values: Array, buckets: int) -> Array:
    if values.dtype == np.uint64:
        return (values % np.uint64(buckets)).astype(np.int64)
    return values.astype(np.int64) % buckets


def _as_text(values: pa.Array) -> pa.Array:
    """Bytes as text where they are UTF-8."""
    if not pa.types.is_large_binary(values.type):
        return values
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        return values


def _need_values(statistic: Any, context: ErrorContext) -> None:
    if statistic.count == 0:
        raise DataError(
            f"There is nothing to learn in {context}: the fitted rows hold {statistic.nulls:,} nulls and no value. "
            "Leave the column out, or look at `source.where` and `split.fit`."
        )


def _refuse_unseen(count: int, sample: list[Any], context: ErrorContext, remedy: str) -> None:
    shown = ", ".join(map(repr, sample))
    raise DataError(
        f"{count:,} values of {context} did not occur in the fitted rows, among them {shown}. Leave such rows out with "
        f"`source.where`, or {remedy}."
    )
