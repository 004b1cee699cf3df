"""One pass over the columns that a selection depends on, which counts its rows by run and class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.loading.choice.conditions import scalar_column
from dtap_dask.loading.choice.labels import MOST_CLASSES, as_classes, without_negative_zero
from dtap_dask.loading.choice.rows import RowChoice, RunCounts
from dtap_dask.loading.order.epoch_order import EpochOrder
from dtap_dask.loading.order.runs import RowNumbers
from dtap_dask.loading.reading.epoch import FilesOf, SpansPass
from dtap_dask.loading.shards.damage import Repair

THREADS = 4  # that read and decode, if there are as many processors


class _Counted(NamedTuple):
    """The rows of some runs: `rows[i]` of run `runs[i]` have the value `values[classes[i]]`."""

    runs: RowNumbers
    classes: RowNumbers
    rows: RowNumbers
    values: list[Any]


def counted(choice: RowChoice, files: FilesOf, repair: Repair) -> RunCounts:
    """The counts of a choice without them. DataError where the label has no classes, DamagedError as when reading."""
    selection, runs = choice.selection, choice.runs
    order = EpochOrder(selection.split, runs, None, choice.in_range)
    read = SpansPass(selection.split, runs, order, [(0, selection.split.rows)], files, repair=repair)
    try:
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), thread_name_prefix="dtap_dask counting") as pool:
            parts = list(pool.map(lambda piece: _of_window(choice, read, piece), range(len(read))))
    finally:
        read.close()
    return _together(choice, parts)


def _of_window(choice: RowChoice, read: SpansPass, piece: int) -> _Counted:
    selection = choice.selection
    assert selection.decoder is not None
    window, lost, packed = read.decoded_window(piece, selection.decoder)
    among = choice.among(window, selection.decoder, packed, lost)
    run = np.repeat(np.arange(len(window.runs)), choice.runs.rows[window.runs])[among]
    values, classes = [None], np.zeros(len(run), np.int64)
    if selection.counts_classes:
        assert selection.label is not None
        label = without_negative_zero(scalar_column(selection.decoder, packed, selection.label))
        found = label.filter(pa.array(among)).dictionary_encode()
        if pa.types.is_floating(label.type) and pc.any(pc.is_nan(found.dictionary)).as_py():
            raise DataError(_NAN.format(name=selection.label.name))
        values, classes = found.dictionary.to_pylist(), found.indices.to_numpy().astype(np.int64)
        _refuse_many(selection.label.name, values)
    rows = np.bincount(run * max(1, len(values)) + classes)
    some = np.flatnonzero(rows)
    return _Counted(window.runs[some // max(1, len(values))], some % max(1, len(values)), rows[some], values)


def _together(choice: RowChoice, parts: Sequence[_Counted]) -> RunCounts:
    selection, numbers = choice.selection, dict[Any, int]()
    if selection.counts_classes:
        values = sorted({value for part in parts for value in part.values})
        _refuse_many("" if selection.label is None else selection.label.name, values)
        numbers = {value: number for number, value in enumerate(values)}
    runs = np.concatenate([part.runs for part in parts])
    classes = np.concatenate(
        [np.array([numbers.get(value, 0) for value in part.values], np.int64)[part.classes] for part in parts]
    )
    rows = np.concatenate([part.rows for part in parts])
    order = np.lexsort((classes, runs))
    first = offsets_of(np.bincount(runs, minlength=len(choice.runs.rows)))
    kinds = as_classes(selection.label, [*numbers]) if selection.counts_classes and selection.label else None
    return RunCounts(first, classes[order], rows[order].astype(np.int64), kinds)


def _refuse_many(name: str, values: Sequence[Any]) -> None:
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"The label {name!r} has more than {MOST_CLASSES:,} values, so that rows have no classes to resample or to "
            "weigh. Choose rows with `where`."
        )


_NAN = "The label {name!r} is NaN in some rows, which then have no class. Leave them out with `where`."
