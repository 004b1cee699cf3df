"""The same rows for us and for DuckDB: columns of every type, and values in a form in which both can be compared."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Context, Decimal
from functools import cached_property
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.lake.sql.expression import Expression

ROWS = 24
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
NAN, INF = float("nan"), float("inf")
_FLOATS = [NAN, -0.0, 0.0, 0.1, 0.5, 1.5, 2.5, -2.5, 0.125, 99.995, INF, -INF, 16777216.0, 1e-5, 3e10, 1e16]
_DAYS = [dt.date(2013, 1, 31), dt.date(2012, 2, 29), dt.date(1969, 12, 31), dt.date(1600, 3, 1), dt.date(9999, 12, 31)]
_STAMPS = [dt.datetime(2013, 6, 1, 12), dt.datetime(2013, 12, 31, 23, 59, 59), dt.datetime(1960, 2, 29, 23, 59, 59)]
_STAMPS = [*_STAMPS, dt.datetime(1970, 1, 1), dt.datetime(2012, 2, 29)]
_MILLIS = [*_STAMPS, dt.datetime(1999, 12, 31, 23, 59, 59, 500_000), dt.datetime(1969, 12, 31, 23, 59, 59, 999_000)]
_MICROS = [*_MILLIS, dt.datetime(2024, 12, 31, 23, 59, 59, 999_999), dt.datetime(1960, 2, 29, 23, 59, 59, 999_500)]
_CLOCKS = [dt.time(0), dt.time(12, 30), dt.time(23, 59, 59)]
_DECIMALS = ["0", "1", "-1", "0.5", "-0.5", "1.25", "-1.25", "2.5", "9.99", "99999", "0.001", "12345.678", "-3"]
WORDS = [
    "", "a", "ab", "ABC", "ä", "ß", "é", "日本語", "x'y", "a%_\\", "5", " 7 ", "-1", "+5", "1e3", "1.5", "0x1A",
    "1_000", "true", "F", "no", "2013-06-01", "2013-6-1", "2013-06-01 12:30:15.25", "12:30", "23:59:59.999999",
    "99999999999", "0.005", "a\\xFF",
]  # fmt: skip


def _whole(bits: int, signed: bool) -> list[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    edges = [low, high, high // 2 + 1, 0, 1, 2, 3, 5, 100]
    return [*edges, 2**53 + 1, 16777217, -1, -7] if bits == 64 and signed else edges + [-1, -7] * signed


def _decimal(precision: int, scale: int) -> tuple[pa.DataType, list[Any]]:
    most = Decimal(10**precision - 1).scaleb(-scale, Context(prec=60))
    some = [Decimal(text) for text in _DECIMALS]
    fitting = [value for value in some if abs(value) <= most and -value.as_tuple().exponent <= scale]
    return pa.decimal128(precision, scale), [*fitting, most, most.copy_negate(), Decimal(1).scaleb(-scale)]


COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "flag": (pa.bool_(), [True, False]),
    **{f"i{bits}": (getattr(pa, f"int{bits}")(), _whole(bits, True)) for bits in (8, 16, 32, 64)},
    **{f"u{bits}": (getattr(pa, f"uint{bits}")(), _whole(bits, False)) for bits in (8, 16, 32, 64)},
    "f32": (pa.float32(), [*_FLOATS, 3.4e38, 1e-40]),
    "f64": (pa.float64(), [*_FLOATS, 2.0**53, 1e300, 5e-324, 9.3e18, 255.5]),
    **{
        f"d{precision}_{scale}": _decimal(precision, scale)
        for precision, scale in ((2, 2), (4, 1), (9, 2), (18, 0), (18, 3), (19, 4), (38, 0), (38, 10), (38, 37))
    },
    "s": (pa.string(), WORDS),
    "word": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "5", "ä"]),
    "bin": (pa.binary(), [b"", b"a", b"\xff\x00", b"a\\b'c"]),
    "day": (pa.date32(), _DAYS),
    "clock": (pa.time64("us"), [*_CLOCKS, dt.time(9, 5, 3, 250_000)]),
    "clock_ms": (pa.time32("ms"), [*_CLOCKS, dt.time(9, 5, 3, 250_000)]),
    "clock_s": (pa.time32("s"), _CLOCKS),
    "ts": (pa.timestamp("us"), [*_MICROS, dt.datetime(1600, 3, 1), dt.datetime(9999, 12, 31)]),
    "ts_s": (pa.timestamp("s"), _STAMPS),
    "ts_ms": (pa.timestamp("ms"), _MILLIS),
    "ts_ns": (pa.timestamp("ns"), _MICROS),
    "tz": (pa.timestamp("us", "UTC"), _MICROS),
    "ny": (pa.timestamp("ms", "America/New_York"), _MILLIS),
}
FLOATS = ("f32", "f64")


def make_batch(seed: int, rows: int = ROWS) -> pa.RecordBatch:
    """`rows` rows, about one value in eight null; with an even seed columns are sorted, as partitioned lakes are."""
    random = Random(seed)
    columns: dict[str, pa.Array] = {"id": pa.array(range(rows))}
    for name, (dtype, pool) in COLUMNS.items():
        places = [random.randrange(len(pool)) for _ in range(rows)]
        values = [pool[place] for place in (sorted(places) if seed % 2 == 0 else places)]
        columns[name] = pa.array([None if random.random() < 1 / 8 else value for value in values], dtype)
    return pa.record_batch(columns)


def canonical(values: pa.Array) -> list[Any]:
    """Python values by which results of either side are compared: nanoseconds for times, null for NaN."""
    dtype = values.type
    if pa.types.is_dictionary(dtype):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(dtype) or pa.types.is_time(dtype):
        counts = pc.cast(values, pa.int32() if pa.types.is_time32(dtype) else pa.int64()).to_pylist()
        return [None if count is None else count * _UNITS[dtype.unit] for count in counts]
    if pa.types.is_date(dtype):
        return list(pc.cast(values, pa.int32()).to_pylist())
    if pa.types.is_floating(dtype):
        return [None if value is None or math.isnan(value) else value for value in values.to_pylist()]
    return list(values.to_pylist())


class Failed:
    """A row for which a value cannot be computed."""

    def __init__(self, error: object):
        self.error = str(error)

    def __repr__(self) -> str:
        return f"<{self.error[:150]}>"


class DuckDB:
    """DuckDB over the rows of a batch with NaN replaced by NULL."""

    def __init__(self, batch: pa.RecordBatch):
        self.database = duckdb.connect()
        self.database.execute("SET timezone = 'UTC'; SET threads = 1")
        table = pa.table(batch)
        for name in FLOATS:
            column = table[name]
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        self.database.register("arrow_rows", table)
        self.database.execute("CREATE TABLE rows AS SELECT * FROM arrow_rows ORDER BY id")
        self.rows = batch.num_rows

    def values(self, sql: str) -> tuple[pa.DataType, list[Any]]:
        """The type and the value of `sql` for each row, Failed where there is none; duckdb.Error if it is not bound."""
        try:
            return self._fetch(f"SELECT {sql} AS x FROM rows ORDER BY id")
        except ROW_ERRORS as error:
            if "Unimplemented" in str(error):
                raise
            dtype, found, failed = self._values_of_good_rows(sql)
            for row in failed:
                try:
                    dtype, values = self._fetch(f"SELECT {sql} AS x FROM rows WHERE id = {row}")
                    found[row] = values[0]
                except ROW_ERRORS as error:
                    found[row] = Failed(error)
            return dtype, found

    def _values_of_good_rows(self, sql: str) -> tuple[pa.DataType, list[Any], list[int]]:
        """Values, and the rows that have none: all where DuckDB has no try(). They are not null either."""
        try:
            table = self._table(f"SELECT try({sql}) AS x, try(({sql}) IS NULL) AS no FROM rows ORDER BY id")
        except duckdb.Error:
            return pa.null(), [None] * self.rows, [*range(self.rows)]
        found, null = canonical(table["x"].combine_chunks()), table["no"].to_pylist()
        failed = [row for row, value in enumerate(found) if value is None and not null[row]]
        return (pa.null() if all(value is None for value in found) else table["x"].type), found, failed

    def _fetch(self, query: str) -> tuple[pa.DataType, list[Any]]:
        values = self._table(query)["x"].combine_chunks()
        return values.type, canonical(values)

    def _table(self, query: str) -> pa.Table:
        return self.database.sql(query).to_arrow_table()


ROW_ERRORS = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)


class Ours:
    """Our own values for the rows of a batch."""

    def __init__(self, batch: pa.RecordBatch):
        self.batch = batch

    @cached_property
    def single(self) -> list[pa.RecordBatch]:
        return [self.batch.slice(row, 1) for row in range(self.batch.num_rows)]

    def values(self, expression: Expression) -> list[Any]:
        """The value for each row, Failed where it cannot be computed."""
        try:
            return canonical(expression.evaluate(self.batch))
        except DataError:
            found: list[Any] = []
            for row in self.single:
                try:
                    found += canonical(expression.evaluate(row))
                except DataError as error:
                    found.append(Failed(error))
            return found


def same(ours: Any, theirs: Any, rough: bool = False) -> bool:
    """Whether both have the same value, or both have none; `rough`: floats up to their last digits."""
    if isinstance(ours, Failed) or isinstance(theirs, Failed):
        return isinstance(ours, Failed) and isinstance(theirs, Failed)
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if rough and isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-13)
    return bool(ours == theirs)
