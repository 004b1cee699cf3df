"""Decoding of the blocks layout to columns: one parse for many blocks, one permutation for each stored dtype."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.shards.decode import MatrixSpan, spans_of
from dtap_dask.records.blocks import ROWS, keys, variable
from dtap_dask.records.columns import width
from dtap_dask.train.parsing import parse_features

# Substitutes for dtypes that decode_raw does not have, or not with a fixed length.
_RAW_DTYPES = {"uint32": tf.int32, "uint64": tf.int64, "float16": tf.int16, "bool": tf.uint8}


Order = Callable[[tf.Tensor], tf.Tensor]  # from the number of rows (int64) to the places of the wanted ones


def decode_blocks(
    split: DatasetSplit, names: Collection[str], records: tf.Tensor, order: Order | None
) -> dict[str, tf.Tensor]:
    """The rows of `records` (serialized Examples, string [b]): the columns `names`, in their infos' dtypes and shapes.

    Rows are in the order of the records, or those that `order` names. A matrix without a wanted column is not read; of
    other matrices only the columns from the first wanted one to the last are kept.
    """
    spans = spans_of(split.infos, names)
    wanted = [info for info in variable(split.infos) if info.name in names]
    used = {ROWS, *spans, *(key for info in wanted for key in keys(info))}
    spec = {key: feature for key, feature in split.spec.items() if key in used}
    parsed = tf.io.parse_example(records, parse_features(spec))
    counts = parsed[ROWS]
    rows = tf.reduce_sum(counts)
    places = None if order is None else order(rows)
    found: dict[str, tf.Tensor] = {}
    read = _matrices(spans, parsed, counts, places)
    for span, matrix in zip(spans.values(), read, strict=True):
        found.update(_matrix_columns(span.infos, names, matrix))
    for info in wanted:
        found[info.name] = _variable(info, [parsed[key] for key in keys(info)], rows, places)
    return found


def _matrices(
    spans: Mapping[str, MatrixSpan], parsed: Mapping[str, tf.Tensor], counts: tf.Tensor, order: tf.Tensor | None
) -> list[tf.Tensor]:
    """The spans of all records as one [rows, width] for each stored dtype; `counts` [b] are the records' rows.

    At first every record has as many rows as the largest one, the last of them zeros: this copies the bytes once, where
    joining the strings would copy them twice. There are few operations because TensorFlow optimizes each of them again,
    for tenths of a millisecond, at the beginning of every epoch.
    """
    widths = {stored: span.width for stored, span in spans.items()}
    if not widths:
        return []
    lengths = tf.stack([tf.strings.length(parsed[stored]) for stored in widths], axis=1)
    row_bytes = tf.constant([values * tf.as_dtype(stored).size for stored, values in widths.items()])
    counts = tf.cast(counts, tf.int32)
    most = tf.reduce_max(counts)
    match = tf.reduce_all(tf.equal(lengths, tf.expand_dims(counts, 1) * row_bytes))
    check = tf.debugging.Assert(match, ["A record's matrices are not of the manifest's widths."])
    with tf.control_dependencies([check]):
        sizes = tf.unstack(most * row_bytes, len(widths))
    kept = tf.reshape(tf.where(tf.reshape(tf.sequence_mask(counts, most), [-1])), [-1])
    kept = kept if order is None else tf.gather(kept, order)
    found = []
    for (stored, values), size in zip(widths.items(), sizes, strict=True):
        dtype = tf.as_dtype(stored)
        if values:
            raw = tf.io.decode_raw(parsed[stored], _RAW_DTYPES.get(stored, dtype), fixed_length=size)
            span = spans[stored]
            matrix = tf.reshape(raw, [-1, values])
            matrix = matrix if span.stop - span.start == values else matrix[:, span.start : span.stop]
            found.append(_typed(tf.gather(matrix, kept), stored))
        else:
            found.append(tf.zeros([tf.size(kept), 0], dtype))
    return found


def _raw(parts: tf.Tensor, stored: str) -> tf.Tensor:
    """The numbers of all records ([b] strings of little-endian bytes), one after the other."""
    values = tf.io.decode_raw(tf.strings.reduce_join(parts), _RAW_DTYPES.get(stored, tf.as_dtype(stored)))
    return _typed(values, stored)


def _typed(values: tf.Tensor, stored: str) -> tf.Tensor:
    """`values` in their stored dtype, where they were read as a substitute."""
    if stored not in _RAW_DTYPES:
        return values
    return tf.cast(values, tf.bool) if stored == "bool" else tf.bitcast(values, tf.as_dtype(stored))


def _ordered(values: tf.Tensor, order: tf.Tensor | None) -> tf.Tensor:
    return values if order is None else tf.gather(values, order)


def _matrix_columns(
    group: Sequence[FeatureInfo], names: Container[str], matrix: tf.Tensor
) -> Iterator[tuple[str, tf.Tensor]]:
    """The wanted columns of a matrix [rows, width], neighbours of one final dtype cast and split together."""
    at = 0
    runs = itertools.groupby(group, lambda info: (info.name in names, info.dtype, info.shape == ()))
    for (wanted, dtype, scalar), run in runs:
        members = list(run)
        values_per_row = sum(map(width, members))
        values = matrix if len(members) == len(group) else matrix[:, at : at + values_per_row]
        at += values_per_row
        if not wanted:
            continue
        if scalar:  # transposed while they are narrow: then each column is contiguous
            parts = tf.unstack(tf.transpose(values), num=values_per_row)
            yield from zip([info.name for info in members], [_copied(part, dtype) for part in parts], strict=True)
            continue
        pieces = tf.split(tf.cast(values, tf.as_dtype(dtype)), [width(info) for info in members], axis=1)
        for info, piece in zip(members, pieces, strict=True):
            yield info.name, tf.reshape(piece, [-1, *info.shape])


def _copied(column: tf.Tensor, dtype: str) -> tf.Tensor:
    """A column in memory of its own: joining the last rows of a window with the next ones, TensorFlow would otherwise
    write an error to the log for each column that shares the memory of others.
    """
    wanted = tf.as_dtype(dtype)
    return tf.concat([column, tf.zeros([0], wanted)], axis=0) if column.dtype == wanted else tf.cast(column, wanted)


def _variable(info: FeatureInfo, parts: Sequence[Any], rows: tf.Tensor, order: tf.Tensor | None) -> tf.Tensor:
    """A column of texts or lists with `rows` rows, from the features of `keys`: values and, for lists, lengths."""
    if info.stored == "bytes":
        values = parts[0].flat_values  # the texts of all records, one after the other
    else:
        values = tf.cast(_raw(parts[0], info.stored), tf.as_dtype(info.dtype))
    if None not in info.shape:
        return _ordered(tf.reshape(values, [rows, *info.shape]), order)
    lengths = tf.cast(_raw(parts[1], "int32"), tf.int64)
    return _ordered(tf.RaggedTensor.from_row_lengths(values, lengths), order)
