"""The twins of tokenize, text_hash and multi_hot."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.multihot import Mode, MultiHot
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.tokens import SEPARATOR, TextHash, Tokenize, Tokenizer
from dtap_dask.train.serving.encode import category
from dtap_dask.train.serving.lists import holes
from dtap_dask.train.serving.lookup import Lookup
from dtap_dask.train.serving.tensors import (
    ListTensor,
    NumberTensor,
    Tensor,
    TensorBound,
    TensorColumn,
    TextTensor,
    null_of,
    refuse,
)

PAGE = 256


class LowerCase(tf.Module):  # type: ignore[misc]
    """UTF-8 text with each code point in its simple lower case, by the table of Arrow that the features were made by.

    The table has two levels: the page of each 256 code points, and what each page adds to its code points.
    InvalidArgumentError for text that is not UTF-8.
    """

    def __init__(self) -> None:
        super().__init__()
        self._page, self._added = _table()

    def __call__(self, texts: Tensor) -> Tensor:
        points = tf.strings.unicode_decode(texts, "UTF-8", errors="strict")
        flat = points.flat_values
        page = tf.gather(tf.constant(self._page, tf.int32), flat // PAGE)
        added = tf.gather(tf.constant(self._added, tf.int32), page * PAGE + flat % PAGE)
        return tf.strings.unicode_encode(points.with_flat_values(flat + added), "UTF-8")


@cache
def _table() -> tuple[Any, Any]:
    """The page of each 256 code points, and how far the lower case of a page's code points is from them."""
    points = np.arange(0x110000, dtype=np.uint32)
    points[0xD800:0xE000] = 0  # surrogates are no characters
    lower = pc.utf8_lower(pa.array([points.tobytes().decode("utf-32-le")], pa.large_string()))[0].as_py()
    added = np.frombuffer(lower.encode("utf-32-le"), np.uint32).astype(np.int32) - points.astype(np.int32)
    pages, page = np.unique(added.reshape(-1, PAGE), axis=0, return_inverse=True)
    return page.reshape(-1), pages.reshape(-1)


class Tokens(tf.Module):  # type: ignore[misc]
    """The words of texts: see Tokenizer."""

    def __init__(self, step: Tokenizer):
        super().__init__()
        self._step = step
        self.lower = LowerCase() if step.lower else None

    def __call__(self, column: TensorColumn) -> ListTensor:
        assert isinstance(column, TextTensor)
        step, texts, separator = self._step, column.values, self._step.separator
        if column.null is not None:
            texts = tf.where(column.null, "", texts)
        if self.lower is not None:
            texts = self.lower(texts)
        else:  # checks that it is UTF-8
            texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="strict")
        if step.pattern is not None:
            texts, separator = tf.strings.regex_replace(texts, step.pattern, SEPARATOR), SEPARATOR
        words = tf.strings.split(texts, separator)
        words = tf.ragged.boolean_mask(words, tf.strings.length(words) > 0)
        if step.max_tokens is not None:
            words = words[:, : step.max_tokens]
        if step.sizes != (1,):
            words = tf.strings.ngrams(words, step.sizes, separator=" ")
        return ListTensor(tf.cast(words.row_splits, tf.int64), TextTensor(words.values), column.null)


def tokenize(step: Tokenize, fitted: Fitted, value: Value) -> TensorBound:
    """The words of texts."""
    return Tokens(step)


class TextHashTwin(tf.Module):  # type: ignore[misc]
    """Hashed counts of words: see TextHash."""

    def __init__(self, step: TextHash):
        super().__init__()
        self._step = step
        self.tokens = Tokens(step)

    def __call__(self, column: TensorColumn) -> TensorColumn:
        step, rows = self._step, self.tokens(column)
        hashes = tf.strings.to_hash_bucket_fast(rows.elements.values, 2 * step.buckets)
        ones = tf.ones_like(hashes)
        weights = tf.where(hashes < step.buckets, ones, -ones) if step.signed else ones
        return NumberTensor(tallied(rows, hashes % step.buckets, weights, step.buckets, step.mode), rows.null)


def text_hash(step: TextHash, fitted: Fitted, value: Value) -> TensorBound:
    """Hashed counts of words."""
    return TextHashTwin(step)


class MultiHotTwin(tf.Module):  # type: ignore[misc]
    """Vectors over a vocabulary: see MultiHot."""

    def __init__(self, step: MultiHot, fitted: Fitted, value: Value):
        super().__init__()
        self._step, self._value, self._width = step, value, step.width(fitted, ())
        self.lookup = Lookup(fitted["categories_"]) if step.places_of(fitted) is None else None

    def __call__(self, column: TensorColumn) -> TensorColumn:
        assert isinstance(column, ListTensor)
        given, null = category(column.elements), null_of(column.elements)
        place = given if self.lookup is None else self.lookup(given)
        known = (place >= 0) & (place < self._width)
        if self._step.unseen == "error":
            unseen = ~known if null is None else ~known & ~null
            refuse(unseen, self._value, "a value that was not in the fitted rows")
        counted = known if null is None else known & ~null
        place = tf.where(counted, place, tf.zeros_like(place))
        made = tallied(column, place, tf.cast(counted, tf.int64), self._width, self._step.mode)
        return NumberTensor(made, holes(column))


def multi_hot(step: MultiHot, fitted: Fitted, value: Value) -> TensorBound:
    """Vectors over a vocabulary."""
    return MultiHotTwin(step, fitted, value)


def tallied(rows: ListTensor, place: Tensor, weights: Tensor, width: int, mode: Mode) -> Tensor:
    """The sums of the weights of each place in each row, or whether there are any, int64 [n, width]."""
    count = tf.size(rows.splits, tf.int64) - 1
    row = tf.ragged.row_splits_to_segment_ids(rows.splits, out_type=tf.int64)
    sums = tf.math.unsorted_segment_sum(weights, row * width + place, count * width)
    made = tf.reshape(sums, [count, width])
    return tf.cast(made > 0, tf.int64) if mode == "binary" else made
