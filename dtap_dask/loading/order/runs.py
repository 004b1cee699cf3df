"""Where the rows of a split are: runs of consecutive records of a shard that are read together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dtap_dask.errors import OutputError
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.loading.dataset import DatasetSplit
from dtap_dask.records.blocks import rows_of
from dtap_dask.records.example import encoder_of
from dtap_dask.records.shard import ShardInfo, record_starts
from dtap_dask.records.tfrecord import read_heads

# The size of a run: a block, or this many rows of the layout `rows`, or of these bytes if that is less.
RUN_ROWS = 256
RUN_BYTES = 256 << 10
_COUNT_BYTES = 64  # of a block, which begins with the number of its rows

RowNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """The runs of all shards of a split, shard after shard, in the manifest's order.

    `rows` holds the rows of each run, int64 [runs]; the runs of shard s are numbered `first[s]` to `first[s + 1]` - 1.
    Each holds `records` records, but the last of a shard may hold fewer.
    """

    records: int
    first: RowNumbers
    rows: RowNumbers

    @cached_property
    def shard(self) -> RowNumbers:
        """The shard of each run, int64 [runs]."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def record_span(self, run: int, shard: ShardInfo) -> tuple[int, int]:
        """The records of a run of `shard`: the first, and the one after the last."""
        start = int(run - self.first[self.shard[run]]) * self.records
        return start, min(start + self.records, shard.records)


def runs_of(split: DatasetSplit) -> Runs:
    """The runs of a split.

    The number of rows in each record follows from the manifest, unless blocks were cut shorter because of long texts
    or lists. Then the beginning of each record of such a shard is read: OutputError where it is no block.
    """
    full = encoder_of(split.infos, split.layout).rows_per_record
    records = 1 if split.layout.kind == "blocks" else max(1, min(RUN_ROWS, RUN_BYTES // split.record_bytes))
    first = offsets_of([-(-shard.records // records) for shard in split.shards])
    rows = np.full(int(first[-1]), records * full, np.int64)
    for number, shard in enumerate(split.shards):
        start, stop = first[number], first[number + 1]
        if shard.records == -(-shard.rows // full):
            rows[stop - 1] = shard.rows - (stop - start - 1) * records * full
        else:
            rows[start:stop] = np.add.reduceat(_rows_of_records(split, shard), np.arange(0, shard.records, records))
    return Runs(records, first, rows)


def _rows_of_records(split: DatasetSplit, shard: ShardInfo) -> RowNumbers:
    """The rows of each record of a shard of blocks, from the beginning of each."""
    heads = read_heads(split.store, shard.path, split.layout.compression, record_starts(shard) or (), _COUNT_BYTES)
    try:
        rows = np.array([rows_of(head) for head in heads], np.int64)
        if rows.sum() != shard.rows:
            raise ValueError(f"{rows.sum():,} rows instead of {shard.rows:,}")
        return rows
    except ValueError as error:
        raise OutputError(
            f"{split.store.url}/{shard.path} does not hold blocks of rows, as its manifest states: {error}. Copy the "
            "dataset again, or write it again with `dtap-dask run JOB --overwrite`."
        ) from error
