"""The twin of steps fitted for each value of a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.bucketize import Bucketize, KeyBoundaries
from dtap_dask.features.steps.distribution import RobustScale
from dtap_dask.features.steps.impute import Impute
from dtap_dask.features.steps.keyed import AtPlaces, Keyable, Keyed, of_keys
from dtap_dask.features.steps.operation import Fitted, Operation
from dtap_dask.features.steps.scale import MaxAbsScale, MinMaxScale, StandardScale
from dtap_dask.train.serving import distribution, impute, scale
from dtap_dask.train.serving.encode import category
from dtap_dask.train.serving.lookup import Lookup
from dtap_dask.train.serving.tensors import NumberTensor, Tensor, TensorBound, TensorColumn, numbers

BY_ROW: dict[type[Operation], Callable[..., TensorBound]] = {
    Impute: impute.impute_by_row,
    MaxAbsScale: scale.maxabs_scale,
    MinMaxScale: scale.minmax_scale,
    RobustScale: distribution.robust_scale,
    StandardScale: scale.standard_scale,
}
"""The twins of operations whose fitted numbers are tensors [n], those of each row."""


class KeyedTwin(tf.Module):  # type: ignore[misc]
    """Each row with the fitted numbers of its key: see Keyed."""

    def __init__(self, step: Keyed, fitted: Fitted, value: Value):
        super().__init__()
        keys, tables = of_keys(fitted)
        self._others = len(keys)
        self.lookup = Lookup(keys)
        self.by_row = _by_row(step.step, tables, value)

    def __call__(self, column: TensorColumn, key: TensorColumn) -> TensorColumn:
        place = self.lookup(category(key))
        outside = place < 0 if key.null is None else (place < 0) | key.null
        place = tf.where(outside, tf.constant(self._others, tf.int64), place)
        return self.by_row(column, place)


def _by_row(step: Keyable, tables: Mapping[str, pa.Array], value: Value) -> TensorBound:
    """A function of a column and of the place of each row's numbers in the tables."""
    if isinstance(step, Bucketize):
        return _Buckets(step, tables["boundaries_"], value)
    constants = {name: _constant(table) for name, table in tables.items()}
    maker = BY_ROW[type(step)]
    return lambda column, place: maker(step, AtPlaces(constants, place, tf.gather), value)(column)


def _constant(table: pa.Array) -> Tensor:
    """Numbers as float64 or int64, text as bytes."""
    if not pa.types.is_floating(table.type) and not pa.types.is_integer(table.type):
        return tf.constant(table.cast(pa.large_binary()).to_pylist(), tf.string)
    return tf.constant(table.to_numpy(), tf.float64 if pa.types.is_floating(table.type) else tf.int64)


class _Buckets(tf.Module):  # type: ignore[misc]
    """The bucket of each row among the boundaries of its key: see KeyBoundaries."""

    def __init__(self, step: Bucketize, table: pa.Array, value: Value):
        super().__init__()
        bounds = KeyBoundaries.of(table)
        self._among_all = scale.bucketize(step, {"boundaries_": bounds.distinct}, value)
        self._order, self._starts = tf.constant(bounds.order, tf.int64), tf.constant(bounds.starts, tf.int64)
        self._step = bounds.step

    def __call__(self, column: TensorColumn, place: Tensor) -> TensorColumn:
        found = numbers(self._among_all(column))
        at = place * self._step + found.values
        passed = tf.searchsorted(self._order, at, side="right", out_type=tf.int64)
        return NumberTensor(passed - tf.gather(self._starts, place), found.null)


def keyed(step: Keyed, fitted: Fitted, value: Value) -> TensorBound:
    """The operation with the fitted numbers of each row's key."""
    return KeyedTwin(step, fitted, value)
