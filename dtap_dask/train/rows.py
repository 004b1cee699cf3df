"""Records of the rows layout to columns: one parse for many rows."""

from __future__ import annotations

from collections.abc import Container

import tensorflow as tf

from dtap_dask.train.dataset import Split
from dtap_dask.train.order import permuted
from dtap_dask.train.parsing import parse_features


def decode(split: Split, names: Container[str], records: tf.Tensor, seed: tf.Tensor | None) -> dict[str, tf.Tensor]:
    """The rows of `records` (serialized Examples, string [n]): the columns `names`, in their infos' dtypes and shapes.

    Rows come in the order of the records, or with `seed` (int64 [2]) permuted over all of them.
    """
    if seed is not None:
        records = permuted(records, seed)
    wanted = {info.name: info for info in split.infos if info.name in names}
    parsed = tf.io.parse_example(records, parse_features({name: split.spec[name] for name in wanted}))
    return {
        name: parsed[name] if info.stored == "bytes" else tf.cast(parsed[name], tf.as_dtype(info.dtype))
        for name, info in wanted.items()
    }
