"""Signatures of operators and functions: which arguments they take, and in which types they meet.

Each takes the function's name and its arguments and gives the types the arguments are cast to, and the result's type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.arithmetic import wider
from dtap_dask.lake.coercion import arithmetic_types, common_type
from dtap_dask.lake.expression import DOUBLE, INT64, NUMBERS, TEXT, Constant, Family, Node, describe, family

Types = tuple[tuple[pa.DataType, ...], pa.DataType]
DATES: frozenset[Family] = frozenset(("date", "timestamp"))
_UNITS = ("year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond")
_ORDER = {"s": 0, "ms": 1, "us": 2, "ns": 3}


def _refuse(name: str, node: Node, wanted: str) -> ExpressionError:
    return ExpressionError(f"{name} wants {wanted}, not {describe(node)}; CAST it first if that is meant.")


def _check(name: str, node: Node, kinds: frozenset[Family], wanted: str) -> None:
    if family(node.type) not in kinds | {"null"}:
        raise _refuse(name, node, wanted)


def _constant(name: str, node: Node, kinds: frozenset[Family], wanted: str) -> None:
    if not isinstance(node, Constant) or family(node.type) not in kinds | {"null"}:
        raise _refuse(name, node, f"a constant {wanted} here")


def to_double(name: str, args: Sequence[Node]) -> Types:
    for arg in args:
        _check(name, arg, NUMBERS, "numbers")
    return (DOUBLE,) * len(args), DOUBLE


def same_number(name: str, args: Sequence[Node]) -> Types:
    _check(name, args[0], NUMBERS, "a number")
    kind = family(args[0].type)
    target = {"null": DOUBLE, "int": INT64}.get(kind, args[0].type)
    if len(args) == 2:
        _constant(name, args[1], frozenset(("int",)), "whole number")
        return (target, INT64), target
    return (target,), target


def rounded(name: str, args: Sequence[Node]) -> Types:
    """round: as abs, but a decimal may need one more digit."""
    types, target = same_number(name, args)
    return types, wider(target)


def whole_number(name: str, args: Sequence[Node]) -> Types:
    """floor, ceil and trunc: integers become double, as in DuckDB."""
    (target,), result = rounded(name, args)
    return ((DOUBLE,), DOUBLE) if result == INT64 else ((target,), result)


def number_to_int(name: str, args: Sequence[Node]) -> Types:
    (target,), _ = same_number(name, args)
    return (target,), INT64


def on_text(result: pa.DataType, *rest: str) -> Callable[[str, Sequence[Node]], Types]:
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


def size(name: str, args: Sequence[Node]) -> Types:
    dtype = args[0].type
    is_list = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    if not is_list:
        _check(name, args[0], frozenset(("text", "binary")), "text, binary or a list")
    return (TEXT if family(dtype) == "null" else dtype,), INT64


def date_part(name: str, args: Sequence[Node]) -> Types:
    _check(name, args[0], DATES, "a date or timestamp")
    if name in ("hour", "minute", "second") and family(args[0].type) == "date":
        return (pa.timestamp("us"),), INT64
    return (pa.date32() if family(args[0].type) == "null" else args[0].type,), INT64


def seconds(name: str, args: Sequence[Node]) -> Types:
    _check(name, args[0], DATES, "a date or timestamp")
    stamp = family(args[0].type) == "timestamp"
    return (pa.timestamp(args[0].type.unit) if stamp else pa.timestamp("us"),), DOUBLE


def truncated(name: str, args: Sequence[Node]) -> Types:
    _constant(name, args[0], frozenset(("text",)), "unit")
    unit = str(args[0].value.as_py()).lower() if isinstance(args[0], Constant) else ""
    if unit not in _UNITS:
        raise ExpressionError(f"date_trunc knows no unit {unit!r}; known are {', '.join(_UNITS)}.")
    _check(name, args[1], DATES, "a date or timestamp")
    stamp = args[1].type if family(args[1].type) == "timestamp" else pa.timestamp("us")
    return (TEXT, stamp), stamp


def arithmetic(name: str, args: Sequence[Node]) -> Types:
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


def negated(name: str, args: Sequence[Node]) -> Types:
    return same_number("The operator -", args)


def joined(name: str, args: Sequence[Node]) -> Types:
    for arg in args:
        if family(arg.type) in ("nested", "interval", "other", "binary"):
            raise _refuse(name, arg, "text")
    return (TEXT,) * len(args), TEXT


def one_type(name: str, args: Sequence[Node]) -> Types:
    """Every argument in the one type they meet in."""
    target = pa.null()
    for arg in args:
        meet = common_type(target, arg.type)
        if meet is None or family(meet) in ("nested", "interval"):
            raise ExpressionError(f"{name} cannot choose between {target} and {describe(arg)}; CAST one of them.")
        target = meet
    return (target,) * len(args), target
