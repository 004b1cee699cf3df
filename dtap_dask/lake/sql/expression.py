"""SQL expressions over columns: parsed once, bound to a schema, evaluated on batches, checked against statistics.

Semantics are DuckDB's, with NaN replaced by NULL and in time zone UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pyarrow as pa
from sqlglot import exp

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.binding import bind
from dtap_dask.lake.sql.domain import ColumnStats, Domain
from dtap_dask.lake.sql.evaluate import evaluate
from dtap_dask.lake.sql.matching import constant_domains, may_match
from dtap_dask.lake.sql.parsing import abbreviated, deep_stack, parse_tree, to_sql, too_deep
from dtap_dask.lake.sql.tree import Node
from dtap_dask.lake.sql.types import BOOL


@dataclass(frozen=True)
class Expression:
    """A SQL expression bound to a schema: `type` is the Arrow type of its values, `columns` the columns it reads."""

    sql: str
    tree: Node

    @property
    def type(self) -> pa.DataType:
        return self.tree.type

    @property
    def columns(self) -> frozenset[str]:
        return self.tree.columns

    def evaluate(self, batch: pa.RecordBatch) -> pa.Array:
        """The value of each row: length n, of `type`, may contain nulls. DataError if a value cannot be computed."""
        return evaluate(self.tree, batch)

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Whether the condition is true for each row, length n, without nulls: NULL counts as false."""
        self._need_condition()
        kept = evaluate(self.tree, batch)
        return kept.fill_null(False) if kept.null_count else kept

    def may_match(self, stats: Mapping[str, ColumnStats]) -> bool:
        """False only if no row of a chunk with these statistics can make the condition true; columns may be missing."""
        self._need_condition()
        return may_match(self.tree, stats, self._constants)

    @cached_property
    def _constants(self) -> Mapping[int, Domain]:
        return constant_domains(self.tree)

    def _need_condition(self) -> None:
        if self.type not in (BOOL, pa.null()):
            raise ExpressionError(
                f"{self.sql!r} gives {self.type}, but a condition must be true or false. Compare it with something."
            )


@dataclass(frozen=True, eq=False)
class Parsed:
    """A SQL expression with valid syntax; `bind` checks names and types."""

    sql: str
    tree: exp.Expr

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of top-level columns as written, each once, in order."""
        return tuple(dict.fromkeys(column.parts[0].name for column in self.tree.find_all(exp.Column, bfs=False)))

    def conjuncts(self) -> tuple[Parsed, ...]:
        """The conditions joined by AND at the top level."""
        return tuple(Parsed(to_sql(part), part) for part in _conjuncts(self.tree))

    def bind(self, schema: pa.Schema) -> Expression:
        """The expression over columns of these types; ExpressionError for unknown columns, wrong types or literals."""
        try:
            with deep_stack():
                return Expression(self.sql, bind(self.tree, schema))
        except ExpressionError as error:
            raise ExpressionError(f"In {abbreviated(self.sql)}: {error}") from None
        except RecursionError:
            raise too_deep(self.sql) from None


def parse_sql(sql: str) -> Parsed:
    """Parse one SQL expression (DuckDB's dialect). ExpressionError says what is wrong and where."""
    return Parsed(sql, parse_tree(sql))


def bind_in_order(derive: Iterable[tuple[str, str]], schema: pa.Schema) -> list[tuple[str, Expression]]:
    """Derived columns (name, SQL) bound to the columns of `schema` and to those derived before."""
    bound = []
    for name, sql in derive:
        expression = compile_sql(sql, schema)
        bound.append((name, expression))
        schema = schema.append(pa.field(name, expression.type))
    return bound


@lru_cache(maxsize=256)
def compile_sql(sql: str, schema: pa.Schema) -> Expression:
    """`parse_sql` and `bind`, cached: cheap to call for every task on a worker."""
    return parse_sql(sql).bind(schema)


def _conjuncts(tree: exp.Expr) -> Iterator[exp.Expr]:
    pending = [tree]
    while pending:
        part = pending.pop()
        if isinstance(part, exp.Paren):
            pending.append(part.this)
        elif isinstance(part, exp.And):
            pending.extend((part.expression, part.this))
        else:
            yield part
