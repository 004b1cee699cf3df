"""`dtap_dask.transform`: new rows through the fitted features of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dtap_dask.apply.dataset import FittedFeatures, open_features
from dtap_dask.apply.rows import as_batch
from dtap_dask.features import Rows
from dtap_dask.features.columns.column import Array
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.steps.transformers import allow_estimators, allowed_estimators
from dtap_dask.lake.scan import BATCH_ROWS
from dtap_dask.records import columns
from dtap_dask.records.memory import keep_freed_memory
from dtap_dask.records.tables import as_table

SPAN_BATCHES = 16  # of an Arrow Table, whose text is encoded together


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
    given = rows if isinstance(rows, pa.RecordBatch | pa.Table) else as_batch(rows, features.raw.schema, encoded=True)
    parts = map(features.apply, _batches(given, features.raw.schema))
    if given is rows:
        return pa.concat_tables([as_table(part, features.infos) for part in parts])
    return _as_arrays(parts, features.infos, given.num_rows)


def _batches(given: pa.RecordBatch | pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The columns of `schema`, by batches that fit in the processor's caches, as those of runs do."""
    span_rows = SPAN_BATCHES * BATCH_ROWS
    for begin in range(0, max(1, given.num_rows), span_rows):
        span = as_batch(given.slice(begin, span_rows), schema, encoded=True)
        for start in range(0, max(1, span.num_rows), BATCH_ROWS):
            yield span.slice(start, BATCH_ROWS)


def _as_arrays(parts: Iterable[Rows], infos: Sequence[FeatureInfo], count: int) -> dict[str, Array]:
    """The features of `count` rows in the dtypes that a loader yields; numbers are written where they stay."""
    fixed = [info for info in infos if columns.is_fixed(info)]
    made = {info.name: np.empty((count, *(size or 0 for size in info.shape)), info.dtype) for info in fixed}
    others: list[Rows] = []
    begin = 0
    for part in parts:
        stop = begin + columns.row_count(part)
        for name, values in made.items():
            values[begin:stop] = part[name]
        others.append({name: values for name, values in part.items() if name not in made})
        begin = stop
    joined = columns.join(others)
    return {info.name: made[info.name] if info.name in made else _objects(joined[info.name], info) for info in infos}


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
    nothing = features.raw.schema.empty_table()
    meta = _as_frame(as_table(features.apply(as_batch(nothing, features.raw.schema)), features.infos))
    given = (os.fspath(path), storage, allowed_estimators())
    return frame.map_partitions(_partition, *given, meta=meta, enforce_metadata=False)


def _partition(frame: Any, path: str, storage: Mapping[str, Any] | None, estimators: tuple[str, ...]) -> Any:
    allow_estimators(*estimators)
    features = open_features(path, storage)
    table = as_table(features.apply(as_batch(frame, features.raw.schema)), features.infos)
    return _as_frame(table).set_axis(frame.index)


def _as_frame(table: pa.Table) -> Any:
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype)
