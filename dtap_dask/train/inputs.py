"""Keras inputs for the features of a finished dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import open_dataset, selected


def inputs(
    path: str | os.PathLike[str],
    *,
    features: Sequence[str] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> dict[str, keras.KerasTensor]:
    """{name: keras.Input} for each feature of the dataset at `path` as `load` yields it, in the manifest's order.

    `features` selects features, in that order. Give the same list to `load`: Keras may match the inputs of a model with
    the wrong columns of a batch that has more.

    Shapes are () for scalars, (k,) for vectors, (k, l) for tensors, (None,) and ragged for lists. Each input has an
    attribute `ids`: the number of ids an embedding needs, None where the feature holds no ids:

        inputs = dtap_dask.inputs(path)
        parts = [
            keras.layers.Embedding(each.ids, 16)(each) if each.ids else keras.ops.expand_dims(each, -1)
            for each in inputs.values()
        ]
        model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.concatenate(parts)))

    Raises OutputError where there is no finished dataset, JobError where it has no such feature.
    """
    manifest, _ = open_dataset(path, storage)
    return {info.name: _input(info) for info in selected(manifest.infos, features) if info.role == "feature"}


def _input(info: FeatureInfo) -> keras.KerasTensor:
    dtype = "string" if info.dtype == "bytes" else info.dtype
    # Older versions of Keras 3 have no ragged inputs, so the argument is given only where it is needed.
    ragged = {"ragged": True} if None in info.shape else {}
    tensor = keras.Input(shape=info.shape, dtype=dtype, name=info.name, **ragged)
    tensor.ids = info.ids
    return tensor
