"""Values as text: the twins of lake.sql.kernels.spelling, and of strftime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.functions.dateparts import DAY_NAMES, MONTH_NAMES
from dtap_dask.lake.sql.functions.strftime import DIRECTIVE
from dtap_dask.lake.sql.kernels.calendar import PER_DAY, per_day
from dtap_dask.lake.sql.types import family
from dtap_dask.train.serving import calendar
from dtap_dask.train.serving.sql.arithmetic import LEAST
from dtap_dask.train.serving.sql.moments import days, of_day
from dtap_dask.train.serving.sql.tensor import SqlTensor, Twin, strict
from dtap_dask.train.serving.tensors import Tensor

_LAST_YEAR = 32_767
FormatTwin = Callable[[SqlTensor], Tensor]


def digits(values: Tensor, width: int = 1) -> Tensor:
    """Whole numbers that are not negative as text of at least `width` digits."""
    return tf.strings.as_string(values, width=width, fill="0")


def to_text(given: SqlTensor) -> Any:
    """Values as text, and where they have none."""
    return _RULES[family(given.type)](given)


def _decimals(given: SqlTensor) -> Any:
    scale = given.type.scale
    size = tf.strings.as_string(tf.abs(given.values))
    if scale == 0:
        return tf.strings.as_string(given.values), None
    sign = tf.where(given.values < 0, tf.constant("-"), tf.constant(""))
    padded = tf.strings.join([tf.constant("0" * scale), size])
    places = tf.strings.length(padded) - scale
    whole = tf.strings.regex_replace(
        tf.strings.substr(padded, tf.zeros_like(places), places), r"\A0*", "", replace_global=False
    )
    if scale < given.type.precision:  # else there is no digit before the point
        whole = tf.where(whole == "", tf.constant("0"), whole)
    fraction = tf.strings.substr(padded, places, tf.ones_like(places) * scale)
    return tf.strings.join([sign, whole, tf.constant("."), fraction]), given.values == LEAST


def _date(number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """YYYY-MM-DD, what is behind it before the year 1, and where the year cannot be written."""
    year, month, day = calendar.civil(number)
    text = tf.strings.join(
        [digits(tf.where(year > 0, year, 1 - year), 4), digits(month, 2), digits(day, 2)], separator="-"
    )
    era = tf.where(year > 0, tf.constant(""), tf.constant(" (BC)"))
    return text, era, (year > _LAST_YEAR) | (year < -_LAST_YEAR - 1)


def _dates(given: SqlTensor) -> Any:
    text, era, wrong = _date(given.values)
    return tf.strings.join([text, era]), wrong


def _short_clock(time: Tensor, unit: int) -> Tensor:
    """HH:MM:SS of units since midnight, of which a second has `unit`, with its fraction but for trailing zeros."""
    seconds = time // unit
    text = tf.strings.join(
        [digits(part, 2) for part in (seconds // 3600, seconds // 60 % 60, seconds % 60)], separator=":"
    )
    if unit == 1:
        return text
    fraction = tf.strings.join([tf.constant("."), digits(time % unit, len(str(unit)) - 1)])
    return tf.strings.join([text, tf.strings.regex_replace(fraction, r"\.?0*\z", "", replace_global=False)])


def _stamps(given: SqlTensor) -> Any:
    text, era, wrong = _date(days(given))
    clock = _short_clock(of_day(given), per_day(given.type) // 86_400)
    zone = tf.constant("+00" if given.type.tz else "")
    return tf.strings.join([text, tf.constant(" "), clock, era, zone]), wrong


_RULES: dict[str, Callable[[SqlTensor], Any]] = {
    "bool": lambda given: tf.where(given.values, tf.constant("true"), tf.constant("false")),
    "int": lambda given: tf.strings.as_string(given.values),
    "text": lambda given: given.values,
    "decimal": _decimals,
    "date": _dates,
    "timestamp": _stamps,
    "time": lambda given: _short_clock(given.values, per_day(given.type) // 86_400),
}


def _hour(given: SqlTensor) -> Tensor:
    return of_day(given) // (per_day(given.type) // 24)


def _second(given: SqlTensor, length: int) -> Tensor:
    return of_day(given) // (per_day(given.type) // 86_400 * length) % 60


def _named(names: Sequence[str], place: Callable[[Tensor], Tensor], length: int | None) -> FormatTwin:
    return lambda given: tf.gather(tf.constant([name[:length] for name in names]), place(days(given)))


def _month_place(number: Tensor) -> Tensor:
    return calendar.month_of(number) - 1


_NUMBERS: dict[str, tuple[FormatTwin, int]] = {
    "d": (lambda given: calendar.day_of(days(given)), 2),
    "m": (lambda given: calendar.month_of(days(given)), 2),
    "y": (lambda given: calendar.year_of(days(given)) % 100, 2),
    "H": (_hour, 2),
    "I": (lambda given: (_hour(given) + 11) % 12 + 1, 2),
    "M": (lambda given: _second(given, 60), 2),
    "S": (lambda given: _second(given, 1), 2),
    "j": (lambda given: calendar.day_of_year(days(given)), 3),
    "Y": (lambda given: calendar.year_of(days(given)), 4),
    "f": (lambda given: of_day(given) // (per_day(given.type) // PER_DAY["us"]) % 10**6, 6),
    "V": (lambda given: calendar.iso_week(days(given)), 2),
    "w": (lambda given: (calendar.weekday(days(given)) + 1) % 7, 1),
    "u": (lambda given: calendar.weekday(days(given)) + 1, 1),
}
_FORMATTERS: dict[str, FormatTwin] = {
    "a": _named(DAY_NAMES, calendar.weekday, 3),
    "A": _named(DAY_NAMES, calendar.weekday, None),
    "b": _named(MONTH_NAMES, _month_place, 3),
    "B": _named(MONTH_NAMES, _month_place, None),
    "p": lambda given: tf.where(_hour(given) < 12, tf.constant("AM"), tf.constant("PM")),
}


def _strftime(dtype: pa.DataType, given: SqlTensor, form: SqlTensor) -> Any:
    parts, wrong = [tf.zeros_like(tf.strings.as_string(given.values))], None
    for index, part in enumerate(DIRECTIVE.split(form.constant)):
        if index % 2 == 0 or part == "%":
            parts.append(tf.constant(part))
        elif part in _FORMATTERS:
            parts.append(_FORMATTERS[part](given))
        else:
            count, width = _NUMBERS[part.removeprefix("-")]
            parts.append(digits(count(given), 1 if part.startswith("-") else width))
            if part.removeprefix("-") in "yY":
                wrong = calendar.year_of(days(given)) < 0
    return tf.strings.join(parts), wrong


STRFTIME_TWIN: Twin = strict(_strftime)
