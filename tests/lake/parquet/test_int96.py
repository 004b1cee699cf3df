"""INT96 timestamps: every writer's way, every year, flat and nested, against DuckDB and Python's own calendar."""

from __future__ import annotations

import contextlib
import datetime as dt
import struct
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import SourceError
from dtap_dask.lake.parquet import int96
from parquet_files import scanned
from property_tests import examples

EPOCH = dt.datetime(1970, 1, 1)
DAY = 86_400 * 10**9  # nanoseconds
PLACEHOLDER = 2**40  # nanoseconds; each stamp is written as one of its own, to be replaced
STAMPS = [
    dt.datetime(1, 1, 1),
    dt.datetime(1, 1, 1, 12, 30),
    dt.datetime(1582, 10, 4, 23),
    dt.datetime(1677, 9, 21),
    dt.datetime(1960, 6, 1, 12),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999_999),
    EPOCH,
    dt.datetime(2020, 2, 29, 1, 2, 3, 4),
    dt.datetime(2262, 4, 12),
    dt.datetime(2554, 7, 21, 23, 34, 33),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),
]


def nanoseconds(stamp: dt.datetime) -> int:
    """Since 1970."""
    return (stamp - EPOCH) // dt.timedelta(microseconds=1) * 1000


def today(value: int) -> bytes:
    """As most writers do: the day before, and nanoseconds from its beginning."""
    return struct.pack("<qi", value % DAY, 2_440_588 + value // DAY)


def older_arrow(value: int) -> bytes:
    """As Arrow did: days cut off towards zero, so that nanoseconds may be negative."""
    days = -(-value // DAY) if value < 0 else value // DAY
    return struct.pack("<qi", value - days * DAY, 2_440_588 + days)


def write(path: Path, values: list[bytes | None], nested: bool = False, **options: object) -> None:
    """A file with a column `t` of these INT96 values: pyarrow writes placeholders, whose bytes are then replaced."""
    held = [None if value is None else PLACEHOLDER + at for at, value in enumerate(values)]
    column = pa.array(held, pa.int64()).cast(pa.timestamp("ns"))
    if nested:
        column = pa.StructArray.from_arrays([pa.ListArray.from_arrays(np.arange(len(held) + 1), column)], ["of"])
    table = pa.table({"i": range(len(held)), "t": column})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, compression="none", **options)
    data = path.read_bytes()
    for mark, value in zip(held, values, strict=True):
        if mark is not None and value is not None:
            assert data.count(today(mark)) == 1
            data = data.replace(today(mark), value)
    path.write_bytes(data)


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("how", [today, older_arrow])
def test_every_year_as_both_kinds_of_writers_have_it(tmp_path, how, dictionary):
    stamps = [*STAMPS, None]
    values = [None if stamp is None else how(nanoseconds(stamp)) for stamp in stamps]
    write(tmp_path / "a.parquet", values, use_dictionary=dictionary, write_statistics=False)
    found = scanned(tmp_path / "a.parquet")
    assert found.schema.field("t").type == pa.timestamp("us")
    assert found["t"].to_pylist() == stamps
    from_duckdb = duckdb.sql(f"select t from '{tmp_path}/a.parquet' order by i").fetchall()
    assert [row[0] for row in from_duckdb] == stamps


@pytest.mark.parametrize("how", [today, older_arrow])
def test_conditions_on_them(tmp_path, how):
    write(tmp_path / "a.parquet", [how(nanoseconds(stamp)) for stamp in STAMPS])
    for bound in ("1970-01-01", "1600-01-01", "2300-01-01"):
        expected = [stamp for stamp in STAMPS if stamp < dt.datetime.fromisoformat(bound)]
        assert scanned(tmp_path / "a.parquet", f"t < '{bound}'")["t"].to_pylist() == expected


@pytest.mark.parametrize("how", [today, older_arrow])
def test_nested_ones(tmp_path, how):
    stamps = [*STAMPS[:4], None, *STAMPS[4:]]
    values = [None if stamp is None else how(nanoseconds(stamp)) for stamp in stamps]
    write(tmp_path / "a.parquet", values, nested=True, use_dictionary=False)
    assert scanned(tmp_path / "a.parquet")["t"].to_pylist() == [{"of": [stamp]} for stamp in stamps]


@given(values=st.lists(st.none() | st.datetimes(), max_size=50), older=st.booleans(), start=st.integers(0, 5))
def test_any_time_through_any_slice(values, older, start):
    how = older_arrow if older else today
    raw = pa.array([None if value is None else how(nanoseconds(value)) for value in values], int96.RAW)
    assert int96.timestamps(raw[start:], pa.timestamp("us")).to_pylist() == values[start:]
    assert int96.timestamps(raw[start:], pa.timestamp("us", "UTC")).type == pa.timestamp("us", "UTC")


def test_nanoseconds_are_cut_off_downwards_whoever_wrote_them():
    for value in (1, 999, 1000, -1, -999, -1000, -1001, DAY - 1, -DAY - 1):
        for how in (today, older_arrow):
            found = int96.timestamps(pa.array([how(value)], int96.RAW), pa.timestamp("us"))
            assert found.cast(pa.int64()).to_pylist() == [value // 1000]


def test_a_day_beyond_64_bits_is_refused(tmp_path):
    write(tmp_path / "a.parquet", [today(0), struct.pack("<qi", 0, 2**31 - 1)], use_dictionary=False)
    with pytest.raises(SourceError, match=r"a.parquet.*'t'.*290,000 years"):
        scanned(tmp_path / "a.parquet")
    nothing = pa.array([None, struct.pack("<qi", 0, -(2**31))], int96.RAW)[:1]
    assert int96.timestamps(nothing, pa.timestamp("us")).to_pylist() == [None]


def element(*fields: bytes) -> bytes:
    """A SchemaElement in Thrift's compact protocol."""
    return b"".join(fields) + b"\x00"


def footer(*elements: bytes) -> bytes:
    """A FileMetaData of version 1 with these elements, and 0 rows behind them."""
    return b"\x15\x02" + bytes([0x19, len(elements) << 4 | 0x0C]) + b"".join(elements) + b"\x16\x00\x00"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([b"\x15\x06", b"\x25\x02", b"\x18\x01t"], [b"\x15\x0e", b"\x15\x18", b"\x15\x02", b"\x18\x01t"]),
        ([b"\x15\x06", b"\x15\x00", b"\x15\x02", b"\x18\x01t"], [b"\x15\x0e", b"\x15\x18", b"\x15\x02", b"\x18\x01t"]),
        ([b"\x15\x06", b"\x05\x06\x02", b"\x18\x01t"], [b"\x15\x0e", b"\x15\x18", b"\x05\x06\x02", b"\x18\x01t"]),
        ([b"\x15\x06"], [b"\x15\x0e", b"\x15\x18"]),
        ([b"\x15\x04", b"\x25\x02", b"\x18\x01t"], [b"\x15\x04", b"\x25\x02", b"\x18\x01t"]),
        ([b"\x35\x06", b"\x18\x01t"], [b"\x35\x06", b"\x18\x01t"]),
    ],
    ids=["usual", "a length already", "numbers in full", "nothing but a type", "INT64", "a group"],
)
def test_what_changes_in_a_footer(before, after):
    """By the bytes: however writers put a field's number, as the distance to the one before or in full."""
    other = element(b"\x15\x02", b"\x18\x01i")
    assert int96.as_bytes(footer(other, element(*before), other)) == footer(other, element(*after), other)


@given(st.binary(max_size=200))
@examples(2.5)
def test_no_bytes_end_in_anything_but_an_error(data):
    with contextlib.suppress(ValueError):
        int96.as_bytes(data)
