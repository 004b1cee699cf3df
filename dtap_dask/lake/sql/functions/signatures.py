"""Signatures of operators and of functions that choose between values.

A signature maps a function's name and arguments to the types that the arguments are cast to and the type of the result;
ExpressionError if it does not take them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.coercion import arithmetic_types, common_type
from dtap_dask.lake.sql.functions.definition import Types
from dtap_dask.lake.sql.tree import Constant, Node, describe
from dtap_dask.lake.sql.types import DOUBLE, INT64, NUMBERS, UNITS, Family, family

DATES: frozenset[Family] = frozenset(("date", "timestamp"))


def _refuse(name: str, node: Node, wanted: str) -> ExpressionError:
    return ExpressionError(f"{name} takes {wanted}, not {describe(node)}; CAST it first if that is meant.")


def _check(name: str, node: Node, kinds: frozenset[Family], wanted: str) -> None:
    if family(node.type) not in kinds | {"null"}:
        raise _refuse(name, node, wanted)


def arithmetic(name: str, args: Sequence[Node]) -> Types:
    """The binary operators +, -, *, /, // and %, of numbers or dates."""
    left, right = args
    kinds = (family(left.type), family(right.type))
    if "interval" in kinds or set(kinds) & DATES:
        return _date_arithmetic(name, left, right)
    for arg in args:
        _check(f"The operator {name}", arg, NUMBERS, "numbers")
    if name == "/":
        target = common_type(left.type, right.type) if "float" in kinds else DOUBLE
        return (target, target), target
    if name == "//" and not {*kinds} <= {"int", "null"}:
        raise ExpressionError("The operator // divides integers; write floor(a / b) for other numbers.")
    return arithmetic_types(name, left, right)


def _date_arithmetic(name: str, left: Node, right: Node) -> Types:
    kinds = (family(left.type), family(right.type))
    if kinds[1] == "interval" and isinstance(right, Constant) and kinds[0] in DATES and name in "+-":
        if kinds[0] == "date" or UNITS.index(left.type.unit) < UNITS.index("us"):
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


def added(name: str, args: Sequence[Node]) -> Types:
    """date_add, which is the same as +."""
    return arithmetic("+", args)


def negated(name: str, args: Sequence[Node]) -> Types:
    """The unary operator -."""
    _check("The operator -", args[0], NUMBERS, "a number")
    target = {"null": DOUBLE, "int": INT64}.get(family(args[0].type), args[0].type)
    return (target,), target


def first_type(name: str, args: Sequence[Node]) -> Types:
    """Both arguments are compared in a common type; the result has the type of the first."""
    (_, meet), _ = one_type(name, args)
    return (args[0].type, meet), args[0].type


def one_type(name: str, args: Sequence[Node]) -> Types:
    """All arguments and the result have the common type of the arguments."""
    target = pa.null()
    for arg in args:
        meet = common_type(target, arg.type)
        if meet is None or family(meet) in ("nested", "interval"):
            raise ExpressionError(f"{name} cannot choose between {target} and {describe(arg)}; CAST one of them.")
        target = meet
    return (target,) * len(args), target
