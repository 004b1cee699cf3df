"""Records of the blocks layout to columns: one parse for many blocks, one permutation for every stored dtype."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence

import tensorflow as tf

from dtap_dask.features.state import FeatureInfo
from dtap_dask.records.blocks import ROWS, keys, matrices, variable
from dtap_dask.records.columns import is_text, width
from dtap_dask.train.dataset import Split
from dtap_dask.train.order import permuted
from dtap_dask.train.parsing import parse_features

# decode_raw has no unsigned integers of these widths: their bits are read as signed ones.
_SIGNED = {"uint32": tf.int32, "uint64": tf.int64}


def decode(split: Split, names: Container[str], records: tf.Tensor, seed: tf.Tensor | None) -> dict[str, tf.Tensor]:
    """The rows of `records` (serialized Examples, string [b]): the columns `names`, in their infos' dtypes and shapes.

    Rows come in the order of the records, or with `seed` (int64 [2]) permuted over all of them.
    """
    infos = split.infos
    parsed = tf.io.parse_example(records, parse_features(split.spec))
    rows = tf.reduce_sum(parsed[ROWS])
    order = None if seed is None else permuted(tf.range(rows), seed)
    found: dict[str, tf.Tensor] = {}
    for stored, group in matrices(infos).items():
        values = _raw(parsed[stored], stored)
        found.update(_columns(group, _ordered(tf.reshape(values, [rows, sum(map(width, group))]), order)))
    for info in variable(infos):
        found[info.name] = _variable(info, [parsed[key] for key in keys(info)], order)
    return {name: values for name, values in found.items() if name in names}


def _raw(parts: tf.Tensor, stored: str) -> tf.Tensor:
    """The numbers of all records ([b] strings of little-endian bytes), one after the other."""
    joined = tf.strings.reduce_join(parts)
    if stored in _SIGNED:
        return tf.bitcast(tf.io.decode_raw(joined, _SIGNED[stored]), tf.as_dtype(stored))
    return tf.io.decode_raw(joined, tf.as_dtype(stored))


def _ordered(values: tf.Tensor, order: tf.Tensor | None) -> tf.Tensor:
    return values if order is None else tf.gather(values, order)


def _columns(group: Sequence[FeatureInfo], matrix: tf.Tensor) -> Iterator[tuple[str, tf.Tensor]]:
    """Each column of a matrix [rows, width]. Neighbours of one final dtype are cast and cut by one operation each."""
    at = 0
    for (dtype, scalar), run in itertools.groupby(group, lambda info: (info.dtype, info.shape == ())):
        members = list(run)
        wide = sum(map(width, members))
        values = tf.cast(matrix[:, at : at + wide], tf.as_dtype(dtype))
        at += wide
        if scalar:
            yield from zip([info.name for info in members], tf.unstack(values, num=wide, axis=1), strict=True)
            continue
        pieces = tf.split(values, [width(info) for info in members], axis=1)
        for info, piece in zip(members, pieces, strict=True):
            yield info.name, tf.reshape(piece, [-1, *info.shape])


def _variable(info: FeatureInfo, parts: Sequence[tf.Tensor], order: tf.Tensor | None) -> tf.Tensor:
    """A column of texts or lists, from what `keys` names: values, lengths and, for lists of texts, value lengths."""
    lengths = tf.cast(_raw(parts[1], "int32"), tf.int64)
    if is_text(info):
        return _ordered(_texts(parts[0], lengths), order)
    if info.stored == "bytes":
        values = _texts(parts[0], tf.cast(_raw(parts[2], "int32"), tf.int64))
    else:
        values = tf.cast(_raw(parts[0], info.stored), tf.as_dtype(info.dtype))
    if None not in info.shape:
        return _ordered(tf.reshape(values, [-1, *info.shape]), order)
    return _ordered(tf.RaggedTensor.from_row_lengths(values, lengths), order)


def _texts(parts: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Cut the bytes of all records into texts of `lengths` bytes.

    TensorFlow has no operation that cuts one string at given places (substr copies its input for every piece), so
    single bytes are looked up as strings and joined.
    """
    letters = tf.constant([bytes([byte]) for byte in range(256)])
    codes = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(parts), tf.uint8), tf.int32)
    count = tf.size(lengths, tf.int64)
    owner = tf.repeat(tf.range(count), lengths)
    return tf.strings.unsorted_segment_join(tf.gather(letters, codes), owner, count)
