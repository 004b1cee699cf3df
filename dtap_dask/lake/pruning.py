"""What a predicate lets us leave unread: files by their partition values, row groups by their statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dtap_dask.lake.columns import FileColumns, merged
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.listing.partitions import partition_scalar
from dtap_dask.lake.parquet.footers import Footer, FooterReader, RowGroups
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.lake.sql.expression import Expression, compile_sql
from dtap_dask.storage import Store


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


def prune_groups(footer: Footer, partitions: pa.Schema, where: Expression | None) -> RowGroups:
    """A file's row groups without those that have no rows, or whose statistics rule out every row."""
    kept = footer.groups.rows > 0
    if where is not None and len(footer.groups):
        values = footer.groups[0].partition
        of_folders: dict[int, dict[str, ColumnStats]] = {}
        for at, (stats, rows) in enumerate(zip(footer.stats, footer.groups.rows.tolist(), strict=True)):
            if rows not in of_folders:
                of_folders[rows] = partition_stats(values, partitions, rows)
            kept[at] = rows > 0 and where.may_match({**stats, **of_folders[rows]})
    return footer.groups.take(kept)


@dataclass(frozen=True, repr=False)
class Asked:
    """What is to be found in footers: the columns to be read, in their common types, the condition to prune by, and the
    columns whose nulls are to be counted.

    It has no `repr`: Dask logs the arguments of what fails, and the condition may hold secrets.
    """

    schema: pa.Schema
    partitions: pa.Schema
    where: str | None
    nulls: tuple[str, ...] = ()

    @property
    def condition(self) -> Expression | None:
        """`where`, bound to columns and folders."""
        every = pa.schema([*self.schema, *self.partitions])
        return compile_sql(self.where, every) if self.where is not None else None


@dataclass(frozen=True)
class Seen:
    """What the footers of some files show.

    `groups` are the row groups that are left after pruning; `row_groups`, `rows` and `bytes` count all. `lacking`: in
    how many row groups with rows a column of the condition has no statistics, where there are such. `plain_text`: the
    bytes of text columns that hold more distinct words than a dictionary. `nulls`: how many nulls the statistics count
    in the columns that were asked for, where they count any, whatever is pruned. `columns`: what columns files have.
    """

    groups: RowGroups
    row_groups: int
    rows: int
    bytes: int
    lacking: Mapping[str, int]
    plain_text: Mapping[str, int]
    nulls: Mapping[str, int]
    columns: tuple[FileColumns, ...]

    @classmethod
    def together(cls, parts: Sequence[Seen]) -> Seen:
        """What the footers of all parts show, one after the other."""
        lacking, plain_text, nulls = Counter[str](), Counter[str](), Counter[str]()
        for part in parts:
            lacking.update(part.lacking)
            plain_text.update(part.plain_text)
            nulls.update(part.nulls)
        return cls(
            RowGroups.together([part.groups for part in parts]),
            sum(part.row_groups for part in parts),
            sum(part.rows for part in parts),
            sum(part.bytes for part in parts),
            dict(sorted(lacking.items())),
            dict(sorted(plain_text.items())),
            dict(nulls),
            merged(one for part in parts for one in part.columns),
        )


def look(store: Store, files: Sequence[SourceFile], asked: Asked) -> Seen:
    """Read the footers of some files, and leave out the row groups that no row is wanted of."""
    where = asked.condition
    reader = FooterReader(store, asked.schema.names, where.columns if where else (), asked.nulls)
    return Seen.together([_seen(reader.read(file), asked, where) for file in files])


def _seen(footer: Footer, asked: Asked, where: Expression | None) -> Seen:
    every = footer.groups
    unknown = (name for stats in footer.stats for name, one in stats.items() if _is_unknown(one))
    return Seen(
        prune_groups(footer, asked.partitions, where),
        len(every),
        int(every.rows.sum()),
        int(every.bytes.sum()),
        Counter(unknown),
        footer.plain_text,
        footer.nulls,
        (FileColumns(footer.every, bool(every.rows.any()), footer.path),),
    )


def _is_unknown(stats: ColumnStats) -> bool:
    return stats.rows > 0 and stats.min is None and stats.null_count is None
