"""What a condition allows to skip unread: files by their partition values, row groups by their statistics."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.listing.partitions import partition_scalar
from dtap_dask.lake.parquet.footers import Footer
from dtap_dask.lake.parquet.row_group import RowGroups
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.lake.sql.expression import Expression


def partition_stats(values: Sequence[str | None], partitions: pa.Schema, rows: int = 1) -> dict[str, ColumnStats]:
    """The raw partition values of one file (in the order of `partitions`) as statistics of constant columns."""
    stats = {}
    for value, field in zip(values, partitions, strict=True):
        scalar = partition_scalar(value, field.type)
        known = scalar if scalar.is_valid else None
        nulls = 0 if scalar.is_valid else rows
        stats[field.name] = ColumnStats(min=known, max=known, null_count=nulls, rows=rows, exact=True)
    return stats


def prune_files(files: Sequence[SourceFile], partitions: pa.Schema, where: Expression | None) -> list[SourceFile]:
    """The files in which, by their partition values, some row may satisfy `where`; no file is opened."""
    if where is None or not len(partitions):
        return list(files)
    verdicts: dict[tuple[str | None, ...], bool] = {}
    kept = []
    for file in files:
        values = tuple(value for _, value in file.partition)
        if values not in verdicts:
            verdicts[values] = where.may_match(partition_stats(values, partitions))
        if verdicts[values]:
            kept.append(file)
    return kept


def prune_groups(footer: Footer, partitions: pa.Schema, where: Expression | None) -> RowGroups:
    """The row groups of a file in which some row may satisfy `where`; those without rows are dropped."""
    kept = footer.groups.rows > 0
    if where is not None and len(footer.groups):
        values = footer.groups[0].partition
        by_rows: dict[int, dict[str, ColumnStats]] = {}
        for index, (stats, rows) in enumerate(zip(footer.stats, footer.groups.rows.tolist(), strict=True)):
            if rows not in by_rows:
                by_rows[rows] = partition_stats(values, partitions, rows)
            kept[index] = rows > 0 and where.may_match({**stats, **by_rows[rows]})
    return footer.groups.take(kept)
