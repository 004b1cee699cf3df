"""The Gregorian calendar in TensorFlow, for all days in the range of 64 bits, by arithmetic on int64.

Years begin in March here, so that the leap day is the last of the year; an era is 400 of them, 146,097 days.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Int64 = Any  # a tensor of int64, of any shape

_SHIFT = 719_468  # days from March 1 of the year 0 to 1970
_ERA = 146_097


def civil(days: Int64) -> tuple[Int64, Int64, Int64]:
    """Year, month 1 to 12 and day of the month of days since 1970."""
    shifted = days + _SHIFT
    era = shifted // _ERA
    day = shifted - era * _ERA
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day_of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    return (
        year + era * 400 + tf.cast(month >= 10, tf.int64),
        tf.where(month < 10, month + 3, month - 9),
        day_of_year - (153 * month + 2) // 5 + 1,
    )


def days_of(year: Int64, month: Int64, day: Int64) -> Int64:
    """Days since 1970 of a year, month 1 to 12 and day; days beyond the end of the month are in the next one."""
    year = year - tf.cast(month <= 2, tf.int64)
    era = year // 400
    of_era = year - era * 400
    day_of_year = (153 * tf.where(month > 2, month - 3, month + 9) + 2) // 5 + day - 1
    return era * _ERA + of_era * 365 + of_era // 4 - of_era // 100 + day_of_year - _SHIFT


def january(year: Int64, day: int = 1) -> Int64:
    """Days since 1970 of a day in January."""
    one = tf.ones_like(year)
    return days_of(year, one, one * day)


def year_of(days: Int64) -> Int64:
    """The year of days since 1970."""
    return civil(days)[0]


def month_of(days: Int64) -> Int64:
    """The month, 1 to 12."""
    return civil(days)[1]


def day_of(days: Int64) -> Int64:
    """The day of the month, from 1."""
    return civil(days)[2]


def months_of(days: Int64) -> Int64:
    """Months since January of the year 0."""
    year, month, _ = civil(days)
    return year * 12 + month - 1


def first_of(months: Int64) -> Int64:
    """Days since 1970 of the first day of a month, counted as by `months_of`."""
    return days_of(months // 12, months % 12 + 1, tf.ones_like(months))


def day_of_year(days: Int64) -> Int64:
    """The day of the year, 1 to 366."""
    return days - january(year_of(days)) + 1


def weekday(days: Int64) -> Int64:
    """Monday 0 to Sunday 6."""
    return (days + 3) % 7


def iso_year(days: Int64) -> Int64:
    """The year that the ISO week belongs to: that of its Thursday."""
    return year_of(days - weekday(days) + 3)


def iso_week(days: Int64) -> Int64:
    """The ISO week, 1 to 53."""
    thursday = days - weekday(days) + 3
    return (thursday - january(year_of(thursday))) // 7 + 1
