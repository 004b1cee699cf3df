"""Python's texts and floats as Arrow arrays, in half the time that Arrow takes to read them one by one.

Texts are joined, and floats are written by `marshal`, which reads all of them in C and is the fastest way to their
bytes in the standard library.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.apply import encoded

SHORT_TEXT = 16  # characters, the most that texts have on average for joining them to pay
BLOCK = 1 << 16  # objects of an array that become a list at a time
END = "\0"  # of a text among joined ones

_VERSION = 2  # of marshal's format: floats in binary, and no references
_HEADER = 5  # bytes: the code of a list or a tuple, and its length
_FLOAT = np.dtype([("code", "S1"), ("value", "<f8")])


@dataclass(frozen=True)
class Joined:
    """Texts in UTF-8, each followed by `END`."""

    texts: pa.LargeBinaryArray

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> Joined:
        """All texts of what `as_joined` gives."""
        data = b"".join(pieces)
        offsets = np.append(0, np.flatnonzero(np.frombuffer(data, np.uint8) == 0) + 1)
        buffers = [None, *map(pa.py_buffer, (offsets, data))]
        return cls(pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers))

    def encoded(self) -> pa.DictionaryArray:
        """The texts as codes into their distinct words."""
        codes = self.texts.dictionary_encode()
        words = pc.binary_slice(codes.dictionary, 0, -len(END)).cast(pa.large_string())
        return pa.DictionaryArray.from_arrays(codes.indices, words)


def are_objects(values: Any) -> bool:
    """Whether a column holds Python objects, which are read under Python's lock."""
    return isinstance(values, list | tuple) or getattr(values, "dtype", None) == np.dtype(object)


def read(values: Any, *, text: bool) -> pa.Array | Joined | None:
    """Many objects that are floats or, where `text` is wanted, texts; None if Arrow should read them.

    What is returned has the values that Arrow reads in the same objects.
    """
    if not isinstance(values, list | tuple):
        if not are_objects(values) or getattr(values, "ndim", 1) > 1:
            return None
        values = np.asarray(values)
    if len(values) <= encoded.ENCODED_FROM:
        return None
    sample = values[: encoded.SAMPLED_TEXT]
    sample = sample.tolist() if isinstance(sample, np.ndarray) else sample
    if set(map(type, sample)) == {float}:
        return _floats(values)
    return _joined(values) if text and are_short_and_repeat(sample) else None


def _blocks(values: Any) -> Iterator[list[Any] | tuple[Any, ...]]:
    """Lists as they are, arrays as several lists: a list of all objects would take more memory and be no faster."""
    if not isinstance(values, np.ndarray):
        yield values
        return
    for begin in range(0, len(values), BLOCK):
        yield values[begin : begin + BLOCK].tolist()


def _floats(values: Any) -> pa.DoubleArray | None:
    blocks = []
    for block in _blocks(values):
        floats = as_floats(block)
        if floats is None:
            return None
        blocks.append(floats)
    return pa.array(np.concatenate(blocks), from_pandas=True)


def as_floats(values: list[Any] | tuple[Any, ...]) -> npt.NDArray[np.float64] | None:
    """A list or tuple of floats; None where one is of another type.

    marshal writes the code `g` and eight bytes for each float, and another code for an object of any other type. If
    every ninth byte is that code and the length fits, there is nothing but floats. Where a version of Python writes
    another format, neither is so, and Arrow reads the values.
    """
    try:
        data = marshal.dumps(values, _VERSION)
    except ValueError:  # of types that marshal does not know
        return None
    if len(data) != _HEADER + len(values) * _FLOAT.itemsize:
        return None
    found = np.frombuffer(data, _FLOAT, offset=_HEADER)
    return found["value"] if (found["code"] == b"g").all() else None


def are_short_and_repeat(sample: Sequence[Any]) -> bool:
    """Whether all are texts, short enough to be joined, with repeated words among them."""
    if set(map(type, sample)) != {str}:
        return False
    few = len(set(sample)) < (1 - encoded.REPEATED) * len(sample)
    return few and sum(map(len, sample)) <= SHORT_TEXT * len(sample)


def _joined(values: Any) -> Joined | None:
    pieces = []
    for block in _blocks(values):
        piece = as_joined(block, len(block))
        if piece is None:
            return None
        pieces.append(piece)
    return Joined.of(pieces)


def as_joined(texts: Iterable[Any], count: int) -> bytes | None:
    """`count` texts in UTF-8, each followed by `END`; None where one contains it, is no text, or has a surrogate."""
    try:
        data = (END.join(texts) + END).encode()
    except (TypeError, UnicodeEncodeError):
        return None
    return data if np.count_nonzero(np.frombuffer(data, np.uint8) == 0) == count else None
