"""`dtap_dask.transform`: new rows through the fitted features of a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dtap_dask.apply.dataset import FittedFeatures, open_features
from dtap_dask.apply.rows import GivenRows
from dtap_dask.apply.whole import features_of
from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.steps.transformers import allow_estimators, allowed_estimators
from dtap_dask.records.memory import keep_freed_memory
from dtap_dask.records.tables import as_table
from dtap_dask.storage.settings import absolute


def transform(path: str | os.PathLike[str], rows: Any, *, storage: Mapping[str, Any] | None = None) -> Any:
    """The features of new rows, by what the job of the dataset at `path` has fitted: the values that its records hold.

    `rows` has the columns of the lake that the features are made from; columns of `derive` are computed, further ones
    are ignored, and label, weight and kept columns are not needed. Nulls, unseen values and infinities are treated as
    the job says.

    - For a pandas DataFrame, a dict of columns, a dict that is one row, or a list of such dicts the result is a dict of
      NumPy arrays by feature, in the dtypes and shapes of `load`: [n], [n, k] for vectors, [n, k, l] for tensors,
      object arrays [n] of bytes for text and of arrays for lists. It is what `model.predict` takes.
    - For an Arrow Table or RecordBatch it is an Arrow Table.
    - For a Dask DataFrame it is a Dask DataFrame of Arrow-backed columns, computed by partition.

    `storage` is the job's `storage` section. Neither Dask nor TensorFlow is needed. The dataset is opened once.

    Raises OutputError where there is no finished dataset, DataError for missing columns, for values that the lake's
    type does not hold, and for rows that a run of the job would refuse.
    """
    features = open_features(path, storage)
    if hasattr(rows, "map_partitions"):
        return _by_partition(features, path, rows, storage)
    keep_freed_memory()
    made = features_of(GivenRows.of(rows, features.raw.schema), features)
    if isinstance(rows, pa.RecordBatch | pa.Table):
        return as_table(made, features.infos)
    return {info.name: _as_array(made[info.name], info) for info in features.infos}


def _as_array(values: Array | pa.Array, info: FeatureInfo) -> Array:
    """A feature in the dtype that a loader yields; text as bytes, lists as arrays."""
    return _objects(values, info) if isinstance(values, pa.Array) else values.astype(info.dtype, copy=False)


def _objects(values: pa.Array, info: FeatureInfo) -> Array:
    """Text as bytes, or lists as arrays in the dtype that a loader yields."""
    if info.shape == (None,):
        elements = _elements(values.values, info)
        offsets = values.offsets.to_numpy()
        lists = np.empty(len(values), object)
        for row in range(len(values)):
            lists[row] = elements[offsets[row] : offsets[row + 1]]
        return lists
    return np.asarray(values.to_numpy(zero_copy_only=False), object)


def _elements(values: pa.Array, info: FeatureInfo) -> Array:
    if info.dtype == "bytes":
        return np.asarray(values.to_numpy(zero_copy_only=False), object)
    return np.asarray(values.to_numpy(zero_copy_only=False).astype(info.dtype, copy=False))


def _by_partition(
    features: FittedFeatures, path: str | os.PathLike[str], frame: Any, storage: Mapping[str, Any] | None
) -> Any:
    """The Dask DataFrame of the features; the dataset is opened in each worker."""
    meta = _as_frame(features.raw.schema.empty_table(), features)
    given = (absolute(os.fspath(path)), storage, features.manifest.fingerprint, allowed_estimators())
    return frame.map_partitions(_partition, *given, meta=meta, enforce_metadata=False)


def _partition(
    frame: Any, path: str, storage: Mapping[str, Any] | None, fingerprint: str, estimators: tuple[str, ...]
) -> Any:
    allow_estimators(*estimators)
    features = open_features(path, storage)
    if features.manifest.fingerprint != fingerprint:
        raise DataError(
            f"The dataset {path} was replaced by another one after `transform` was called, and its partitions would be "
            "computed with different fitted values. Call `transform` again."
        )
    return _as_frame(frame, features).set_axis(frame.index)


def _as_frame(rows: Any, features: FittedFeatures) -> Any:
    import pandas as pd

    made = features_of(GivenRows.of(rows, features.raw.schema), features, threads=1)
    return as_table(made, features.infos).to_pandas(types_mapper=pd.ArrowDtype)
