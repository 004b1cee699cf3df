"""Expressions that are too long, too deep, or no SQL at all: one clear error, and never a traceback or a hang."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from dtap_dask.errors import DtapError, ExpressionError
from dtap_dask.lake.sql.expression import compile_sql, parse_sql
from dtap_dask.lake.sql.parsing import MAX_DEPTH, MAX_TOKENS

ROWS = pa.record_batch(
    {
        "i": pa.array([1, 2, None], pa.int32()),
        "x": pa.array([1.5, 2.5, None]),
        "s": pa.array(["a", "b", None]),
        "b": pa.array([True, False, None]),
    }
)
DEEP: dict[str, Callable[[int], str]] = {
    "parentheses": lambda n: "(" * n + "i" + ")" * n + " > 0",
    "calls": lambda n: "abs(" * n + "i" + ")" * n + " > 0",
    "sums": lambda n: " + ".join(["i"] * n) + " > 0",
    "joined text": lambda n: " || ".join(["s"] * n) + " > ''",
    "NOT": lambda n: "NOT " * n + "b",
    "minus": lambda n: "- " * n + "i < 9",
    "CASE": lambda n: "CASE WHEN b THEN " * (n // 2) + "true" + " ELSE false END" * (n // 2),
    "CAST": lambda n: "i" + "::bigint" * n + " > 0",
    "IF": lambda n: "if(b, " * n + "true" + ", false)" * n,
    "subtractions in parentheses": lambda n: "(" * (n // 2) + "i" + " - 1)" * (n // 2) + " < 9",
}


def from_a_deep_stack(frames: int, call: Callable[[], object]) -> object:
    return call() if frames == 0 else from_a_deep_stack(frames - 1, call)


@pytest.mark.parametrize("kind", DEEP)
def test_ninety_levels_work_from_a_deep_stack(kind: str) -> None:
    def use() -> None:
        sql = DEEP[kind](MAX_DEPTH - 10)
        expression = compile_sql(sql, ROWS.schema)
        assert expression.keep(ROWS).null_count == 0
        assert expression.may_match({})
        assert [part.sql for part in parse_sql(sql).conjuncts()]

    from_a_deep_stack(300, use)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 10, 5000])
@pytest.mark.parametrize("kind", DEEP)
def test_more_levels_are_refused(kind: str, levels: int) -> None:
    with pytest.raises(ExpressionError, match="is nested too deeply: 100 levels"):
        compile_sql(DEEP[kind](levels), ROWS.schema)


def test_a_chain_of_fields_is_bounded() -> None:
    with pytest.raises(ExpressionError, match="is nested too deeply"):
        parse_sql("i" + "['a']" * 5000)


def test_an_expression_has_a_longest_length() -> None:
    with pytest.raises(ExpressionError, match="has 1,100,006 characters; 1,000,000 are allowed"):
        parse_sql("s = '" + "a" * 1_100_000 + "'")
    with pytest.raises(ExpressionError, match="words, numbers and signs; 100,000 are allowed"):
        parse_sql(f"i IN ({', '.join(['1'] * MAX_TOKENS)})")


def test_long_expressions_are_cut_in_messages() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_sql("s = 'a' OR " * 1000 + "i = 'x'", ROWS.schema)
    assert len(str(caught.value)) < 500


REFUSED = {
    "i > 1e": "'1e' in 'i > 1e' is not a number",
    "x > 1.5.5": "",
    "x > .2.5": "is not a number",
    "i IN": "IN takes a list of values",
    "i IN ()": "IN takes a list of values",
    "CAST(i AS DOUBLE": "is not closed",
    "(i > 1": "is not closed",
    "negate(i) > 1": "there is no function 'negate'",
    "i > " + "9" * 5000: "has 5,000 characters; 400 are allowed",
    "i > 0." + "1" * 5000: "characters; 400 are allowed",
    "s = '\ud800'": "has a character that is not Unicode text",
    "\x00": "there is no column '\\x00'",
    "i \x01 > 1": "is not valid SQL",
    "i > 1; DROP TABLE t": "without a semicolon",
    "-- nothing": "",
    "'a' 'b'": "not available in an expression",
    "s ~ 'a'": "write regexp_matches for a part of the text",
    "$1": "not available in an expression",
    "i -> 1": "not available in an expression",
    "x > INTERVAL '99999999999999999999' DAY": "it is too long",
    "i::decimal(5, a)": "a decimal has 1 to 38 digits",
    "i::decimal(99999999999999999999)": "a decimal has 1 to 38 digits",
    "lower(DISTINCT s)": "not available in an expression",
    "lower(s ORDER BY s)": "not available in an expression",
    "s COLLATE nocase": "not available in an expression",
    "regexp_matches(s, '(')": "'(' is not a regular expression (RE2's syntax): missing )",
    "regexp_matches(s, 'a', 'x')": "regexp_matches has no option 'x'; options are c, i, l, m, n, p, s",
    "regexp_matches(s, s)": "'pattern' of regexp_matches(s, pattern, [options]) takes text that is the same for",
    "regexp_extract(s, 'a', 11)": "a number from 0 (the whole match) to 9, not 11",
    "regexp_extract(s, 'a', NULL)": "must not be NULL",
    "regexp_replace(s, 'a', '\\9')": "regexp_replace cannot replace with '\\\\9'",
    "date_trunc('mont', DATE '2013-01-01')": "date_trunc has no unit 'mont'. Did you mean 'month'?",
    "date_diff('era', DATE '2013-01-01', DATE '2013-01-01')": "date_diff has no unit 'era'",
    "strftime(DATE '2013-01-01', '%Q')": "strftime has no directive '%Q'; directives are %d",
    "date_part('year')": "date_part takes 2 arguments, not 1: date_part(part, t)",
    "lpad(s, 3)": "lpad takes 3 arguments, not 2: lpad(s, width, fill)",
    "make_date(2013, 1)": "make_date takes days since 1970, or year, month and day",
    "left(i, 2)": "'s' of left(s, count) takes text, not column 'i' (int32)",
    "sinn(x)": "Did you mean 'sin'?",
    "regex_replace(s, 'a', 'b')": "Did you mean 'regexp_replace'?",
    "xyzzy(x)": "`dtap-dask docs sql` lists all",
    "random() < 0.5": "A run must give the same rows whenever it is repeated",
}


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(sql: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_sql(sql, ROWS.schema)
    assert REFUSED[sql] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "round(0.1, 9223372036854775807) > 0",
        "round(0.1, -9223372036854775808) = 0",
        "round(i, -9223372036854775808) = 0",
        "trunc(x, 9223372036854775807) > 0",
        "substring(s, -9223372036854775808, -9223372036854775808) = ''",
        "left(s, -9223372036854775808) = ''",
        "right(s, 9223372036854775807) = s",
        "date_trunc('month', DATE '2013-06-15') > '2013-01-01'",
        "hour(NULL) IS NULL",
        "pi() > 3",
        "s = '\x00' OR s = 'a'",
    ],
)
def test_extremes_are_computed(sql: str) -> None:
    assert compile_sql(sql, ROWS.schema).keep(ROWS)[0].as_py()


@pytest.mark.parametrize(
    "sql",
    [
        "lpad(s, 2147483647, 'x')",
        "lpad('a', 1000000000, 'x')",
        "rpad(s, 5, '')",
        "repeat('abc', 9223372036854775807)",
        "make_date(99999999999, 1, 1)",
        "make_date(i, 2, 30)",
        "make_timestamp(2013, 6, 1, 25, 0, 0)",
        "to_timestamp(1e300)",
    ],
)
def test_what_cannot_be_computed_is_one_error(sql: str) -> None:
    with pytest.raises(DtapError, match="cannot be computed"):
        compile_sql(sql, ROWS.schema).evaluate(ROWS)
