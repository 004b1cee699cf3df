"""The source and the batches that the arguments of `load` and `batches` name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dtap_dask.loading.choice.selection import selection_of
from dtap_dask.loading.dataset import open_split
from dtap_dask.loading.order.epoch_order import group_size
from dtap_dask.loading.reading.options import BatchOptions, batch_options, checked
from dtap_dask.loading.reading.source import RowSource
from dtap_dask.loading.shards.files import staged_bytes
from dtap_dask.records.memory import keep_freed_memory
from dtap_dask.storage import local_copies
from dtap_dask.words import count


def open_loader(
    path: str | os.PathLike[str],
    split: str,
    batch_size: Any,
    shuffle: bool | None,
    seed: Any,
    *,
    readers: Any,
    storage: Mapping[str, Any] | None,
    skip: Any = 0,
    take: Any = None,
    where: Any = None,
    resample: Any = None,
    class_weights: Any = None,
    **batch: Any,
) -> tuple[RowSource, BatchOptions]:
    """The source and the batches for the arguments of `load` and `batches`, whose errors these are.

    `batch`: the arguments of `batch_options`.
    """
    size, number, reader = checked(batch_size, seed, readers, shuffle)
    keep_freed_memory()
    whole = open_split(path, split, storage)
    options = batch_options(whole, reader, size, class_weighted=class_weights is not None, **batch)
    selection = selection_of(
        whole,
        options.skips * reader.count,
        skip=skip,
        take=take,
        where=where,
        resample=resample,
        class_weights=class_weights,
    )
    found = selection.split
    cache = local_copies.cache(storage or {}) if not found.paths else None
    source = RowSource(found, number, found.fitted if shuffle is None else shuffle, reader, cache, selection)
    if cache is not None:
        least, _ = staged_bytes(found, source.shuffle)
        together = count(min(group_size(found, source.shuffle), len(found.shards)), "shard")
        cache.check_fits(least, f"the {together} of {found.store.url} read at the same time")
    return source, options
