"""Damaged records: an error, or, as many as are allowed, rows of padding in their place."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from dtap_dask.errors import DamagedError
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.loading.shards.decode import zeros_of
from dtap_dask.loading.shards.open_shard import RecordBytes
from dtap_dask.records.example import encoder_of


class SkippedRecords:
    """The number of damaged records that a loader has left out since it was made, in all epochs.

    `warned` is whether there was a warning of the first.
    """

    def __init__(self, *, warned: bool = False) -> None:
        self.count, self.warned = 0, warned
        self.lock = threading.Lock()


class Repair:
    """Records of zeros in place of damaged ones: at most `most` in one pass of a reader, 0 for none at all.

    `padded` is whether their rows become padding; else none of them is chosen.
    """

    def __init__(self, split: DatasetSplit, most: int, skipped: SkippedRecords, *, padded: bool = True):
        self._split, self._most, self._skipped, self._padded = split, most, skipped, padded
        self._found = set[tuple[int, int]]()

    def refuse(self, error: DamagedError) -> None:
        """Raise the error if no record may be damaged."""
        if not self._most:
            raise error

    def zeros(self, error: DamagedError, shard: int, record: int, rows: int) -> RecordBytes:
        """A record of that many rows of zeros. Counts the damaged one; DamagedError where no more are allowed."""
        self.refuse(error)
        with self._skipped.lock:
            new = (shard, record) not in self._found
            self._found.add((shard, record))
            if len(self._found) > self._most:
                raise DamagedError(
                    f"{error} (`on_bad_record` allows {self._most:,} damaged records in an epoch; this is one more.)"
                )
            first, self._skipped.warned = not self._skipped.warned, True
            self._skipped.count += new
        if first:
            become = ": they are padding of weight 0" if self._padded else ""
            warnings.warn(_SKIPPED.format(error=error, record=record, become=become, most=self._most), stacklevel=2)
        encoded = encoder_of(self._split.infos, self._split.layout).encode(zeros_of(self._split.infos, rows))
        return RecordBytes(np.frombuffer(encoded.data, np.uint8), offsets_of(encoded.lengths), lost=(0,))


def named(split: DatasetSplit, error: DamagedError, shard: int, record: int, found: RecordBytes) -> DamagedError:
    """The error of a record that was read, with its place."""
    name = f"{split.store.url}/{split.shards[shard].path}"
    return DamagedError(f"{name}, record {record:,}, at byte {found.begin:,}: {error}")


_SKIPPED = (
    "{error} Its rows (record {record:,}) are left out{become}, as are those of up to {most:,} damaged "
    "records in an epoch. `stats()` counts them."
)


def separate(records: RecordBytes) -> Iterator[RecordBytes]:
    """Each record by itself."""
    for number, (start, stop) in enumerate(itertools.pairwise(records.ends.tolist())):
        lost = (0,) if number in records.lost else ()
        yield RecordBytes(records.data[start:stop], np.array([0, stop - start]), records.begin + start, lost)


def together(records: Sequence[RecordBytes]) -> RecordBytes:
    """Single records one after the other."""
    lost = tuple(number for number, each in enumerate(records) if each.lost)
    ends = offsets_of([len(each.data) for each in records])
    return RecordBytes(np.concatenate([each.data for each in records]), ends, records[0].begin, lost)
