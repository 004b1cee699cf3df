"""Small Parquet files of a dataset, which are read whole."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq


def read_table(data: bytes) -> pa.Table:
    """The table of a Parquet file with this content, read in this thread. Raises what pyarrow raises.

    `pq.read_table` would read it by pyarrow's thread pools, which release its memory some time after it has returned.
    That takes Python's lock, and below 3.14 it aborts a process whose Python is just ending: exit status 134.
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
