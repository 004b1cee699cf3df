"""The transformed rows as Parquet, from which the other tools load and encode the numbers that we do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import dtap_dask

FILES = 8


def write(dataset: Path, folder: Path) -> Path:
    """Write all rows of a dataset of ours as files of one row group, columns in the dtypes that it loads as."""
    batches = [
        {**{name: column.numpy() for name, column in features.items()}, "label": label.numpy()}
        for features, label in dtap_dask.load(dataset, split="train", batch_size=4096, shuffle=False)
    ]
    table = pa.table({name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]})
    folder.mkdir()
    each = -(-len(table) // FILES)
    for number, start in enumerate(range(0, len(table), each)):
        pq.write_table(table.slice(start, each), folder / f"part-{number:05d}.parquet")
    return folder
