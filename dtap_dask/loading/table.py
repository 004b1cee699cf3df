"""The shards of a finished dataset as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dtap_dask.errors import JobError, Problem, did_you_mean
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import DatasetSplit, names_in
from dtap_dask.loading.shards.decode import zeros_of
from dtap_dask.loading.shards.files import open_shard
from dtap_dask.records.example import decode_records
from dtap_dask.records.tables import as_table
from dtap_dask.storage.cache import Cache


def chosen(split: DatasetSplit, columns: str | Sequence[str] | None) -> tuple[FeatureInfo, ...]:
    """The named columns of any role in that order, by default all. JobError, with every problem, for wrong names."""
    known = {info.name: info for info in split.infos}
    if columns is None:
        return split.infos
    names = [columns] if isinstance(columns, str) else names_in("columns", columns, [*known][:2])
    problems = [
        Problem("columns", f"the dataset has no column {name!r}.{did_you_mean(name, known)}")
        for name in dict.fromkeys(names)
        if name not in known
    ]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [Problem("columns", f"{name!r} is named twice") for name in twice]
    if problems:
        raise JobError(problems)
    return tuple(known[name] for name in names)


def shard_table(split: DatasetSplit, shard: int, infos: Sequence[FeatureInfo], cache: Cache | None) -> pa.Table:
    """The rows of a shard, in order. OutputError where it is damaged, StorageError where it cannot be fetched."""
    payloads = open_shard(split, shard, cache).read(0, split.shards[shard].records).payloads()
    return as_table(decode_records(split.infos, split.layout, [payload.tobytes() for payload in payloads]), infos)


def empty_table(infos: Sequence[FeatureInfo]) -> pa.Table:
    """A table of these columns without rows."""
    return as_table(zeros_of(infos, 0), infos)
