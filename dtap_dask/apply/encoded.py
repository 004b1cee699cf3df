"""Text as codes into its distinct words, where this pays: the form in which scans deliver it."""

from __future__ import annotations

import pyarrow as pa

from dtap_dask.lake.schema import is_text

ENCODED_FROM = 1 << 16  # rows
SAMPLED_TEXT = 4096  # rows that show whether a column of text repeats its words
REPEATED = 0.01  # the least part of these that repeats a word for encoding to pay


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
