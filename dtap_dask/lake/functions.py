"""The operators and functions of expressions: the arguments they take, the type they give, how Arrow computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.arithmetic import add_interval, floor_time, remainder, round_number
from dtap_dask.lake.expression import BOOL, DOUBLE, INT64, TEXT, Node
from dtap_dask.lake.signatures import (
    Types,
    arithmetic,
    date_part,
    joined,
    negated,
    number_to_int,
    on_text,
    one_type,
    rounded,
    same_number,
    seconds,
    size,
    to_double,
    truncated,
    whole_number,
)

Args = Sequence[Any]
Run = Callable[[pa.DataType, Args], Any]


@dataclass(frozen=True)
class Function:
    """`types` gives what arguments are cast to and the result's type; `run` gets the result's type and the values."""

    fewest: int
    most: int
    types: Callable[[str, Sequence[Node]], Types]
    run: Run


def _run_add(dtype: pa.DataType, args: Args, sign: int = 1) -> Any:
    left, right = args
    if isinstance(right, pa.MonthDayNanoIntervalScalar):
        return add_interval(left, right, dtype, sign)
    if pa.types.is_date32(dtype):
        days = pc.cast(left, pa.int32()).cast(INT64)
        moved = (pc.add_checked if sign == 1 else pc.subtract_checked)(days, right)
        return pc.cast(pc.cast(moved, pa.int32()), dtype)
    if pa.types.is_date32(left.type):
        left, right = (pc.cast(pc.cast(side, pa.int32()), INT64) for side in args)
    return (pc.add_checked if sign == 1 else pc.subtract_checked)(left, right)


def _run_length(dtype: pa.DataType, args: Args) -> Any:
    kind = args[0].type
    if pa.types.is_string(kind):
        return pc.cast(pc.utf8_length(args[0]), dtype)
    return pc.cast(pc.binary_length(args[0]) if pa.types.is_binary(kind) else pc.list_value_length(args[0]), dtype)


def _run_substring(dtype: pa.DataType, args: Args) -> Any:
    if not all(arg.is_valid for arg in args[1:]):
        return pa.nulls(len(args[0]), dtype)
    start = args[1].as_py()
    stop = None if len(args) == 2 else start + args[2].as_py()
    if start < 1 or (stop is not None and stop < start):
        raise pa.ArrowInvalid("substring counts from 1 and takes a length of at least 0")
    return pc.utf8_slice_codeunits(args[0], start - 1, None if stop is None else stop - 1)


def _run_left(dtype: pa.DataType, args: Args) -> Any:
    count = args[1].as_py()
    if count is None:
        return pa.nulls(len(args[0]), dtype)
    return pc.utf8_slice_codeunits(args[0], 0, count)


def _by_pattern(kernel: Callable[..., Any]) -> Run:
    def run(dtype: pa.DataType, args: Args) -> Any:
        if not args[1].is_valid:
            return pa.nulls(len(args[0]), dtype)
        return kernel(args[0], args[1].as_py())

    return run


def _run_replace(dtype: pa.DataType, args: Args) -> Any:
    if not (args[1].is_valid and args[2].is_valid):
        return pa.nulls(len(args[0]), dtype)
    if not args[1].as_py():
        return args[0]
    return pc.replace_substring(args[0], args[1].as_py(), args[2].as_py())


def _trim(kernel: Callable[..., Any]) -> Run:
    def run(dtype: pa.DataType, args: Args) -> Any:
        if len(args) == 2 and not args[1].is_valid:
            return pa.nulls(len(args[0]), dtype)
        return kernel(args[0], characters=args[1].as_py() if len(args) == 2 else " ")

    return run


def _run_round(dtype: pa.DataType, args: Args) -> Any:
    digits = args[1].as_py() if len(args) == 2 else 0
    if digits is None:
        return pa.nulls(len(args[0]), dtype)
    if pa.types.is_integer(dtype) and digits >= 0:
        return args[0]
    return pc.cast(round_number(args[0], digits, "half_towards_infinity"), dtype)


def _run_epoch(dtype: pa.DataType, args: Args) -> Any:
    per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[args[0].type.unit]
    return pc.divide(pc.cast(pc.cast(args[0], INT64), DOUBLE, safe=False), per_second)


def _run_nullif(dtype: pa.DataType, args: Args) -> Any:
    same = pc.coalesce(pc.equal(args[0], args[1]), pa.scalar(False))
    return pc.if_else(same, pa.scalar(None, dtype), args[0])


def _weekday(first: int, count_from_zero: bool) -> Run:
    return lambda dtype, args: pc.day_of_week(args[0], count_from_zero=count_from_zero, week_start=first)


def _plain(kernel: Callable[..., Any]) -> Run:
    return lambda dtype, args: pc.cast(kernel(*args), dtype)


def _is(kernel: Callable[..., Any]) -> Function:
    return Function(1, 1, lambda name, args: (to_double(name, args)[0], BOOL), lambda dtype, args: kernel(args[0]))


def _date(kernel: Callable[..., Any]) -> Function:
    return Function(1, 1, date_part, _plain(kernel))


def _math(kernel: Callable[..., Any], count: int = 1) -> Function:
    return Function(count, count, to_double, lambda dtype, args: kernel(*args))


MANY = 1000
FUNCTIONS: dict[str, Function] = {
    "+": Function(2, 2, arithmetic, _run_add),
    "-": Function(2, 2, arithmetic, lambda dtype, args: _run_add(dtype, args, -1)),
    "*": Function(2, 2, arithmetic, lambda dtype, args: pc.multiply_checked(*args)),
    "/": Function(2, 2, arithmetic, lambda dtype, args: pc.divide(*args)),
    "//": Function(2, 2, arithmetic, lambda dtype, args: pc.divide_checked(*args)),
    "%": Function(2, 2, arithmetic, lambda dtype, args: remainder(dtype, *args)),
    "negate": Function(1, 1, negated, lambda dtype, args: pc.negate_checked(args[0])),
    "||": Function(2, 2, joined, lambda dtype, args: pc.binary_join_element_wise(*args, "")),
    "concat": Function(
        1, MANY, joined, lambda dtype, args: pc.binary_join_element_wise(*args, "", null_handling="replace")
    ),
    "coalesce": Function(1, MANY, one_type, lambda dtype, args: pc.coalesce(*args)),
    "greatest": Function(1, MANY, one_type, lambda dtype, args: _extreme(args, pc.greater)),
    "least": Function(1, MANY, one_type, lambda dtype, args: _extreme(args, pc.less)),
    "nullif": Function(2, 2, one_type, _run_nullif),
    "abs": Function(1, 1, same_number, lambda dtype, args: pc.abs_checked(args[0])),
    "sign": Function(1, 1, number_to_int, _plain(pc.sign)),
    "round": Function(1, 2, rounded, _run_round),
    "floor": Function(1, 1, whole_number, lambda dtype, args: pc.cast(round_number(args[0], 0, "down"), dtype)),
    "ceil": Function(1, 1, whole_number, lambda dtype, args: pc.cast(round_number(args[0], 0, "up"), dtype)),
    "trunc": Function(1, 1, whole_number, lambda dtype, args: pc.cast(round_number(args[0], 0, "towards_zero"), dtype)),
    "ln": _math(pc.ln),
    "log": _math(pc.log10),
    "log10": _math(pc.log10),
    "log2": _math(pc.log2),
    "exp": _math(pc.exp),
    "sqrt": _math(pc.sqrt),
    "power": _math(pc.power, 2),
    "isnan": _is(pc.is_nan),
    "isinf": _is(pc.is_inf),
    "isfinite": _is(pc.is_finite),
    "lower": Function(1, 1, on_text(TEXT), _plain(pc.utf8_lower)),
    "upper": Function(1, 1, on_text(TEXT), _plain(pc.utf8_upper)),
    "trim": Function(1, 2, on_text(TEXT, "t"), _trim(pc.utf8_trim)),
    "ltrim": Function(1, 2, on_text(TEXT, "t"), _trim(pc.utf8_ltrim)),
    "rtrim": Function(1, 2, on_text(TEXT, "t"), _trim(pc.utf8_rtrim)),
    "substring": Function(2, 3, on_text(TEXT, "i", "i"), _run_substring),
    "left": Function(2, 2, on_text(TEXT, "i"), _run_left),
    "replace": Function(3, 3, on_text(TEXT, "t", "t"), _run_replace),
    "starts_with": Function(2, 2, on_text(BOOL, "t"), _by_pattern(pc.starts_with)),
    "ends_with": Function(2, 2, on_text(BOOL, "t"), _by_pattern(pc.ends_with)),
    "contains": Function(2, 2, on_text(BOOL, "t"), _by_pattern(pc.match_substring)),
    "length": Function(1, 1, size, _run_length),
    "year": _date(pc.year),
    "quarter": _date(pc.quarter),
    "month": _date(pc.month),
    "week": _date(pc.iso_week),
    "day": _date(pc.day),
    "dayofyear": _date(pc.day_of_year),
    "dayofweek": Function(1, 1, date_part, _weekday(7, True)),
    "isodow": Function(1, 1, date_part, _weekday(1, False)),
    "hour": _date(pc.hour),
    "minute": _date(pc.minute),
    "second": _date(pc.second),
    "epoch": Function(1, 1, seconds, _run_epoch),
    "date_trunc": Function(
        2,
        2,
        truncated,
        lambda dtype, args: pc.cast(floor_time(args[1], args[0].as_py().lower()), dtype),
    ),
}
ALIASES = {
    "pow": "power",
    "ceiling": "ceil",
    "len": "length",
    "substr": "substring",
    "prefix": "starts_with",
    "startswith": "starts_with",
    "suffix": "ends_with",
    "endswith": "ends_with",
    "weekday": "dayofweek",
    "dow": "dayofweek",
    "doy": "dayofyear",
    "dayofmonth": "day",
    "mod": "%",
}


def _extreme(args: Args, better: Callable[..., Any]) -> Any:
    """The largest or smallest that is not null, of any type that can be compared."""
    result = args[0]
    for value in args[1:]:
        take = pc.coalesce(better(value, result), pc.is_null(result))
        result = pc.if_else(take, value, result)
    return result
