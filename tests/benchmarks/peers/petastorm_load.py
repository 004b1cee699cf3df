"""Loading with Petastorm's make_batch_reader into tf.data, shuffled: petastorm_load.py FOLDER BATCH...

Row groups come in random order and their rows are shuffled, then cut into batches: the usual
unbatch().shuffle().batch() is far slower. The first epoch warms up; the second is timed.
"""

import json
import sys
import time
from importlib.metadata import version

from petastorm import make_batch_reader
from petastorm.tf_utils import make_petastorm_dataset


def epoch(folder: str, batch: int) -> int:
    """Go through all batches of tensors by column; returns the rows."""
    with make_batch_reader(f"file://{folder}", num_epochs=1, workers_count=2, shuffle_rows=True) as reader:
        data = make_petastorm_dataset(reader).rebatch(batch)
        return sum(int(features.label.shape[0]) for features in data)


def main() -> None:
    """Measure each batch size, print."""
    folder, *batches = sys.argv[1:]
    found = {}
    for batch in batches:
        epoch(folder, int(batch))
        start = time.perf_counter()
        rows = epoch(folder, int(batch))
        found[batch] = [rows, time.perf_counter() - start]
    print(json.dumps({"version": version("petastorm"), "ways": {"from Parquet": found}}))


main()
