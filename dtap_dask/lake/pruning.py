"""What a predicate lets us leave unread: files by their partition values, row groups by their statistics."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dtap_dask.lake.discover import SourceFile
from dtap_dask.lake.footers import Footer, RowGroup
from dtap_dask.lake.predicate import ColumnStats, Expression
from dtap_dask.lake.schema import partition_scalar


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
    """The files whose partition values do not rule out that a row makes `where` true; none is opened."""
    if where is None or not len(partitions):
        return list(files)
    answers: dict[tuple[str | None, ...], bool] = {}
    kept = []
    for file in files:
        values = tuple(value for _, value in file.partition)
        if values not in answers:
            answers[values] = where.may_match(partition_stats(values, partitions))
        if answers[values]:
            kept.append(file)
    return kept


def prune_groups(footer: Footer, partitions: pa.Schema, where: Expression | None) -> list[RowGroup]:
    """A file's row groups without those that have no rows, or whose statistics rule out every row."""
    kept = []
    for group, stats in zip(footer.groups, footer.stats, strict=True):
        if group.rows == 0:
            continue
        known = {**stats, **partition_stats(group.partition, partitions, group.rows)}
        if where is None or where.may_match(known):
            kept.append(group)
    return kept
