"""The twins of the steps that make fewer numbers of many."""

from __future__ import annotations

import tensorflow as tf

from dtap_dask.features.graph.graph import Value
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.reduce import Pca
from dtap_dask.features.steps.svd import TruncatedSvd
from dtap_dask.train.serving.tensors import NumberTensor, TensorBound, TensorColumn, fixed, floats


def pca(step: Pca, fitted: Fitted, value: Value) -> TensorBound:
    """The centred columns of the block on the components. NumPy adds the products in another order."""
    components = step.projection(fitted)

    def apply(*columns: TensorColumn) -> TensorColumn:
        centred = tf.stack([floats(column) for column in columns], axis=1) - fixed(fitted["mean_"])
        return NumberTensor(tf.matmul(centred, fixed(components), transpose_b=True))

    return apply


def truncated_svd(step: TruncatedSvd, fitted: Fitted, value: Value) -> TensorBound:
    """The columns of the block on the components. NumPy adds the products in another order."""

    def apply(*columns: TensorColumn) -> TensorColumn:
        given = [floats(column) for column in columns]
        block = tf.concat([one if one.shape.rank == 2 else one[:, tf.newaxis] for one in given], axis=1)
        return NumberTensor(tf.matmul(block, fixed(fitted["components_"]), transpose_b=True))

    return apply
