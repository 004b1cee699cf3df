"""datetime_parts gives the parts that pandas, DuckDB and Python's own calendar and zones give, for every instant."""

from __future__ import annotations

import datetime as dt
import math
import zoneinfo
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.steps.dates import PARTS
from dtap_dask.features.steps.zones import CYCLE, zone
from fitting import fit_batches

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ODD = (  # changes by half an hour, a skipped day, winter time that is the exception, a rule before midnight, none
    "America/Chicago", "Europe/Dublin", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/Nuuk",
    "Asia/Kathmandu", "Asia/Tehran", "Africa/Monrovia", "Pacific/Chatham", "UTC",
)  # fmt: skip
ZONES = sorted(zoneinfo.available_timezones())
EARLIEST, LATEST = -62_135_500_000, 253_402_200_000  # seconds of Python's first and last dates
CHANGES = [int(second) for name in ODD for second in zone(name).changes if second < 10_000_000_000]
instants = st.one_of(
    st.integers(EARLIEST, LATEST),
    st.integers(-(10**9), 5 * 10**9),
    st.sampled_from(CHANGES).flatmap(lambda second: st.integers(second - 1, second + 1)),
).filter(lambda second: EARLIEST < second < LATEST)


def parts(values: Any, options: Any, **more: Any) -> dict[str, np.ndarray]:
    rows = pa.record_batch({"t": values})
    graph = build([FeatureSpec("t", "feature", ("t",), (parse_step("datetime_parts", options),), **more)], rows.schema)
    return Transform(fit_batches(graph, [rows])).apply(rows)


def by_python(second: int, name: str | None) -> dict[str, int]:
    clock = (EPOCH + dt.timedelta(seconds=second)).astimezone(zoneinfo.ZoneInfo(name) if name else dt.UTC)
    return {
        "year": clock.year,
        "month": clock.month,
        "day": clock.day,
        "hour": clock.hour,
        "minute": clock.minute,
        "weekday": clock.weekday(),
        "day_of_year": clock.timetuple().tm_yday,
        "week": clock.isocalendar().week,
        "is_weekend": int(clock.weekday() > 4),
    }


@given(st.lists(instants, min_size=1, max_size=20), st.one_of(st.none(), st.sampled_from(ODD), st.sampled_from(ZONES)))
def test_parts_are_those_of_pythons_calendar_and_zones(seconds, name):
    found = parts(pa.array(seconds, pa.timestamp("s", "UTC")), {"extract": list(PARTS), "zone": name})
    rows = [by_python(second, name) for second in seconds]
    assert found.keys() == {f"t_{part}" for part in PARTS}
    for part in PARTS:
        assert found[f"t_{part}"].tolist() == [row[part] for row in rows], part


@pytest.mark.parametrize("name", [None, "America/New_York", "Europe/Dublin"])
def test_parts_are_those_of_pandas(name):
    micros = np.random.default_rng(1).integers(-(10**16), 10**16, 500)  # from 1653 to 2286
    found = parts(pa.array(micros, pa.timestamp("us")), {"extract": list(PARTS), "zone": name})
    times = pd.Series(micros.view("M8[us]")).dt.tz_localize("UTC").dt.tz_convert(name or "UTC")
    for part in ("year", "month", "day", "hour", "minute", "weekday", "day_of_year"):
        theirs = getattr(times.dt, "day_of_week" if part == "weekday" else part)
        assert found[f"t_{part}"].tolist() == theirs.tolist(), part
    assert found["t_week"].tolist() == times.dt.isocalendar()["week"].tolist()


def test_parts_are_those_of_duckdb():
    micros = np.random.default_rng(2).integers(-(2 * 10**15), 8 * 10**15, 500)  # from 1906 to 2223
    connection = duckdb.connect()
    connection.register("t", pa.table({"id": np.arange(500), "moment": pa.array(micros, pa.timestamp("us", "UTC"))}))
    connection.execute("SET timezone = 'UTC'")
    names = {"weekday": "isodow", "day_of_year": "doy"}
    for name in ("Australia/Sydney", "America/Chicago"):
        found = parts(pa.array(micros, pa.timestamp("us", "UTC")), {"extract": [*PARTS][:8], "zone": name})
        for part in [*PARTS][:8]:
            query = f"SELECT extract({names.get(part, part)} FROM moment AT TIME ZONE '{name}') FROM t ORDER BY id"
            theirs = [row[0] - (part == "weekday") for row in connection.execute(query).fetchall()]
            assert found[f"t_{part}"].tolist() == theirs, (name, part)


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(ODD))
def test_the_calendar_and_its_zones_repeat_every_400_years(micros, name):
    found = parts(pa.array([micros], pa.timestamp("us")), {"extract": list(PARTS), "zone": name})
    second = micros // 1_000_000
    python = EARLIEST if second <= EARLIEST else 15_000_000_000 if second >= LATEST else second
    cycles = (second - python) // CYCLE
    expected = by_python(second - cycles * CYCLE, name)
    expected["year"] += 400 * cycles
    assert {part: int(found[f"t_{part}"][0]) for part in PARTS} == expected


@pytest.mark.parametrize(("dtype", "unit"), [("int32", "s"), ("int64", "ms"), ("uint64", "us"), ("uint32", "s")])
def test_integers_are_times_since_1970(dtype, unit):
    times = pa.array([0, 86_399, 2_000_000_000], pa.type_for_alias(dtype))
    found = parts(times, {"extract": list(PARTS), "unit": unit, "zone": "Asia/Kathmandu"})
    stamps = times.cast(pa.int64()).cast(pa.timestamp(unit))
    same = parts(stamps, {"extract": list(PARTS), "zone": "Asia/Kathmandu"})
    assert {name: array.tolist() for name, array in found.items()} == {name: one.tolist() for name, one in same.items()}


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_and_what_is_stored(kind):
    values = pa.array([dt.date(1600, 2, 29), dt.date(2024, 12, 30), dt.date(9999, 12, 31)]).cast(kind)
    found = parts(values, ["year", "month", "day", "weekday", "day_of_year", "week", "is_weekend"])
    rows = [[1600, 2, 29, 1, 60, 9, 0], [2024, 12, 30, 0, 365, 1, 0], [9999, 12, 31, 4, 365, 52, 0]]
    assert np.column_stack(list(found.values())).tolist() == rows
    assert [str(array.dtype) for array in found.values()] == ["int32", *["uint8"] * 3, "uint16", *["uint8"] * 2]


def test_nanoseconds_are_rounded_down():
    found = parts(pa.array([-1, 0, 59_999_999_999], pa.timestamp("ns")), ["minute", "year"])
    assert (found["t_minute"].tolist(), found["t_year"].tolist()) == ([59, 0, 0], [1969, 1970, 1970])


def test_a_vector_with_waves_and_nulls():
    rows = pa.record_batch({name: pa.array([0, None, 6 * 3600 * 1000], pa.timestamp("ms")) for name in "tu"})
    step = parse_step("datetime_parts", {"extract": ["year", "hour", "month"], "cyclic": True})
    steps = (step, parse_step("cast", "float32"))
    graph = build([FeatureSpec("v", "feature", ("t", "u"), steps, vector=True, allow_null=True)], rows.schema)
    made = Transform(fit_batches(graph, [rows])).apply(rows)["v"]
    quarter = [1970, math.sin(math.pi / 2), math.cos(math.pi / 2), 0, 1]
    np.testing.assert_array_equal(made, np.array([[1970, 0, 1, 0, 1] * 2, [math.nan] * 10, quarter * 2], np.float32))


def test_waves_go_round_with_the_stated_periods():
    periods = {"month": 12, "day": 31, "hour": 24, "minute": 60, "weekday": 7, "day_of_year": 366, "week": 53}
    assert {part: one.period for part, one in PARTS.items() if one.period} == periods
    stamps = pa.array(np.arange(0, 800 * 86_400, 86_400 + 3660), pa.timestamp("s"))
    numbers = parts(stamps, list(periods))
    waves = parts(stamps, {"extract": list(periods), "cyclic": True})
    for part, period in periods.items():
        angle = 2 * np.pi * (numbers[f"t_{part}"] - float(PARTS[part].first)) / period
        np.testing.assert_allclose(waves[f"t_{part}_sin"], np.sin(angle), atol=1e-7)
        np.testing.assert_allclose(waves[f"t_{part}_cos"], np.cos(angle), atol=1e-7)
    assert parts(stamps, {"extract": "hour", "cyclic": "sin"}).keys() == {"t_hour_sin"}


def test_steps_after_it_take_the_parts_as_numbers():
    rows = pa.record_batch({"t": pa.array([0, None, 3600], pa.timestamp("s"))})
    steps = tuple(parse_step(*step) for step in (("datetime_parts", "hour"), ("ordinal_encode", 2)))
    graph = build([FeatureSpec("t", "feature", ("t",), steps)], rows.schema)
    assert Transform(fit_batches(graph, [rows])).apply(rows)["t_hour"].tolist() == [2, 0, 3]


TIMES = pa.timestamp("us")
REFUSED = [
    (TIMES, {"extract": []}, "`extract` needs one part or more, of year, month, .*is_weekend"),
    (TIMES, {"extract": ["houre"]}, "datetime_parts.extract: found 'houre', valid are .* Did you mean 'hour'"),
    (TIMES, ["hour", "hour"], "`extract` has hour twice"),
    (TIMES, {"extract": "hour", "zone": "Europe/Berlim"}, "there is no time zone 'Europe/Berlim' in the tz database"),
    (TIMES, {"extract": "hour", "zone": "../UTC"}, "there is no time zone"),
    (TIMES, {"extract": "year", "cyclic": True}, "`cyclic` is for parts that repeat: month, day, hour, .* week"),
    (TIMES, {"extract": "hour", "unit": "s"}, r"`unit` is for whole numbers, and the column is timestamp\[us\]"),
    (pa.int64(), "hour", "needs `unit` for a column of whole numbers: s, ms or us"),
    (
        pa.float64(),
        "hour",
        "column 't': datetime_parts needs dates, .* and the column is float. Put `cast: int64` before",
    ),
    (pa.string(), "hour", r"the column is text. `derive` a column `try_cast\(... as timestamp\)`"),
    (pa.bool_(), "hour", "the column is bool. Leave the column out"),
    (pa.list_(pa.int64()), "hour", r"the column is a list \(list<item: int64>\)"),
    (pa.list_(pa.int64(), 2), {"extract": "hour", "unit": "s"}, "the column is a vector"),
    (pa.date32(), ["hour", "year", "minute"], r"a date \(date32\[day\]\) has no hour and no minute"),
    (pa.date32(), {"extract": "year", "zone": "UTC"}, "has no zone. Leave `zone` out"),
    (pa.timestamp("us", "Asia/Tokyo"), "hour", "say which clock is meant, `zone: Asia/Tokyo` or `zone: UTC`"),
]


@pytest.mark.parametrize(("kind", "options", "says"), REFUSED)
def test_what_it_refuses(kind, options, says):
    with pytest.raises(JobError, match=says):
        parts(pa.nulls(1, kind), options)


@pytest.mark.parametrize(("values", "unit"), [([0, 2**63 // 1000 + 1], "ms"), ([-(2**62)], "s"), ([2**63], "us")])
def test_times_beyond_64_bits_are_refused(values, unit):
    array = pa.array(values, pa.uint64() if values[0] == 2**63 else pa.int64())
    with pytest.raises(
        DataError, match=f"1 values of column 't'.* are no times in `{unit}` since 1970.*another `unit`"
    ):
        parts(array, {"extract": "hour", "unit": unit})
