"""Expressions on tensors give what they give on rows: random ones of all kinds, and functions with their options."""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.expression import Expression, compile_sql
from dtap_dask.lake.sql.functions.registry import FUNCTIONS
from dtap_dask.lake.sql.serving import CLOSE, CONSTANT_FOR_TWIN, WITHIN, WITHOUT_TWIN, unserved
from dtap_dask.lake.sql.tree import Call
from dtap_dask.train.serving.sql.evaluate import evaluate
from dtap_dask.train.serving.sql.functions import TWINS
from dtap_dask.train.serving.sql.tensor import SqlTensor
from sql_grammar import Grammar
from sql_rows import Failed, make_batch
from sql_tensors import may_lack, normal, row_values, served_values, tensors

EXPRESSIONS = 400


def difference(expression: Expression, batch: pa.RecordBatch, made: SqlTensor) -> str:
    """The first row that differs; empty if none does."""
    served = served_values(made, batch.num_rows)
    close = any(isinstance(node, Call) and node.name in CLOSE for node in expression.tree.walk())
    lacking = may_lack(expression)
    for row, (theirs, ours) in enumerate(zip(row_values(expression, batch), served, strict=True)):
        if isinstance(ours, Failed):
            same = lacking or isinstance(theirs, Failed)
        elif isinstance(ours, float) and isinstance(theirs, float) and close:
            same = math.isclose(ours, theirs, rel_tol=10 * WITHIN, abs_tol=1e-300)
        else:
            same = ours == theirs and type(ours) is type(theirs)
        if not same:
            return f"{expression.sql}: row {row} is {ours!r}, and not {theirs!r}"
    return ""


@pytest.mark.parametrize("seed", range(2))
def test_random_expressions_give_what_rows_give(seed: int) -> None:
    batch, grammar = normal(make_batch(seed)), Grammar(seed)
    columns, found, served = tensors(batch), [], 0
    for _ in range(EXPRESSIONS):
        _, expression = grammar.expression()
        if not unserved(expression.tree):
            served += 1
            found.append(difference(expression, batch, evaluate(expression.tree, columns)))
    assert not [text for text in found if text]
    assert served > 0.8 * EXPRESSIONS


TEXTS = (
    "lpad({}, 5, 'xyz')", "rpad({}, 2, 'ä')", "lpad({}, -1, 'q')", "lpad({}, 3, '')", "rpad({}, 0, '')",
    "repeat({}, 3)", "repeat({}, -1)", "replace({}, 'a', 'b\\1')", "replace({}, '', 'x')", "translate({}, 'aä', 'x')",
    "translate({}, '', 'x')", "split_part({}, 'a', 1)", "split_part({}, 'a', -1)", "split_part({}, '', 1)",
    "split_part({}, '', -2)", "split_part({}, 'a', 0)", "trim({})", "trim({}, 'a')", "trim({}, '')",
    "ltrim({}, 'aä_]^-')", "rtrim({}, 'b%')", "contains({}, 'a')", "contains({}, '')", "strpos({}, 'b')",
    "strpos({}, '')", "strpos({}, 'ä')", "starts_with({}, 'a')", "starts_with({}, word)", "ends_with({}, word)",
    "ends_with({}, '')", "regexp_matches({}, '^a')", "regexp_matches({}, '[A-Z]', 'i')",
    "regexp_matches({}, 'a.b', 'l')", "regexp_full_match({}, '[a-z]*')", "regexp_extract({}, '([a-z])(.)?', 2)",
    "regexp_extract({}, '[a-z]+')", "regexp_extract({}, 'x', 3)", "regexp_extract({}, '(?i)A|(b)', 1)",
    "regexp_replace({}, '[a-z]', '<\\0>', 'g')", "regexp_replace({}, 'a*', '-')", "regexp_replace({}, 'a*', '-', 'g')",
    "lower({})", "upper({})", "length({})", "strlen({})", "left({}, -1)", "right({}, 2)", "right({}, 0)",
    "substring({}, 2)", "substring({}, -2, 1)", "substring({}, 2, -1)", "substring({}, i8, u8)",
    "concat({}, word, i8)", "concat_ws('-', {}, word, i8)", "concat_ws(word, {}, s)", "{} || word",
    "{} ILIKE 'Ä_'", "{} LIKE '%!%%' ESCAPE '!'", "{} < 'b'", "{} >= word", "greatest({}, word, 'aa')",
    "least({}, word)", "{} IN ('a', 'b', NULL)", "{} BETWEEN 'a' AND 'c'", "coalesce({}, word)", "nullif({}, word)",
    "CASE {} WHEN 'a' THEN 1 WHEN 'b' THEN 2 END", "try_cast({} as int)", "try_cast({} as double)",
    "try_cast({} as boolean)",
)  # fmt: skip
TIMES = (
    "strftime({}, '%Y-%m-%d %H:%M:%S.%f')", "strftime({}, '%a %A %b %B %p %I %j %y %V %w %u %-d %-m %% x')",
    "date_trunc('week', {})", "date_trunc('decade', {})", "date_trunc('isoyear', {})", "date_trunc('quarter', {})",
    "date_trunc('hour', {})", "date_diff('week', {}, ts)", "date_diff('month', day, {})",
    "date_diff('isoyear', day, {})",
    "date_diff('century', day, {})", "date_diff('second', {}, ts)", "date_sub('month', day, {})",
    "date_sub('week', day, {})", "date_sub('year', {}, ts)", "dayname({})", "monthname({})", "last_day({})",
    "{} + INTERVAL 1 MONTH", "{} - INTERVAL '36' HOUR", "cast({} as varchar)", "cast({} as date)", "cast({} as time)",
    "cast({} as timestamp_s)", "cast({} as timestamp_ns)", "epoch({})", "epoch_ms({})", "epoch_ns({})", "julian({})",
    "{} < '2013-06-01'", "{} = day", "century({})", "yearweek({})", "nanosecond({})", "millisecond({})",
    "make_date(year({}), month({}), 31)", "make_date(epoch_us({}) // 86400000000)", "to_timestamp(epoch({}))",
    "make_timestamp(year({}), 2, day({}), hour({}), 3, 59.9999999)", "make_timestamp(epoch_us({}))",
)  # fmt: skip
NUMBERS = (
    "round({}, 2)", "round({}, -1)", "round({}, -19)", "round({}, -25)", "trunc({}, 1)", "trunc({}, -2)", "floor({})",
    "ceil({})", "abs({})", "sign({})", "{} // 3", "{} % 7", "-{}", "{} * {}", "{} + 1", "{} / 3", "cast({} as varchar)",
    "cast({} as int)", "cast({} as decimal(18,2))", "try_cast({} as decimal(9,4))", "cast({} as float)",
    "cast({} as double)", "{} IN (1, 2.5, 3)", "{} BETWEEN 0 AND 1.5", "{} = 0.1", "power({}, 2)", "degrees({})",
)  # fmt: skip


@pytest.mark.parametrize(
    ("templates", "names"),
    [
        (TEXTS, "s word"),
        (TIMES, "ts day ts_ns ny clock_ms"),
        (NUMBERS, "i8 i64 f32 f64 d2_2 d18_3 d19_4 d38_10"),
    ],
    ids=["texts", "times", "numbers"],
)
def test_functions_with_their_options_give_what_rows_give(templates: tuple[str, ...], names: str) -> None:
    """In one graph, as TensorFlow rewrites some arithmetic of graphs."""
    batch, expressions = normal(make_batch(3, 60)), []
    for sql in (template.replace("{}", name) for template in templates for name in names.split()):
        with contextlib.suppress(ExpressionError):  # not of this type
            expressions.append(compile_sql(sql, batch.schema))
    expressions = [one for one in expressions if not unserved(one.tree)]
    assert len(expressions) >= len(templates)
    columns = tensors(batch)

    @tf.function(autograph=False)
    def graph(given: dict[str, Any]) -> list[Any]:
        read = {name: SqlTensor(columns[name].type, *parts) for name, parts in given.items()}
        made = [evaluate(one.tree, read) for one in expressions]
        return [(one.values, one.null, one.bad) for one in made]

    results = graph({name: (one.values, one.null, one.bad) for name, one in columns.items()})
    pairs = zip(expressions, results, strict=True)
    found = [difference(one, batch, SqlTensor(one.type, *parts)) for one, parts in pairs]
    assert not [text for text in found if text]


SPELT = (
    "2013-06-01", " 2013-6-1 ", "2013-02-29", "2012-02-29", "2013-13-01", "0001-01-01", "9999-12-31", "2013-06-00",
    "2013-06-01 12:30:15.25", "2013-06-01T23:59:59.999999999", "1969-12-31 23:59:59.9999995", "2013-06-01 24:00",
    "2013-06-01 12", "2013-06-01 12:60", "2013-06-01 12:30 +02", "2013-06-01 12:30:00-0330", "2013-06-01 01:00Z",
    "2013-06-01 12:30 UTC", "2013-06-01 12:30+02:00:00", "12:30", "7:05:09.5", "23:59:60", "x", "", "2013-06-01 ",
    "12", "-7", "+ 7", "007", "1_000", "1__0", "12.5", "1e3", "0x1f", "999999999999999999", "99999999999999999999",
    " 5 ", "5\u00a0", "٣", "inf", "-Infinity", "nan", "+nan", "1e400", ".5", "5.", "1e-5", "+-1.25", "0.1",
    "1.7976931348623157e308", "true", "T", "no", "0", "1", "maybe", "128", "-129",
)  # fmt: skip
KINDS = ["date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamptz", "time", "boolean"]
LACKING = {**dict.fromkeys(KINDS, 0), "tinyint": 9, "bigint": 9, "uinteger": 9, "double": 2, "float": 2}


@pytest.mark.parametrize(("kind", "lacking"), LACKING.items())
def test_text_is_read_as_rows_read_it(kind: str, lacking: int) -> None:
    """All but the `lacking` texts above that a graph leaves alone."""
    batch = pa.record_batch({"s": pa.array([*SPELT, None])})
    columns = {"s": SqlTensor(pa.string(), tf.constant([*SPELT, ""]), tf.constant([False] * len(SPELT) + [True]))}
    for form in ("cast(s as {})", "try_cast(s as {})"):
        expression = compile_sql(form.format(kind), batch.schema)
        assert unserved(expression.tree) == ()
        made = evaluate(expression.tree, columns)
        assert not difference(expression, batch, made)
    assert sum(isinstance(one, Failed) for one in served_values(made, len(SPELT) + 1)) == lacking


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_twin_or_a_reason(name: str) -> None:
    assert (name in TWINS) != (name in WITHOUT_TWIN), f"function {name} has no TensorFlow twin, and no reason says why"
    known = {part.name for part in FUNCTIONS[name].parameters}
    assert {*CONSTANT_FOR_TWIN.get(name, ())} <= known


def test_no_twin_is_of_another_function() -> None:
    assert TWINS.keys() | WITHOUT_TWIN.keys() | CLOSE | CONSTANT_FOR_TWIN.keys() == FUNCTIONS.keys()


def test_bytes_that_are_not_utf_8_cannot_be_computed() -> None:
    schema = pa.schema({"s": pa.string()})
    columns = {"s": SqlTensor(pa.string(), tf.constant([b"a", b"a\xff"]))}
    for sql in ("lower(s)", "length(s)", "left(s, 1)"):
        made = served_values(evaluate(compile_sql(sql, schema).tree, columns), 2)
        assert [isinstance(value, Failed) for value in made] == [False, True]
    assert served_values(evaluate(compile_sql("strlen(s)", schema).tree, columns), 2) == [1, 2]


UNSERVED = [
    ("u64 + 1", r"column 'u64' \(uint64\) has 64 bits without a sign"),
    ("n > 1e0 and n <> 99999999999999999999", "has more than 64 bits"),
    ("address.city", "column 'address.city' .* is nested"),
    ("length(tags)", "column 'tags' .* is nested"),
    ("cast(x as varchar)", r"CAST\(x AS (TEXT|VARCHAR)\): the text of a float has no TensorFlow twin"),
    ("'a' || x", "the text of a float"),
    ("try_cast(s as decimal(9, 2))", "text as decimal has no TensorFlow twin"),
    ("replace(s, t, '')", r"REPLACE\(s, t, ''\): 'old' must be constant for its TensorFlow twin"),
    ("case when n > 0 then lpad(s, n, '0') end", "'width' must be constant"),
]


@pytest.mark.parametrize(("sql", "says"), UNSERVED)
def test_what_cannot_be_served_is_named(sql: str, says: str) -> None:
    kinds = {"u64": pa.uint64(), "n": pa.decimal128(38, 0), "x": pa.float64(), "s": pa.string(), "t": pa.string()}
    if "lpad" in sql:
        kinds["n"] = pa.int64()
    lists = {"address": pa.struct({"city": pa.string()}), "tags": pa.list_(pa.string())}
    [reason] = unserved(compile_sql(sql, pa.schema({**kinds, **lists})).tree)[:1]
    assert re.search(says, reason), reason
