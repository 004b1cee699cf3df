"""The operators and functions of expressions: the arguments they take, the type they give, how Arrow computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.arithmetic import add_interval, remainder, round_number, wider
from dtap_dask.lake.coercion import arithmetic_types, common_type
from dtap_dask.lake.expression import (
    BOOL,
    DOUBLE,
    INT64,
    NUMBERS,
    TEXT,
    Constant,
    Family,
    Node,
    describe,
    family,
)

Args = Sequence[Any]
Types = tuple[tuple[pa.DataType, ...], pa.DataType]
Run = Callable[[pa.DataType, Args], Any]
DATES: frozenset[Family] = frozenset(("date", "timestamp"))
_UNITS = ("year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond")
_ORDER = {"s": 0, "ms": 1, "us": 2, "ns": 3}


@dataclass(frozen=True)
class Function:
    """`types` gives what arguments are cast to and the result's type; `run` gets the result's type and the values."""

    fewest: int
    most: int
    types: Callable[[str, Sequence[Node]], Types]
    run: Run


def _refuse(name: str, node: Node, wanted: str) -> ExpressionError:
    return ExpressionError(f"{name} wants {wanted}, not {describe(node)}; CAST it first if that is meant.")


def _check(name: str, node: Node, kinds: frozenset[Family], wanted: str) -> None:
    if family(node.type) not in kinds | {"null"}:
        raise _refuse(name, node, wanted)


def _constant(name: str, node: Node, kinds: frozenset[Family], wanted: str) -> None:
    if not isinstance(node, Constant) or family(node.type) not in kinds | {"null"}:
        raise _refuse(name, node, f"a constant {wanted} here")


def _to_double(name: str, args: Sequence[Node]) -> Types:
    for arg in args:
        _check(name, arg, NUMBERS, "numbers")
    return (DOUBLE,) * len(args), DOUBLE


def _same_number(name: str, args: Sequence[Node]) -> Types:
    _check(name, args[0], NUMBERS, "a number")
    kind = family(args[0].type)
    target = {"null": DOUBLE, "int": INT64}.get(kind, args[0].type)
    if len(args) == 2:
        _constant(name, args[1], frozenset(("int",)), "whole number")
        return (target, INT64), target
    return (target,), target


def _rounding(name: str, args: Sequence[Node]) -> Types:
    """round: as abs, but a decimal may need one more digit."""
    types, target = _same_number(name, args)
    return types, wider(target)


def _whole(name: str, args: Sequence[Node]) -> Types:
    """floor, ceil and trunc: integers become double, as in DuckDB."""
    (target,), result = _rounding(name, args)
    return ((DOUBLE,), DOUBLE) if result == INT64 else ((target,), result)


def _number_to_int(name: str, args: Sequence[Node]) -> Types:
    (target,), _ = _same_number(name, args)
    return (target,), INT64


def _text(result: pa.DataType, *rest: str) -> Callable[[str, Sequence[Node]], Types]:
    """First argument text; the further ones constants, 't' a text, 'i' a whole number."""

    def types(name: str, args: Sequence[Node]) -> Types:
        _check(name, args[0], frozenset(("text",)), "text")
        for arg, kind in zip(args[1:], rest, strict=False):
            _constant(
                name,
                arg,
                frozenset(("text" if kind == "t" else "int",)),
                "text" if kind == "t" else "whole number",
            )
        return (TEXT, *(TEXT if kind == "t" else INT64 for kind in rest[: len(args) - 1])), result

    return types


def _length(name: str, args: Sequence[Node]) -> Types:
    dtype = args[0].type
    is_list = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    if not is_list:
        _check(name, args[0], frozenset(("text", "binary")), "text, binary or a list")
    return (TEXT if family(dtype) == "null" else dtype,), INT64


def _date_part(name: str, args: Sequence[Node]) -> Types:
    _check(name, args[0], DATES, "a date or timestamp")
    if name in ("hour", "minute", "second") and family(args[0].type) == "date":
        return (pa.timestamp("us"),), INT64
    return (pa.date32() if family(args[0].type) == "null" else args[0].type,), INT64


def _epoch(name: str, args: Sequence[Node]) -> Types:
    _check(name, args[0], DATES, "a date or timestamp")
    stamp = family(args[0].type) == "timestamp"
    return (pa.timestamp(args[0].type.unit) if stamp else pa.timestamp("us"),), DOUBLE


def _date_trunc(name: str, args: Sequence[Node]) -> Types:
    _constant(name, args[0], frozenset(("text",)), "unit")
    unit = str(args[0].value.as_py()).lower() if isinstance(args[0], Constant) else ""
    if unit not in _UNITS:
        raise ExpressionError(f"date_trunc knows no unit {unit!r}; known are {', '.join(_UNITS)}.")
    _check(name, args[1], DATES, "a date or timestamp")
    stamp = args[1].type if family(args[1].type) == "timestamp" else pa.timestamp("us")
    return (TEXT, stamp), stamp


def _arithmetic(name: str, args: Sequence[Node]) -> Types:
    left, right = args
    kinds = (family(left.type), family(right.type))
    if "interval" in kinds or set(kinds) & DATES:
        return _date_arithmetic(name, left, right)
    for arg in args:
        _check(f"The operator {name}", arg, NUMBERS, "numbers")
    if name == "/":
        return (DOUBLE, DOUBLE), DOUBLE
    if name == "//" and not {*kinds} <= {"int", "null"}:
        raise ExpressionError("The operator // divides integers; write floor(a / b) for other numbers.")
    return arithmetic_types(name, left, right)


def _date_arithmetic(name: str, left: Node, right: Node) -> Types:
    kinds = (family(left.type), family(right.type))
    if kinds[1] == "interval" and isinstance(right, Constant) and kinds[0] in DATES and name in "+-":
        if kinds[0] == "date" or _ORDER[left.type.unit] < _ORDER["us"]:
            stamp = pa.timestamp("us", None if kinds[0] == "date" else left.type.tz)
        else:
            stamp = left.type
        return (stamp, right.type), stamp
    if kinds == ("date", "date") and name == "-":
        return (left.type, right.type), INT64
    if kinds in (("date", "int"), ("date", "null")) and name in "+-":
        return (left.type, INT64), left.type
    raise ExpressionError(
        f"{describe(left)} {name} {describe(right)} is not available. Dates and timestamps take + or - INTERVAL "
        "(a constant, on the right), a date + or - a number of days, and date - date; for seconds between "
        "timestamps write epoch(a) - epoch(b)."
    )


def _negate(name: str, args: Sequence[Node]) -> Types:
    return _same_number("The operator -", args)


def _concat(name: str, args: Sequence[Node]) -> Types:
    for arg in args:
        if family(arg.type) in ("nested", "interval", "other", "binary"):
            raise _refuse(name, arg, "text")
    return (TEXT,) * len(args), TEXT


def _one_type(name: str, args: Sequence[Node]) -> Types:
    """Every argument in the one type they meet in."""
    target = pa.null()
    for arg in args:
        meet = common_type(target, arg.type)
        if meet is None or family(meet) in ("nested", "interval"):
            raise ExpressionError(f"{name} cannot choose between {target} and {describe(arg)}; CAST one of them.")
        target = meet
    return (target,) * len(args), target


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
    return Function(1, 1, lambda name, args: (_to_double(name, args)[0], BOOL), lambda dtype, args: kernel(args[0]))


def _date(kernel: Callable[..., Any]) -> Function:
    return Function(1, 1, _date_part, _plain(kernel))


def _math(kernel: Callable[..., Any], count: int = 1) -> Function:
    return Function(count, count, _to_double, lambda dtype, args: kernel(*args))


MANY = 1000
FUNCTIONS: dict[str, Function] = {
    "+": Function(2, 2, _arithmetic, _run_add),
    "-": Function(2, 2, _arithmetic, lambda dtype, args: _run_add(dtype, args, -1)),
    "*": Function(2, 2, _arithmetic, lambda dtype, args: pc.multiply_checked(*args)),
    "/": Function(2, 2, _arithmetic, lambda dtype, args: pc.divide(*args)),
    "//": Function(2, 2, _arithmetic, lambda dtype, args: pc.divide_checked(*args)),
    "%": Function(2, 2, _arithmetic, lambda dtype, args: remainder(dtype, *args)),
    "negate": Function(1, 1, _negate, lambda dtype, args: pc.negate_checked(args[0])),
    "||": Function(2, 2, _concat, lambda dtype, args: pc.binary_join_element_wise(*args, "")),
    "concat": Function(
        1, MANY, _concat, lambda dtype, args: pc.binary_join_element_wise(*args, "", null_handling="replace")
    ),
    "coalesce": Function(1, MANY, _one_type, lambda dtype, args: pc.coalesce(*args)),
    "greatest": Function(1, MANY, _one_type, lambda dtype, args: _extreme(args, pc.greater)),
    "least": Function(1, MANY, _one_type, lambda dtype, args: _extreme(args, pc.less)),
    "nullif": Function(2, 2, _one_type, _run_nullif),
    "abs": Function(1, 1, _same_number, lambda dtype, args: pc.abs_checked(args[0])),
    "sign": Function(1, 1, _number_to_int, _plain(pc.sign)),
    "round": Function(1, 2, _rounding, _run_round),
    "floor": Function(1, 1, _whole, lambda dtype, args: pc.cast(round_number(args[0], 0, "down"), dtype)),
    "ceil": Function(1, 1, _whole, lambda dtype, args: pc.cast(round_number(args[0], 0, "up"), dtype)),
    "trunc": Function(1, 1, _whole, lambda dtype, args: pc.cast(round_number(args[0], 0, "towards_zero"), dtype)),
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
    "lower": Function(1, 1, _text(TEXT), _plain(pc.utf8_lower)),
    "upper": Function(1, 1, _text(TEXT), _plain(pc.utf8_upper)),
    "trim": Function(1, 2, _text(TEXT, "t"), _trim(pc.utf8_trim)),
    "ltrim": Function(1, 2, _text(TEXT, "t"), _trim(pc.utf8_ltrim)),
    "rtrim": Function(1, 2, _text(TEXT, "t"), _trim(pc.utf8_rtrim)),
    "substring": Function(2, 3, _text(TEXT, "i", "i"), _run_substring),
    "left": Function(2, 2, _text(TEXT, "i"), _run_left),
    "replace": Function(3, 3, _text(TEXT, "t", "t"), _run_replace),
    "starts_with": Function(2, 2, _text(BOOL, "t"), _by_pattern(pc.starts_with)),
    "ends_with": Function(2, 2, _text(BOOL, "t"), _by_pattern(pc.ends_with)),
    "contains": Function(2, 2, _text(BOOL, "t"), _by_pattern(pc.match_substring)),
    "length": Function(1, 1, _length, _run_length),
    "year": _date(pc.year),
    "quarter": _date(pc.quarter),
    "month": _date(pc.month),
    "week": _date(pc.iso_week),
    "day": _date(pc.day),
    "dayofyear": _date(pc.day_of_year),
    "dayofweek": Function(1, 1, _date_part, _weekday(7, True)),
    "isodow": Function(1, 1, _date_part, _weekday(1, False)),
    "hour": _date(pc.hour),
    "minute": _date(pc.minute),
    "second": _date(pc.second),
    "epoch": Function(1, 1, _epoch, _run_epoch),
    "date_trunc": Function(
        2,
        2,
        _date_trunc,
        lambda dtype, args: pc.cast(pc.floor_temporal(args[1], unit=args[0].as_py().lower()), dtype),
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
