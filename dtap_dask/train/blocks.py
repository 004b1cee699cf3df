"""Records of the blocks layout to columns: one parse for many blocks, one permutation for every stored dtype."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from typing import Any

import tensorflow as tf

from dtap_dask.features.state import FeatureInfo
from dtap_dask.records.blocks import ROWS, keys, matrices, variable
from dtap_dask.records.columns import width
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
    wanted = [info for info in variable(infos) if info.name in names]
    used = {ROWS, *matrices(infos), *(key for info in wanted for key in keys(info))}
    spec = {key: feature for key, feature in split.spec.items() if key in used}
    parsed = tf.io.parse_example(records, parse_features(spec))
    rows = tf.reduce_sum(parsed[ROWS])
    order = None if seed is None else permuted(tf.range(rows), seed)
    found: dict[str, tf.Tensor] = {}
    for stored, group in matrices(infos).items():
        values = _raw(parsed[stored], stored)
        found.update(_columns(group, _ordered(tf.reshape(values, [rows, sum(map(width, group))]), order)))
    for info in wanted:
        found[info.name] = _variable(info, [parsed[key] for key in keys(info)], rows, order)
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


def _variable(info: FeatureInfo, parts: Sequence[Any], rows: tf.Tensor, order: tf.Tensor | None) -> tf.Tensor:
    """A column of texts or lists in `rows` rows, from what `keys` names: values and, for lists, lengths."""
    if info.stored == "bytes":
        values = parts[0].flat_values  # the texts of all records, one after the other
    else:
        values = tf.cast(_raw(parts[0], info.stored), tf.as_dtype(info.dtype))
    if None not in info.shape:
        return _ordered(tf.reshape(values, [rows, *info.shape]), order)
    lengths = tf.cast(_raw(parts[1], "int32"), tf.int64)
    return _ordered(tf.RaggedTensor.from_row_lengths(values, lengths), order)
