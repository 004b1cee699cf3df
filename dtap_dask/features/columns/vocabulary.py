"""Lookup of words and numbers in a vocabulary, once for each distinct value."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.columns.column import Array, Words
from dtap_dask.lake.hashing import fingerprint64

Places = npt.NDArray[np.int64]

KEPT_WORDS = 1 << 18  # dictionary entries whose looked-up ids one step keeps
FEW = 16  # words that are faster looked up one by one than by NumPy
DENSE = 1 << 16  # integers over a range this wide, or 16 times the vocabulary, go through a table


class WordTables:
    """A cache of what a step computes for the words of a dictionary, for later batches with the same dictionary.

    A task alternates between row groups, so several dictionaries are in use at once; the least recently used go first.
    """

    def __init__(self, make: Callable[[Words], Any], kept: int = KEPT_WORDS):
        self._make = make
        self._free = kept
        self._lock = Lock()
        self._tables: OrderedDict[tuple[object, ...], tuple[int, Any]] = OrderedDict()

    def __call__(self, words: Words) -> Any:
        key = words.key
        with self._lock:
            found = self._tables.get(key)
            if found is not None:
                self._tables.move_to_end(key)
                return found[1]
        made = self._make(words)
        with self._lock:
            if key not in self._tables:  # another thread may have been faster
                self._tables[key] = (len(words), made)
                self._free -= len(words)
            while self._free < 0 and len(self._tables) > 1:
                self._free += self._tables.popitem(last=False)[1][0]
        return made


_IN_USE: WeakValueDictionary[int, Vocabulary] = WeakValueDictionary()


def vocabulary_of(values: pa.Array) -> Vocabulary:
    """The `Vocabulary` of an array: the same one for all who ask while it is in use."""
    found = _IN_USE.get(id(values))  # which keeps its array, so that no other has this id meanwhile
    if found is None:
        found = _IN_USE[id(values)] = Vocabulary(values)
    return found


class Vocabulary:
    """The positions of values in `values`, an array of distinct text, bytes or integers."""

    def __init__(self, values: pa.Array):
        self._values = values
        if pa.types.is_integer(values.type):
            self._index_numbers(values.to_numpy())
        else:
            self._index_words(values.cast(pa.large_binary()))

    def _index_words(self, words: pa.Array) -> None:
        hashes = fingerprint64(words)
        self._words = words
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._collides = bool((self._hashes[1:] == self._hashes[:-1]).any())
        # the first position in `_hashes` for each value of the leading bits, which replaces a binary search
        self._bits = max(1, min(22, int(len(words) * 4).bit_length()))
        starts = np.arange((1 << self._bits) + 1, dtype=np.uint64) << np.uint64(64 - self._bits)
        self._starts = np.searchsorted(self._hashes, starts[:-1])

    def find_words(self, words: pa.Array) -> Places:
        """The position of each word of a large_binary array, shape [m]; -1 if it is not in the vocabulary."""
        if self._collides:
            return np.asarray(pc.fill_null(pc.index_in(words, value_set=self._words), -1).to_numpy(), np.int64)
        if len(self._words) == 0 or len(words) == 0:
            return np.full(len(words), -1, np.int64)
        hashes = fingerprint64(words)
        if len(words) <= FEW:
            return np.array(list(map(self._place, hashes.tolist(), words.to_pylist())), np.int64)
        place = self._starts[(hashes >> np.uint64(64 - self._bits)).astype(np.int64)]
        last = len(self._hashes) - 1
        while True:
            place = np.minimum(place, last)
            behind = (self._hashes[place] < hashes) & (place < last)
            if not behind.any():
                break
            place = place + behind
        found = np.where(self._hashes[place] == hashes, self._order[place], -1)
        candidates = self._words.take(pa.array(np.maximum(found, 0)))
        same = pc.equal(candidates, words).to_numpy(zero_copy_only=False)
        return np.where(same, found, -1)

    def _place(self, hashed: int, word: bytes) -> int:
        """The position of one word; -1 if it is not in the vocabulary. No two words of the vocabulary share a hash."""
        place = int(self._starts[hashed >> (64 - self._bits)])
        while place < len(self._hashes) and self._hashes[place] < hashed:
            place += 1
        if place == len(self._hashes) or self._hashes[place] != hashed:
            return -1
        found = int(self._order[place])
        return found if self._words[found].as_py() == word else -1

    def _index_numbers(self, values: Array) -> None:
        self._order = np.argsort(values, kind="stable")
        self._numbers = values[self._order]
        self._table: Places | None = None
        if len(values):
            low, high = int(self._numbers[0]), int(self._numbers[-1])
            if high - low < max(DENSE, 16 * len(values)):
                # one entry more than the range, for all values outside of it
                self._table = np.full(high - low + 2, -1, np.int64)
                self._table[distance(self._numbers, low).astype(np.int64)] = self._order

    def find_numbers(self, values: Array) -> Places:
        """The position of each integer, shape [n]; -1 if it is not in the vocabulary."""
        if values.dtype == np.bool_:
            values = values.astype(np.uint8)
        if len(self._numbers) == 0 or len(values) == 0:
            return np.full(len(values), -1, np.int64)
        if self._table is not None:
            at = distance(values, int(self._numbers[0]))
            found = self._table[np.minimum(at, np.uint64(len(self._table) - 1)).astype(np.int64)]
            if _signs_differ(values, self._numbers):
                found = np.where(values < 0 if values.dtype.kind == "i" else values > _INT64_MAX, -1, found)
            return np.asarray(found)
        encoded = pa.array(values).dictionary_encode()
        distinct = encoded.dictionary.to_numpy()
        inside = (distinct >= self._numbers[0]) & (distinct <= self._numbers[-1])
        # never across signs: NumPy would bring int64 and uint64 together as float64
        distinct = np.where(inside, distinct, distinct[:1]).astype(self._numbers.dtype)
        place = np.minimum(np.searchsorted(self._numbers, distinct), len(self._numbers) - 1)
        found = np.where(inside & (self._numbers[place] == distinct), self._order[place], -1)
        return np.asarray(found[encoded.indices.to_numpy()])


_INT64_MAX = np.iinfo(np.int64).max


def distance(values: Array, low: int) -> npt.NDArray[np.uint64]:
    """`values - low` of integers of any width, shape [n], modulo 2^64.

    Among signed integers, and among unsigned ones, no two values share a result, so what is between `low` and a
    larger value is exactly what comes out below their distance.
    """
    return np.asarray(values.astype(np.uint64) - np.uint64(low % 2**64))


def _signs_differ(one: Array, other: Array) -> bool:
    return (one.dtype.kind == "u") != (other.dtype.kind == "u") and np.uint64 in (one.dtype, other.dtype)
