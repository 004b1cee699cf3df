"""Loading with Grain from ArrayRecord, shuffled over all rows: grain_load.py FOLDER BATCH...

The rows of the folder's Parquet files are written to an ArrayRecord file first, a row a record: its 13 float32 and 27
int64 side by side. The records of a batch are read and decoded together: one tf.train.Example at a time is far slower,
and so is Grain's own way of reading one record after the other (some thousand rows a second). The first epoch warms
up; the second is timed. Batches are NumPy arrays by column; nothing is handed to TensorFlow.
"""

import json
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import grain
import numpy as np
import pyarrow.parquet as pq
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter


def written(folder: str, target: Path) -> np.dtype:
    """Write the rows as records; returns the dtype of one."""
    table = pq.read_table(folder)
    row = np.dtype([(name, table.schema.field(name).type.to_pandas_dtype()) for name in table.column_names])
    records = np.empty(len(table), row)
    for name in table.column_names:
        records[name] = table.column(name).to_numpy()
    writer = ArrayRecordWriter(str(target), "group_size:1,uncompressed")
    for record in records:
        writer.write(record.tobytes())
    writer.close()
    return row


def fetch(source: ArrayRecordDataSource, row: np.dtype, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """The records of these numbers as arrays by column: read together, joined once, parted into columns once."""
    rows = np.frombuffer(b"".join(source.__getitems__(numbers.tolist())), row)
    return {name: np.ascontiguousarray(rows[name]) for name in row.names or ()}


def epoch(data: grain.IterDataset) -> int:
    """Go through all batches; returns the rows."""
    return sum(len(features["label"]) for features in data)


def main() -> None:
    """Measure each batch size, print."""
    folder, *batches = sys.argv[1:]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "rows.array_record"
        row = written(folder, target)
        source = ArrayRecordDataSource(str(target))
        for batch in batches:
            numbers = grain.MapDataset.range(len(source)).shuffle(seed=0).batch(int(batch))
            data = numbers.map(partial(fetch, source, row))
            data = data.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=16))
            epoch(data)
            start = time.perf_counter()
            rows = epoch(data)
            found[batch] = [rows, time.perf_counter() - start]
    print(json.dumps({"version": version("grain"), "ways": {"from ArrayRecord": found}}))


main()
