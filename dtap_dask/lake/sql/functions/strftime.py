"""strftime: dates and timestamps formatted as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.functions.dateparts import DAY_NAMES, MONTH_NAMES
from dtap_dask.lake.sql.functions.definition import Args, Function, constant
from dtap_dask.lake.sql.kernels import calendar
from dtap_dask.lake.sql.tree import Node
from dtap_dask.lake.sql.types import INT64, TEXT

Formatter = Callable[[pa.Array], pa.Array]
DIRECTIVE = re.compile(r"%(-?[A-Za-z]|%)")


def _digits(count: Callable[[pa.Array], pa.Array], width: int) -> Formatter:
    return lambda values: pc.utf8_lpad(pc.cast(pc.cast(count(values), INT64), TEXT), width, "0")


def _years(values: pa.Array) -> pa.Array:
    years = calendar.year(values)
    if pc.any(pc.less(years, 0)).as_py():
        raise pa.ArrowInvalid("strftime supports years from 0")
    return years


def _in_century(values: pa.Array) -> pa.Array:
    years = _years(values)
    return pc.subtract(years, pc.multiply(pc.divide(years, 100), 100))


def _twelve(values: pa.Array) -> pa.Array:
    hours = pc.cast(pc.hour(values), INT64)
    past = pc.if_else(pc.greater(hours, 12), pc.subtract(hours, 12), hours)
    return pc.if_else(pc.equal(hours, 0), 12, past)


def _noon(values: pa.Array) -> pa.Array:
    return pc.if_else(pc.less(pc.hour(values), 12), "AM", "PM")


def _micros(values: pa.Array) -> pa.Array:
    return pc.add(pc.multiply(pc.cast(pc.millisecond(values), INT64), 1000), pc.cast(pc.microsecond(values), INT64))


def _named(names: Sequence[str], count: Callable[[pa.Array], pa.Array], length: int | None) -> Formatter:
    return lambda values: pc.utf8_slice_codeunits(pa.array(names).take(pc.subtract(count(values), 1)), 0, length)


_ISO_DAY = calendar.weekday(1, False)
_NUMBERS: dict[str, tuple[Callable[[pa.Array], pa.Array], int]] = {
    "d": (calendar.day, 2),
    "m": (calendar.month, 2),
    "y": (_in_century, 2),
    "H": (pc.hour, 2),
    "I": (_twelve, 2),
    "M": (pc.minute, 2),
    "S": (pc.second, 2),
    "j": (calendar.day_of_year, 3),
}
_FORMATTERS: dict[str, Formatter] = {
    **{letter: _digits(count, width) for letter, (count, width) in _NUMBERS.items()},
    **{f"-{letter}": _digits(count, 1) for letter, (count, _) in _NUMBERS.items()},
    "Y": _digits(_years, 4),
    "f": _digits(_micros, 6),
    "V": _digits(calendar.week, 2),
    "w": _digits(calendar.weekday(7, True), 1),
    "u": _digits(_ISO_DAY, 1),
    "a": _named(DAY_NAMES, _ISO_DAY, 3),
    "A": _named(DAY_NAMES, _ISO_DAY, None),
    "b": _named(MONTH_NAMES, calendar.month, 3),
    "B": _named(MONTH_NAMES, calendar.month, None),
    "p": _noon,
}


def _check(name: str, args: Sequence[Node]) -> None:
    text = constant(args, 1) or ""
    for directive in re.findall(r"%(-?.?)", text, re.DOTALL):
        if directive != "%" and directive not in _FORMATTERS:
            raise ExpressionError(f"{name} has no directive {'%' + directive!r}; directives are {_KNOWN} and %%.")


_KNOWN = ", ".join(f"%{letter}" for letter in _FORMATTERS)


def _strftime(dtype: pa.DataType, args: Args) -> Any:
    values, text = args[0], args[1].as_py()
    values = pc.cast(values, pa.timestamp(values.type.unit))
    parts: list[Any] = [pa.scalar("")]
    for index, part in enumerate(DIRECTIVE.split(text)):
        literal = index % 2 == 0 or part == "%"
        parts.append(pa.scalar(part) if literal else _FORMATTERS[part](values))
    joined = pc.binary_join_element_wise(*parts, "")
    return pc.if_else(values.is_valid(), joined, pa.scalar(None, dtype))


STRFTIME = Function(
    "t instant, format constant text",
    TEXT,
    _strftime,
    f"the date and time as text: {_KNOWN} and %% stand for its parts, as in C; - leaves out leading zeros",
    "strftime(DATE '2013-06-01', '%Y-%m')",
    check=_check,
)
