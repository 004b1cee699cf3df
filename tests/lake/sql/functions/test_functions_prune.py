"""Functions that never fall map the bounds of row groups: a row that a condition keeps is never ruled out."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pyarrow as pa
import pytest

from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.lake.sql.expression import compile_sql

NEVER_FALL = [
    *("sqrt(x)", "exp(x)", "round(x)", "round(x, 1)", "trunc(x, -1)", "floor(x)", "ceil(x)", "sign(x)", "degrees(x)"),
    *(
        "left(s, 2)",
        "substring(s, 1, 1)",
        "year(t)",
        "decade(t)",
        "century(t)",
        "isoyear(t)",
        "epoch_ms(t)",
        "last_day(t)",
    ),
    *("date_trunc('month', t)", "date_trunc('decade', t)", "to_timestamp(x)", "epoch(t)", "era(t)", "millennium(t)"),
]
MICROS = [-(10**16), -1, 0, 1, 86_400_000_000, 951_782_400_000_000, 1_371_000_000_000_000, 10**17]
RISING = pa.record_batch(
    {
        "x": sorted([-1e9, -2.5, -0.5, -1e-9, 0.0, 0.285, 0.5, 1.005, 2.5, 10.0, 500.0, 700.0]),
        "s": sorted(["", "a", "ab", "abc", "b", "é", "日本", "🚕a", "zz", "Z", "0", "10"]),
        "t": pa.array([None] * 4 + MICROS).cast(pa.timestamp("us")),
    }
)


def literal(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return f"TIMESTAMPTZ '{value}'" if value.tzinfo else f"TIMESTAMP '{value}'"
    if isinstance(value, float):
        return f"{value!r}::double"
    return f"'{value}'" if isinstance(value, str | dt.date) else str(value)


def statistics(chunk: pa.RecordBatch) -> dict[str, ColumnStats]:
    """The bounds of each column; none of a column of only nulls."""
    found = {}
    for name in chunk.schema.names:
        values = chunk[name].drop_null().sort()
        if len(values):
            found[name] = ColumnStats(values[0], values[-1], chunk[name].null_count, chunk.num_rows)
    return found


@pytest.mark.parametrize("sql", NEVER_FALL)
def test_bounds_that_are_mapped_lose_no_row(sql: str) -> None:
    values = compile_sql(sql, RISING.schema).evaluate(RISING).drop_null().unique().to_pylist()
    conditions = [
        compile_sql(f"{sql} {operator} {literal(value)}", RISING.schema)
        for value in values
        for operator in ("=", "<", ">", ">=")
    ]
    kept = [condition.keep(RISING) for condition in conditions]
    ruled_out = 0
    for start, stop in itertools.combinations(range(RISING.num_rows + 1), 2):
        chunk = RISING.slice(start, stop - start)
        known = statistics(chunk)
        for condition, rows in zip(conditions, kept, strict=True):
            if not condition.may_match(known):
                ruled_out += 1
                assert rows.slice(start, stop - start).true_count == 0, (condition.sql, chunk.to_pylist())
    assert ruled_out
