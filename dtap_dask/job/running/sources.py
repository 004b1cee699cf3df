"""What was read: totals for the manifest, and every source file and row group in sources.parquet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.job.planning.plan import Plan
from dtap_dask.records.manifest import Amounts, SourceTotals
from dtap_dask.storage import Store


def source_totals(plan: Plan) -> SourceTotals:
    """The source in numbers. Row groups, rows and bytes (of the needed columns, compressed) are those of files that
    were not pruned by their folders."""
    found, folders, read = plan.totals.found, plan.totals.partitions, plan.totals.read
    return SourceTotals(
        files=Amounts(found=found.files, pruned=found.files - read.files, read=read.files),
        row_groups=Amounts(found=found.row_groups, pruned=found.row_groups - read.row_groups, read=read.row_groups),
        rows=Amounts(found=found.rows, pruned=found.rows - read.rows, read=read.rows),
        bytes=Amounts(found=folders.bytes, pruned=folders.bytes - read.bytes, read=read.bytes),
    )


def write_sources(store: Store, path: str, plan: Plan) -> None:
    """sources.parquet: a row for each row group read: file, file_size, row_group, rows, first_row, bytes (compressed,
    of the needed columns), and the raw values of the partition folders."""
    groups = plan.groups
    files, place = groups.files, pa.array(groups.column("file"))
    partitions = [[value for _, value in file.partition] for file in files]
    table = pa.table(
        {
            "file": pa.array([file.path for file in files], pa.string()).take(place),
            "file_size": pa.array([file.size for file in files], pa.int64()).take(place),
            "row_group": pa.array(groups.column("index").astype(np.int32)),
            "rows": pa.array(groups.rows),
            "first_row": pa.array(groups.column("first_row")),
            "bytes": pa.array(groups.bytes),
            "partition": pa.array(partitions, pa.list_(pa.string())).take(place),
        }
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    with store.create(path) as file:
        file.write(buffer.getvalue())
