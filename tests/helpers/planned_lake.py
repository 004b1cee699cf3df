"""Parquet files in a folder, and the scan of them as one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.listing.partitions import partition_schema
from dtap_dask.lake.parquet.footers import Footer, read_footer
from dtap_dask.lake.pruning import prune_files, prune_groups
from dtap_dask.lake.scan import ScanSpec, ScanTask
from dtap_dask.lake.split import SplitSpec
from dtap_dask.lake.sql.expression import compile_sql

THIRDS = SplitSpec(("train", "eval", "test"), (0.8, 0.1, 0.1), (), None, "train")


class Lake:
    """A folder of Parquet files, planned as one task."""

    def __init__(self, root: Path, where: str | None = None, columns: Sequence[str] | None = None):
        self.store, self.files = list_source([str(root)], {})
        self.partitions = partition_schema(self.files)
        self.schema = read_footer(self.store, self.files[0], columns).schema
        self.where = where
        every = pa.schema([*self.schema, *self.partitions])
        self.condition = compile_sql(where, every) if where else None

    def footers(self, files: Sequence[Any]) -> list[Footer]:
        """The footers of some of the files, with the statistics that the condition needs."""
        looked_at = sorted(self.condition.columns) if self.condition else []
        return [read_footer(self.store, file, self.schema.names, looked_at) for file in files]

    def task(self, prune: bool = False) -> ScanTask:
        """All row groups, or those that the condition leaves by their statistics."""
        if not prune:
            return ScanTask(0, tuple(group for footer in self.footers(self.files) for group in footer.groups))
        footers = self.footers(prune_files(self.files, self.partitions, self.condition))
        kept = (prune_groups(footer, self.partitions, self.condition) for footer in footers)
        return ScanTask(0, tuple(group for groups in kept for group in groups))

    def spec(self, **changes: Any) -> ScanSpec:
        """A scan of all columns."""
        fields: dict[str, Any] = {"derive": (), "sample": None, "split": None}
        fields["outputs"] = (*self.schema.names, *self.partitions.names)
        return ScanSpec(self.schema, self.partitions, self.where, **{**fields, **changes})


def write(path: Path, table: pa.Table, **options: Any) -> None:
    """A Parquet file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
