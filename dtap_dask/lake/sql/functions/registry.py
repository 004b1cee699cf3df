"""All operators and functions of expressions; those for any type are defined here, the others by family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.lake.sql.functions.definition import Args, Function, Kernel, one_row
from dtap_dask.lake.sql.functions.numeric import NUMERIC
from dtap_dask.lake.sql.functions.regexp import REGEXPS
from dtap_dask.lake.sql.functions.signatures import added, arithmetic, first_type, negated, one_type
from dtap_dask.lake.sql.functions.temporal import TEMPORAL
from dtap_dask.lake.sql.functions.text import TEXTS, joined
from dtap_dask.lake.sql.kernels.arithmetic import add_interval, calculate
from dtap_dask.lake.sql.kernels.casts import cast
from dtap_dask.lake.sql.types import INT64


def _add(sign: int) -> Kernel:
    kernel = pc.add_checked if sign == 1 else pc.subtract_checked

    def run(dtype: pa.DataType, args: Args) -> Any:
        left, right = args
        if isinstance(right, pa.MonthDayNanoIntervalScalar):
            return add_interval(left, right, dtype, sign)
        if pa.types.is_decimal(dtype):
            return calculate("+" if sign == 1 else "-", dtype, left, right)
        if pa.types.is_date32(dtype):
            days = pc.cast(left, pa.int32()).cast(INT64)
            return pc.cast(pc.cast(kernel(days, right), pa.int32()), dtype)
        if pa.types.is_date32(left.type):
            left, right = (pc.cast(pc.cast(side, pa.int32()), INT64) for side in args)
        return kernel(left, right)

    return run


def _nullif(dtype: pa.DataType, args: Args) -> Any:
    if pa.types.is_null(args[1].type):  # Arrow compares no nulls
        return args[0]
    first = cast(one_row(args[0]), args[1].type)[0] if isinstance(args[0], pa.Scalar) else cast(args[0], args[1].type)
    same = pc.coalesce(pc.equal(first, args[1]), pa.scalar(False))
    return pc.if_else(same, pa.scalar(None, dtype), args[0])


def _extreme(better: Callable[..., Any]) -> Kernel:
    """The largest or smallest argument that is not null, of any comparable type."""

    def run(dtype: pa.DataType, args: Args) -> Any:
        result = args[0]
        for value in args[1:] if not pa.types.is_null(dtype) else ():  # Arrow compares no nulls
            take = pc.coalesce(better(value, result), pc.is_null(result))
            result = pc.if_else(take, value, result)
        return result

    return run


def _operator(types: Any, run: Kernel, spec: str = "left any, right any") -> Function:
    return Function(spec, types, run, strict=False)


OPERATORS: dict[str, Function] = {
    "+": _operator(arithmetic, _add(1)),
    "-": _operator(arithmetic, _add(-1)),
    "*": _operator(arithmetic, lambda dtype, args: calculate("*", dtype, *args)),
    "/": _operator(arithmetic, lambda dtype, args: pc.divide(*args)),
    "//": _operator(arithmetic, lambda dtype, args: calculate("//", dtype, *args)),
    "%": _operator(arithmetic, lambda dtype, args: calculate("%", dtype, *args)),
    "negate": _operator(negated, lambda dtype, args: pc.negate_checked(args[0]), "value any"),
    "||": _operator(joined, lambda dtype, args: pc.binary_join_element_wise(*args, "")),
}
_COMMON = "the type they meet in"
CHOICES: dict[str, Function] = {
    "coalesce": Function(
        "value any...",
        one_type,
        lambda dtype, args: pc.coalesce(*args),
        "the first that is not NULL",
        "coalesce(NULL, 2, 3)",
        _COMMON,
        strict=False,
    ),
    "greatest": Function(
        "value any...",
        one_type,
        _extreme(pc.greater),
        "the largest; NULLs are left out",
        "greatest(1, NULL, 3)",
        _COMMON,
        strict=False,
    ),
    "least": Function(
        "value any...",
        one_type,
        _extreme(pc.less),
        "the smallest; NULLs are left out",
        "least(1, NULL, 3)",
        _COMMON,
        strict=False,
    ),
    "nullif": Function(
        "value any, other any",
        first_type,
        _nullif,
        "NULL where both are equal, else the first",
        "nullif(0, 0)",
        "the type of `value`",
        strict=False,
    ),
    "date_add": Function(
        "t moment, interval any",
        added,
        _add(1),
        "a date or timestamp plus an INTERVAL, or a date plus a number of days; the same as +",
        "date_add(DATE '2013-01-31', INTERVAL 1 MONTH)",
        "as t + interval",
        strict=False,
    ),
}
FAMILIES: dict[str, dict[str, Function]] = {
    "Numbers": NUMERIC,
    "Text": TEXTS,
    "Regular expressions": REGEXPS,
    "Dates and times": TEMPORAL,
    "Any type": CHOICES,
}
FUNCTIONS: dict[str, Function] = OPERATORS | {
    name: function for members in FAMILIES.values() for name, function in members.items()
}
ALIASES = {
    "pow": "power",
    "ceiling": "ceil",
    "len": "length",
    "char_length": "length",
    "character_length": "length",
    "lcase": "lower",
    "ucase": "upper",
    "substr": "substring",
    "prefix": "starts_with",
    "startswith": "starts_with",
    "suffix": "ends_with",
    "endswith": "ends_with",
    "instr": "strpos",
    "position": "strpos",
    "weekday": "dayofweek",
    "dow": "dayofweek",
    "doy": "dayofyear",
    "dayofmonth": "day",
    "weekofyear": "week",
    "datetrunc": "date_trunc",
    "datediff": "date_diff",
    "datesub": "date_sub",
    "ifnull": "coalesce",
    "mod": "%",
}
