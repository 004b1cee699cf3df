"""Text as dates, timestamps and times of day: values, and where the text is none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.kernels.calendar import PER_DAY
from dtap_dask.train.serving import calendar
from dtap_dask.train.serving.sql.arithmetic import times
from dtap_dask.train.serving.sql.tensor import any_of
from dtap_dask.train.serving.tensors import Tensor

_BLANK = r"[\t-\r ]*"
_CLOCK = r"(\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:\.(\d+))?)?)?"
_ZONE = r"(Z|UTC|[+-]\d{2}(?::?\d{2})?)?"
_INSTANT = rf"{_BLANK}(\d{{4}})-(\d{{1,2}})-(\d{{1,2}})(?:[ T]{_CLOCK}{_BLANK}{_ZONE})?{_BLANK}"
_TIME = rf"{_BLANK}(\d{{1,2}}):(\d{{1,2}})(?::(\d{{1,2}})(?:\.(\d+))?)?{_BLANK}"
_NANOS = PER_DAY["ns"]


class _Matched:
    """The groups of a regular expression, in the texts that it matches."""

    def __init__(self, values: Tensor, pattern: str):
        self.there = tf.strings.regex_full_match(values, pattern)
        self._values, self._pattern = tf.where(self.there, values, tf.constant("")), rf"\A(?:{pattern})\z"

    def text(self, group: int) -> Tensor:
        """The text of a group, empty where it matches nothing."""
        return tf.strings.regex_replace(self._values, self._pattern, rf"\{group}", replace_global=False)

    def number(self, group: int) -> Tensor:
        """A group of digits as int64, 0 where it matches nothing."""
        return _number(self.text(group))

    def clock(self, first: int) -> tuple[Tensor, Tensor]:
        """Nanoseconds since midnight of four groups, and where there is no such time."""
        hour, minute, second = (self.number(first + place) for place in range(3))
        fraction = tf.strings.substr(tf.strings.join([self.text(first + 3), tf.constant("0" * 9)]), 0, 9)
        nanos = ((hour * 60 + minute) * 60 + second) * 10**9 + _number(fraction)
        return nanos, (hour > 23) | (minute > 59) | (second > 59)


def _number(text: Tensor) -> Tensor:
    return tf.strings.to_number(tf.where(text == "", tf.constant("0"), text), tf.int64)


def _instant(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Days since 1970, nanoseconds since midnight in UTC, whether there is a zone, and where it is no instant."""
    match = _Matched(values, _INSTANT)
    year, month, day = (match.number(group) for group in (1, 2, 3))
    fits = (year > 0) & (month >= 1) & (month <= 12) & (day >= 1)
    year, month = (tf.where(fits, one, tf.ones_like(one)) for one in (year, month))
    days = calendar.days_of(year, month, day)
    last = calendar.first_of(year * 12 + month) - 1
    nanos, no_time = match.clock(4)
    zone = match.text(8)
    signed = tf.strings.regex_full_match(zone, "[+-].*")
    digits = tf.strings.substr(
        tf.strings.join([tf.strings.regex_replace(zone, "[^0-9]", ""), tf.constant("0000")]), 0, 4
    )
    offset = (_number(digits) // 100 * 60 + _number(digits) % 100) * 60 * 10**9
    offset = tf.where(
        signed, tf.where(tf.strings.regex_full_match(zone, "-.*"), -offset, offset), tf.zeros_like(offset)
    )
    return days, nanos - offset, zone != "", ~(match.there & fits) | (days > last) | no_time


def date(values: Tensor) -> Any:
    """Days since 1970."""
    days, _, zoned, wrong = _instant(values)
    return days, wrong | zoned


def timestamp(values: Tensor, kind: pa.DataType) -> Any:
    """Units of a timestamp, of microseconds rounded half away from 1970."""
    days, nanos, zoned, wrong = _instant(values)
    wrong = wrong if kind.tz else wrong | zoned
    whole, over = times(days, PER_DAY["ns" if kind.unit == "ns" else "us"])
    if kind.unit == "ns":
        return whole + nanos, any_of(wrong, over)
    micros, ratio = whole + nanos // 1000, PER_DAY["us"] // PER_DAY[kind.unit]
    if ratio == 1:
        return micros, wrong
    half = tf.abs(micros) + ratio // 2
    return tf.sign(micros) * (half // ratio), wrong


def time_of_day(values: Tensor, kind: pa.DataType) -> Any:
    """Units of a time of day, rounded down; of a timestamp its time."""
    match = _Matched(values, _TIME)
    nanos, no_time = match.clock(1)
    _, others, zoned, wrong = _instant(values)
    found = tf.where(match.there, nanos, others % _NANOS)
    return found // (_NANOS // PER_DAY[kind.unit]), tf.where(match.there, no_time, wrong | zoned)
