"""Loading with Ray Data's iter_tf_batches, shuffled: ray_load.py FOLDER BATCH...

From Parquet files, which it reads faster than TFRecords, and once more with everything held in its object store. The
first epoch warms up; the second is timed.
"""

import json
import sys
import time

import ray
import ray.data

SHUFFLE_ROWS = 65_536


def read(folder: str) -> ray.data.Dataset:
    """The rows, files in an order of their own each epoch."""
    return ray.data.read_parquet(folder, shuffle="files")


def epoch(data: ray.data.Dataset, batch: int) -> int:
    """Go through all batches of tensors by column; returns the rows."""
    rows = 0
    for features in data.iter_tf_batches(batch_size=batch, local_shuffle_buffer_size=SHUFFLE_ROWS, prefetch_batches=4):
        rows += features["label"].shape[0]
    return rows


def main() -> None:
    """Measure each batch size, print."""
    folder, *batches = sys.argv[1:]
    ray.init(num_cpus=2, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ways = {"from Parquet": read, "held in memory": lambda folder: read(folder).materialize()}
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for batch in batches:
        for way, dataset in ways.items():
            data = dataset(folder)
            epoch(data, int(batch))
            start = time.perf_counter()
            rows = epoch(data, int(batch))
            found[way][batch] = [rows, time.perf_counter() - start]
    print(json.dumps({"version": ray.__version__, "ways": found}))


main()
