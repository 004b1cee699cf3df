"""Any rows of a dataset, by their numbers in the order of the manifest."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from dtap_dask.errors import DamagedError
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.batches import delivered
from dtap_dask.loading.columns import Unpacker
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.order.epoch_order import CYCLE, WINDOW_BYTES, WINDOW_ROWS
from dtap_dask.loading.order.runs import RowNumbers, runs_of
from dtap_dask.loading.reading.options import BatchOptions
from dtap_dask.loading.shards.damage import named, separate
from dtap_dask.loading.shards.decode import Decoder
from dtap_dask.loading.shards.files import open_shard
from dtap_dask.loading.shards.open_shard import RecordBytes
from dtap_dask.records import columns
from dtap_dask.storage.cache import Cache

DECODED = 2  # groups of records that stay decoded, for rows that are read one after the other


class RowReader:
    """Reads rows in batches: each record with a wanted row once, and its checksum is verified."""

    def __init__(self, split: DatasetSplit, options: BatchOptions, cache: Cache | None):
        self._split, self._options = split, options
        self._decoder = Decoder(split, options.dtypes.keys(), narrowed=options.narrowed)
        self._unpacker = Unpacker(self._decoder, options.dtypes, options.vectors)
        self._first = offsets_of([shard.records for shard in split.shards])
        # Of blocks a run is one record; otherwise a record is a row.
        self._starts = offsets_of(runs_of(split).rows) if split.layout.kind == "blocks" else None
        self._together = max(1, min(WINDOW_ROWS, WINDOW_BYTES * split.rows // (split.record_bytes * split.records)))
        self._opened = functools.lru_cache(2 * CYCLE)(functools.partial(open_shard, split, cache=cache))
        self._decoded = functools.lru_cache(DECODED)(self._decode)

    def batch(self, rows: RowNumbers) -> Any:
        """The rows of these numbers, int64 [n] from 0, in that order, in the structure of a batch.

        OutputError where a record is damaged or a shard is missing, StorageError where it cannot be fetched.
        """
        packed = self._packed(rows) if len(rows) else self._decoder.zeros(0)
        return delivered(self._unpacker, self._options, self._unpacker.fixed(self._decoder.checked(packed)))

    def _packed(self, rows: RowNumbers) -> Rows:
        records = rows if self._starts is None else np.searchsorted(self._starts, rows, "right") - 1
        within = 0 if self._starts is None else rows - self._starts[records]
        wanted, of_row = np.unique(records, return_inverse=True)
        starts = offsets_of(self._sizes(wanted))
        found, order = list[Rows](), list[RowNumbers]()
        for first, stop in itertools.pairwise(self._cuts(starts)):
            inside = np.flatnonzero((of_row >= first) & (of_row < stop))
            packed = self._decoded(tuple(wanted[first:stop].tolist()))
            found.append(columns.take(packed, (starts[of_row] + within)[inside] - starts[first]))
            order.append(inside)
        return found[0] if len(found) == 1 else columns.take(columns.join(found), np.argsort(np.concatenate(order)))

    def _sizes(self, records: RowNumbers) -> RowNumbers:
        """The number of rows in each of these records."""
        return np.ones_like(records) if self._starts is None else self._starts[records + 1] - self._starts[records]

    def _cuts(self, starts: RowNumbers) -> list[int]:
        """Where groups of records that are decoded together begin, and the end. `starts`: the records' first rows."""
        begins = np.searchsorted(starts[:-1], np.arange(0, starts[-1], self._together))
        return np.unique(np.append(begins, len(starts) - 1)).tolist()  # type: ignore[no-any-return]

    def _decode(self, records: tuple[int, ...]) -> Rows:
        """All rows of ascending records, packed. Neighbours are read at once."""
        numbers = np.array(records, np.int64)
        shards = np.searchsorted(self._first, numbers, "right") - 1
        gaps = (np.diff(numbers) != 1) | (np.diff(shards) != 0)
        parts = np.split(np.arange(len(numbers)), np.flatnonzero(gaps) + 1)
        read = [(int(shards[part[0]]), numbers[part] - self._first[shards[part[0]]]) for part in parts]
        found = [self._opened(shard).read(int(each[0]), int(each[-1]) + 1) for shard, each in read]
        try:
            return self._decoder.decode(found, int(self._sizes(numbers).sum()))
        except DamagedError:
            for (shard, each), several in zip(read, found, strict=True):
                for number, record in zip(each.tolist(), separate(several), strict=True):
                    self._check(shard, number, record)
            raise

    def _check(self, shard: int, number: int, record: RecordBytes) -> None:
        """DamagedError, which names it, for a record that does not hold the manifest's columns."""
        rows = int(self._sizes(self._first[[shard]] + number)[0])
        try:
            self._decoder.decode([record], rows)
        except DamagedError as error:
            raise named(self._split, error, shard, number, record) from error
