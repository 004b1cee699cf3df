"""Twins of the functions of dates, timestamps and times of day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.functions.dateparts import DAY_NAMES, MONTH_NAMES, UNITS
from dtap_dask.lake.sql.functions.temporal import FIRST_DATE, LAST_DATE, LAST_SECOND, LENGTHS, SAME_AS
from dtap_dask.lake.sql.kernels.calendar import PER_DAY, YEARS, per_day
from dtap_dask.train.serving import calendar
from dtap_dask.train.serving.sql.arithmetic import subtracted, times
from dtap_dask.train.serving.sql.tensor import SqlTensor, Twin, any_of, strict
from dtap_dask.train.serving.tensors import Tensor, fixed

_MICROS = PER_DAY["us"]


def days(given: SqlTensor) -> Tensor:
    """Whole days since 1970, rounded down."""
    return given.values // per_day(given.type)


def of_day(given: SqlTensor) -> Tensor:
    """Units since midnight."""
    return given.values % per_day(given.type)


def _of_days(count: Callable[[Tensor], Tensor]) -> Twin:
    return strict(lambda dtype, given: count(days(given)))


def spans(values: Tensor, period: int) -> Tensor:
    """`values` divided by `period`, rounded towards 0."""
    return tf.truncatediv(values, tf.constant(period, tf.int64))


def _century(period: int) -> Callable[[Tensor], Tensor]:
    def count(number: Tensor) -> Tensor:
        years = calendar.year_of(number)
        return tf.where(years > 0, spans(years - 1, period) + 1, spans(years, period) - 1)

    return count


def _yearweek(number: Tensor) -> Tensor:
    years, weeks = calendar.iso_year(number), calendar.iso_week(number)
    return years * 100 + tf.where(years >= 0, weeks, -weeks)


def _clock(per_second: int, within: int) -> Twin:
    """The time of day in units of which a second has `per_second`, rounded down, modulo `within`."""

    def kernel(dtype: pa.DataType, given: SqlTensor) -> Tensor:
        has, seconds = per_day(given.type) // 86_400, of_day(given)
        if has >= per_second:
            return seconds // (has // per_second) % within
        return seconds * (per_second // has) % within

    return strict(kernel)


def _part_of_day(seconds: int, within: int) -> Twin:
    return strict(lambda dtype, given: of_day(given) // (per_day(given.type) // 86_400 * seconds) % within)


def _since(per_second: int) -> Callable[[SqlTensor], Any]:
    """Units since 1970, rounded down, and where they overflow."""

    def count(given: SqlTensor) -> Any:
        if pa.types.is_date32(given.type):
            return times(given.values, 86_400 * per_second)
        has = per_day(given.type) // 86_400
        if has > per_second:
            return given.values // (has // per_second), None
        return times(given.values, per_second // has)

    return count


def _epoch(dtype: pa.DataType, given: SqlTensor) -> Tensor:
    unit = per_day(given.type) // 86_400
    numbers = given.values if unit <= 10**6 else given.values // 1000
    return tf.cast(numbers, tf.float64) / fixed(float(min(unit, 10**6)))


def _epoch_ms(dtype: pa.DataType, given: SqlTensor) -> Any:
    if pa.types.is_time(given.type):
        return _since(1000)(given)
    micros, wrong = _since(10**6)(given)
    return tf.sign(micros) * ((tf.abs(micros) + 500) // 1000), wrong


def _julian(dtype: pa.DataType, given: SqlTensor) -> Tensor:
    fraction = tf.cast(of_day(given), tf.float64) / fixed(float(per_day(given.type)))
    return tf.cast(days(given) + 2_440_588, tf.float64) + fraction


def _quarter(number: Tensor) -> Tensor:
    return (calendar.month_of(number) - 1) // 3 + 1


def _named(names: Sequence[str], place: Callable[[Tensor], Tensor]) -> Twin:
    return _of_days(lambda number: tf.gather(tf.constant(names), place(number)))


def _unit(argument: SqlTensor) -> str:
    unit = UNITS[argument.constant.lower()]
    return SAME_AS.get(unit, unit)


_LENGTHS_TO_TRUNCATE = {**LENGTHS, "week": 7 * _MICROS}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def _truncated(dtype: pa.DataType, unit_of: SqlTensor, given: SqlTensor) -> Any:
    unit, number = _unit(unit_of), days(given)
    if unit in LENGTHS:
        return given.values - given.values % LENGTHS[unit]
    if unit == "week":
        return times(number - calendar.weekday(number), _MICROS)
    if unit in _MONTHS:
        months = calendar.months_of(number)
        return times(calendar.first_of(months - months % _MONTHS[unit]), _MICROS)
    if unit == "isoyear":
        fourth = calendar.january(calendar.iso_year(number), 4)
        return times(fourth - calendar.weekday(fourth), _MICROS)
    period = YEARS[unit]
    return times(calendar.january(spans(calendar.year_of(number), period) * period), _MICROS)


_COUNTED: dict[str, Callable[[Tensor], Tensor]] = {
    "year": calendar.year_of,
    "isoyear": calendar.iso_year,
    "month": calendar.months_of,
    "quarter": lambda number: calendar.months_of(number) // 3,
    **{unit: partial(lambda period, number: spans(calendar.year_of(number), period), years)
       for unit, years in YEARS.items()},
}  # fmt: skip


def _difference(dtype: pa.DataType, unit_of: SqlTensor, since: SqlTensor, until: SqlTensor) -> Any:
    unit = _unit(unit_of)
    if unit == "week":
        return spans(days(until) - days(since), 7)
    if unit in _COUNTED:
        return _COUNTED[unit](days(until)) - _COUNTED[unit](days(since))
    return subtracted(until.values // LENGTHS[unit], since.values // LENGTHS[unit])


def _whole_units(dtype: pa.DataType, unit_of: SqlTensor, since: SqlTensor, until: SqlTensor) -> Any:
    unit = _unit(unit_of)
    sizes = {**_MONTHS, "isoyear": 12, **{name: 12 * years for name, years in YEARS.items()}}
    if unit in sizes:
        return spans(_whole_months(since.values, until.values), sizes[unit])
    rest, wrong = subtracted(until.values, since.values)
    return spans(rest, _LENGTHS_TO_TRUNCATE[unit]), wrong


def _whole_months(first: Tensor, second: Tensor) -> Tensor:
    """Whole months between two moments in microseconds; the last day of a shorter month completes a month."""
    backward = first > second
    start, stop = tf.minimum(first, second), tf.maximum(first, second)
    (start_month, start_day, start_time, _), (stop_month, stop_day, stop_time, length) = map(_parts, (start, stop))
    start_day = tf.where(stop_day == length, tf.minimum(start_day, length), start_day)
    short = (stop_day < start_day) | ((stop_day == start_day) & (stop_time < start_time))
    months = stop_month - start_month - tf.cast(short, tf.int64)
    return tf.where(backward, -months, months)


def _parts(micros: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Month, day of the month, time of day, and the length of the month."""
    number = micros // _MICROS
    months = calendar.months_of(number)
    first = calendar.first_of(months)
    return months, number - first + 1, micros % _MICROS, calendar.first_of(months + 1) - first


def _last_day(dtype: pa.DataType, given: SqlTensor) -> Any:
    last = calendar.first_of(calendar.months_of(days(given)) + 1) - 1
    return last, _no_date(last)


def _no_date(number: Tensor) -> Tensor:
    return (number < FIRST_DATE) | (number > LAST_DATE)


def _make_date(dtype: pa.DataType, *given: SqlTensor) -> Any:
    if len(given) == 1:
        return given[0].values, _no_date(given[0].values)
    number, wrong = _civil(*(one.values for one in given))
    return number, wrong | _no_date(number)


def _civil(years: Tensor, months: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Days since 1970 of a date, and where there is none."""
    fits = (years > -6_000_000) & (years < 6_000_000) & (months >= 1) & (months <= 12) & (numbers >= 1)
    fits &= numbers <= 31
    years, months = (tf.where(fits, one, tf.ones_like(one)) for one in (years, months))
    first = calendar.days_of(years, months, tf.ones_like(months))
    length = calendar.first_of(years * 12 + months) - first
    return first + numbers - 1, ~fits | (numbers > length)


def _make_timestamp(dtype: pa.DataType, *given: SqlTensor) -> Any:
    if len(given) == 1:
        return given[0].values
    years, months, numbers, hours, minutes, seconds = (one.values for one in given)
    number, wrong = _civil(years, months, numbers)
    finite = tf.math.is_finite(seconds)
    micros = tf.round(tf.where(finite, seconds, -tf.ones_like(seconds)) * fixed(1e6))
    wrong |= (hours < 0) | (hours > 24) | (minutes < 0) | (minutes > 59) | (micros < 0) | (micros > 60e6)
    wrong |= (hours == 24) & ((minutes > 0) | (micros > 0))
    whole, over = times(tf.where(wrong, tf.zeros_like(number), number), _MICROS)
    time = (hours * 60 + minutes) * 60_000_000 + tf.cast(tf.where(wrong, tf.zeros_like(micros), micros), tf.int64)
    return whole + time, any_of(wrong, over)


def _to_timestamp(dtype: pa.DataType, given: SqlTensor) -> Any:
    wrong = ~(tf.abs(given.values) <= LAST_SECOND)
    seconds = tf.where(wrong, tf.zeros_like(given.values), given.values)
    return tf.cast(tf.round(seconds * fixed(1e6)), tf.int64), wrong


MOMENT_TWINS: dict[str, Twin] = {
    "year": _of_days(calendar.year_of),
    "quarter": _of_days(_quarter),
    "month": _of_days(calendar.month_of),
    "week": _of_days(calendar.iso_week),
    "day": _of_days(calendar.day_of),
    "dayofyear": _of_days(calendar.day_of_year),
    "dayofweek": _of_days(lambda number: (calendar.weekday(number) + 1) % 7),
    "isodow": _of_days(lambda number: calendar.weekday(number) + 1),
    "isoyear": _of_days(calendar.iso_year),
    "yearweek": _of_days(_yearweek),
    "decade": _of_days(_COUNTED["decade"]),
    "century": _of_days(_century(100)),
    "millennium": _of_days(_century(1000)),
    "era": _of_days(lambda number: tf.cast(calendar.year_of(number) > 0, tf.int64)),
    "hour": _part_of_day(3600, 24),
    "minute": _part_of_day(60, 60),
    "second": _part_of_day(1, 60),
    "millisecond": _clock(1000, 60_000),
    "microsecond": _clock(10**6, 60 * 10**6),
    "nanosecond": _clock(10**9, 60 * 10**9),
    "epoch": strict(_epoch),
    "julian": strict(_julian),
    "epoch_ms": strict(_epoch_ms),
    "epoch_us": strict(lambda dtype, given: _since(10**6)(given)),
    "epoch_ns": strict(lambda dtype, given: _since(10**9)(given)),
    "dayname": _named(DAY_NAMES, calendar.weekday),
    "monthname": _named(MONTH_NAMES, lambda number: calendar.month_of(number) - 1),
    "last_day": strict(_last_day),
    "date_trunc": strict(_truncated),
    "date_diff": strict(_difference),
    "date_sub": strict(_whole_units),
    "make_date": strict(_make_date),
    "make_timestamp": strict(_make_timestamp),
    "to_timestamp": strict(_to_timestamp),
}
