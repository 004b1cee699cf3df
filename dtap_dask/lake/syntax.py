"""What sqlglot's tree says about types, intervals and function calls, and what of SQL is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa
from sqlglot import exp

from dtap_dask.errors import ExpressionError, did_you_mean
from dtap_dask.lake.expression import Constant
from dtap_dask.lake.functions import ALIASES, FUNCTIONS

_TYPES: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINT": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "INT128": pa.decimal128(38, 0),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "DECIMAL": pa.decimal128(18, 3),
    "TEXT": pa.string(),
    "VARCHAR": pa.string(),
    "CHAR": pa.string(),
    "VARBINARY": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMPNTZ": pa.timestamp("us"),
    "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
}
# sqlglot's class -> our name and its arguments in order
_CALLS: dict[type[exp.Expr], tuple[str, tuple[str, ...]]] = {
    exp.Abs: ("abs", ("this",)),
    exp.Ceil: ("ceil", ("this",)),
    exp.Coalesce: ("coalesce", ("this", "expressions")),
    exp.Concat: ("concat", ("expressions",)),
    exp.Contains: ("contains", ("this", "expression")),
    exp.Day: ("day", ("this",)),
    exp.DayOfMonth: ("day", ("this",)),
    exp.DayOfWeek: ("dayofweek", ("this",)),
    exp.DayOfWeekIso: ("isodow", ("this",)),
    exp.DayOfYear: ("dayofyear", ("this",)),
    exp.EndsWith: ("ends_with", ("this", "expression")),
    exp.Exp: ("exp", ("this",)),
    exp.Floor: ("floor", ("this",)),
    exp.Greatest: ("greatest", ("this", "expressions")),
    exp.Hour: ("hour", ("this",)),
    exp.IsInf: ("isinf", ("this",)),
    exp.IsNan: ("isnan", ("this",)),
    exp.Least: ("least", ("this", "expressions")),
    exp.Left: ("left", ("this", "expression")),
    exp.Length: ("length", ("this",)),
    exp.Ln: ("ln", ("this",)),
    exp.Lower: ("lower", ("this",)),
    exp.Minute: ("minute", ("this",)),
    exp.Month: ("month", ("this",)),
    exp.Nullif: ("nullif", ("this", "expression")),
    exp.Pow: ("power", ("this", "expression")),
    exp.Quarter: ("quarter", ("this",)),
    exp.Replace: ("replace", ("this", "expression", "replacement")),
    exp.Round: ("round", ("this", "decimals")),
    exp.Second: ("second", ("this",)),
    exp.Sign: ("sign", ("this",)),
    exp.Sqrt: ("sqrt", ("this",)),
    exp.StartsWith: ("starts_with", ("this", "expression")),
    exp.Substring: ("substring", ("this", "start", "length")),
    exp.TimeToUnix: ("epoch", ("this",)),
    exp.Trunc: ("trunc", ("this",)),
    exp.Upper: ("upper", ("this",)),
    exp.Week: ("week", ("this",)),
    exp.Year: ("year", ("this",)),
}
_FLAGS = frozenset(("safe", "coalesce", "ignore_nulls", "binary", "is_null"))  # how sqlglot notes a dialect's habits
_INTERVALS = {  # months, days, nanoseconds
    "YEAR": (12, 0, 0),
    "QUARTER": (3, 0, 0),
    "MONTH": (1, 0, 0),
    "WEEK": (0, 7, 0),
    "DAY": (0, 1, 0),
    "HOUR": (0, 0, 3600 * 10**9),
    "MINUTE": (0, 0, 60 * 10**9),
    "SECOND": (0, 0, 10**9),
    "MILLISECOND": (0, 0, 10**6),
    "MICROSECOND": (0, 0, 10**3),
}


def refuse(tree: exp.Expr, reason: str) -> ExpressionError:
    """The error that names what is written and why it cannot be."""
    return ExpressionError(f"{tree.sql(dialect='duckdb')!r} is not available in an expression: {reason}.")


def sql_type(tree: exp.Cast) -> pa.DataType:
    """The Arrow type that a CAST names."""
    target = tree.to
    name = target.this.name if isinstance(target.this, exp.DataType.Type) else str(target.this)
    if target.args.get("nested") or name not in _TYPES:
        raise refuse(
            tree,
            f"the type {target.sql(dialect='duckdb').upper()} is not one of {', '.join(_TYPES)}",
        )
    sizes = [int(size.name) for size in target.expressions if size.name.isdigit()]
    if name != "DECIMAL" or not sizes:
        return _TYPES[name]
    precision, scale = (*sizes, 0)[:2]
    if not 1 <= precision <= 38 or scale > precision:
        raise refuse(tree, "a decimal has 1 to 38 digits, of which the scale is a part")
    return pa.decimal128(precision, scale)


def interval(tree: exp.Interval) -> Constant:
    """INTERVAL with a constant number and one unit."""
    count = tree.this.name if isinstance(tree.this, exp.Literal) else ""
    unit = tree.args["unit"].name.upper().removesuffix("S") if tree.args.get("unit") is not None else ""
    if not re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", count) or unit not in _INTERVALS:
        raise refuse(tree, f"INTERVAL takes a constant number and one unit of {', '.join(_INTERVALS).lower()}")
    parts = [Decimal(count) * size for size in _INTERVALS[unit]]
    if any(part != int(part) for part in parts):
        raise refuse(tree, "the number of months, days or nanoseconds must be whole")
    value = pa.scalar(pa.MonthDayNano([int(part) for part in parts]), pa.month_day_nano_interval())
    return Constant(value.type, value)


def function_call(tree: exp.Expr) -> tuple[str, list[exp.Expr]]:
    """The name (a key of FUNCTIONS) and arguments of a function call."""
    special = _special_call(tree)
    if special is not None:
        return special
    if type(tree) in _CALLS:
        name, keys = _CALLS[type(tree)]
        extra = [key for key, value in tree.args.items() if value and key not in keys and key not in _FLAGS]
        if extra:
            raise refuse(tree, f"{name} with {', '.join(extra)} is not supported")
        return name, _arguments(tree, keys)
    raise _unsupported(tree)


def _unsupported(tree: exp.Expr) -> ExpressionError:
    """The error that names what of SQL this is."""
    row = "an expression sees one row at a time"
    if isinstance(tree, exp.Query | exp.Subquery | exp.Exists | exp.SubqueryPredicate):
        return refuse(tree, f"there are no subqueries; {row}")
    if isinstance(tree, exp.Window):
        return refuse(tree, f"there are no window functions; {row}")
    if isinstance(tree, exp.AggFunc):
        return refuse(tree, f"{tree.sql_name().lower()} is an aggregate; {row}")
    if isinstance(tree, exp.Func):
        return _unknown_function(tree, (tree.name if isinstance(tree, exp.Anonymous) else tree.sql_name()).lower())
    return refuse(tree, f"{tree.key} is not supported")


def _special_call(tree: exp.Expr) -> tuple[str, list[exp.Expr]] | None:
    """Calls whose name depends on their arguments."""
    if isinstance(tree, exp.Anonymous):
        return _anonymous(tree)
    if isinstance(tree, exp.Extract):
        return _date_part(tree, tree.this.name, tree.expression)
    if isinstance(tree, exp.TimestampTrunc | exp.DateTrunc) and not tree.args.get("zone"):
        return "date_trunc", [exp.Literal.string(tree.args["unit"].name), tree.this]
    if isinstance(tree, exp.Trim) and not tree.args.get("collation"):
        side = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(tree.args.get("position") or "").upper(), "trim")
        return side, _arguments(tree, ("this", "expression"))
    if isinstance(tree, exp.Log):
        return _logarithm(tree)
    return None


def _logarithm(tree: exp.Log) -> tuple[str, list[exp.Expr]]:
    if tree.expression is None:
        return "log10", [tree.this]
    base = tree.this.name if isinstance(tree.this, exp.Literal) else ""
    if base not in ("2", "10"):
        raise refuse(tree, "logarithms are ln, log2 and log10")
    return f"log{base}", [tree.expression]


def _anonymous(tree: exp.Anonymous) -> tuple[str, list[exp.Expr]]:
    name = tree.name.lower()
    if name in ("date_part", "datepart") and len(tree.expressions) == 2:
        return _date_part(tree, tree.expressions[0].name, tree.expressions[1])
    name = ALIASES.get(name, name)
    if name not in FUNCTIONS or not name[0].isalpha():
        raise _unknown_function(tree, name)
    return name, list(tree.expressions)


def _date_part(tree: exp.Expr, part: str, value: exp.Expr) -> tuple[str, list[exp.Expr]]:
    name = ALIASES.get(part.lower(), part.lower())
    known = [key for key in FUNCTIONS if FUNCTIONS[key].types in (FUNCTIONS["year"].types, FUNCTIONS["epoch"].types)]
    if name not in known:
        raise refuse(tree, f"a date has no part {name!r}; known are {', '.join(known)}")
    return name, [value]


def _unknown_function(tree: exp.Expr, name: str) -> ExpressionError:
    known = sorted(key for key in (*FUNCTIONS, *ALIASES) if key[0].isalpha())
    return ExpressionError(
        f"there is no function {name!r} here ({tree.sql(dialect='duckdb')}).{did_you_mean(name, known)}"
    )


def _arguments(tree: exp.Expr, keys: Sequence[str]) -> list[exp.Expr]:
    args: list[exp.Expr] = []
    for key in keys:
        value = tree.args.get(key)
        args.extend(value if isinstance(value, list) else [value] if value is not None else [])
    return args
