"""Random conditions over all types: a row group that the statistics of a real Parquet file rule out has no such row."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtap_dask.errors import DataError, ExpressionError
from dtap_dask.lake.parquet.statistics import StatisticKind, column_stats
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.lake.sql.expression import compile_sql
from sql_grammar import Grammar, Term
from sql_rows import make_batch

ROWS, GROUP = 120, 12
Groups = list[tuple[pa.RecordBatch, dict[str, ColumnStats]]]


def row_groups(seed: int) -> Iterator[tuple[pa.RecordBatch, dict[str, ColumnStats]]]:
    """Row groups of a file whose columns are sorted, so that their bounds are narrow."""
    sink = io.BytesIO()
    pq.write_table(pa.table(make_batch(2 * seed, ROWS)), sink, row_group_size=GROUP)
    file = pq.ParquetFile(sink)
    for index in range(file.num_row_groups):
        batch = file.read_row_group(index).combine_chunks().to_batches()[0]
        chunks = file.metadata.row_group(index)
        stats = {}
        for place in range(chunks.num_columns):
            name = chunks.column(place).path_in_schema
            dtype = batch.schema.field(name).type
            kind = StatisticKind.of(dtype.value_type if pa.types.is_dictionary(dtype) else dtype)
            stats[name] = column_stats(chunks.column(place), kind, batch.num_rows)
        yield batch, stats


def condition(grammar: Grammar) -> Term | None:
    """A comparison more often than not: it is what bounds say most about."""
    rules = (
        Grammar.comparison,
        Grammar.comparison,
        Grammar.comparison,
        Grammar.membership,
        Grammar.test,
        Grammar.logic,
    )
    term = grammar.random.choice(rules)(grammar, grammar.random.choice((1, 2, 2, 3)))
    return term if term is not None and pa.types.is_boolean(term.type) else None


def narrow(grammar: Grammar) -> Term | None:
    """A step of one column of numbers, compared with a literal: bounds go through arithmetic, casts and functions."""
    columns = [column for column in grammar.columns if column.family in ("int", "float", "decimal")]
    column, literal = grammar.random.choice(columns).ours, grammar.pick("0.1", "3", "-2.5", "0.3::FLOAT", "1e0", "100")
    step = grammar.pick(
        f"{column} * {literal}", f"{column} / {literal}", f"{column} + {literal}", f"{literal} - {column}",
        f"CAST({column} AS FLOAT)", f"CAST({column} AS DECIMAL(9,2))", f"CAST({column} AS SMALLINT)",
        f"CAST({column} AS FLOAT) / {literal}", f"round({column}, 1)", f"floor({column})", f"- {column}",
    )  # fmt: skip
    bound = grammar.pick("0.1", "1", "0.3::FLOAT", "5", "-1.25", "33.3", "0", "100")
    sql = f"({step}) {grammar.pick('=', '<>', '<', '<=', '>', '>=')} {bound}"
    return grammar.made(sql, sql)


def lost(groups: Groups, sql: str) -> tuple[int, int]:
    """How many row groups are ruled out, and how many of them have a row for which the condition is true."""
    out = wrong = 0
    expression = compile_sql(sql, groups[0][0].schema)
    for batch, stats in groups:
        if expression.may_match(stats):
            continue
        out += 1
        try:
            wrong += expression.keep(batch).true_count > 0
        except DataError:
            wrong += any(_matches(sql, batch.slice(row, 1)) for row in range(batch.num_rows))
    return out, wrong


def _matches(sql: str, row: pa.RecordBatch) -> bool:
    try:
        return bool(compile_sql(sql, row.schema).keep(row).true_count)
    except DataError:
        return False


def check(seed: int, count: int) -> None:
    groups, grammar = list(row_groups(seed)), Grammar(seed)
    ruled_out = tried = 0
    for _ in range(count):
        term = (condition if grammar.random.random() < 0.5 else narrow)(grammar)
        if term is None:
            continue
        try:
            out, wrong = lost(groups, term.ours)
        except ExpressionError:  # seconds come back from Parquet as milliseconds
            continue
        assert not wrong, term.ours
        ruled_out, tried = ruled_out + out, tried + len(groups)
    assert ruled_out > 0.1 * tried  # else it would say nothing


@pytest.mark.parametrize("seed", range(2))
def test_no_row_group_with_a_matching_row_is_ruled_out(seed: int) -> None:
    check(seed, 150)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 103))
def test_no_row_group_with_a_matching_row_is_ruled_out_at_length(seed: int) -> None:
    check(seed, 1_000)
