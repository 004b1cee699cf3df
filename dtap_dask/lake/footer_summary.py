"""The footers of many files, summarized: which row groups a job reads, and what is known of their columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dtap_dask.lake.columns import FileColumns, merge_file_columns
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.parquet.footers import Footer, FooterReader
from dtap_dask.lake.parquet.row_group import RowGroups
from dtap_dask.lake.pruning import prune_groups
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.lake.sql.expression import Expression, compile_sql
from dtap_dask.storage import Store


@dataclass(frozen=True, repr=False)
class FooterQuery:
    """What to extract from footers.

    `schema`: the columns a job reads, in their common types; `partitions`: those of the partition folders; `where`: the
    condition that prunes row groups; `nulls`: columns whose nulls are counted.

    It has no `repr`: Dask logs the arguments of a failed task, and the condition may hold secrets.
    """

    schema: pa.Schema
    partitions: pa.Schema
    where: str | None
    nulls: tuple[str, ...] = ()

    @property
    def condition(self) -> Expression | None:
        """`where`, bound to the file columns and partition columns."""
        schema = pa.schema([*self.schema, *self.partitions])
        return compile_sql(self.where, schema) if self.where is not None else None


@dataclass(frozen=True)
class FooterSummary:
    """What the footers of some files say.

    - `groups`: the row groups left after pruning.
    - `row_groups`, `rows`, `bytes`: totals, pruned row groups included; `bytes` are compressed, of needed columns.
    - `lacking`: columns of the condition without statistics, with the number of such row groups.
    - `plain_text`: uncompressed bytes of needed text columns that the writer did not dictionary-encode.
    - `nulls`: nulls counted in the columns of `FooterQuery.nulls`, pruned row groups included (zero: left out).
    - `columns`: each distinct schema of the files.
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
    def concat(cls, parts: Sequence[FooterSummary]) -> FooterSummary:
        """One summary of consecutive parts of a list of files."""
        lacking, plain_text, nulls = Counter[str](), Counter[str](), Counter[str]()
        for part in parts:
            lacking.update(part.lacking)
            plain_text.update(part.plain_text)
            nulls.update(part.nulls)
        return cls(
            RowGroups.concat([part.groups for part in parts]),
            sum(part.row_groups for part in parts),
            sum(part.rows for part in parts),
            sum(part.bytes for part in parts),
            dict(sorted(lacking.items())),
            dict(sorted(plain_text.items())),
            dict(nulls),
            merge_file_columns(columns for part in parts for columns in part.columns),
        )


def summarize_footers(store: Store, files: Sequence[SourceFile], query: FooterQuery) -> FooterSummary:
    """Read the footers of `files`; SourceError as for `FooterReader`."""
    where = query.condition
    reader = FooterReader(store, query.schema.names, where.columns if where else (), query.nulls)
    return FooterSummary.concat([_of_file(reader.read(file), query, where) for file in files])


def _of_file(footer: Footer, query: FooterQuery, where: Expression | None) -> FooterSummary:
    groups = footer.groups
    lacking = (name for stats in footer.stats for name, column in stats.items() if _is_unknown(column))
    return FooterSummary(
        prune_groups(footer, query.partitions, where),
        len(groups),
        int(groups.rows.sum()),
        int(groups.bytes.sum()),
        Counter(lacking),
        footer.plain_text,
        footer.nulls,
        (FileColumns(footer.every, bool(groups.rows.any()), footer.path),),
    )


def _is_unknown(stats: ColumnStats) -> bool:
    return stats.rows > 0 and stats.min is None and stats.null_count is None
