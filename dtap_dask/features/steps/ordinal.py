"""Categories into ids of a vocabulary."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from dtap_dask.features.columns.column import Array, Column, Mask, Numbers, Text, Words, numbers
from dtap_dask.features.columns.vocabulary import Vocabulary, WordTables
from dtap_dask.features.steps.encode import VocabularyEncoder, as_text, class_name, refuse_unseen, whole_ids, words_at
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Inverse, narrow, need_values
from dtap_dask.features.steps.valuetype import ValueType
from dtap_dask.lake.hashing import fingerprint64

GUESSED_WORDS = (1, 1 << 17)
"""The least and the most distinct values to expect of a column that is not read yet: the largest vocabulary needs ids
of four bytes."""


class OrdinalEncode(VocabularyEncoder):
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
    def keeps_nulls(self) -> bool:
        return self.null == "error"

    @property
    def first(self) -> int:
        """The id of the vocabulary's first word."""
        return 1 + self.oov_buckets

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context)
        values, counts = statistic.by_count()
        size = int(np.count_nonzero(counts >= self.min_count))
        if self.top_k is not None:
            size = min(size, self.top_k)
        return {
            "vocabulary": as_text(values[:size]),
            "counts": pa.array(counts[:size]),
            "n_samples_seen_": statistic.count,
        }

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """The word of each id; null for the ids of null and of unseen values."""
        return lambda column: (words_at(fitted["vocabulary"], whole_ids(column, self.ids(fitted) or 0) - self.first),)

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
        return tuple(map(class_name, fitted["vocabulary"].to_pylist()))


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
                refuse_unseen(column, bad, self._context, step.remedy)
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
            if step.oov_buckets == 0:
                refuse_unseen(column, unseen, self._context, step.remedy)
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


def _modulo(values: Array, buckets: int) -> Array:
    if values.dtype == np.uint64:
        return (values % np.uint64(buckets)).astype(np.int64)
    return values.astype(np.int64) % buckets
