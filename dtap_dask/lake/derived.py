"""Columns derived by SQL from rows at hand: those of a batch that is scanned, or rows that a user gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from dtap_dask.lake.sql.expression import Expression, bind_in_order


@dataclass(frozen=True)
class RawColumns:
    """What rows must have, so that features can be computed from them.

    `schema` has the canonical types of the columns, those of folders included; `derive` are the derived columns as
    (name, SQL), in order: an expression may use earlier ones.
    """

    schema: pa.Schema
    derive: tuple[tuple[str, str], ...] = ()

    @cached_property
    def derived(self) -> list[tuple[str, Expression]]:
        """The derived columns, bound to the columns before them."""
        return bind_in_order(self.derive, self.schema)

    def needed_for(self, columns: Iterable[str]) -> RawColumns:
        """The part that these columns, derived ones among them, are computed from."""
        used = needed(columns, self.derived)
        schema = pa.schema([field for field in self.schema if field.name in used])
        return RawColumns(schema, tuple((name, sql) for name, sql in self.derive if name in used))

    def with_derived(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows with the columns of `schema`, and the derived ones behind them."""
        return with_columns(rows, self.derived)


def with_columns(rows: pa.RecordBatch, derived: Sequence[tuple[str, Expression]]) -> pa.RecordBatch:
    """Rows with derived columns behind the others; an expression may use earlier ones."""
    for name, expression in derived:
        rows = rows.append_column(pa.field(name, expression.type), expression.evaluate(rows))
    return rows


def needed(columns: Iterable[str], derived: Sequence[tuple[str, Expression]]) -> set[str]:
    """The columns, and those that derived ones among them are computed from; an expression may use earlier ones."""
    found = set(columns)
    for name, expression in reversed(derived):
        if name in found:
            found |= expression.columns
    return found
