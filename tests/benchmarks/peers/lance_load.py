"""Loading with LanceDB from a table of its own, shuffled anew each epoch: lance_load.py FOLDER BATCH...

The rows of the folder's Parquet files are written to a Lance table first, as two columns of vectors, the numbers and
the ids: with a column for each feature, every row of a shuffled order is read in forty places, and loading takes 1.5 to
4 times as long.

Three ways, each in one process with the tool's own threads, as its documentation shows them. A Permutation in a random
order of rows, and one in a random order of clumps of 64 neighbours, are read 16,384 rows at once and cut into batches.
A StreamingDataset under its StreamingDataLoader hands over one row after the other, here as bytes that are joined once
a batch: its Python dicts are far slower. Batches are tensors by column. The first epoch warms up; the second is timed,
the making of its order included.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lancedb.permutation import Permutation, permutation_builder
from lancedb.streaming import StreamingDataLoader, StreamingDataset

READ_ROWS = 16_384
CLUMP = 64
VECTORS = {"numbers": pa.float32(), "ids": pa.int64()}

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Rows:
    """A Lance table of one vector column for each dtype, and which columns lie side by side in each."""

    table: lancedb.table.Table
    names: dict[str, list[str]]

    def matrices(self, batch: pa.RecordBatch) -> list[np.ndarray]:
        """The vectors of a batch, [rows, columns] of each dtype; without a copy."""
        return [batch[key].flatten().to_numpy().reshape(len(batch), -1) for key in self.names]

    def columns(self, matrices: list[np.ndarray]) -> Batch:
        """Views of the matrices by column."""
        parts = zip(self.names.values(), matrices, strict=True)
        return {
            name: column
            for names, part in parts
            for name, column in zip(names, torch.from_numpy(part).unbind(1), strict=True)
        }

    def permuted(self, batch: int, epoch: int, clump: int | None) -> Iterator[Batch]:
        """Batches in the order of a Permutation, several read together."""
        order = permutation_builder(self.table).shuffle(seed=epoch, clump_size=clump).execute()
        data = Permutation.from_tables(self.table, order).with_transform(self.matrices)
        for matrices in data.iter(max(READ_ROWS // batch, 1) * batch):
            for start in range(0, len(matrices[0]), batch):
                yield self.columns([part[start : start + batch] for part in matrices])

    def streamed(self, batch: int, epoch: int) -> Iterator[Batch]:
        """Batches of a StreamingDataset, a batch in each read."""
        data = StreamingDataset(self.table, epoch=epoch, read_batch_size=batch, transform=self.apart)
        return iter(StreamingDataLoader(data, batch_size=batch, collate_fn=self.joined))

    def apart(self, batch: pa.RecordBatch) -> list[tuple[bytes, ...]]:
        """The rows, each as the bytes of its vectors."""
        return list(
            zip(*(part.view(f"V{part[0].nbytes}")[:, 0].tolist() for part in self.matrices(batch)), strict=True)
        )

    def joined(self, rows: list[tuple[bytes, ...]]) -> Batch:
        """The batch of such rows."""
        parts = zip(VECTORS.values(), zip(*rows, strict=True), strict=True)
        flat = [np.frombuffer(bytearray().join(part), dtype.to_pandas_dtype()) for dtype, part in parts]
        return self.columns([part.reshape(len(rows), -1) for part in flat])


def written(table: pa.Table, folder: str) -> Rows:
    """Write the rows to a Lance table in the folder."""
    names = {key: [field.name for field in table.schema if field.type == dtype] for key, dtype in VECTORS.items()}
    vectors = {key: np.stack([table[name].to_numpy() for name in names[key]], axis=1) for key in names}
    arrays = {key: pa.FixedSizeListArray.from_arrays(pa.array(of.ravel()), of.shape[1]) for key, of in vectors.items()}
    return Rows(lancedb.connect(folder).create_table("rows", pa.table(arrays)), names)


def epoch(batches: Iterator[Batch]) -> tuple[int, int]:
    """Go through all batches; returns the rows and the sum of the labels."""
    rows = labels = 0
    for features in batches:
        rows += len(features["label"])
        labels += int(features["label"].sum())
    return rows, labels


def seconds(way: Callable[..., Iterator[Batch]], batch: int, wanted: tuple[int, int]) -> float:
    """How long the second epoch takes; both must give the rows and labels that were written."""
    for number in range(2):
        start = time.perf_counter()
        found = epoch(way(batch, number))
        took = time.perf_counter() - start
        if found != wanted:
            raise ValueError(f"Rows and sum of labels are {found}, not {wanted}.")
    return took


def main() -> None:
    """Measure each way and batch size, print."""
    folder, *batches = sys.argv[1:]
    table = pq.read_table(folder)
    wanted = len(table), int(table["label"].to_numpy().sum())
    with tempfile.TemporaryDirectory() as scratch:
        rows = written(table, scratch)
        ways = {
            "Permutation of rows": partial(rows.permuted, clump=None),
            f"Permutation of clumps of {CLUMP}": partial(rows.permuted, clump=CLUMP),
            "StreamingDataset": rows.streamed,
        }
        found = {
            name: {batch: [wanted[0], seconds(way, int(batch), wanted)] for batch in batches}
            for name, way in ways.items()
        }
    print(json.dumps({"version": version("lancedb"), "ways": found}))


main()
