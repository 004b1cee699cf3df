"""Categories into ids of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dtap_dask.features.columns.column import Array, Column, Mask, Numbers, Text, Words, numbers
from dtap_dask.features.columns.vocabulary import Places, Vocabulary, WordTables, vocabulary_of
from dtap_dask.features.statistics.counts import Tally
from dtap_dask.features.steps.encode import (
    VocabularyEncoder,
    as_bytes,
    as_text,
    class_name,
    refuse_unseen,
    whole_ids,
    words_at,
)
from dtap_dask.features.steps.given_words import GivenWords
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Inverse, StatisticSpec, narrow, need_values
from dtap_dask.features.steps.valuetype import Unfit, ValueType
from dtap_dask.features.steps.words import VocabularyOption, WordList, as_array, check_words
from dtap_dask.lake.hashing import fingerprint64

GUESSED_WORDS = (1, 1 << 17)
"""The least and the most distinct values to expect of a column that is not read yet: the largest vocabulary needs ids
of four bytes."""

_LATER = frozenset({"first", "vocabulary", "append_to", "share"})


class OrdinalEncode(VocabularyEncoder):
    """Ids: 0 is null, 1..oov_buckets are unseen values, then the vocabulary by falling count, ties by rising value.

    An unseen string goes to bucket 1 + Fingerprint64(its UTF-8 bytes) mod oov_buckets, an unseen integer to
    1 + value mod oov_buckets; without buckets it is an error. `top_k` and `min_count` bound the vocabulary; the words
    of `first` come first in it, whether they occur or not. With `vocabulary` nothing is learnt: its words are given, in
    the order of their ids, as a list or by the path of a file. `append_to` is the path of an earlier dataset: its words
    keep their ids, and new ones follow. Digests take the place of both paths once the job is prepared. All columns with
    the same `share` have one vocabulary.
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
    first: WordList = ()
    vocabulary: VocabularyOption = None
    share: Annotated[str, Field(min_length=1)] | None = None
    append_to: Annotated[str, Field(min_length=1)] | None = None

    remedy: ClassVar[str] = "give it `oov_buckets`"
    """What to do about values that the fitted rows do not hold."""

    remedy_for_given: ClassVar[str] = "give it `oov_buckets`, or "
    """What else to do about values that are not in a given vocabulary."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k is not None and len(self.first) > self.top_k:
            raise ValueError(f"`first` holds {len(self.first):,} words, and `top_k` allows {self.top_k:,}")
        counting = ("top_k", "min_count", "first", "append_to", "share")
        counted = [name for name in counting if getattr(self, name) not in (None, 1, ())]
        if self.vocabulary is not None and counted:
            raise ValueError(f"`vocabulary` says which words there are and in which order: leave `{counted[0]}` out")
        return self

    @model_serializer(mode="wrap")
    def _written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The options; those that came with 0.2.0 only where they are given, so that documents stay as they were."""
        document: dict[str, Any] = written(self)
        return {name: value for name, value in document.items() if name not in _LATER or value}

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.categories_only(given)
        check_words("first", self.first, given)
        if isinstance(self.vocabulary, tuple):
            check_words("vocabulary", self.vocabulary, given)
        return given.become("int", nulls=given.nulls if self.keeps_nulls else frozenset(), ids=True)

    @property
    def shared(self) -> str | None:
        return self.share

    @property
    def title(self) -> str:
        return self.name if self.share is None else f"{self.name} (share: {self.share})"

    @property
    def keeps_nulls(self) -> bool:
        return self.null == "error"

    @property
    def first_id(self) -> int:
        """The id of the vocabulary's first word."""
        return 1 + self.oov_buckets

    @property
    def statistic(self) -> StatisticSpec | None:
        return super().statistic if self.vocabulary is None else None

    def known(self, words: Mapping[str, GivenWords], given: ValueType) -> Fitted:
        if isinstance(self.vocabulary, tuple):
            return {"vocabulary": as_text(as_array(self.vocabulary))}
        option = "append_to" if self.vocabulary is None else "vocabulary"
        named = self.append_to if self.vocabulary is None else self.vocabulary
        if named is None or named not in words:
            return {}
        try:
            found = words[named].of_type(given)
            _refuse_other_beginning(as_array(self.first), found)
        except Unfit as error:
            raise Unfit(f"{self.name}.{option}: {error}") from None
        return {"vocabulary": as_text(found)}

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        return self._learnt(statistic, context, as_array(self.first))

    def fit_further(self, known: Fitted, statistic: Any, context: ErrorContext) -> Fitted:
        """As `fit`, with the known vocabulary first."""
        if "vocabulary" not in known:
            return self.fit(statistic, context)
        earlier = known["vocabulary"]
        return self._learnt(statistic, context, earlier if pa.types.is_integer(earlier.type) else as_bytes(earlier))

    def _learnt(self, statistic: Any, context: ErrorContext, ahead: pa.Array) -> Fitted:
        need_values(statistic, context)
        vocabulary, counts = self._in_order(ahead, *statistic.by_count())
        return {"vocabulary": as_text(vocabulary), "counts": pa.array(counts), "n_samples_seen_": statistic.count}

    def _in_order(self, ahead: pa.Array, values: pa.Array, counts: Tally) -> tuple[pa.Array, Tally]:
        """The vocabulary and its counts, of all values by falling count: `ahead`, then the most frequent others."""
        frequent = counts >= self.min_count
        most = None if self.top_k is None else max(0, self.top_k - len(ahead))
        if not len(ahead):
            size = np.count_nonzero(frequent)
            return values[:size][:most], counts[:size][:most]
        ahead, values = _of_one_type(ahead, values)
        place = _find(Vocabulary(ahead), values)
        of_ahead = np.zeros(len(ahead), np.int64)
        of_ahead[place[place >= 0]] = counts[place >= 0]
        others = np.flatnonzero(frequent & (place < 0))[:most]
        return pa.concat_arrays([ahead, values.take(pa.array(others))]), np.append(of_ahead, counts[others])

    def refuse(self, column: Column, bad: Mask, context: ErrorContext) -> NoReturn:
        """Raise the DataError for values outside the vocabulary, where `bad` is True."""
        if self.vocabulary is None:
            refuse_unseen(column, bad, context, self.remedy)
        remedy = f"{self.remedy_for_given}add them to `vocabulary`"
        refuse_unseen(column, bad, context, remedy, "are not in the vocabulary")

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """The word of each id; null for the ids of null and of unseen values."""
        return lambda column: (
            words_at(fitted["vocabulary"], whole_ids(column, self.ids(fitted) or 0) - self.first_id),
        )

    @property
    def planned_ids(self) -> int | None:
        return self.first_id + len(self.vocabulary) if isinstance(self.vocabulary, tuple) else None

    def ids(self, fitted: Fitted) -> int | None:
        return self.first_id + len(fitted["vocabulary"])

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        return self.guess_further({}, rows)

    def guess_further(self, known: Fitted, rows: int) -> tuple[Fitted, Fitted]:
        """As `guess`, where the known vocabulary stays and may grow."""
        earlier = len(known.get("vocabulary", ()))
        ahead, further = earlier or len(self.first), (0, GUESSED_WORDS[1]) if earlier else GUESSED_WORDS
        sizes = (earlier + min(rows, most) for most in further)
        least, most = (
            {"vocabulary": pa.nulls(max(ahead, size if self.top_k is None else min(size, self.top_k)))}
            for size in sizes
        )
        return least, most

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        return _Ids(self, fitted, context)


class LabelEncode(OrdinalEncode):
    """The ordinal_encode of a label: ids start at 0; null and unseen values are errors."""

    oov_buckets: Annotated[int, Field(ge=0)] = 0
    null: Literal["id", "error"] = "error"

    remedy: ClassVar[str] = "add such rows to the fitted part"
    remedy_for_given: ClassVar[str] = ""

    @property
    def first_id(self) -> int:
        return 0

    def classes(self, fitted: Fitted) -> tuple[str, ...] | None:
        return tuple(map(class_name, fitted["vocabulary"].to_pylist()))


class _Ids:
    """A fitted ordinal encoder with a cache for dictionaries."""

    def __init__(self, step: OrdinalEncode, fitted: Fitted, context: ErrorContext):
        self._step, self._context = step, context
        self._vocabulary = vocabulary_of(fitted["vocabulary"])
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
                step.refuse(column, bad, self._context)
        valid = coded.codes != len(coded.words) if coded.nulls and step.keeps_nulls else None
        return Numbers(np.take(ids, coded.codes), valid)

    def _integers(self, column: Numbers) -> Numbers:
        step = self._step
        found = self._vocabulary.find_numbers(column.values)
        ids = found + step.first_id
        unseen = found < 0
        if column.valid is not None:
            unseen &= column.valid
        if unseen.any():
            if step.oov_buckets == 0:
                step.refuse(column, unseen, self._context)
            ids[unseen] = 1 + _modulo(column.values[unseen], step.oov_buckets)
        if column.valid is not None:
            ids[~column.valid] = 0
        return Numbers(ids.astype(self._dtype), column.valid if step.keeps_nulls else None)


def _ids_of(
    step: OrdinalEncode, vocabulary: Vocabulary, dtype: np.dtype[Any], words: Words
) -> tuple[Array, Mask | None]:
    """The id of every word, then that of null; and which words are refused."""
    found = vocabulary.find_words(words.binary)
    unseen = found < 0
    ids = found + step.first_id
    if step.oov_buckets == 1:
        ids[unseen] = 1
    elif step.oov_buckets and unseen.any():
        hashes = fingerprint64(words.binary.filter(pa.array(unseen)))
        ids[unseen] = 1 + (hashes % np.uint64(step.oov_buckets)).astype(np.int64)
    elif unseen.any():
        ids[unseen] = 0
        return np.append(ids, 0).astype(dtype), np.append(unseen, False)
    return np.append(ids, 0).astype(dtype), None


def _of_one_type(ahead: pa.Array, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both in the type of `values`, or as int64 where that is too narrow for `ahead`."""
    try:
        return ahead.cast(values.type), values
    except pa.ArrowInvalid:
        return ahead.cast(pa.int64()), values.cast(pa.int64())


def _refuse_other_beginning(first: pa.Array, earlier: pa.Array) -> None:
    """Raise `Unfit` where an earlier vocabulary does not begin with these words."""
    if len(first) and first.to_pylist() != earlier[: len(first)].to_pylist():
        raise Unfit(
            "its vocabulary does not begin with the words of `first`, and no id may move. Leave `first` out, or "
            "`append_to`."
        )


def _find(vocabulary: Vocabulary, values: pa.Array) -> Places:
    is_number = pa.types.is_integer(values.type)
    return vocabulary.find_numbers(values.to_numpy()) if is_number else vocabulary.find_words(values)


def _modulo(values: Array, buckets: int) -> Array:
    if values.dtype == np.uint64:
        return (values % np.uint64(buckets)).astype(np.int64)
    return values.astype(np.int64) % buckets
