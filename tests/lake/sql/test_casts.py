"""CAST between all pairs of types: DuckDB's value, an error where DuckDB has one, or a refusal when it is bound."""

from __future__ import annotations

import datetime as dt
from itertools import product
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from dtap_dask.errors import DataError, ExpressionError
from dtap_dask.lake.sql.expression import compile_sql
from sql_differences import LACKING, known
from sql_rows import COLUMNS, DuckDB, Failed, Ours, same

TARGETS = [
    "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT",
    "FLOAT", "DOUBLE", "DECIMAL(1,1)", "DECIMAL(4,1)", "DECIMAL(9,2)", "DECIMAL(18,3)", "DECIMAL(18,0)",
    "DECIMAL(38,0)", "DECIMAL(38,10)", "DECIMAL(38,37)", "VARCHAR", "BLOB", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S",
    "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ",
]  # fmt: skip
MORE: dict[str, list[Any]] = {
    "day": [dt.date(1, 1, 1)],
    "ts": [dt.datetime(1, 1, 1)],
    "s": ["nan", "-inf", "1e400", "-0x1", "0b11", "1__0", "-0.3", "-0", "2013-06-01 12:00:00+02", "24:00"],
}
BATCH = pa.record_batch(
    {
        "id": pa.array(range(40)),
        **{
            name: pa.array(([*pool, *MORE.get(name, []), None] * 40)[:40], dtype)
            for name, (dtype, pool) in COLUMNS.items()
        },
    }
)


@pytest.fixture(scope="module")
def database() -> DuckDB:
    return DuckDB(BATCH)


INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
DECIMALS = tuple(name for name, (dtype, _) in COLUMNS.items() if pa.types.is_decimal(dtype))
NUMBERS = ("flag", *INTEGERS, "f32", "f64", *DECIMALS)
STAMPS = ("ts", "ts_s", "ts_ms", "ts_ns", "tz", "ny")
PAIRS = [
    *product(NUMBERS, TARGETS[: TARGETS.index("VARCHAR") + 1]),
    *product(("s", "word"), TARGETS),
    *product(STAMPS, ("VARCHAR", *TARGETS[TARGETS.index("DATE") :])),
    *product(("day",), ("VARCHAR", "DATE", *(target for target in TARGETS if target.startswith("TIMESTAMP")))),
    *product(("clock", "clock_ms", "clock_s"), ("VARCHAR", "TIME")),
    *product(("bin",), ("VARCHAR", "BLOB")),
]


@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_cast_gives_what_duckdb_gives(database: DuckDB, name: str, target: str) -> None:
    expression = compile_sql(f"CAST({name} AS {target})", BATCH.schema)
    lenient = compile_sql(f"TRY_CAST({name} AS {target})", BATCH.schema)
    ours, tried = Ours(BATCH).values(expression), Ours(BATCH).values(lenient)
    assert tried == [None if isinstance(value, Failed) else value for value in ours]
    if (name, target) in LACKING:
        with pytest.raises(duckdb.ConversionException, match="Unimplemented type for cast"):
            database.database.execute(f"SELECT {expression.sql} FROM rows")
        return
    _, theirs = database.values(lenient.sql)
    different = [
        (source, left, right)
        for source, left, right, value in zip(BATCH[name].to_pylist(), tried, theirs, ours, strict=True)
        if not same(left, right) and not known(lenient.sql, value, right)
    ]
    assert not different


@pytest.mark.parametrize(("name", "target"), sorted(set(product(COLUMNS, TARGETS)) - set(PAIRS)))
def test_other_casts_are_refused_before_anything_is_read(name: str, target: str) -> None:
    with pytest.raises(ExpressionError, match="cannot be cast to"):
        compile_sql(f"CAST({name} AS {target})", BATCH.schema)


@pytest.mark.parametrize("dtype", [pa.float32(), pa.float64()])
def test_floats_of_any_size_are_spelled_as_duckdb_spells_them(dtype: pa.DataType) -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**dtype.bit_width, 10_000, np.uint64).astype(f"u{dtype.bit_width // 8}")
    kind = dtype.to_pandas_dtype()
    rounded = np.round(10 ** random.uniform(-6, 18, 5_000), 2)  # also texts that lie between two others
    numbers = np.concatenate(
        [bits.view(kind), (10 ** random.uniform(-6, 18, 5_000)).astype(kind), rounded.astype(kind)]
    )
    batch = pa.record_batch({"x": pa.array(numbers[np.isfinite(numbers)])})
    rows = pa.table(batch)
    theirs = duckdb.from_arrow(rows).project("x::VARCHAR AS x").to_arrow_table()["x"].to_pylist()
    assert compile_sql("x::VARCHAR", batch.schema).evaluate(batch).to_pylist() == theirs


def test_years_before_1_and_after_9999_in_text() -> None:
    days = pa.array([-719163, -719162, -735000, 2932897, 11_000_000, None], pa.int32()).cast(pa.date32())
    batch = pa.record_batch({"day": days})
    theirs = duckdb.from_arrow(pa.table(batch)).project("day::VARCHAR AS x").to_arrow_table()["x"].to_pylist()
    assert compile_sql("day::VARCHAR", batch.schema).evaluate(batch).to_pylist() == theirs
    late = pa.record_batch({"day": pa.array([30_000_000], pa.int32()).cast(pa.date32())})
    with pytest.raises(DataError, match="cannot be cast"):
        compile_sql("day::VARCHAR", late.schema).evaluate(late)
