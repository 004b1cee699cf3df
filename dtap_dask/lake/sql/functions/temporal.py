"""Functions of dates, timestamps and times of day; those with a zone are in UTC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import ExpressionError, did_you_mean
from dtap_dask.lake.sql.functions.dateparts import DATE_PARTS, DAY_NAMES, MONTH_NAMES, UNITS
from dtap_dask.lake.sql.functions.definition import STAMP, Args, Function, Kernel, Types, always, constant, one_row
from dtap_dask.lake.sql.functions.strftime import STRFTIME
from dtap_dask.lake.sql.kernels import calendar
from dtap_dask.lake.sql.kernels.calendar import MICROS_PER_DAY, YEARS, counts, floor_divide
from dtap_dask.lake.sql.tree import Node
from dtap_dask.lake.sql.types import DOUBLE, INT64, TEXT, family

LENGTHS = {  # units of a fixed length, in microseconds
    "microsecond": 1,
    "millisecond": 1000,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": MICROS_PER_DAY,
}
SAME_AS = {
    "epoch": "second",
    "dayofweek": "day",
    "dayofyear": "day",
    "isodow": "day",
    "julian": "day",
    "yearweek": "week",
}
_COUNTED: dict[str, Callable[[pa.Array], pa.Array]] = {  # units of the calendar
    "year": calendar.year,
    "isoyear": calendar.iso_year,
    "month": calendar.months,
    "quarter": lambda values: floor_divide(calendar.months(values), 3),
    **{unit: partial(calendar.spans_of_years, period=period) for unit, period in YEARS.items()},
}
FIRST_DATE, LAST_DATE = -(2**31) + 2, 2**31 - 2  # DuckDB's; the values beyond are its infinities
LAST_SECOND = 9_223_372_036_854  # of timestamps in microseconds


def unit_of(name: str, args: Sequence[Node], known: Sequence[str]) -> str | None:
    """The unit named by the first argument; None if it is NULL; ExpressionError if it is not one of `known`."""
    word = constant(args, 0)
    unit = UNITS.get(word.lower()) if isinstance(word, str) else None
    if word is not None and unit not in known:
        raise ExpressionError(f"{name} has no unit {word!r}.{did_you_mean(word, known)}")
    return unit


def _units(*known: str) -> Callable[[str, Sequence[Node]], None]:
    def check(name: str, args: Sequence[Node]) -> None:
        unit_of(name, args, known)

    return check


def _truncated(name: str, args: Sequence[Node]) -> Types:
    stamp = pa.timestamp("us", args[1].type.tz if family(args[1].type) == "timestamp" else None)
    return (TEXT, stamp), stamp


def _unit(args: Args) -> str:
    """The unit that the first argument means for truncating and counting."""
    unit = UNITS[args[0].as_py().lower()]
    return SAME_AS.get(unit, unit)


def _trunc(dtype: pa.DataType, args: Args) -> Any:
    unit = _unit(args)
    naive = pc.cast(args[1], STAMP)
    return pc.cast(calendar.floor(naive, unit), dtype)


def _diff(dtype: pa.DataType, args: Args) -> Any:
    """date_diff: the number of times that a new unit begins between two moments."""
    unit = _unit(args)
    if unit == "week":
        return pc.divide(_difference(args[1:], calendar.days), 7)
    if unit in _COUNTED:
        return _difference(args[1:], _COUNTED[unit])
    return _difference(args[1:], lambda values: floor_divide(counts(values), LENGTHS[unit]))


def _sub(dtype: pa.DataType, args: Args) -> Any:
    """date_sub: the number of whole units between two moments."""
    unit = _unit(args)
    sizes = {"year": 12, "isoyear": 12, "quarter": 3, "month": 1, **{name: 12 * years for name, years in YEARS.items()}}
    if unit in sizes:
        return pc.divide(_whole_months(*args[1:]), sizes[unit])
    return pc.divide(_difference(args[1:], counts), 7 * MICROS_PER_DAY if unit == "week" else LENGTHS[unit])


def _whole_months(first: Any, second: Any) -> pa.Array:
    """Whole months between two moments; the last day of a shorter month completes a month."""
    rows = max(len(end) for end in (first, second) if not isinstance(end, pa.Scalar))
    ends = [pa.repeat(end, rows) if isinstance(end, pa.Scalar) else end for end in (first, second)]
    missing = np.logical_or.reduce([np.asarray(end.is_null()) for end in ends])
    start, stop = (counts(end).fill_null(0).to_numpy() for end in ends)
    backward = start > stop
    start, stop = np.minimum(start, stop), np.maximum(start, stop)
    start_month, start_day, start_time, _ = _calendar_parts(start)
    stop_month, stop_day, stop_time, days = _calendar_parts(stop)
    start_day = np.where(stop_day == days, np.minimum(start_day, days), start_day)
    short = (stop_day < start_day) | ((stop_day == start_day) & (stop_time < start_time))
    months = stop_month - start_month - short
    return pa.array(np.where(backward, -months, months), mask=missing)


def _calendar_parts(micros: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Month since 1970, day of the month, time of day, and the length of the month, all int64."""
    days = micros // MICROS_PER_DAY
    months = days.view("M8[D]").astype("M8[M]")
    first = months.astype("M8[D]").view(np.int64)
    length = (months + 1).astype("M8[D]").view(np.int64) - first
    return months.view(np.int64), days - first + 1, micros - days * MICROS_PER_DAY, length


def _difference(ends: Sequence[Any], count: Callable[[Any], Any]) -> Any:
    start, end = (count(one_row(value) if isinstance(value, pa.Scalar) else value) for value in ends)
    if len(start) != len(end):  # one of them is the same for every row
        start, end = (value if len(value) > 1 else value[0] for value in (start, end))
    return pc.subtract_checked(end, start)


def _names(names: Sequence[str], count: Callable[[pa.Array], pa.Array]) -> Kernel:
    return lambda dtype, args: pa.array(names).take(pc.subtract(count(args[0]), 1))


def _last_day(dtype: pa.DataType, args: Args) -> Any:
    months = calendar.months(args[0])
    first = (months.fill_null(0).to_numpy() - 1970 * 12 + 1).view("M8[M]").astype("M8[D]").view(np.int64)
    return _dates(first - 1, np.asarray(months.is_null()))


def _columns(args: Args) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments as NumPy arrays [n], and whether any is null in a row, bool [n]."""
    rows = max(len(arg) for arg in args if not isinstance(arg, pa.Scalar))
    arrays = [pa.repeat(arg, rows) if isinstance(arg, pa.Scalar) else arg for arg in args]
    missing = np.logical_or.reduce([np.asarray(array.is_null()) for array in arrays])
    return [array.fill_null(0).to_numpy() for array in arrays], missing


def _date_types(name: str, args: Sequence[Node]) -> Types:
    if len(args) == 2:
        raise ExpressionError(f"{name} takes days since 1970, or year, month and day.")
    return (INT64,) * len(args), pa.date32()


def _make_date(dtype: pa.DataType, args: Args) -> Any:
    columns, missing = _columns(args)
    if len(args) == 1:
        return _dates(columns[0], missing)
    return _dates(_civil(columns, missing), missing)


def _civil(date: list[np.ndarray], missing: np.ndarray) -> np.ndarray:
    """Days since 1970; ArrowInvalid for a date that does not exist in a row that is not `missing`."""
    years, months, days = date
    fits = (np.abs(years) < 6_000_000) & (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
    years, months, days = (np.where(fits, column, 1) for column in date)
    first = calendar.days_from_civil(years, months, 1)
    fits &= days <= calendar.days_from_civil(years, months + 1, 1) - first
    _refuse_any(~(fits | missing), "a year, month and day that are not a date")
    return np.asarray(first + days - 1)


def _refuse_any(wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        raise pa.ArrowInvalid(f"{what}, first in row {int(np.flatnonzero(wrong)[0])} of the batch")


def _dates(days: np.ndarray, missing: np.ndarray) -> pa.Array:
    _refuse_any(~missing & ((days < FIRST_DATE) | (days > LAST_DATE)), "a date out of range")
    return pa.array(np.where(missing, 0, days).astype(np.int32), mask=missing).cast(pa.date32())


def _timestamp_types(name: str, args: Sequence[Node]) -> Types:
    if len(args) not in (1, 6):
        raise ExpressionError(f"{name} takes microseconds since 1970, or year, month, day, hour, minute and second.")
    return (INT64,) * min(len(args), 5) + ((DOUBLE,) if len(args) == 6 else ()), STAMP


def _make_timestamp(dtype: pa.DataType, args: Args) -> Any:
    if len(args) == 1:
        return pc.cast(args[0], dtype)
    columns, missing = _columns(args)
    days = _civil(columns[:3], missing)
    hours, minutes, seconds = columns[3:]
    micros = np.rint(np.where(np.isfinite(seconds) & ~missing, seconds, -1.0) * 1e6)
    wrong = (hours < 0) | (hours > 24) | (minutes < 0) | (minutes > 59) | (micros < 0) | (micros > 60e6)
    wrong |= (hours == 24) & ((minutes > 0) | (micros > 0))
    _refuse_any(wrong & ~missing, "an hour, minute and second that are not a time of day")
    time = (hours * 60 + minutes) * 60_000_000 + micros.astype(np.int64)
    whole = calendar.stamps_of_days(pa.array(np.where(missing, 0, days), mask=missing), dtype)
    return pc.cast(pc.add_checked(pc.cast(whole, INT64), pa.array(time)), dtype)


def _to_timestamp(dtype: pa.DataType, args: Args) -> Any:
    seconds = args[0].fill_null(0).to_numpy(zero_copy_only=False)
    missing = np.asarray(args[0].is_null())
    _refuse_any(~(np.abs(seconds) <= LAST_SECOND), "seconds beyond what a timestamp holds")
    return pa.array(np.rint(seconds * 1e6).astype(np.int64), mask=missing).cast(STAMP).cast(dtype)


_TRUNCATED = (
    *("microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"),
    *("isoyear", "decade", "century", "millennium"),
)
_ALL = (*_TRUNCATED, "dayofweek", "dayofyear", "isodow", "julian", "yearweek", "epoch")
_UNIT_LIST = ", ".join(_TRUNCATED)
TEMPORAL: dict[str, Function] = {
    **DATE_PARTS,
    "dayname": Function(
        "t moment",
        TEXT,
        _names(DAY_NAMES, calendar.weekday(1, False)),
        "the English name of the weekday",
        "dayname(DATE '2013-06-01')",
    ),
    "monthname": Function(
        "t moment",
        TEXT,
        _names(MONTH_NAMES, calendar.month),
        "the English name of the month",
        "monthname(DATE '2013-06-01')",
    ),
    "strftime": STRFTIME,
    "last_day": Function(
        "t moment",
        pa.date32(),
        _last_day,
        "the last day of the month",
        "last_day(DATE '2012-02-10')",
        rising=always,
    ),
    "date_trunc": Function(
        "unit constant text, t instant",
        _truncated,
        _trunc,
        f"the start of the unit that contains t; units: {_UNIT_LIST}",
        "date_trunc('month', TIMESTAMP '2013-06-15 12:30:00')",
        "TIMESTAMP, with the zone of t",
        rising=always,
        check=_units(*_ALL, "era"),
    ),
    "date_diff": Function(
        "unit constant text, since instant, until instant",
        INT64,
        _diff,
        "how often a new unit begins between `since` and `until`, negative backwards; weeks: days divided by 7",
        "date_diff('month', DATE '2013-01-31', DATE '2013-02-01')",
        check=_units(*_ALL),
    ),
    "date_sub": Function(
        "unit constant text, since instant, until instant",
        INT64,
        _sub,
        "the number of whole units between `since` and `until`; negative if `until` is earlier",
        "date_sub('month', DATE '2013-01-31', DATE '2013-02-27')",
        check=_units(*_ALL),
    ),
    "make_date": Function(
        "year integer, [month integer], [day integer]",
        _date_types,
        _make_date,
        "the date of a year, month and day; of one number: days since 1970",
        "make_date(2013, 6, 1)",
        "DATE",
    ),
    "make_timestamp": Function(
        "year integer, [month integer], [day integer], [hour integer], [minute integer], [second number]",
        _timestamp_types,
        _make_timestamp,
        "the timestamp of its six parts; of one number: microseconds since 1970",
        "make_timestamp(2013, 6, 1, 12, 30, 1.5)",
        "TIMESTAMP",
    ),
    "to_timestamp": Function(
        "seconds number",
        pa.timestamp("us", "UTC"),
        _to_timestamp,
        "the instant `seconds` after the start of 1970",
        "to_timestamp(1.5)",
        rising=always,
    ),
}
