"""Rows by their numbers as a map-style dataset, for PyTorch's samplers."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.order.runs import RowNumbers
from dtap_dask.loading.order.sharing import integer
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.row_reader import RowReader
from dtap_dask.records.memory import keep_freed_memory
from dtap_dask.storage.cache import Cache
from dtap_dask.train.pytorch.tensors import separated, tensors_of


class TorchRows(Dataset):  # type: ignore[misc]
    """The rows of one split by their numbers, 0 to `len()` - 1 in the order of the manifest; -1 is the last one.

    `rows[7]` is a row, `rows[[7, 3]]` a batch of these rows, in that order. IndexError for a number that is no row's,
    TypeError for what is no number.
    """

    def __init__(self, split: DatasetSplit, options: BatchOptions, cache: Cache | None):
        self._split, self._options, self._cache = split, options, cache
        self._reader: tuple[int, RowReader] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}

    @property
    def vectors(self) -> dict[str, list[str]]:
        """With `as_vectors` the features of each matrix, in the order of its columns."""
        return self._options.names

    def __len__(self) -> int:
        return self._split.rows

    def __getitem__(self, row: int | Sequence[int] | npt.NDArray[np.integer[Any]]) -> Any:
        number = integer(row)
        if number is None:
            return self._batch(self._numbers(row))
        return self.__getitems__([number])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        """Several rows, read together; a DataLoader with a `batch_size` uses this."""
        numbers = self._numbers(rows)
        return separated(self._batch(numbers), len(numbers))

    def _numbers(self, rows: Any) -> RowNumbers:
        found = np.asarray(rows)
        if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
            raise TypeError(f"{rows!r} is neither the number of a row nor a list of them")
        numbers = found.astype(np.int64)
        wrong = (numbers < -len(self)) | (numbers >= len(self))
        if wrong.any():
            raise IndexError(f"there is no row {numbers[wrong][0]:,}; the split {self._split.name!r} has {len(self):,}")
        return np.where(numbers < 0, numbers + len(self), numbers)

    def _batch(self, rows: RowNumbers) -> Any:
        return tensors_of(self._own().batch(rows), self._options.kept)

    def _own(self) -> RowReader:
        """The reader of this process, whose files a forked one must not use."""
        process = os.getpid()
        if self._reader is None or self._reader[0] != process:
            keep_freed_memory()
            split = replace(self._split, store=copy.copy(self._split.store))
            self._reader = process, RowReader(split, self._options, self._cache)
        return self._reader[1]
