"""Text as codes into its distinct words, where this pays: the form in which scans deliver it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.schema import is_text

ENCODED_FROM = 1 << 16  # rows
SAMPLED_TEXT = 4096  # rows that show whether a column of text repeats its words
REPEATED = 0.01  # the least part of these that repeats a word for encoding to pay

SHORT_TEXT = 16  # characters, the most that texts have on average for joining them to pay
JOINED = 1 << 16  # texts that are joined at a time
END = "\0"  # of a text among joined ones


def encoded(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Text with a dictionary of type `kind`, where it has one or one pays; any other array itself."""
    values = one_array(values)
    plain = not pa.types.is_dictionary(values.type)
    if not is_text(values.type) or _is_binary(values.type) != _is_binary(kind):
        return values
    if plain and (len(values) <= ENCODED_FROM or not _repeats(values)):
        return values
    values = values.dictionary_encode() if plain else values
    if values.type == pa.dictionary(pa.int32(), kind):
        return values
    return pa.DictionaryArray.from_arrays(values.indices.cast(pa.int32()), values.dictionary.cast(kind))


def of_objects(values: Any) -> pa.DictionaryArray | None:
    """Python's texts as codes into their distinct words; None where another way is faster, or there are nulls.

    Joined and then cut, many short texts become an Arrow array in half the time that they take one by one.
    """
    if not isinstance(values, list | tuple):
        if getattr(values, "dtype", None) != np.dtype(object) or getattr(values, "ndim", 1) > 1:
            return None
        values = np.asarray(values).tolist()
    if len(values) <= ENCODED_FROM or not _are_short_and_repeat(values[:SAMPLED_TEXT]):
        return None
    pieces = []
    for begin in range(0, len(values), JOINED):
        piece = _joined(values[begin : begin + JOINED])
        if piece is None:
            return None
        pieces.append(piece)
    codes = one_array(pa.chunked_array(pieces).dictionary_encode())
    words = pc.binary_slice(codes.dictionary, 0, -1).cast(pa.large_string())
    return pa.DictionaryArray.from_arrays(codes.indices, words)


def _are_short_and_repeat(sample: Sequence[Any]) -> bool:
    if set(map(type, sample)) != {str}:
        return False
    return sum(map(len, sample)) <= SHORT_TEXT * len(sample) and len(set(sample)) < (1 - REPEATED) * len(sample)


def _joined(texts: Sequence[Any]) -> pa.LargeBinaryArray | None:
    """Texts in UTF-8, each with `END` behind it; None where one has that within, or is no text."""
    try:
        data = (END.join(texts) + END).encode()
    except (TypeError, UnicodeEncodeError):
        return None
    offsets = np.append(0, np.flatnonzero(np.frombuffer(data, np.uint8) == 0) + 1)
    if len(offsets) != len(texts) + 1:
        return None
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(texts), [None, *map(pa.py_buffer, (offsets, data))])


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The values without chunks."""
    if not isinstance(values, pa.ChunkedArray):
        return values
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()  # which copies a single one


def _is_binary(kind: pa.DataType) -> bool:
    return "binary" in str(kind)


def _repeats(text: pa.Array) -> bool:
    sample = text.slice(0, SAMPLED_TEXT)
    return len(sample.unique()) < (1 - REPEATED) * len(sample)
