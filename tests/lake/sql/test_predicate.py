"""SQL expressions, row by row of a table: what they give, what they refuse and with which words, what they prune."""

from __future__ import annotations

import datetime as dt
import math
from decimal import ROUND_HALF_UP, Context, Decimal
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from dtap_dask.errors import DataError, ExpressionError
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.lake.sql.expression import Expression, compile_sql, parse_sql

NAN = float("nan")
WIDE = Context(prec=60)
UTC = dt.UTC
ROWS = pa.record_batch(
    {
        "i": pa.array([1, 2, None, -7], pa.int32()),
        "u": pa.array([0, 5, None, 2**64 - 1], pa.uint64()),
        "x": pa.array([1.5, NAN, None, -0.0]),
        "h": pa.array([1.5, NAN, None, -0.0], pa.float16()),
        "dec": pa.array([Decimal("1.25"), Decimal("-1.25"), None, Decimal("99999999.99")], pa.decimal128(10, 2)),
        "s": pa.array(["abc", "Ab", None, ""]),
        "cat": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "b": pa.array([True, False, None, True]),
        "d": pa.array([dt.date(2013, 6, 1), dt.date(2012, 2, 29), None, dt.date(1969, 12, 31)]),
        "ts": pa.array(
            [dt.datetime(2013, 6, 1, 12, 30, 15), dt.datetime(2012, 1, 31), None, dt.datetime(1969, 12, 31)]
        ),
        "tz": pa.array([dt.datetime(2013, 6, 1, 12, tzinfo=UTC)] * 4, pa.timestamp("ms", "America/New_York")),
        "t": pa.array([dt.time(10), dt.time(9, 30), None, dt.time(0)], pa.time64("us")),
        "bin": pa.array([b"a", b"", None, b"\xff"]),
        "st": pa.array([{"a": {"b": 1}, "f": NAN}, {"a": None, "f": 2.0}, None, {"a": {"b": 4}, "f": 0.0}]),
        "l": pa.array([[1, 2], [], None, [3]]),
        "a.b": pa.array([1, 2, 3, 4]),
        "Mixed": pa.array([1, 2, 3, 4]),
        "dup": pa.array([1, 2, 3, 4]),
        "DUP": pa.array([1, 2, 3, 4]),
    }
)


def value(sql: str, batch: pa.RecordBatch = ROWS) -> list[Any]:
    expression = compile_sql(sql, batch.schema)
    result = expression.evaluate(batch)
    assert len(result) == batch.num_rows
    assert result.type == expression.type
    result.validate(full=True)
    return list(result.to_pylist())


CONDITIONS = {
    "h / 5 = 0.3": [True, None, None, False],
    "h / 5 = 0.3::double": [False, None, None, False],
    "h / 5 IN (0.3, 7)": [True, None, None, False],
    "h / 5 IN (0.3, 7e0)": [False, None, None, False],
    "h / 5 BETWEEN 0.3 AND 7": [True, None, None, False],
    "i > 1.5": [False, True, None, False],
    "1.5 < i": [False, True, None, False],
    "i < 3000000000": [True, True, None, True],
    "i = 3000000000": [False, False, None, False],
    "i <> 1.5": [True, True, None, True],
    "i IS DISTINCT FROM 1.5": [True, True, True, True],
    "i = '2'": [False, True, None, False],
    "u >= -1": [True, True, None, True],
    "u = 18446744073709551615": [False, False, None, True],
    "dec = 1.005": [False, False, None, False],
    "dec > 1.249": [True, False, None, True],
    "x = 0": [False, None, None, True],
    "x IS NULL": [False, True, True, False],
    "x IS NOT NULL": [True, False, False, True],
    "h = 1.5": [True, None, None, False],
    "NOT x > 1": [False, None, None, True],
    "x IN (0, 9)": [False, None, None, True],
    "x / 0 > 1e300": [True, None, None, None],
    "i IN (1, NULL)": [True, None, None, None],
    "i NOT IN (1, NULL)": [False, None, None, None],
    "i NOT IN (1, 2.5)": [False, True, None, True],
    "i IN (x, 2)": [False, True, None, False],
    "i IN (1.5)": [False, False, None, False],
    "i BETWEEN 1 AND 1.5": [True, False, None, False],
    "i IS NOT DISTINCT FROM NULL": [False, False, True, False],
    "i = NULL": [None, None, None, None],
    "b AND NULL": [None, False, None, None],
    "b OR NULL": [True, None, None, True],
    "b IS TRUE": [True, False, False, True],
    "b IS NOT TRUE": [False, True, True, False],
    "b = 1": [True, False, None, True],
    "b = 'yes'": [True, False, None, True],
    "s LIKE 'a%'": [True, False, None, False],
    "s ILIKE 'a_'": [False, True, None, False],
    "s NOT LIKE '%'": [False, False, None, False],
    "'a%c' LIKE 'a!%c' ESCAPE '!'": [True] * 4,
    "'a\\c' LIKE 'a\\c'": [True] * 4,
    "s LIKE NULL": [None] * 4,
    "cat = 'a'": [True, False, None, True],
    "cat IN ('b', 'c')": [False, True, None, False],
    "cat IS NULL": [False, False, True, False],
    "cat || 'x' = 'ax'": [True, False, None, True],
    "coalesce(cat, 'b') = 'b'": [False, True, True, False],
    "d >= '2013-06-01'": [True, False, None, False],
    "d = '2013-06-01 12:00:00'": [False, False, None, False],
    "d < TIMESTAMP '2013-06-01 00:00:01'": [True, True, None, True],
    "d < DATE '1970-01-01'": [False, False, None, True],
    "ts > '2013-06-01'": [True, False, None, False],
    "ts = tz": [False, False, None, False],
    "tz = '2013-06-01 14:00:00+02'": [True] * 4,
    "tz = TIMESTAMPTZ '2013-06-01 12:00:00'": [True] * 4,
    "tz > TIMESTAMPTZ '2013-06-01 11:59:59.9999999Z'": [True] * 4,
    "t > '09:45'": [True, False, None, False],
    "bin = 'a'": [True, False, None, False],
    "st.a.b = 1": [True, None, None, False],
    "st['a']['b'] IS NULL": [False, True, True, False],
    "st.f IS NULL": [True, False, True, False],
    "l IS NULL": [False, False, True, False],
    '"a.b" = 1': [True, False, False, False],
    "mixed = 1 AND MIXED = 1": [True, False, False, False],
    "dup = 1": [True, False, False, False],
    "i // 0 > 1 AND FALSE": [False] * 4,
    "i <> 1 AND 10 // (i - 1) > 1": [False, True, None, False],
    "s = 'abc' AND length(s) > 2 OR s = ''": [True, False, None, True],
    "(i = 1) = b": [True, True, None, False],
}


@pytest.mark.parametrize("sql", CONDITIONS)
def test_condition(sql: str) -> None:
    assert value(sql) == CONDITIONS[sql]
    kept = compile_sql(sql, ROWS.schema).keep(ROWS)
    assert kept.to_pylist() == [outcome is True for outcome in CONDITIONS[sql]]


VALUES = {
    "i + 1": (pa.int64(), [2, 3, None, -6]),
    "(i - 9223372036854775801) % -1": (pa.int64(), [0, 0, None, 0]),
    "i // 2": (pa.int64(), [0, 1, None, -3]),
    "1.255::double": (pa.float64(), [1.255] * 4),
    "h / 3": (pa.float32(), [0.5, None, None, 0.0]),
    "h / 0.3": (pa.float32(), [5.0, None, None, 0.0]),
    "h / 0.3::double": (pa.float64(), [5.0, None, None, 0.0]),
    "(x / 12)::decimal(9, 2)": (pa.decimal128(9, 2), [Decimal("0.13"), None, None, Decimal("0.00")]),
    "2.5::double::decimal(4, 0)": (pa.decimal128(4, 0), [Decimal(3)] * 4),
    "-2.5::double::decimal(4, 0)": (pa.decimal128(4, 0), [Decimal(-3)] * 4),
    "u % 100.0": (pa.decimal128(21, 1), [Decimal("0.0"), Decimal("5.0"), None, Decimal("15.0")]),
    "u + 0": (pa.uint64(), [0, 5, None, 2**64 - 1]),
    "u - i": (pa.decimal128(21, 0), [Decimal(-1), Decimal(3), None, Decimal(2**64 + 6)]),
    "u // -2": (pa.decimal128(20, 0), [Decimal(0), Decimal(-2), None, Decimal(-(2**63) + 1)]),
    "1::decimal(38, 20) * 3::decimal(38, 0)": (pa.decimal128(38, 20), [Decimal(3)] * 4),
    "12345678901234567890 % 1000.0": (pa.decimal128(21, 1), [Decimal("890.0")] * 4),
    "dec::boolean": (pa.bool_(), [True, True, None, True]),
    "'12:30'::time": (pa.time64("us"), [dt.time(12, 30)] * 4),
    "'2013-06-01 1:2:3.5'::time": (pa.time64("us"), [dt.time(1, 2, 3, 500_000)] * 4),
    "t::varchar": (pa.string(), ["10:00:00", "09:30:00", None, "00:00:00"]),
    "bin::varchar": (pa.string(), ["a", "", None, "\\xFF"]),
    "(ts + INTERVAL 500 MILLISECOND)::timestamp_s": (
        pa.timestamp("s"),
        [dt.datetime(2013, 6, 1, 12, 30, 16), dt.datetime(2012, 1, 31, 0, 0, 1), None, dt.datetime(1969, 12, 31)],
    ),
    "try_cast(1e308::double AS float)": (pa.float32(), [None] * 4),
    "1e16::double::varchar": (pa.string(), ["1e+16"] * 4),
    "1e-5::double::varchar": (pa.string(), ["1e-05"] * 4),
    "3e10::float::varchar": (pa.string(), ["30000001024.0"] * 4),
    "0.0000001::decimal(10, 7)::varchar": (pa.string(), ["0.0000001"] * 4),
    "nullif(dec, h)": (pa.decimal128(10, 2), [Decimal("1.25"), Decimal("-1.25"), None, Decimal("99999999.99")]),
    "i % 2": (pa.int64(), [1, 0, None, -1]),
    "i / 2": (pa.float64(), [0.5, 1.0, None, -3.5]),
    "-i": (pa.int64(), [-1, -2, None, 7]),
    "-9223372036854775808": (pa.int64(), [-(2**63)] * 4),
    "0 / 0": (pa.float64(), [None] * 4),
    "x * 2": (pa.float64(), [3.0, None, None, 0.0]),
    "x % 1": (pa.float64(), [0.5, None, None, 0.0]),
    "dec + 1": (pa.decimal128(11, 2), [Decimal("2.25"), Decimal("-0.25"), None, Decimal("100000000.99")]),
    "dec % 0.5": (pa.decimal128(10, 2), [Decimal("0.25"), Decimal("-0.25"), None, Decimal("0.49")]),
    "round(dec)": (pa.decimal128(10, 0), [Decimal(1), Decimal(-1), None, Decimal(100000000)]),
    "ceil(dec)": (pa.decimal128(10, 0), [Decimal(2), Decimal(-1), None, Decimal(100000000)]),
    "round(2.5::double)": (pa.float64(), [3.0] * 4),
    "floor(i)": (pa.float64(), [1.0, 2.0, None, -7.0]),
    "CAST(dec AS BIGINT)": (pa.int64(), [1, -1, None, 100000000]),
    "(i + 0.5::double)::int": (pa.int32(), [2, 2, None, -6]),
    "TRY_CAST(s AS INT)": (pa.int32(), [None] * 4),
    "TRY_CAST(i AS UTINYINT)": (pa.uint8(), [1, 2, None, None]),
    "' 12 '::int": (pa.int32(), [12] * 4),
    "'1.5'::decimal(4, 2)": (pa.decimal128(4, 2), [Decimal("1.50")] * 4),
    "i::varchar": (pa.string(), ["1", "2", None, "-7"]),
    "x::varchar": (pa.string(), ["1.5", None, None, "-0.0"]),
    "ts::varchar": (pa.string(), ["2013-06-01 12:30:15", "2012-01-31 00:00:00", None, "1969-12-31 00:00:00"]),
    "ts::date": (pa.date32(), [dt.date(2013, 6, 1), dt.date(2012, 1, 31), None, dt.date(1969, 12, 31)]),
    "s || '-' || i": (pa.string(), ["abc-1", "Ab-2", None, "--7"]),
    "concat_ws('-', s, s)": (pa.string(), ["abc-abc", "Ab-Ab", "", "-"]),
    "concat_ws(s, NULL, i, 'x')": (pa.string(), ["1abcx", "2Abx", None, "-7x"]),
    "CASE WHEN i > 99 THEN replace(s, cat, cat) END": (pa.string(), [None] * 4),
    "concat(s, NULL, 'x')": (pa.string(), ["abcx", "Abx", "x", "x"]),
    "CASE WHEN i > 1 THEN 'big' WHEN i < 0 THEN 'neg' END": (pa.string(), [None, "big", None, "neg"]),
    "CASE cat WHEN 'a' THEN 1 ELSE 2.5 END": (
        pa.decimal128(20, 1),
        [Decimal(1), Decimal("2.5"), Decimal("2.5"), Decimal(1)],
    ),
    "CASE WHEN i > 0 THEN 6 // i ELSE 0 END": (pa.int64(), [6, 3, 0, 0]),
    "CASE WHEN s <> '' AND s <> 'abc' AND s <> 'Ab' THEN s::int ELSE 0 END": (pa.int64(), [0] * 4),
    "CASE WHEN i IS NULL OR i IS NOT NULL THEN 1 ELSE 5 * 9223372036854775807 END": (pa.int64(), [1] * 4),
    "i // 0 + NULL": (pa.int64(), [None] * 4),
    "replace(NULL, 'a', s::int::varchar)": (pa.string(), [None] * 4),
    "coalesce(i, nullif(s, '')::int, 7)": (pa.int64(), [1, 2, 7, -7]),
    "coalesce(i, 0)": (pa.int64(), [1, 2, 0, -7]),
    "nullif(i, 2)": (pa.int32(), [1, None, None, -7]),
    "greatest(i, 1)": (pa.int64(), [1, 2, 1, 1]),
    "least(s, 'B')": (pa.string(), ["B", "Ab", "B", ""]),
    "abs(i)": (pa.int64(), [1, 2, None, 7]),
    "sqrt(x)": (pa.float64(), [math.sqrt(1.5), None, None, -0.0]),
    "ln(i)": (pa.float64(), [0.0, math.log(2), None, None]),
    "power(i, 2)": (pa.float64(), [1.0, 4.0, None, 49.0]),
    "lower(s)": (pa.string(), ["abc", "ab", None, ""]),
    "upper(cat)": (pa.string(), ["A", "B", None, "A"]),
    "substring(s, 2)": (pa.string(), ["bc", "b", None, ""]),
    "substring(s, 1, 2)": (pa.string(), ["ab", "Ab", None, ""]),
    "left(s, 1)": (pa.string(), ["a", "A", None, ""]),
    "replace(s, 'b', 'x')": (pa.string(), ["axc", "Ax", None, ""]),
    "trim('  a ')": (pa.string(), ["a"] * 4),
    "length(s)": (pa.int64(), [3, 2, None, 0]),
    "length(l)": (pa.int64(), [2, 0, None, 1]),
    "contains(s, 'b')": (pa.bool_(), [True, True, None, False]),
    "starts_with(cat, 'a')": (pa.bool_(), [True, False, None, True]),
    "year(ts)": (pa.int64(), [2013, 2012, None, 1969]),
    "EXTRACT(hour FROM tz)": (pa.int64(), [12] * 4),
    "date_part('dow', d)": (pa.int64(), [6, 3, None, 3]),
    "isodow(d)": (pa.int64(), [6, 3, None, 3]),
    "epoch(ts)": (pa.float64(), [1370089815.0, 1327968000.0, None, -86400.0]),
    "date_trunc('month', d)": (
        pa.timestamp("us"),
        [dt.datetime(2013, 6, 1), dt.datetime(2012, 2, 1), None, dt.datetime(1969, 12, 1)],
    ),
    "d + 1": (pa.date32(), [dt.date(2013, 6, 2), dt.date(2012, 3, 1), None, dt.date(1970, 1, 1)]),
    "d - DATE '2013-05-31'": (pa.int64(), [1, -457, None, -15857]),
    "ts + INTERVAL '1' MONTH": (
        pa.timestamp("us"),
        [dt.datetime(2013, 7, 1, 12, 30, 15), dt.datetime(2012, 2, 29), None, dt.datetime(1970, 1, 31)],
    ),
    "ts - INTERVAL 36 HOUR": (
        pa.timestamp("us"),
        [dt.datetime(2013, 5, 31, 0, 30, 15), dt.datetime(2012, 1, 29, 12), None, dt.datetime(1969, 12, 29, 12)],
    ),
    "cat": (pa.string(), ["a", "b", None, "a"]),
    "h": (pa.float32(), [1.5, None, None, 0.0]),
    "NULL": (pa.null(), [None] * 4),
}


@pytest.mark.parametrize("sql", VALUES)
def test_value(sql: str) -> None:
    dtype, expected = VALUES[sql]
    assert compile_sql(sql, ROWS.schema).type == dtype
    assert value(sql) == expected


@pytest.mark.parametrize("sql", [*CONDITIONS, *VALUES])
def test_empty_and_sliced_batches_give_the_same(sql: str) -> None:
    assert value(sql, ROWS.slice(0, 0)) == []
    assert value(sql, ROWS.slice(1, 2)) == value(sql)[1:3]


def test_dictionaries_larger_than_the_batch_and_entries_no_row_uses() -> None:
    entries = pa.array(["1", "no number", None, *map(str, range(50))])
    batch = pa.record_batch({"c": pa.DictionaryArray.from_arrays(pa.array([0, 2, None, 3] * 20, pa.int8()), entries)})
    assert value("c::int", batch) == [1, None, None, 0] * 20
    assert value("c IS NULL", batch) == [False, True, True, False] * 20
    assert value("c = '1'", batch.slice(0, 4)) == [True, None, None, False]


def test_columns_and_their_names() -> None:
    parsed = parse_sql('Mixed > 1 AND "a.b" < 2 AND st.a.b = mixed')
    assert parsed.columns == ("Mixed", "a.b", "st", "mixed")
    assert parsed.bind(ROWS.schema).columns == {"Mixed", "a.b", "st"}
    assert [part.sql for part in parsed.conjuncts()] == ["Mixed > 1", '"a.b" < 2', "st.a.b = mixed"]
    assert compile_sql("1 = 1", ROWS.schema).columns == frozenset()


def test_ten_thousand_conditions_do_not_overflow_the_stack() -> None:
    expression = compile_sql(" OR ".join(f"i = {number}" for number in range(10_000)), ROWS.schema)
    assert expression.keep(ROWS).to_pylist() == [True, True, False, False]


ERRORS = {
    "": "expected a SQL expression",
    "i >": "is not valid SQL at line 1, column",
    "i = 'open": "Is a quote left open?",
    "i = 1; s": "is more than one expression: write a single one, without a semicolon",
    "missing > 1": "there is no column 'missing'. Known here: i, u, x",
    "mixd > 1": "there is no column 'mixd'. Did you mean 'Mixed'?",
    's = "abc"': "Text is written in single quotes",
    "a.b = 1": "the column 'a.b' has a dot in its name; write it in double quotes: \"a.b\"",
    "Dup = 1": "the column 'Dup' is ambiguous: there are 'dup', 'DUP'",
    "st.q = 1": "has no field 'q'. Known here: a, f",
    "i.q = 1": "column 'i' (int32) has no field 'q': it is not a struct",
    "l[1] = 1": "[...] is for fields of structs only",
    "d > 'abc'": "column 'd' (date32[day]) is compared with 'abc', which is not a valid date32[day]: "
    "expected YYYY-MM-DD",
    "d > '2013-02-30'": "which is not a valid date32[day]",
    "ts > '2013-06-01 12:00+01'": "it has a zone, the type has none",
    "i = 'x'": "column 'i' (int32) is compared with 'x', which is not a valid int32: not a whole number",
    "i IN (1, 'x')": "which is not a valid int32",
    "x > 'many'": "column 'x' (double) is compared with 'many'",
    "x = 'nan'": "NaN, which counts as NULL; write IS NULL",
    "b = 'maybe'": "expected true or false",
    "s = 5": "column 's' (string) cannot be compared with the literal 5 (int64). CAST one of them",
    "s > i": "column 's' (string) cannot be compared with column 'i' (int32)",
    "d = 5": "cannot be compared with the literal 5",
    "b = 2": "cannot be compared with the literal 2",
    "st = 1": "column 'st'",
    "l = 1": "of such columns use IS NULL or a field",
    "i AND b": "column 'i' (int32) is used where a condition is expected",
    "NOT s": "is used where a condition is expected",
    "i LIKE '1%'": "LIKE takes text, not column 'i' (int32)",
    "s LIKE cat": "LIKE takes a constant text as pattern",
    "s LIKE 'a!' ESCAPE '!'": "ends with its escape character",
    "i = s LIKE 'a'": "put parentheses around the inner comparison",
    "foo(i)": "there is no function 'foo' here",
    "rond(x)": "Did you mean 'round'?",
    "sum(i) > 1": "sum is an aggregate",
    "row_number() OVER () = 1": "there are no window functions",
    "i IN (SELECT 1)": "not a subquery",
    "(SELECT 1) = i": "there are no subqueries",
    "i > current_date": "there is no function 'current_date' here",
    "count(*) > 1": "count is an aggregate",
    "round(x, i)": "'digits' of round(x, [digits]) takes a whole number that is the same for every row, not column 'i'",
    "lower(i)": "lower takes text, not column 'i' (int32)",
    "year(s)": "year takes a date or timestamp",
    "abs(s)": "abs takes a number",
    "dec::decimal(38, 20) * dec::decimal(38, 20)": "needs 40 digits after the point",
    "(DATE '9999-12-31' + 5) = i": "cannot be compared with the literal 2932901 (date32[day])",
    "ts::int": "column 'ts' (timestamp[us]) cannot be cast to int32",
    "d::time": "column 'd' (date32[day]) cannot be cast to time64[us]",
    "bin::int": "column 'bin' (binary) cannot be cast to int32",
    "s + 1": "The operator + takes numbers, not column 's' (string)",
    "x // 2": "The operator // divides integers; write floor(a / b)",
    "ts - ts": "write epoch(a) - epoch(b)",
    "ts + 1": "Dates and timestamps take + or - INTERVAL",
    "date_trunc('eon', ts)": "date_trunc has no unit 'eon'",
    "EXTRACT(eon FROM ts)": "a date has no part 'eon'",
    "nullif(i)": "nullif takes 2 arguments, not 1: nullif(value, other)",
    "prefix(s)": "starts_with takes 2 arguments, not 1",
    "d::int": "column 'd' (date32[day]) cannot be cast to int32",
    "i::point": "the type POINT is not one of BOOLEAN, TINYINT",
    "DATE 'abc'": "the value 'abc' cannot be cast from string to date32[day]",
    "'x'::int": "the value 'x' cannot be cast from string to int32: not a number",
    "CASE WHEN b THEN 1 ELSE 'x' END": "CASE cannot choose between int64 and the literal 'x' (string)",
    "ts > NOW()": "there is no function 'now' here",
    "ts > ts - INTERVAL (i) DAY": "INTERVAL takes a constant number and one unit",
    "i BETWEEN SYMMETRIC 1 AND 2": "BETWEEN SYMMETRIC is not available",
    "i IS 5": "IS is followed by [NOT] NULL, TRUE, FALSE or DISTINCT FROM",
    "*": "star is not supported",
}


@pytest.mark.parametrize("sql", ERRORS)
def test_refused_with_words_that_help(sql: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_sql(sql, ROWS.schema)
    assert ERRORS[sql] in str(caught.value)
    assert sql in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("i * 9223372036854775807", "i * 9223372036854775807 cannot be computed for every row: overflow"),
        ("u + 1", "u + 1 cannot be computed for every row: overflow"),
        ("i % 0", "divide by zero"),
        ("dec % 0", "dec % 0 cannot be computed for every row: divide by zero"),
        ("dec::decimal(38, 2) * 1e36::decimal(38, 0)", "more than 38 digits"),
        ("dec::decimal(38, 2) + 9e35::decimal(38, 2) + 9e35::decimal(38, 2)", "cannot be computed for every row"),
        ("u - 1", "u - 1 cannot be computed for every row: overflow"),
        ("1::int::decimal(38, 37) * 0 + i * 1000000000", "does not fit in precision 38"),
        ("CAST(i % 0 AS VARCHAR) || 'x'", "i % 0 cannot be computed for every row: divide by zero"),
        (
            "coalesce(u, 2.5::decimal(38, 37))",
            "column 'u' (uint64): the value 18446744073709551615 cannot be cast from",
        ),
        ("s::int", "the value 'abc' cannot be cast from string to int32: not a number. Use TRY_CAST"),
        ("x::tinyint + 9223372036854775807", "overflow"),
        ("dec::decimal(4, 1)", "the value Decimal('99999999.99') cannot be cast from decimal128(10, 2)"),
        ("abs(-9223372036854775808 + i - i)", "overflow"),
    ],
)
def test_rows_that_cannot_be_computed(sql: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        compile_sql(sql, ROWS.schema).evaluate(ROWS)
    assert words in str(caught.value)


def test_a_number_is_no_condition() -> None:
    expression = compile_sql("i + 1", ROWS.schema)
    for ask in (lambda: expression.keep(ROWS), lambda: expression.may_match({})):
        with pytest.raises(ExpressionError, match="gives int64, but a condition must be true or false"):
            ask()


def test_decimals_that_round_up_past_38_digits_are_an_error_not_a_zero() -> None:
    batch = pa.record_batch({"big": pa.array([Decimal("9" * 36 + ".99"), Decimal("1.25")], pa.decimal128(38, 2))})
    assert value("floor(big)", batch) == [Decimal("9" * 36), Decimal(1)]
    assert value("big::decimal(38, 1)", batch) == [Decimal(10) ** 36, Decimal("1.3")]
    for sql in ("round(big)", "ceil(big)", "round(big, -1)"):
        assert value(sql, batch)[0] == Decimal(10) ** 36
    with pytest.raises(DataError):
        compile_sql("big::decimal(36, 0)", batch.schema).evaluate(batch)


@pytest.mark.parametrize(("precision", "scale"), [(15, 3), (18, 2), (18, 6), (38, 0), (38, 10), (38, 30)])
def test_a_decimal_becomes_the_nearest_double(precision: int, scale: int) -> None:
    random = Random(precision * scale)
    numbers = [
        Decimal(random.randrange(-(10**digits), 10**digits)) for digits in range(1, precision) for _ in range(50)
    ]
    for some in (numbers, [number for number in numbers if abs(number) < 2**53]):
        decimals = [number.scaleb(-scale, Context(prec=60)) for number in some] + [None]
        batch = pa.record_batch({"n": pa.array(decimals, pa.decimal128(precision, scale))}).slice(3)
        assert value("n::double", batch) == [None if number is None else float(number) for number in decimals[3:]]


def test_a_nanosecond_timestamp_does_not_wrap_around() -> None:
    batch = pa.record_batch({"ns": pa.array([-(2**63) + 10, 1], pa.timestamp("ns"))})
    assert value("date_trunc('year', ns)", batch) == [dt.datetime(1677, 1, 1), dt.datetime(1970, 1, 1)]
    for sql in ("ns + INTERVAL 600 YEAR", "ns - INTERVAL 1 DAY"):
        with pytest.raises(DataError):
            compile_sql(sql, batch.schema).evaluate(batch)


# What row groups and folders tell. ----------------------------------------------------------------


def stats(low: Any, high: Any, name: str = "i", nulls: int | None = 0, exact: bool = False) -> dict[str, ColumnStats]:
    dtype = ROWS.schema.field(name).type
    dtype = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    bounds = [None if side is None else pa.scalar(side, dtype) for side in (low, high)]
    return {name: ColumnStats(bounds[0], bounds[1], nulls, 10, exact)}


def may(sql: str, known: dict[str, ColumnStats]) -> bool:
    expression: Expression = compile_sql(sql, ROWS.schema)
    return expression.may_match(known)


PRUNED = [
    "i > 20", "20 < i", "i >= 21", "i < 10", "i <= 9.5", "i = 5", "i = 10.5", "i IN (1, 30)", "i IN (1, NULL)",
    "i BETWEEN 21 AND 30", "i BETWEEN 1 AND 9", "i IS NULL", "NOT i IS NOT NULL", "NOT (i <= 20)", "NOT i < 100",
    "i > 20 OR i < 10", "i > 5 AND i > 20", "i > 20 AND x > 0", "NOT (i > 5 OR x > 0)", "i > 3000000000",
    "i IS NOT DISTINCT FROM 5", "i IS DISTINCT FROM i AND i > 20", "(i > 20) IS TRUE", "(i < 100) IS NOT TRUE",
    "i + 1 > 21", "2 * i > 40", "-i > -10", "100 - i < 80", "i / 2 > 10", "abs(x) < 1 AND i = 0", "i = NULL", "FALSE",
    "coalesce(i, 0) > 20", "CASE WHEN i > 20 THEN x > 0 ELSE FALSE END", "i::double > 20.5", "i // 2 > 10",
]  # fmt: skip
KEPT = [
    "i >= 20", "i <= 10", "i = 10", "i = 15", "i IN (1, 15)", "i <> 15", "NOT i = 15", "NOT i IN (15, 16)",
    "i BETWEEN 0 AND 10", "i IS NOT NULL", "i > 20 OR x > 0", "x > 0", "i % 2 = 0", "abs(i) > 15", "i > x", "TRUE",
    "i IS DISTINCT FROM 5", "i + 1 > 20", "lower(s) = 'a'", "CASE WHEN i > 15 THEN TRUE END", "i > 0",
]  # fmt: skip


@pytest.mark.parametrize("sql", PRUNED)
def test_integers_from_10_to_20_rule_it_out(sql: str) -> None:
    assert not may(sql, stats(10, 20))


@pytest.mark.parametrize("sql", KEPT)
def test_integers_from_10_to_20_may_match(sql: str) -> None:
    assert may(sql, stats(10, 20))


@pytest.mark.parametrize(
    ("sql", "known", "expected"),
    [
        ("i > 1", stats(None, None), True),  # unknown bounds
        ("i > 1", {}, True),
        ("i > 20", stats(10, 20, nulls=None), False),
        ("i IS NULL", stats(10, 20, nulls=None), True),
        ("i IS NULL", stats(10, 20, nulls=3), True),
        ("i > 1", stats(None, None, nulls=10), False),  # only nulls
        ("i IS NOT NULL", stats(None, None, nulls=10), False),
        ("i IS NULL", stats(None, None, nulls=10), True),
        ("NOT i = 5", stats(5, 5), False),
        ("i <> 5", stats(5, 5), False),
        ("i <> 5", stats(5, 5, nulls=3), False),
        ("i NOT IN (5, 6)", stats(5, 5, nulls=None), False),
        ("i % 5 = 1", stats(5, 5), False),  # one value: computed
        ("i % 5 = 0", stats(5, 5), True),
        ("i // 0 = 0", stats(5, 5), True),  # cannot be computed: left to the reader
        ("x > 20", stats(1.0, 20.0, "x"), False),
        ("x IS NULL", stats(1.0, 20.0, "x"), True),  # NaN is null and not counted
        ("x <> 5", stats(5.0, 5.0, "x"), True),  # statistics of floats are bounds only
        ("x <> 5", stats(5.0, 5.0, "x", exact=True), False),
        ("x = 0", stats(-0.0, -0.0, "x"), True),
        ("x > 1", stats(NAN, NAN, "x"), True),
        ("x > 1", stats(20.0, 1.0, "x"), True),  # nonsense is not believed
        ("s <> 'abc'", stats("abc", "abc", "s"), True),  # perhaps truncated
        ("s <> 'abc'", stats("abc", "abc", "s", exact=True), False),
        ("s LIKE 'abc%'", stats("b", "c", "s"), False),
        ("s LIKE 'abc%'", stats("a", "abb", "s"), False),
        ("s LIKE 'abc%'", stats("a", "b", "s"), True),
        ("s LIKE 'ab\\%'", stats("b", "c", "s"), False),
        ("s LIKE '%abc'", stats("b", "c", "s"), True),
        ("s ILIKE 'abc%'", stats("A", "B", "s"), True),
        ("NOT s LIKE 'abc%'", stats("abc", "abcd", "s"), True),
        ("s = 'zz'", stats("a", "b", "s"), False),
        ("cat = 'zz'", stats("a", "b", "cat"), False),
        ("cat LIKE '%z'", stats("a", "a", "cat", exact=True), False),
        ("d >= '2013-06-01'", stats(dt.date(2013, 5, 1), dt.date(2013, 5, 31), "d"), False),
        ("d >= '2013-06-01'", stats(dt.date(2013, 5, 1), dt.date(2013, 6, 1), "d"), True),
        ("year(d) = 2012", stats(dt.date(2013, 1, 1), dt.date(2013, 12, 31), "d"), False),
        ("ts >= '2013-06-01'", stats(dt.datetime(2013, 5, 1), dt.datetime(2013, 5, 31, 23), "ts"), False),
        ("ts::date = '2013-06-01'", stats(dt.datetime(2013, 5, 1), dt.datetime(2013, 5, 31, 23), "ts"), False),
        (
            "date_trunc('month', ts) > '2013-05-01'",
            stats(dt.datetime(2013, 5, 1), dt.datetime(2013, 5, 31), "ts"),
            False,
        ),
        ("ts + INTERVAL 1 DAY < '2013-05-02'", stats(dt.datetime(2013, 5, 1), dt.datetime(2013, 5, 31), "ts"), False),
        ("dec > 1.005", stats(Decimal("1.00"), Decimal("1.00"), "dec"), False),
        ("dec > 1.005", stats(Decimal("1.00"), Decimal("1.01"), "dec"), True),
        ("b", stats(False, False, "b"), False),
        ("b", stats(False, True, "b"), True),
        ("NOT b", stats(True, True, "b"), False),
        ("b IS NULL", stats(True, True, "b"), False),
        ("st.a.b > 5", {"st": ColumnStats(pa.scalar(1), pa.scalar(2), 0, 10)}, True),  # whose they are is not known
        ("l IS NULL", {"l": ColumnStats(None, None, 0, 10)}, True),
        ("i > 1", {"i": ColumnStats(None, None, 0, 0)}, False),  # no rows at all
        ("i > 1", {"i": ColumnStats(pa.scalar("a"), pa.scalar("b"), 0, 10)}, True),  # of another type
        ("i > 20", {"i": ColumnStats(pa.scalar(1, pa.int64()), pa.scalar(20, pa.int64()), 0, 10)}, False),
    ],
)
def test_may_match(sql: str, known: dict[str, ColumnStats], expected: bool) -> None:
    assert may(sql, known) is expected


def test_hive_folders() -> None:
    schema = pa.schema({"year": pa.int32(), "city": pa.string(), "fare": pa.float64()})
    where = compile_sql("year = 2013 AND city <> 'NYC' AND fare > 0", schema)

    def folder(year: int | None, city: str) -> dict[str, ColumnStats]:
        number = None if year is None else pa.scalar(year, pa.int32())
        text = pa.scalar(city)
        return {
            "year": ColumnStats(number, number, 0 if number else 1, 1, exact=True),
            "city": ColumnStats(text, text, 0, 1, exact=True),
        }

    assert where.may_match(folder(2013, "CHI"))
    assert not where.may_match(folder(2012, "CHI"))
    assert not where.may_match(folder(2013, "NYC"))
    assert not where.may_match(folder(None, "CHI"))


def test_constants_that_cannot_be_computed_fail_only_where_a_row_reaches_them() -> None:
    rows = pa.record_batch({"b": [True, True]})
    expression = compile_sql("CASE WHEN b THEN 1 ELSE 1 % 0 END", rows.schema)
    assert expression.evaluate(rows).to_pylist() == [1, 1]
    assert expression.evaluate(rows.slice(0, 0)).to_pylist() == []
    with pytest.raises(DataError, match="divide by zero"):
        expression.evaluate(pa.record_batch({"b": [False]}))


@pytest.mark.parametrize("scale", [0, 2, 10])
def test_doubles_become_the_same_decimals_beside_large_ones(scale: int) -> None:
    numbers = [-3000000000.0, 3000000000.25, -0.5, 2.0**63, -(2.0**63), 2.0**64, -(2.0**64), -1e25, 1e25, 7.0]
    batch = pa.record_batch({"n": pa.array([*numbers, None])})
    exact = [Decimal(number * 10.0**scale).quantize(Decimal(1), ROUND_HALF_UP, WIDE) for number in numbers]
    assert value(f"n::decimal(38, {scale})", batch) == [*(count.scaleb(-scale, WIDE) for count in exact), None]
