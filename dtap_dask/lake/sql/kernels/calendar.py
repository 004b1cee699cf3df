"""The Gregorian calendar on Arrow's dates and timestamps, for all years in the range of 64 bits.

Arrow's own kernels wrap around beyond the years -32768 to 32767. The calendar repeats every 400 years (146,097 days,
whole weeks): values out of range are shifted by whole cycles, computed, and shifted back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.kernels.arithmetic import floor_time

CYCLE_DAYS = 146_097
CYCLE_YEARS = 400
MICROS_PER_DAY = 86_400_000_000
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": MICROS_PER_DAY, "ns": 86_400_000_000_000}
_NEAR_DAYS = 11_000_000  # about 30,000 years


def per_day(dtype: pa.DataType) -> int:
    """Units of a date, timestamp or time type in a day."""
    return 1 if pa.types.is_date32(dtype) else PER_DAY[dtype.unit]


def counts(values: pa.Array) -> pa.Array:
    """Days of dates, units of timestamps, since 1970: int64, null where `values` is."""
    dtype = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    return pc.cast(pc.cast(values, dtype), pa.int64())


def by_cycle(values: pa.Array, kernel: Callable[[pa.Array], pa.Array], years: int | None) -> pa.Array:
    """`kernel` applied to dates or timestamps of any year: int64, or times if the kernel returns times.

    `years`: what a cycle of 400 years adds to the result of the kernel; None if it returns times.
    """
    numbers = counts(values)
    low, high = (pc.min_max(numbers)[end].as_py() for end in ("min", "max"))
    step = per_day(values.type)
    if low is None or (-_NEAR_DAYS * step < low and high < _NEAR_DAYS * step):
        return kernel(values)
    cycle = CYCLE_DAYS * step
    moved = pc.cast(pc.floor(pc.divide(pc.cast(numbers, pa.float64(), safe=False), float(cycle))), pa.int64())
    near = _as(pc.subtract(numbers, pc.multiply(moved, cycle)), values.type)
    result = kernel(near)
    if years is not None:
        return pc.add(pc.cast(result, pa.int64()), pc.multiply(moved, years))
    back = CYCLE_DAYS * per_day(result.type)
    return _as(pc.add_checked(counts(result), pc.multiply(moved, back)), result.type)


def _as(numbers: pa.Array, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_date32(dtype):
        return pc.cast(pc.cast(numbers, pa.int32()), dtype)
    return pc.cast(numbers, dtype)


def part(kernel: Callable[[pa.Array], pa.Array], years: int = 0) -> Callable[[pa.Array], pa.Array]:
    """A kernel for a part of dates and timestamps as int64; `years`: its increase in 400 years."""
    return lambda values: pc.cast(by_cycle(values, kernel, years), pa.int64())


year = part(pc.year, CYCLE_YEARS)
iso_year = part(pc.iso_year, CYCLE_YEARS)
month = part(pc.month)
quarter = part(pc.quarter)
day = part(pc.day)
day_of_year = part(pc.day_of_year)
week = part(pc.iso_week)
months = part(
    lambda values: pc.add(pc.multiply(pc.year(values), 12), pc.subtract(pc.month(values), 1)), 12 * CYCLE_YEARS
)


def weekday(first: int, from_zero: bool) -> Callable[[pa.Array], pa.Array]:
    """A kernel for the day of the week; `first`: the day that begins it, 1 (Monday) to 7."""
    return part(lambda values: pc.day_of_week(values, count_from_zero=from_zero, week_start=first))


def days(values: pa.Array) -> pa.Array:
    """Whole days since 1970, rounded down: int64."""
    return floor_divide(counts(values), per_day(values.type))


def floor_divide(numbers: pa.Array, step: int) -> pa.Array:
    """int64 divided by `step`, rounded down."""
    if step == 1:
        return numbers
    whole = numbers.fill_null(0).to_numpy() // step
    return pa.array(whole, mask=np.asarray(numbers.is_null()))


def spans_of_years(values: pa.Array, period: int) -> pa.Array:
    """Decades, centuries and the like, rounded towards the year 0 as in DuckDB."""
    return pc.divide(year(values), period)


def days_from_civil(years: np.ndarray, months: Any, days_: Any) -> np.ndarray:
    """Days since 1970 of year, month 1 to 12 and day: int64; days beyond the end of the month are in the next one."""
    start = ((years - 1970) * 12 + (months - 1)).astype(np.int64).view("M8[M]").astype("M8[D]").view(np.int64)
    return np.asarray(start + days_ - 1)


def stamps_of_days(number: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Midnight of days since 1970 as timestamps of `dtype` (microseconds)."""
    return pc.cast(pc.multiply_checked(number, MICROS_PER_DAY), dtype)


def floor(values: pa.Array, unit: str) -> pa.Array:
    """Timestamps in microseconds at the start of their `unit`, one of Arrow's or DuckDB's."""
    if unit in YEARS:
        years = pc.multiply(spans_of_years(values, YEARS[unit]), YEARS[unit])
        return stamps_of_days(_january(years, 1), values.type)
    if unit == "isoyear":
        fourth = _january(iso_year(values), 4)  # always in the first ISO week of the year
        return stamps_of_days(pc.subtract(fourth, _since_monday(fourth)), values.type)
    return by_cycle(values, lambda near: floor_time(near, unit), None)


YEARS = {"decade": 10, "century": 100, "millennium": 1000}


def _january(years: pa.Array, day_of_month: int) -> pa.Array:
    first = days_from_civil(years.fill_null(1970).to_numpy(), 1, day_of_month)
    return pa.array(first, mask=np.asarray(years.is_null()))


def _since_monday(number: pa.Array) -> pa.Array:
    shifted = pc.add(number, 3)  # day 0 was a Thursday
    return pc.subtract(shifted, pc.multiply(floor_divide(shifted, 7), 7))
