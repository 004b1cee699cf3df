"""Text as its words: a list of them, or a vector of hashed counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Lists, Mask, Numbers, Text, Words, offsets_of, text
from dtap_dask.features.columns.vocabulary import WordTables
from dtap_dask.features.steps.lists import LARGEST
from dtap_dask.features.steps.multihot import WIDEST, Mode, tallied
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe
from dtap_dask.lake.fingerprint import Offsets
from dtap_dask.lake.hashing import fingerprint64

LONGEST = 10
SEPARATOR = "\0"
"""What takes the place of a match of `pattern`."""


class Tokenizer(Operation):
    """A step that splits text into words, or n-grams of them.

    `lower` maps each code point to its simple lower case (Unicode, as utf8proc has it: no final sigma, `İ` is `i`).
    Then text is split at white space of ASCII, at a `separator`, or at the matches of `pattern` (RE2); empty words are
    left out. With a pattern NUL separates words, too. Of `max_tokens` words `ngrams` are joined by a space: with a
    number n those of 1 to n words, with a list those of these sizes, the smaller first. Null stays null; text that is
    not UTF-8 is an error.
    """

    lower: bool = True
    separator: Annotated[str, Field(min_length=1)] | None = None
    pattern: Annotated[str, Field(min_length=1)] | None = None
    ngrams: int | tuple[int, ...] = 1
    max_tokens: Annotated[int, Field(ge=1, le=LARGEST)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.separator is not None and self.pattern is not None:
            raise ValueError("takes `separator` or `pattern`, not both")
        if not self.sizes or not all(1 <= size <= LONGEST for size in self.sizes):
            raise ValueError(f"`ngrams` needs numbers of words from 1 to {LONGEST}")
        if self.pattern is not None:
            try:
                empty = pc.match_substring_regex(pa.array([""]), self.pattern)[0].as_py()
            except pa.ArrowInvalid as error:
                raise ValueError(f"`pattern` is no regular expression of RE2: {error}") from None
            if empty:
                raise ValueError("`pattern` matches an empty text, so that it would split everywhere")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of words of n-grams, in rising order."""
        return tuple(range(1, self.ngrams + 1)) if isinstance(self.ngrams, int) else tuple(sorted(set(self.ngrams)))

    def text_only(self, given: ValueType) -> None:
        """Refuse anything but text."""
        if given.base != "text":
            remedy = " Put `cast: string` before it." if given.base in ("int", "bool") and given.width is None else ""
            raise Unfit(f"{self.name} needs text, and the column is {describe(given)}.{remedy}")

    def words_of(self, context: ErrorContext) -> _Tokenized:
        """The tokens of a column of text, with a cache for dictionaries."""
        return _Tokenized(self, context)


class Tokenize(Tokenizer):
    """The list of the words of a text, or of n-grams of them: see Tokenizer."""

    name: ClassVar[str] = "tokenize"

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.text_only(given)
        word = ValueType("text", pa.large_string())
        return given.become("list", source=pa.large_list(pa.large_string()), element=word)

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        return self.words_of(context)


class TextHash(Tokenizer):
    """How often the words of a text, or n-grams of them, fall into each of `buckets` places of a vector.

    The place of a word is Fingerprint64 of its bytes mod `buckets`, as tf.strings.to_hash_bucket_fast. With `mode:
    binary` places are 0 and 1. With `signed` words count 1 or -1, so that collisions cancel each other on average: -1
    where Fingerprint64 mod (2 `buckets`) is not below `buckets`. Words are those of tokenize with the same options.
    """

    name: ClassVar[str] = "text_hash"
    scalar: ClassVar[str | None] = "buckets"

    buckets: Annotated[int, Field(ge=1, le=WIDEST)]
    mode: Mode = "count"
    signed: bool = False

    @model_validator(mode="after")
    def _counts_have_signs(self) -> Self:
        if self.signed and self.mode == "binary":
            raise ValueError("`signed` goes with `mode: count`")
        return self

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.text_only(given)
        return given.become(
            "onehot", holds="int16" if self.signed else {"binary": "uint8", "count": "uint16"}[self.mode]
        )

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return self.buckets

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        words_of = self.words_of(context)
        tables = WordTables(lambda words: fingerprint64(words.binary) % np.uint64(2 * self.buckets))

        def apply(column: Column) -> Column:
            rows = words_of(column)
            coded = text(rows.elements).coded
            hashes = tables(coded.words)[coded.codes].astype(np.int64)
            signs = np.where(hashes < self.buckets, 1, -1) if self.signed else None
            return Numbers(
                tallied(rows, hashes % self.buckets, self.buckets, self.mode, context, signs=signs), rows.valid
            )

        return apply


@dataclass(frozen=True)
class _Split:
    """The tokens of the words of a dictionary, and which of these are not UTF-8."""

    offsets: Offsets
    tokens: Text
    bad: Mask | None


class _Tokenized:
    """Tokens of a column of text; those of a dictionary are kept for the next batch."""

    def __init__(self, step: Tokenizer, context: ErrorContext):
        self._context = context
        self._tables = WordTables(lambda words: _split(step, words))

    def __call__(self, column: Column) -> Lists:
        coded = text(column).coded
        split: _Split = self._tables(coded.words)
        if split.bad is not None and split.bad[coded.codes].any():
            raise DataError(
                f"{int(split.bad[coded.codes].sum()):,} values of {self._context} are not UTF-8. Leave such rows out "
                "with `source.where`, or encode the column as a whole."
            )
        sizes = np.append(np.diff(split.offsets), 0)[coded.codes]
        offsets = offsets_of(sizes)
        index = np.repeat(split.offsets[coded.codes] - offsets[:-1], sizes) + np.arange(offsets[-1])
        valid = coded.codes != len(coded.words) if coded.nulls else None
        return Lists(offsets, split.tokens.take(index), valid)


def _split(step: Tokenizer, words: Words) -> _Split:
    texts, bad = _as_text(words.binary)
    if step.lower:
        texts = pc.utf8_lower(texts)
    separator = step.separator
    if step.pattern is not None:
        texts, separator = pc.replace_substring_regex(texts, step.pattern, SEPARATOR), SEPARATOR
    split = pc.ascii_split_whitespace(texts) if separator is None else pc.split_pattern(texts, separator)
    offsets = offsets_of(pc.list_value_length(split).to_numpy())
    tokens = split.flatten()
    there = pc.greater(pc.binary_length(tokens), 0)
    if step.max_tokens is not None:
        before = offsets_of(there.to_numpy(zero_copy_only=False))
        rank = before[:-1] - np.repeat(before[offsets[:-1]], np.diff(offsets))
        there = pc.and_(there, pa.array(rank < step.max_tokens))
    offsets = offsets_of(there.to_numpy(zero_copy_only=False))[offsets]
    tokens = tokens.filter(there)
    if step.sizes != (1,):
        offsets, tokens = _ngrams(offsets, tokens, step.sizes)
    return _Split(offsets, Text(tokens), bad)


def _as_text(words: pa.Array) -> tuple[pa.Array, Mask | None]:
    """Words as text, and which of them are not UTF-8 (empty in the first); None if all are."""
    try:
        return words.cast(pa.large_string()), None
    except pa.ArrowInvalid:
        texts = [word.decode(errors="ignore") for word in words.to_pylist()]
        good = [one.encode() == word.as_py() for one, word in zip(texts, words, strict=True)]
        return pa.array(texts, pa.large_string()), np.append(~np.array(good), False)


def _ngrams(offsets: Offsets, tokens: pa.Array, sizes: Sequence[int]) -> tuple[Offsets, pa.Array]:
    """All n-grams of each list, the smaller first."""
    lengths, rows, made = np.diff(offsets), [], []
    space = pa.scalar(" ", tokens.type)
    for size in sizes:
        count = np.maximum(lengths - (size - 1), 0)
        ends = offsets_of(count)
        first = np.repeat(offsets[:-1] - ends[:-1], count) + np.arange(ends[-1])
        rows.append(np.repeat(np.arange(len(lengths)), count))
        made.append(pc.binary_join_element_wise(*(tokens.take(pa.array(first + at)) for at in range(size)), space))
    row = np.concatenate(rows)
    order = pa.array(np.argsort(row, kind="stable"))
    return offsets_of(np.bincount(row, minlength=len(lengths))), pa.concat_arrays(made).take(order)
