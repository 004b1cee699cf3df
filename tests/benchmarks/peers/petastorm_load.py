"""Loading with Petastorm's make_batch_reader into tf.data, shuffled: petastorm_load.py FOLDER BATCH...

The first epoch warms up; the second is timed.
"""

import json
import sys
import time
from importlib.metadata import version

from petastorm import make_batch_reader
from petastorm.tf_utils import make_petastorm_dataset

SHUFFLE_ROWS = 65_536


def epoch(folder: str, batch: int) -> int:
    """Go through all batches of tensors by column; returns the rows."""
    with make_batch_reader(f"file://{folder}", num_epochs=1, workers_count=2, shuffle_row_groups=True) as reader:
        data = make_petastorm_dataset(reader).unbatch().shuffle(SHUFFLE_ROWS).batch(batch)
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
    print(json.dumps({"version": version("petastorm"), "batches": found}))


main()
