"""The twins of the steps that make fewer numbers of many."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from dtap_dask.features.columns.column import Floats
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.reduce import Pca
from dtap_dask.features.steps.svd import TruncatedSvd
from dtap_dask.train.serving.tensors import (
    NumberTensor,
    OneHotTensor,
    Tensor,
    TensorBound,
    TensorColumn,
    fixed,
    floats,
)


def pca(step: Pca, fitted: Fitted, value: Value) -> TensorBound:
    """The centred columns of the block on the components. NumPy adds the products in another order."""
    components = step.projection(fitted)

    def apply(*columns: TensorColumn) -> TensorColumn:
        centred = tf.stack([floats(column) for column in columns], axis=1) - fixed(fitted["mean_"])
        return NumberTensor(tf.matmul(centred, fixed(components), transpose_b=True))

    return apply


def truncated_svd(step: TruncatedSvd, fitted: Fitted, value: Value) -> TensorBound:
    """The columns of the block on the components, one-hot vectors by their places. NumPy adds the products in another
    order."""
    ends = np.cumsum([max(1, width) for width in fitted["input_widths_"]])
    parts = np.split(np.array(fitted["components_"]), ends[:-1], axis=1)

    def apply(*columns: TensorColumn) -> TensorColumn:
        sums, dense = [], []
        for column, components in zip(columns, parts, strict=True):
            if isinstance(column, OneHotTensor):
                sums.append(_at_places(column, components))
            else:
                dense.append((floats(column), components))
        if dense:
            wide = [one if one.shape.rank == 2 else one[:, tf.newaxis] for one, _ in dense]
            components = np.concatenate([own for _, own in dense], axis=1)
            sums.append(tf.matmul(tf.concat(wide, axis=1), fixed(components), transpose_b=True))
        return NumberTensor(tf.add_n(sums))

    return apply


def _at_places(column: OneHotTensor, components: Floats) -> Tensor:
    """The products of one-hot vectors and components, shape [n, components]; NaN for null."""
    rows = tf.constant(np.vstack([components.T, np.zeros(len(components))]))
    made = tf.gather(rows, tf.where(column.places < 0, tf.constant(column.width, tf.int64), column.places))
    if column.null is None:
        return made
    return tf.where(column.null[:, tf.newaxis], tf.constant(float("nan"), tf.float64), made)
