"""tfx_bsl's C++ encoder on one core: tfx_bsl_encode.py PARQUET ROUNDS

Rows of the Parquet file to serialized Examples, without the TFRecord framing and its checksums; the seconds
are the processor's.
"""

import json
import os
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tfx_bsl
from tfx_bsl.coders import example_coder

BATCH = 4096


def lists(column: pa.ChunkedArray) -> pa.ListArray:
    """One value a row as a list of it, the form that the encoder takes."""
    values = column.combine_chunks()
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), values)


def main() -> None:
    """Read, warm up, measure, print."""
    path, rounds = sys.argv[1:]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = pq.read_table(path)
    columns = {name: lists(table.column(name)) for name in table.column_names}
    batches = pa.Table.from_pydict(columns).to_batches(max_chunksize=BATCH)
    coder = example_coder.RecordBatchToExamplesEncoder()
    coder.encode(batches[0])
    seconds = []
    for _ in range(int(rounds)):
        start = time.process_time()
        size = sum(sum(map(len, coder.encode(batch))) for batch in batches)
        seconds.append(time.process_time() - start)
    print(json.dumps({"version": tfx_bsl.__version__, "rows": len(table), "bytes": size, "seconds": seconds}))


main()
