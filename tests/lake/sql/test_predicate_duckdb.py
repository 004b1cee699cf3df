"""Predicates against DuckDB: the same rows are kept, and pruning by real Parquet statistics never loses one of them."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterator
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtap_dask.errors import DataError
from dtap_dask.lake.sql.domain import ColumnStats
from dtap_dask.lake.sql.expression import compile_sql

ROWS, GROUP = 240, 12
RELAXED = settings(derandomize=False, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Written in predicates where a double may be NaN: to us parentheses, to DuckDB "NaN is NULL".
OPEN, CLOSE = (
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}",
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}",
)

INTS = {
    "i8": (pa.int8(), [-128, 127, 0, 1, -1, 5]),
    "i32": (pa.int32(), [-(2**31), 2**31 - 1, 0, 1, 2, 5, -7, 100]),
    "i64": (pa.int64(), [-(2**63), 2**63 - 1, 2**53 + 1, 0, 1, 2, 5, -7]),
    "u8": (pa.uint8(), [0, 1, 5, 255]),
    "u64": (pa.uint64(), [0, 1, 5, 2**63, 2**64 - 1]),
    "small": (pa.int64(), [-3, -2, -1, 0, 1, 2, 3, 5, 40]),
}
FLOATS = {
    "f32": (pa.float32(), [float("nan"), -0.0, 0.0, 0.1, 1.5, -2.5, float("inf"), float("-inf"), 16777216.0]),
    "f64": (
        pa.float64(),
        [float("nan"), -0.0, 0.0, 0.1, 1.5, -2.5, float("inf"), float("-inf"), 2.0**53, 1e300],
    ),
}
DECIMALS = {
    "dec": (
        pa.decimal128(10, 2),
        [Decimal(text) for text in ("0", "1.25", "-1.25", "1.01", "99999999.99", "5")],
    ),
    "big": (pa.decimal128(38, 10), [Decimal(text) for text in ("0", "1.25", "-1.0000000001", "1e27", "5")]),
}
WORDS = ["", "a", "ab", "abc", "b", "A", "a%", "a_b", "ä", "Taxi Affiliation", "x\\y", "zz"]
TEXTS = {
    "s": (pa.string(), WORDS),
    "large": (pa.large_string(), WORDS),
    "dict": (pa.dictionary(pa.int32(), pa.string()), WORDS),
}
DAYS = [dt.date(2013, 1, 1) + dt.timedelta(days=days) for days in (0, 1, 30, 58, 150, 151, 364, -400, -20000)]
STAMPS = [
    dt.datetime(2013, 6, 1, 12) + dt.timedelta(seconds=seconds)
    for seconds in (0, 1, -43200, 43200, 86400 * 40, -(10**9))
]
MICROS = [*STAMPS, dt.datetime(2013, 6, 1, 12, 0, 0, 500_000), dt.datetime(1960, 2, 29, 23, 59, 59, 999_999)]
TIMES = {
    "day": (pa.date32(), DAYS),
    "ts": (pa.timestamp("us"), MICROS),
    "ts_s": (pa.timestamp("s"), STAMPS),
    "ts_ns": (pa.timestamp("ns"), MICROS),
    "tz": (pa.timestamp("us", "UTC"), MICROS),
    "ny": (pa.timestamp("ms", "America/New_York"), STAMPS),
}
OTHERS = {"flag": (pa.bool_(), [True, False])}
ALL = INTS | FLOATS | DECIMALS | TEXTS | TIMES | OTHERS
DATE_TEXTS = [str(day) for day in DAYS]
STAMP_TEXTS = [str(stamp) for stamp in MICROS] + DATE_TEXTS


def _column(rng: np.random.Generator, dtype: pa.DataType, pool: list[object], ordered: bool) -> pa.Array:
    picks = rng.integers(0, len(pool), ROWS)
    if ordered:
        picks = np.sort(picks)
    holes = rng.random(ROWS) < 0.15
    holes[:GROUP] = rng.random() < 0.5  # often a row group of only nulls
    holes[-2 * GROUP :] = False  # and some without any
    values = [None if hole else pool[pick] for pick, hole in zip(picks, holes, strict=True)]
    if pa.types.is_dictionary(dtype):
        return pa.array(values, dtype.value_type).dictionary_encode().cast(dtype)
    return pa.array(values, dtype)


def _make(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {name: _column(rng, dtype, list(pool), seed % 2 == 0) for name, (dtype, pool) in ALL.items()}
    columns["part"] = pa.array([2010 + row // 60 for row in range(ROWS)], pa.int32())
    columns["folder"] = pa.array(["abcd"[row // 60] for row in range(ROWS)])
    columns["nested"] = pa.StructArray.from_arrays([columns["small"], columns["f64"]], ["n", "x"])
    return pa.table({"id": pa.array(range(ROWS)), **columns})


class Lake:
    """One table: as batches for us, NaN-free in DuckDB, and as a Parquet file's row groups with their statistics."""

    def __init__(self, seed: int):
        table = _make(seed)
        self.batch = table.combine_chunks().to_batches()[0]
        self.database = duckdb.connect()
        self.database.execute("SET timezone = 'UTC'")
        clean = table
        for name in FLOATS:
            column = table[name]
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            clean = clean.set_column(clean.schema.get_field_index(name), name, column)
        fields = [clean[name].combine_chunks() for name in ("small", "f64")]
        nested = pa.StructArray.from_arrays(fields, ["n", "x"])
        clean = clean.set_column(clean.schema.get_field_index("nested"), "nested", nested)
        self.database.register("arrow_rows", clean)
        self.database.execute("CREATE TABLE rows AS SELECT * FROM arrow_rows")
        self.groups = list(_row_groups(table))

    def ask_duckdb(self, sql: str) -> list[int] | None:
        """The ids DuckDB keeps; None if it cannot compute them."""
        try:
            found = self.database.execute(f"SELECT id FROM rows WHERE {sql} ORDER BY id").fetchall()
        except (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException):
            return None
        except duckdb.BinderException as error:
            if "TIMESTAMP_NS" in str(error):  # DuckDB compares nanoseconds with nothing that has a zone
                return None
            raise
        return [row[0] for row in found]


def _row_groups(table: pa.Table) -> Iterator[tuple[pa.RecordBatch, dict[str, ColumnStats]]]:
    plain = table.set_column(table.schema.get_field_index("dict"), "dict", table["dict"].cast(pa.string()))
    sink = io.BytesIO()
    pq.write_table(plain, sink, row_group_size=GROUP)
    file = pq.ParquetFile(sink)
    for index in range(file.num_row_groups):
        batch = file.read_row_group(index).combine_chunks().to_batches()[0]
        chunk = file.metadata.row_group(index)
        stats = {}
        for place in range(chunk.num_columns):
            column = chunk.column(place)
            name = column.path_in_schema
            found = column.statistics
            if "." in name or found is None:
                continue
            bounds = [None, None]
            if found.has_min_max:
                dtype = table.schema.field(name).type
                kind = pa.string() if name == "dict" else dtype
                bounds = [_stat(value, kind) for value in (found.min, found.max)]
            stats[name] = ColumnStats(
                bounds[0], bounds[1], found.null_count if found.has_null_count else None, batch.num_rows
            )
        for name in ("part", "folder"):
            value = batch[name][0]
            stats[name] = ColumnStats(value, value, 0, batch.num_rows, exact=True)
        yield batch, stats


def _stat(value: object, dtype: pa.DataType) -> pa.Scalar:
    if pa.types.is_timestamp(dtype) and dtype.unit == "s":
        dtype = pa.timestamp("ms", dtype.tz)  # how Parquet stores seconds
    return pa.scalar(value, dtype)


@pytest.fixture(scope="module", params=[0, 1])
def lake(request: pytest.FixtureRequest) -> Lake:
    return Lake(request.param)


OPERATORS = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
INT_TEXTS = st.sampled_from(["-129", "-7", "-1", "0", "1", "2", "5", "127", "255", "3000000000", "9007199254740993"])
NUMBER_TEXTS = st.one_of(
    INT_TEXTS,
    st.sampled_from(["1.5", "-2.5", "0.1", "1.25", "1.255", "-0.0", "1e3", "1.5e0", "99999999.99", "1.0000000001"]),
)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def plain_number(draw: st.DrawFn) -> str:
    """A number column or literal."""
    columns = st.sampled_from([*INTS, *FLOATS, *DECIMALS, "part"])
    return draw(st.one_of(columns, columns, columns, NUMBER_TEXTS))


@st.composite
def number(draw: st.DrawFn) -> str:
    """An expression that gives a number."""

    def pick(*choices: str) -> str:
        return draw(st.sampled_from(choices))

    def small() -> str:
        return pick("small", "i8", "u8", "nested.n", "nested['n']")

    def stamp() -> str:
        return pick("ts", "tz", "ny", "ts_s", "ts_ns")

    def plain() -> str:
        return draw(plain_number())

    makers: list[Callable[[], str]] = [
        plain,
        plain,
        plain,
        lambda: f"({small()}::bigint {pick('+', '-', '*')} {small()}::bigint)",
        lambda: f"{OPEN}f64 {pick('+', '-', '*')} {plain()}::double{CLOSE}",
        lambda: f"{OPEN}f64 {pick('/', '%')} {pick('f64', 'small', '2', '0.5', '0')}::double{CLOSE}",
        lambda: f"(dec {pick('+', '-', '*')} {pick('small::integer', '1.5', 'dec', '3')})",
        lambda: f"(dec % {pick('0.4', 'dec + 0.5', '3')})",
        lambda: f"({small()} {pick('//', '%')} {pick('2', '3', '-4')})",
        lambda: f"{pick('abs', '-', 'floor', 'ceil', 'round', 'sign')}({pick('small', 'f64', 'dec', 'i32::bigint')})",
        lambda: f"try_cast({pick('f64', 'dec', 's', 'small')} AS {pick('bigint', 'tinyint', 'double')})",
        lambda: f"(CASE WHEN {draw(comparison())} THEN {plain()}::double ELSE {plain()}::double END)",
        lambda: f"{pick('coalesce', 'greatest', 'least')}({plain()}::double, {plain()}::double)",
        lambda: "least(small, u8)",
        lambda: f"nullif(small, {draw(INT_TEXTS)}::bigint)",
        lambda: f"{pick('year', 'month', 'dayofweek', 'week', 'quarter', 'dayofyear')}({pick(*TIMES)})",
        lambda: f"extract({pick('hour', 'minute', 'second', 'day', 'isodow')} from {stamp()})",
        lambda: f"length({pick(*TEXTS)})",
        lambda: f"(epoch({pick('ts', 'tz', 'day')}) / 86400)",
    ]
    return draw(st.sampled_from(makers))()


@st.composite
def text(draw: st.DrawFn) -> str:
    column = draw(st.sampled_from([*TEXTS, "folder"]))
    return draw(
        st.sampled_from(
            [
                column,
                column,
                f"lower({column})",
                f"({column} || 'b')",
                f"trim({column})",
                f"substring({column}, 1, 2)",
                f"coalesce({column}, 'none')",
                "small::varchar",
                "day::varchar",
            ]
        )
    )


@st.composite
def moment(draw: st.DrawFn) -> str:
    """A date, a timestamp, or a literal of one."""
    zone = st.sampled_from(["", "+00", "+02", "-05:30"])
    column = draw(st.sampled_from(list(TIMES)))
    return draw(
        st.sampled_from(
            [
                column,
                column,
                column,
                f"{column}::date",
                f"date_trunc('month', {column})",
                f"day + {draw(st.integers(-40, 40))}",
                f"({column} + INTERVAL '1' MONTH)",
                f"({column} - INTERVAL 36 HOUR)",
                f"DATE {quoted(draw(st.sampled_from(DATE_TEXTS)))}",
                f"TIMESTAMP {quoted(draw(st.sampled_from(STAMP_TEXTS)))}",
                f"TIMESTAMPTZ {quoted(str(draw(st.sampled_from(MICROS))) + draw(zone))}",
            ]
        )
    )


@st.composite
def comparison(draw: st.DrawFn) -> str:
    """`a op b` within one family, either side a literal now and then."""
    op = draw(OPERATORS)
    sides = draw(
        st.sampled_from(
            [
                lambda: (draw(plain_number()), draw(NUMBER_TEXTS)),
                lambda: (draw(text()), quoted(draw(st.sampled_from(WORDS)))),
                lambda: (draw(text()), draw(text())),
                lambda: (draw(moment()), draw(moment())),
                lambda: ("day", quoted(draw(st.sampled_from(DATE_TEXTS)))),
                lambda: (
                    draw(st.sampled_from(["ts", "tz", "ny", "ts_s", "ts_ns"])),
                    quoted(draw(st.sampled_from(DATE_TEXTS))),
                ),
                lambda: ("flag", draw(st.sampled_from(["true", "false", "1", "NULL"]))),
                lambda: (draw(st.sampled_from([*INTS, *DECIMALS])), quoted(draw(INT_TEXTS))),
            ]
        )
    )()
    left, right = sides if draw(st.booleans()) else sides[::-1]
    return f"({left} {op} {right})"


@st.composite
def simple(draw: st.DrawFn) -> str:
    """One condition."""
    column = draw(st.sampled_from([*ALL, "nested", "nested.x"]))
    no = draw(st.sampled_from(["", "NOT "]))
    values = draw(st.lists(NUMBER_TEXTS | st.just("NULL"), min_size=1, max_size=4))
    words = draw(st.lists(st.sampled_from([quoted(word) for word in WORDS] + ["NULL"]), min_size=1, max_size=4))
    pattern = quoted(draw(st.text("ab%_Ä\\xy", max_size=4)))
    makers: list[Callable[[], str]] = [
        lambda: draw(comparison()),
        lambda: draw(comparison()),
        lambda: f"({draw(number())} {draw(OPERATORS)} {draw(number())})",
        lambda: f"({column} IS {no}NULL)",
        lambda: f"({draw(number())} {no}IN ({', '.join(values)}))",
        lambda: f"({draw(text())} {no}IN ({', '.join(words)}))",
        lambda: f"(day {no}IN ({', '.join(quoted(day) for day in DATE_TEXTS[:3])}))",
        lambda: f"({draw(number())} {no}BETWEEN {draw(NUMBER_TEXTS)} AND {draw(NUMBER_TEXTS)})",
        lambda: f"({draw(moment())} {no}BETWEEN {draw(moment())} AND {draw(moment())})",
        lambda: f"({draw(text())} {no}{draw(st.sampled_from(['LIKE', 'ILIKE']))} {pattern})",
        lambda: f"starts_with({draw(text())}, {quoted(draw(st.sampled_from(WORDS)))})",
        lambda: f"(flag IS {no}{draw(st.sampled_from(['TRUE', 'FALSE']))})",
        lambda: "flag",
    ]
    return draw(st.sampled_from(makers))()


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda part: f"(NOT {part})"),
        inner.map(lambda part: f"({part} IS NOT TRUE)"),
    )


PREDICATES = st.recursive(simple(), _nested, max_leaves=5)


def ours(sql: str) -> str:
    return sql.replace(OPEN, "(").replace(CLOSE, ")")


def theirs(sql: str) -> str:
    return sql.replace(OPEN, "nullif(").replace(CLOSE, ", 'nan'::double)")


@RELAXED
@given(sql=PREDICATES)
def test_keeps_the_rows_that_duckdb_keeps(lake: Lake, sql: str) -> None:
    expected = lake.ask_duckdb(theirs(sql))
    if expected is None:
        return
    kept = compile_sql(ours(sql), lake.batch.schema).keep(lake.batch)
    assert kept.null_count == 0
    assert lake.batch["id"].filter(kept).to_pylist() == expected


@RELAXED
@given(sql=PREDICATES)
def test_pruning_never_loses_a_row(lake: Lake, sql: str) -> None:
    for batch, stats in lake.groups:
        expression = compile_sql(ours(sql), batch.schema)
        try:
            matches = expression.keep(batch).true_count
        except DataError:
            continue
        assert expression.may_match(stats) or matches == 0
        assert expression.may_match({}) or matches == 0
