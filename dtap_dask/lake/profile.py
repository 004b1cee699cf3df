"""Profiles columns by the first rows of a lake: nulls, distinct values, and whether they identify rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.parquet.footers import Footer, read_footer
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task
from dtap_dask.storage import Store
from dtap_dask.words import count

SAMPLE_ROWS = 20_000
BATCH_ROWS = 5_000
FOOTERS = 20  # read to find a file that has rows
ENOUGH_ROWS = 1_000  # if all are distinct, the column identifies rows, whatever its name
_ID = re.compile(r"(?i:(^|[_.-])(id|uuid|guid|key))$|[a-z](Id|ID|Uuid|UUID|Guid|Key)$")


@dataclass(frozen=True)
class Profile:
    """A column in the first `rows` rows: its type, and its number of nulls (NaN counts as null) and distinct values."""

    name: str
    type: pa.DataType
    rows: int
    nulls: int
    distinct: int | None
    """None for types that are not counted: lists, structs, maps."""

    @property
    def is_empty(self) -> bool:
        """Whether there are rows, and none has a value."""
        return bool(self.rows) and self.nulls == self.rows

    @property
    def is_named_id(self) -> bool:
        """Whether an integer or text column is named like an identifier: trip_id, userId, uuid."""
        return self._may_identify and _ID.search(self.name) is not None

    @property
    def is_key(self) -> bool:
        """Whether each row has a value of its own, as far as the sample shows."""
        unique = self._may_identify and not self.nulls and self.distinct == self.rows
        return unique and (self.rows >= ENOUGH_ROWS or (self.rows > 1 and self.is_named_id))

    @property
    def _may_identify(self) -> bool:
        return bool(pa.types.is_integer(self.type) or pa.types.is_string(self.type))

    @property
    def description(self) -> str:
        """`3.1 % null, 77 distinct values`."""
        if not self.rows:
            return "no rows"
        if self.is_empty:
            return "no value"
        share = 100 * self.nulls / self.rows
        null = f"{share:.2g} % null" if self.nulls else "no nulls"
        return null if self.distinct is None else f"{null}, {count(self.distinct, 'distinct value')}"


def profile(store: Store, files: Sequence[SourceFile], partitions: pa.Schema) -> dict[str, Profile]:
    """The columns of the first file that has rows, by name, in its order; partition columns are left out."""
    footer = _first_with_rows(store, files)
    countable = [field.name for field in footer.schema if not pa.types.is_nested(field.type)]
    table = _first_rows(store, footer, partitions, countable)
    return {field.name: _profile(field, table) for field in footer.schema}


def _first_with_rows(store: Store, files: Sequence[SourceFile]) -> Footer:
    for file in files[:FOOTERS]:
        footer = read_footer(store, file)
        if footer.groups.rows.sum():
            return footer
    return read_footer(store, files[0])


def _first_rows(store: Store, footer: Footer, partitions: pa.Schema, columns: Sequence[str]) -> pa.Table:
    schema = pa.schema([footer.schema.field(name) for name in columns])
    scan = ScanSpec(schema, partitions, None, (), None, None, tuple(columns))
    batches: list[pa.RecordBatch] = []
    read = 0
    for group in footer.groups:
        for batch in read_task(store, scan, ScanTask(0, (group,)), batch_rows=BATCH_ROWS):
            batches.append(batch.rows)
            read += batch.rows.num_rows
            if read >= SAMPLE_ROWS:
                return pa.Table.from_batches(batches)
    return pa.Table.from_batches(batches) if batches else schema.empty_table()


def _profile(field: pa.Field, table: pa.Table) -> Profile:
    if field.name not in table.column_names:
        return Profile(field.name, field.type, table.num_rows, 0, None)
    column = table.column(field.name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    distinct = None if pa.types.is_null(column.type) else pc.count_distinct(column, mode="only_valid").as_py()
    return Profile(field.name, field.type, table.num_rows, column.null_count, distinct)
