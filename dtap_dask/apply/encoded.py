"""Text as codes into its distinct words, where this pays: the form in which scans deliver it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.columns.buffers import validity
from dtap_dask.lake.schema import is_text

ENCODED_FROM = 1 << 16  # rows
SAMPLED_TEXT = 4096  # rows that show whether a column of text repeats its words
REPEATED = 0.01  # the least part of these that repeats a word for encoding to pay

WORD_BYTES = 8  # of the longest words that are compared as integers
PIECE = 1 << 16  # texts that become integers at a time: these fit in the processor's cache
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(WORD_BYTES + 1)], "<u8")
_OFFSETS = {pa.string(): np.int32, pa.binary(): np.int32, pa.large_string(): np.int64, pa.large_binary(): np.int64}


def encoded(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Text with a dictionary of type `kind`, where it has one or one pays; any other array itself."""
    values = one_array(values)
    plain = not pa.types.is_dictionary(values.type)
    if not is_text(values.type) or _is_binary(values.type) != _is_binary(kind):
        return values
    if plain and (len(values) <= ENCODED_FROM or not _repeats(values)):
        return values
    values = with_dictionary(values) if plain else values
    if values.type == pa.dictionary(pa.int32(), kind):
        return values
    return pa.DictionaryArray.from_arrays(values.indices.cast(pa.int32()), values.dictionary.cast(kind))


def with_dictionary(text: pa.Array) -> pa.DictionaryArray:
    """What Arrow's `dictionary_encode` makes; words of up to eight bytes are compared as integers, which takes less."""
    keys = [_keys(text.slice(begin, PIECE)) for begin in range(0, len(text), PIECE)]
    if not keys or any(piece is None for piece in keys):
        return text.dictionary_encode()
    codes = one_array(pa.chunked_array(keys).dictionary_encode())
    return pa.DictionaryArray.from_arrays(codes.indices, _words(codes.dictionary.to_numpy(), text.type))


def _keys(text: pa.Array) -> pa.UInt64Array | None:
    """Each text as the integer of its bytes; None where one is longer than an integer, or has a 0 in it."""
    if text.type not in _OFFSETS:
        return None
    offsets, data = _offsets(text)
    lengths = np.diff(offsets)
    if lengths.max(initial=0) > WORD_BYTES or data.min(initial=1) == 0:
        return None
    data = np.append(data, np.zeros(WORD_BYTES, np.uint8))
    windows: npt.NDArray[np.uint64] = np.ndarray(len(data) - WORD_BYTES + 1, "<u8", data.data, strides=(1,))
    keys = windows.take(offsets[:-1])
    keys &= _MASKS.take(lengths)
    valid = validity(text)
    return pa.array(keys, mask=None if valid is None else ~valid)


def _offsets(text: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """Where each text begins in the bytes of all of them, and these."""
    _, offsets, data = text.buffers()
    found = np.frombuffer(offsets, _OFFSETS[text.type])[text.offset : text.offset + len(text) + 1]
    return found - found[0], np.frombuffer(data or b"", np.uint8)[found[0] : found[-1]]


def _words(keys: npt.NDArray[np.uint64], kind: pa.DataType) -> pa.Array:
    """The texts of which `_keys` made these integers."""
    letters = keys.astype("<u8", copy=False).view(np.uint8).reshape(-1, WORD_BYTES)
    used = letters != 0
    offsets = np.append(0, np.cumsum(used.sum(axis=1))).astype(_OFFSETS[kind])
    return pa.Array.from_buffers(kind, len(keys), [None, *map(pa.py_buffer, (offsets, letters[used]))])


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
