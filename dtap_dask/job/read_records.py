"""`dtap_dask.read_records`: the rows of a finished dataset as an Arrow table or a Dask DataFrame."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import pyarrow as pa

from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import DatasetSplit, open_split
from dtap_dask.loading.table import chosen, empty_table, shard_table
from dtap_dask.storage import local_copies

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd


@overload
def read_records(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    columns: str | Sequence[str] | None = None,
    as_dask: Literal[False] = False,
    storage: Mapping[str, Any] | None = None,
) -> pa.Table: ...
@overload
def read_records(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    columns: str | Sequence[str] | None = None,
    as_dask: Literal[True],
    storage: Mapping[str, Any] | None = None,
) -> dd.DataFrame: ...
def read_records(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    columns: str | Sequence[str] | None = None,
    as_dask: bool = False,
    storage: Mapping[str, Any] | None = None,
) -> pa.Table | dd.DataFrame:
    """The rows of one split of the dataset at `path`, in the order of the manifest, as an Arrow table.

    Columns are those of all roles, features, label, weight and kept ones, in the order of the manifest, or those that
    `columns` names, in that order. They have the dtypes that `load` delivers: vectors and tensors are lists of a fixed
    size, text is large_binary, a boolean label stays boolean. The table has one chunk for each shard.

    With `as_dask=True` it is a lazy Dask DataFrame of Arrow-backed columns: one partition for each shard, read where
    the partition is computed. Only this imports Dask.

    A dataset on a local filesystem or a mount is read in place; shards of any other are fetched to the cache of
    `storage` first, each checked by its CRC. The checksums of every record are verified.

    Raises JobError for a split or column that is not there, DataError for a split without rows, OutputError for a
    dataset that is not finished or is damaged, StorageError for one that cannot be reached; with `as_dask`, the last
    two also where a partition is computed.
    """
    found = open_split(path, split, storage)
    infos = chosen(found, columns)
    if as_dask:
        return _as_dask(found, infos, storage)
    cache = None if found.paths else local_copies.cache(storage or {})
    return pa.concat_tables([shard_table(found, number, infos, cache) for number in range(len(found.shards))])


def _as_dask(split: DatasetSplit, infos: Sequence[FeatureInfo], storage: Mapping[str, Any] | None) -> dd.DataFrame:
    import dask.dataframe as dd

    parts = [
        dataclasses.replace(split, shards=(shard,), paths=split.paths[number : number + 1])
        for number, shard in enumerate(split.shards)
    ]
    meta = _frame(empty_table(infos))
    options = {"infos": infos, "storage": storage}
    return dd.from_map(_partition, parts, **options, meta=meta, label="records", enforce_metadata=False)


def _partition(part: DatasetSplit, infos: Sequence[FeatureInfo], storage: Mapping[str, Any] | None) -> pd.DataFrame:
    return _frame(shard_table(part, 0, infos, None if part.paths else local_copies.cache(storage or {})))


def _frame(table: pa.Table) -> pd.DataFrame:
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame
