"""Every function of the tables against DuckDB, over all kinds of arguments: values, types, and what is an error."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import random
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dtap_dask.errors import DataError
from dtap_dask.lake.sql.expression import Expression, compile_sql
from dtap_dask.lake.sql.functions.definition import Function, Parameter
from dtap_dask.lake.sql.functions.registry import FAMILIES
from dtap_dask.lake.sql.functions.text import SPACES

FUNCTIONS = {name: function for family in FAMILIES.values() for name, function in family.items()}
ROWS = 400
Pool = tuple[pa.DataType, list[Any]]
WORDS = [
    *("", "a", "ab", "ABC", "abcabc", " a ", "\ta\n", "a-b--c", "a,b", "a.b(c)", "a\x00b", "x'y", "a%_\\", "60601"),
    *("ä", "ß", "ẞ", "İ", "ı", "I", "é", "e\u0301", "ς", "Σσ", "ΑΣ", "ﬁ", "ǅ", "K", "ſ", "日本語", "🚕", "a🚕b"),
    *("\u00a0a\u00a0", "\u2003\u3000", "\u200b", "\ufeffa", "👨\u200d👩\u200d👧", "a\r\nb", "NaN", "nul\u0000"),
]
PARTS = ["", "a", "b", "-", "--", "ä", "é", "\u0301", "ς", "🚕", " ", "ab", "\x00", ".", "(", "\n", "xy"]
COUNTS = [0, 1, 2, 3, 5, 9, -1, -2, -3, -5, -9, 2**31, -(2**31)]
FLOATS = [
    *(0.0, -0.0, 0.5, 1.5, 2.5, -2.5, 0.285, 1.005, 2.675, -364.955, 0.125, 123456.789, -1e-9, 1.0, -1.0, 3.7),
    *(1e15, 1e300, 1.7e308, 5e-324),
]
INF = [float("inf"), float("-inf")]
WHOLE = {
    "i8": (pa.int8(), [-128, 127, 0, 1, -1, 5]),
    "i16": (pa.int16(), [-(2**15), 2**15 - 1, 0, 12]),
    "i32": (pa.int32(), [-(2**31), 2**31 - 1, 0, 7, -7, 2013]),
    "i64": (pa.int64(), [-(2**63), 2**63 - 1, 2**53 + 1, 0, 3, -3, 125, -125]),
    "u8": (pa.uint8(), [0, 1, 255]),
    "u16": (pa.uint16(), [0, 2**16 - 1]),
    "u32": (pa.uint32(), [0, 2**32 - 1]),
    "u64": (pa.uint64(), [0, 5, 2**63, 2**64 - 1]),
}
NUMBERS: dict[str, Pool] = {
    **WHOLE,
    "f32": (pa.float32(), [0.0, -0.0, 0.1, 1.5, -2.5, 3e38, 16777217.0, 0.3]),
    "f64": (pa.float64(), FLOATS + INF),
    "dec": (pa.decimal128(10, 2), [Decimal(x) for x in ("0", "1.25", "-1.25", "0.05", "99999999.99", "-0.01", "2.50")]),
    "d30": (pa.decimal128(3, 0), [Decimal(x) for x in ("0", "999", "-999", "5", "-15")]),
    "d33": (pa.decimal128(3, 3), [Decimal(x) for x in ("0", "0.999", "-0.005", "0.5")]),
    "big": (pa.decimal128(38, 10), [Decimal(x) for x in ("0", "1.5", "-1.0000000001", "1e27", "-9e27")]),
}
DAYS = [
    dt.date(*day)
    for day in (
        *((1970, 1, 1), (1969, 12, 31), (2013, 1, 31), (2012, 2, 29), (2013, 2, 28), (2013, 12, 30), (2016, 1, 3)),
        *(
            (1, 1, 1),
            (9999, 12, 31),
            (2000, 1, 1),
            (1999, 12, 31),
            (2000, 12, 31),
            (2001, 1, 1),
            (1900, 3, 1),
            (105, 6, 30),
        ),
    )
]
TIMES = [dt.time(0), dt.time(12), dt.time(23, 59, 59, 999_999), dt.time(0, 0, 0, 1), dt.time(12, 30, 15, 500_000)]
STAMPS = [dt.datetime.combine(day, TIMES[place % len(TIMES)]) for place, day in enumerate(DAYS * 2)]
NEAR = [stamp for stamp in STAMPS if 1700 < stamp.year < 2200]
MOMENTS: dict[str, Pool] = {
    "day": (pa.date32(), DAYS),
    "ts": (pa.timestamp("us"), STAMPS),
    "ts_s": (pa.timestamp("s"), [stamp.replace(microsecond=0) for stamp in STAMPS]),
    "ts_ms": (pa.timestamp("ms"), [stamp.replace(microsecond=stamp.microsecond // 1000 * 1000) for stamp in STAMPS]),
    "ts_ns": (pa.timestamp("ns"), NEAR),
    "tz": (pa.timestamp("us", "UTC"), STAMPS),
}
POOLS: dict[str, dict[str, Pool]] = {
    "text": {"s": (pa.string(), WORDS)},
    "integer": WHOLE,
    "number": NUMBERS,
    "numeric": NUMBERS,
    "moment": MOMENTS,
    "instant": MOMENTS,
    "clock": MOMENTS | {"time": (pa.time64("us"), TIMES)},
}
# What the further arguments of a function are drawn from, where not from all of its kind.
NAMED: dict[str, Pool] = {
    **dict.fromkeys(("part", "old", "new", "separator", "characters", "fill"), (pa.string(), PARTS)),
    **dict.fromkeys(("start", "count", "length", "index"), (pa.int64(), COUNTS)),
    **dict.fromkeys(("width", "times"), (pa.int32(), COUNTS[:-2])),
    "digits": (pa.int32(), [0, 1, 2, -1, -2, 30, -30]),
    "month": (pa.int32(), [1, 2, 12, 0, 13]),
    "day": (pa.int8(), [1, 28, 29, 31, 0, 32]),
    "hour": (pa.int64(), [0, 23, 24, 25, -1]),
    "minute": (pa.int64(), [0, 59, 60, -1]),
    "second": (pa.float64(), [0.0, 59.9999999, 60.0, 61.0, 1.5, -1.0]),
    "year": (pa.int64(), [1970, 2012, 0, -5, 9999, 2000, 10**7]),
    "seconds": (pa.float64(), [*FLOATS, 1e9, 1.123456789, 5e-7, -5e-7, 1.5e-6, 1288323623006.0]),
}
UNITS = (
    *("year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond", "decade"),
    *("century", "millennium", "isoyear", "yearweek", "dow", "doy", "isodow", "epoch", "MONTH", "mons", "us", "c"),
)
PATTERNS = ["a", "^a", "a$", "b+", "(a)(b)?", "[a-z]+", "", ".", "\\.", "(?i)A", "é|a", "\\d{2}", "x*", "(?s)a.*b"]


def _pool(parameter: Parameter) -> dict[str, Pool]:
    return {parameter.name: NAMED[parameter.name]} if parameter.name in NAMED else POOLS[parameter.kind]


DIRECTIVES = ["a", "A", "b", "B", "d", "m", "y", "Y", "H", "I", "M", "S", "f", "j", "V", "w", "u", "p", "%"]
DIRECTIVES += ["-d", "-m", "-y", "-H", "-I", "-M", "-S", "-j"]
CONSTANTS = {
    "unit": UNITS,
    "pattern": PATTERNS,
    "options": ["", "i", "s", "l", "ic"],
    "new": ["", "<\\0>", "é", "\\\\"],
    "format": ["%Y-%m-%d", "é%%%H:%M:%S.%f %p", *(f"<%{directive}>" for directive in DIRECTIVES)],
}


def _constants(name: str, parameter: Parameter) -> list[str]:
    """What a parameter that must be constant is called with."""
    if parameter.name == "group":
        return ["0", "1", "2", "9"]
    if parameter.name in CONSTANTS:
        more = ["g", "gi"] if (name, parameter.name) == ("regexp_replace", "options") else []
        return [f"'{word}'" for word in (*CONSTANTS[parameter.name], *more)]
    return [str(value) for value in NAMED[parameter.name][1]]


def _calls(name: str, function: Function) -> Iterator[tuple[str, dict[str, Pool]]]:
    """SQL calls with the columns they need: every count of arguments, every type of each argument."""
    for count in range(function.fewest, len(function.parameters) + 1):
        if (name, count) in (("make_date", 1), ("make_date", 2), *(("make_timestamp", short) for short in range(2, 6))):
            continue
        chosen = function.parameters[:count]
        choices: list[list[tuple[str, dict[str, Pool]]]] = []
        for place, parameter in enumerate(chosen):
            if parameter.constant:
                choices.append([(text, {}) for text in _constants(name, parameter)])
            else:
                pools = _pool(parameter)
                if name == "date_sub" or (name == "date_diff" and "tz" in pools):
                    pools = {key: pools[key] for key in ("day", "ts", "ts_ns")}
                choices.append([(f"{key}{place}", {f"{key}{place}": pool}) for key, pool in pools.items()])
        for call in itertools.product(*choices):
            columns = {key: pool for _, part in call for key, pool in part.items()}
            yield f"{name}({', '.join(text for text, _ in call)})", columns


def _table(columns: dict[str, Pool], seed: str) -> pa.Table:
    """Every combination of values, null among them; a sample of them where there are too many."""
    pools = [[None, *values] for _, values in columns.values()]
    rows = list(itertools.product(*pools))
    if len(rows) > ROWS:
        rows = random.Random(seed).sample(rows, ROWS)
    return pa.table(
        {
            name: pa.array([row[place] for row in rows], dtype)
            for place, (name, (dtype, _)) in enumerate(columns.items())
        }
        or {"nothing": pa.nulls(1)}
    )


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'; SET threads = 1")
    return connection


def _plain(values: pa.Array) -> list[Any]:
    """Python values to compare: NaN as None, times as counts, since Python does not know all of their years."""
    dtype = values.type
    if pa.types.is_timestamp(dtype):
        values = values.cast(pa.timestamp("us", dtype.tz)).cast(pa.int64())
    elif pa.types.is_date32(dtype):
        values = values.cast(pa.int32())
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values.to_pylist()]


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return ours == theirs or math.isclose(ours, theirs, rel_tol=4e-16)
    return bool(ours == theirs)


def _agree(ours: pa.DataType, theirs: pa.DataType) -> bool:
    """The same type, but that all integers are BIGINT or UBIGINT here, and HUGEINT comes from DuckDB as a decimal."""
    whole = pa.types.is_integer(theirs) or theirs == pa.decimal128(38, 0)
    return bool(ours == theirs or (pa.types.is_integer(ours) and whole))


def _ask(database: duckdb.DuckDBPyConnection, sql: str) -> pa.Array:
    return database.sql(f"SELECT {sql} AS v FROM rows").to_arrow_table()["v"].combine_chunks()


def _alone(expression: Expression, row: pa.RecordBatch) -> Any:
    """The value of one row, None if it cannot be computed."""
    try:
        return _plain(expression.evaluate(row))[0]
    except DataError:
        return None


def check(database: duckdb.DuckDBPyConnection, sql: str, table: pa.Table, wider: bool = False) -> None:
    """Every row gives what DuckDB gives, and cannot be computed where DuckDB cannot (or may, where `wider`)."""
    database.register("rows", table)
    batch = table.combine_chunks().to_batches()[0]
    try:
        theirs = _ask(database, f"TRY({sql})")
    except duckdb.BinderException as error:
        if "TIMESTAMP_NS" in str(error):  # DuckDB computes nanoseconds with nothing that has a zone
            return
        raise
    expression = compile_sql(sql, batch.schema)
    assert _agree(expression.type, theirs.type), sql
    try:
        ours = _plain(expression.evaluate(batch))
    except DataError:
        ours = [_alone(expression, batch.slice(row, 1)) for row in range(batch.num_rows)]
    for row, (got, expected) in enumerate(zip(ours, _plain(theirs), strict=True)):
        if expected is None and wider:
            continue
        assert _same(got, expected), (sql, batch.slice(row, 1).to_pylist(), "here", got, "DuckDB", expected)


# Integers are BIGINT here, where DuckDB runs out of the narrower type; seconds and milliseconds of any year have a time
# of day, where DuckDB goes through nanoseconds.
WIDER = frozenset(
    (
        *("abs", "round", "trunc", "hour", "minute", "second", "millisecond", "microsecond", "nanosecond", "epoch"),
        *("epoch_us", "epoch_ms", "strftime"),
    )
)
ELSEWHERE = frozenset(("concat", "concat_ws", "coalesce", "greatest", "least", "nullif", "length", "date_add", "pi"))


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - ELSEWHERE))
def test_values(database: duckdb.DuckDBPyConnection, name: str) -> None:
    for sql, columns in _calls(name, FUNCTIONS[name]):
        check(database, sql, _table(columns, sql), name in WIDER)


def _characters() -> pa.Table:
    """Every code point of Unicode 14 that has a case or is a space, alone and between letters."""
    found = [
        chr(code)
        for code in range(1, 0x110000)
        if not 0xD800 <= code < 0xE000
        and (
            chr(code).lower() != chr(code) or chr(code).upper() != chr(code) or unicodedata.category(chr(code)) == "Zs"
        )
    ]
    return pa.table({"s": [*found, *(f"a{char}b" for char in found), *(f" {char}a{char} " for char in found)]})


@pytest.mark.parametrize("sql", ["lower(s)", "upper(s)", "trim(s)", "ltrim(s)", "rtrim(s)", "length(s)", "strlen(s)"])
def test_letters_and_spaces_of_unicode(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    check(database, sql, _characters())


@pytest.mark.parametrize("sql", ["nullif(1.5, x)", "nullif(2, x)", "nullif(NULL, NULL)", "greatest(NULL, NULL, NULL)"])
def test_choices_between_constants_and_nulls(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    database.register("rows", pa.table({"x": [1.5, 2.0, None]}))
    expected = _plain(_ask(database, sql))
    found = compile_sql(sql, pa.schema({"x": pa.float64()})).evaluate(pa.record_batch({"x": [1.5, 2.0, None]}))
    assert [None if one is None else float(one) for one in found.to_pylist()] == expected


def test_trim_strips_every_space_of_unicode() -> None:
    spaces = {chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Zs"}
    assert set(SPACES) == spaces


@pytest.mark.parametrize("operator", ["LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE"])
def test_like(database: duckdb.DuckDBPyConnection, operator: str) -> None:
    patterns = ["%", "_", "a%", "%a", "%a%", "a_", "__", "", "i", "I", "İ", "Σ", "ς", "σ%", "K", "\\", "%\\", "a\\%"]
    patterns += ["%\\%", "a%\\_%", "\n", "%_b%", "ß", "SS", "%é", "🚕", "_🚕_", "a.b(c)", "x''y", "[%", "^%", "%$"]
    for pattern in patterns:
        check(
            database, f"s {operator} '{pattern}'", pa.table({"s": [None, *WORDS, "\\", "a\\b", "x\\", "%", "a%\\_b"]})
        )
        check(database, f"s {operator} '{pattern}' ESCAPE '!'", pa.table({"s": [None, *WORDS, "%", "!"]}))


FAR = [
    -(2**62),
    2**62,
    1_893_417_120_000_000_000,
    -1_262_278_080_000_000_000,
    0,
    -1,
    10**18,
    -(10**18),
    999_999_999_999,
]


@pytest.mark.parametrize(
    "name", ["year", "month", "day", "week", "isoyear", "quarter", "dayofweek", "dayofyear", "hour"]
)
def test_years_beyond_32767(database: duckdb.DuckDBPyConnection, name: str) -> None:
    """As timestamps of an age that Arrow's own kernels take for another one."""
    check(database, f"{name}(t)", pa.table({"t": pa.array(FAR).cast(pa.timestamp("us"))}))
    check(
        database,
        f"{name}(d::timestamp)",
        pa.table({"d": pa.array([13_000_000, -13_000_000], pa.int32()).cast(pa.date32())}),
    )


@pytest.mark.parametrize("unit", UNITS)
def test_the_start_of_far_units(database: duckdb.DuckDBPyConnection, unit: str) -> None:
    check(database, f"date_trunc('{unit}', t)", pa.table({"t": pa.array(FAR).cast(pa.timestamp("us"))}))
