"""Functions for the parts of dates, timestamps and times of day: year, month, hour and so on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.functions.definition import Args, Function, Kernel, always
from dtap_dask.lake.sql.kernels import calendar
from dtap_dask.lake.sql.kernels.calendar import counts, floor_divide, per_day
from dtap_dask.lake.sql.types import DOUBLE, INT64

DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTH_NAMES = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
# DuckDB's names of units -> ours
UNITS = {
    **dict.fromkeys(("year", "years", "yr", "yrs", "y"), "year"),
    **dict.fromkeys(("quarter", "quarters"), "quarter"),
    **dict.fromkeys(("month", "months", "mon", "mons"), "month"),
    **dict.fromkeys(("week", "weeks", "w", "weekofyear"), "week"),
    **dict.fromkeys(("day", "days", "d", "dayofmonth"), "day"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h"), "hour"),
    **dict.fromkeys(("minute", "minutes", "min", "mins", "m"), "minute"),
    **dict.fromkeys(("second", "seconds", "sec", "secs", "s"), "second"),
    **dict.fromkeys(("millisecond", "milliseconds", "ms", "msec", "msecs"), "millisecond"),
    **dict.fromkeys(("microsecond", "microseconds", "us", "usec", "usecs"), "microsecond"),
    **dict.fromkeys(("decade", "decades", "dec", "decs"), "decade"),
    **dict.fromkeys(("century", "centuries", "cent", "c"), "century"),
    **dict.fromkeys(("millennium", "millennia", "mil", "mils"), "millennium"),
    **dict.fromkeys(("dayofweek", "dow", "weekday"), "dayofweek"),
    **dict.fromkeys(("dayofyear", "doy"), "dayofyear"),
    **{name: name for name in ("isodow", "isoyear", "yearweek", "era", "epoch", "julian")},
}


def _part(count: Callable[[pa.Array], pa.Array]) -> Kernel:
    return lambda dtype, args: pc.cast(count(args[0]), dtype)


def _date(count: Callable[[pa.Array], pa.Array], doc: str, rising: bool = False) -> Function:
    return Function("t moment", INT64, _part(count), doc, rising=always if rising else lambda args: False)


def _since_1970(count: Callable[[pa.Array], pa.Array], doc: str, example: str) -> Function:
    return Function("t clock", INT64, _part(count), doc, example, rising=always)


def _clock(*kernels: tuple[Callable[[Any], Any], int]) -> Callable[[pa.Array], pa.Array]:
    """The sum of parts of the time of day, each multiplied by a factor."""

    def count(values: pa.Array) -> pa.Array:
        total = None
        for kernel, factor in kernels:
            value = pc.cast(kernel(values), INT64)
            value = value if factor == 1 else pc.multiply(value, factor)
            total = value if total is None else pc.add(total, value)
        return total

    return count


_millis = _clock((pc.second, 1000), (pc.millisecond, 1))
_micros = _clock((pc.second, 10**6), (pc.millisecond, 1000), (pc.microsecond, 1))
_nanos = _clock((pc.second, 10**9), (pc.millisecond, 10**6), (pc.microsecond, 1000), (pc.nanosecond, 1))


def _century(period: int) -> Callable[[pa.Array], pa.Array]:
    def count(values: pa.Array) -> pa.Array:
        years = calendar.year(values)
        after = pc.add(pc.divide(pc.subtract(years, 1), period), 1)
        before = pc.subtract(pc.divide(years, period), 1)
        return pc.if_else(pc.greater(years, 0), after, before)

    return count


def _yearweek(values: pa.Array) -> pa.Array:
    years, weeks = calendar.iso_year(values), calendar.week(values)
    sign = pc.if_else(pc.greater_equal(years, 0), 1, -1)
    return pc.add(pc.multiply(years, 100), pc.multiply(sign, weeks))


def _era(values: pa.Array) -> pa.Array:
    return pc.cast(pc.greater(calendar.year(values), 0), INT64)


def _julian(dtype: pa.DataType, args: Args) -> Any:
    day = calendar.days(args[0])
    rest = pc.subtract(counts(args[0]), pc.multiply(day, per_day(args[0].type)))
    fraction = pc.divide(pc.cast(rest, DOUBLE), float(per_day(args[0].type)))
    return pc.add(pc.cast(pc.add(day, 2_440_588), DOUBLE), fraction)


def _epoch(dtype: pa.DataType, args: Args) -> Any:
    unit = per_day(args[0].type) // 86_400
    numbers = counts(args[0]) if unit <= 10**6 else floor_divide(counts(args[0]), 1000)  # to microseconds, as DuckDB
    return pc.divide(pc.cast(numbers, DOUBLE, safe=False), float(min(unit, 10**6)))


def _since(per_second: int) -> Callable[[pa.Array], pa.Array]:
    """Units since 1970, rounded down."""

    def count(values: pa.Array) -> pa.Array:
        has = per_day(values.type) // 86_400
        if has > per_second:
            return floor_divide(counts(values), has // per_second)
        return pc.multiply_checked(counts(values), per_second // has)

    return count


def _epoch_ms(values: pa.Array) -> pa.Array:
    """Milliseconds since 1970, rounded half away from zero as in DuckDB; of a time of day rounded down."""
    if pa.types.is_time(values.type):
        return _since(1000)(values)
    micros = _since(10**6)(values).fill_null(0).to_numpy()
    rounded = np.sign(micros) * ((np.abs(micros) + 500) // 1000)
    return pa.array(rounded, mask=np.asarray(values.is_null()))


_TABLE: dict[str, Function] = {
    "year": _date(calendar.year, "the year", True),
    "quarter": _date(calendar.quarter, "the quarter, 1 to 4"),
    "month": _date(calendar.month, "the month, 1 to 12"),
    "week": _date(calendar.week, "the ISO week, 1 to 53"),
    "day": _date(calendar.day, "the day of the month, 1 to 31"),
    "dayofyear": _date(calendar.day_of_year, "the day of the year, 1 to 366"),
    "dayofweek": _date(calendar.weekday(7, True), "the day of the week, Sunday 0 to Saturday 6"),
    "isodow": _date(calendar.weekday(1, False), "the day of the week, Monday 1 to Sunday 7"),
    "isoyear": _date(calendar.iso_year, "the year that the ISO week belongs to", True),
    "yearweek": _date(_yearweek, "the ISO year and week as one number, 201322"),
    "decade": _date(partial(calendar.spans_of_years, period=10), "the year divided by 10", True),
    "century": _date(_century(100), "the century; 1901 to 2000 is the 20th", True),
    "millennium": _date(_century(1000), "the millennium; 1001 to 2000 is the second", True),
    "era": _date(_era, "1 from the year 1 on, 0 before", True),
    "hour": Function("t clock", INT64, _part(pc.hour), "the hour, 0 to 23"),
    "minute": Function("t clock", INT64, _part(pc.minute), "the minute, 0 to 59"),
    "second": Function("t clock", INT64, _part(pc.second), "the second, 0 to 59, without its fraction"),
    "millisecond": Function("t clock", INT64, _part(_millis), "milliseconds in the minute, 0 to 59999"),
    "microsecond": Function("t clock", INT64, _part(_micros), "microseconds in the minute"),
    "nanosecond": Function("t clock", INT64, _part(_nanos), "nanoseconds in the minute"),
    "epoch": Function("t clock", DOUBLE, _epoch, "seconds since 1970, with their fraction", rising=always),
    "julian": Function("t moment", DOUBLE, _julian, "the Julian day, with the time of day as its fraction"),
}
DATE_PARTS: dict[str, Function] = {
    **{
        name: Function(
            part.spec, part.result, part.run, part.doc, f"{name}(TIMESTAMP '2013-06-01 12:30:15.5')", rising=part.rising
        )
        for name, part in _TABLE.items()
    },
    "epoch_ms": _since_1970(_epoch_ms, "milliseconds since 1970, rounded", "epoch_ms(DATE '2013-06-01')"),
    "epoch_us": _since_1970(_since(10**6), "microseconds since 1970", "epoch_us(DATE '2013-06-01')"),
    "epoch_ns": _since_1970(_since(10**9), "nanoseconds since 1970", "epoch_ns(DATE '2013-06-01')"),
}
PARTS = frozenset(_TABLE) - {"nanosecond"}  # of date_part and extract
