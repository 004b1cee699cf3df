"""Loading with MosaicML Streaming from MDS, shuffled anew each epoch: mosaic_load.py FOLDER BATCH...

Up to 400,000 rows of the folder's Parquet files are written to MDS first, a row a sample of one column: the bytes of
its 13 float32 and of its 27 int64. A StreamingDataset, which has the batch size as its documentation asks for, reads
one sample after the other. Their bytes are joined once a batch and viewed by column: with a column of MDS for each
feature it takes several times as long. The PyTorch DataLoader runs it in this process and in two workers; the better of
the two counts. Batches are tensors by column. The first epoch warms up; the second is timed, with the workers of the
first.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

ROWS = 400_000
WORKERS = (0, 2)
DTYPES = ("float32", "int64")


@dataclass(frozen=True)
class Rows:
    """Which columns lie side by side in each part of a record, and the dtype of a record."""

    names: dict[str, list[str]]
    record: np.dtype

    def joined(self, samples: list[dict[str, bytes]]) -> dict[str, torch.Tensor]:
        """The batch of these samples, as views of a matrix for each part: workers send two tensors instead of forty."""
        records = np.frombuffer(b"".join([sample["row"] for sample in samples]), self.record)
        parts = {key: torch.from_numpy(np.ascontiguousarray(records[key])) for key in self.names}
        return {name: parts[key][:, place] for key, names in self.names.items() for place, name in enumerate(names)}


def written(table: pa.Table, target: str) -> Rows:
    """Write the rows as samples."""
    types = {field.name: np.dtype(field.type.to_pandas_dtype()).name for field in table.schema}
    names = {key: [name for name, of in types.items() if of == key] for key in DTYPES}
    rows = Rows(names, np.dtype([(key, key, len(of)) for key, of in names.items()]))
    records = np.empty(len(table), rows.record)
    for key, of in names.items():
        records[key] = np.stack([table[name].to_numpy() for name in of], axis=1)
    with MDSWriter(out=target, columns={"row": "bytes"}) as writer:
        for record in records:
            writer.write({"row": record.tobytes()})
    return rows


def epoch(data: DataLoader) -> tuple[int, int]:
    """Go through all batches; returns the rows and the sum of the labels."""
    rows = labels = 0
    for features in data:
        rows += len(features["label"])
        labels += int(features["label"].sum())
    return rows, labels


def seconds(folder: str, rows: Rows, batch: int, workers: int, wanted: tuple[int, int]) -> float:
    """How long the second epoch takes; both must give the rows and labels that were written."""
    dataset = StreamingDataset(local=folder, shuffle=True, batch_size=batch)
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    data = DataLoader(dataset, batch_size=batch, collate_fn=rows.joined, **options)
    for _ in range(2):
        start = time.perf_counter()
        found = epoch(data)
        took = time.perf_counter() - start
        if found != wanted:
            raise ValueError(f"Rows and sum of labels are {found}, not {wanted}.")
    return took


def main() -> None:
    """Measure each batch size, print."""
    folder, *batches = sys.argv[1:]
    found = {}
    table = pq.read_table(folder).slice(0, ROWS)
    wanted = len(table), int(table["label"].to_numpy().sum())
    with tempfile.TemporaryDirectory() as scratch:
        rows = written(table, scratch)
        for batch in batches:
            each = [seconds(scratch, rows, int(batch), workers, wanted) for workers in WORKERS]
            found[batch] = [len(table), min(each)]
    print(json.dumps({"version": version("mosaicml-streaming"), "ways": {"from MDS": found}}))


main()
