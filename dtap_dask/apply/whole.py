"""Rows of any number through fitted features: by groups of columns, in batches."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from dtap_dask.apply.dataset import FeatureGroup, FittedFeatures
from dtap_dask.apply.rows import GivenRows
from dtap_dask.features import Rows
from dtap_dask.features.columns.column import Array
from dtap_dask.lake.scan import BATCH_ROWS
from dtap_dask.records import columns

PAGE_BYTES = 4096
Turn = AbstractContextManager[Any]


def features_of(rows: GivenRows, features: FittedFeatures, threads: int | None = None) -> Rows:
    """The features of rows; numbers in the dtypes of records or of a loader.

    Of more rows than a batch, those without common columns are computed on `threads` threads (Arrow's number of them
    by default), one group after another: what a batch of one group needs stays in the processor's caches, and little
    memory is needed besides the result's.
    """
    if rows.count <= BATCH_ROWS:
        return features.together.apply(rows.batch(features.raw.schema, encode=True))
    made: Rows = {
        info.name: np.empty((rows.count, *(size or 0 for size in info.shape)), info.dtype)
        for info in features.infos
        if columns.is_fixed(info)
    }  # here rather than in threads, whose memory the C library does not keep for the next call
    turn: Turn = Lock() if rows.are_objects else nullcontext()
    with ThreadPoolExecutor(threads or pa.cpu_count()) as pool:
        for others in pool.map(partial(_fill, made, rows, turn), features.apart):
            made |= others
    return made


def _fill(made: Mapping[str, Array], rows: GivenRows, turn: Turn, group: FeatureGroup) -> Rows:
    """Compute the features of a group: those of `made` are written there, the others returned.

    Reading objects needs Python's lock all the time, and computing needs it for many short moments. A thread that
    computes while another one reads would wait each time, so threads take turns at both. Encoding a column's words,
    which takes longest, does not need the lock, and goes on outside of turns.
    """
    others: list[Rows] = []
    begin = 0
    read = rows.read(group.raw.schema, turn)
    if rows.are_objects:
        for name in {info.name for info in group.infos} & set(made):
            _touch(made[name])
    with turn:
        for batch in read.batches(group.raw.schema, BATCH_ROWS):
            part = group.apply(batch)
            others.append({name: part.pop(name) for name in list(part) if name not in made})
            for name, values in part.items():
                made[name][begin : begin + batch.num_rows] = values
            begin += batch.num_rows
    return columns.join(others)


def _touch(values: Array) -> None:
    """Write to each page of an array, so that the system provides its memory before a turn rather than during it."""
    values.reshape(-1).view(np.uint8)[::PAGE_BYTES] = 0
