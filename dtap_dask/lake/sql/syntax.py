"""Types, intervals and function calls in sqlglot's tree, and the parts of SQL that are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa
from sqlglot import exp

from dtap_dask.errors import ExpressionError, nearest
from dtap_dask.lake.sql.functions.dateparts import PARTS, UNITS
from dtap_dask.lake.sql.functions.registry import ALIASES, FUNCTIONS
from dtap_dask.lake.sql.parsing import to_sql
from dtap_dask.lake.sql.tree import Constant

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
# operators and calls with a grammar of their own: sqlglot's class -> our name and its arguments in order
_CALLS: dict[type[exp.Expr], tuple[str, tuple[str, ...]]] = {
    exp.Pow: ("power", ("this", "expression")),
    exp.StartsWith: ("starts_with", ("this", "expression")),
    exp.StrPosition: ("strpos", ("this", "substr")),
    exp.Substring: ("substring", ("this", "start", "length")),
    exp.Abs: ("abs", ("this",)),
}
_CHANGING = frozenset(("now", "today", "current_date", "current_timestamp", "random", "uuid", "get_current_time"))
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
    """The error that quotes the refused part and gives the reason."""
    return ExpressionError(f"{to_sql(tree)!r} is not available in an expression: {reason}.")


def sql_type(tree: exp.Cast) -> pa.DataType:
    """The Arrow type that a CAST names; ExpressionError for unsupported types."""
    target = tree.to
    name = target.this.name if isinstance(target.this, exp.DataType.Type) else str(target.this)
    if target.args.get("nested") or name not in _TYPES:
        raise refuse(
            tree,
            f"the type {to_sql(target).upper()} is not one of {', '.join(_TYPES)}",
        )
    sizes = [size.name for size in target.expressions]
    if name != "DECIMAL" or not sizes:
        return _TYPES[name]
    precision, scale = ((int(size) if re.fullmatch(r"\d{1,2}", size) else -1) for size in (*sizes, "0")[:2])
    if not 1 <= precision <= 38 or not 0 <= scale <= precision or len(sizes) > 2:
        raise refuse(tree, "a decimal has 1 to 38 digits, of which the scale is a part")
    return pa.decimal128(precision, scale)


def interval(tree: exp.Interval) -> Constant:
    """The constant of an INTERVAL with a number and one unit."""
    count = tree.this.name if isinstance(tree.this, exp.Literal) else ""
    unit = tree.args["unit"].name.upper().removesuffix("S") if tree.args.get("unit") is not None else ""
    if not re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", count) or unit not in _INTERVALS:
        raise refuse(tree, f"INTERVAL takes a constant number and one unit of {', '.join(_INTERVALS).lower()}")
    parts = [Decimal(count) * size for size in _INTERVALS[unit]]
    if any(part != int(part) for part in parts):
        raise refuse(tree, "the number of months, days or nanoseconds must be whole")
    bounds = (2**31, 2**31, 2**63)
    if any(not -bound <= part < bound for part, bound in zip(parts, bounds, strict=True)):
        raise refuse(tree, "it is too long")
    value = pa.scalar(pa.MonthDayNano([int(part) for part in parts]), pa.month_day_nano_interval())
    return Constant(value.type, value)


def function_call(tree: exp.Expr) -> tuple[str, list[exp.Expr]]:
    """The name (a key of FUNCTIONS) and arguments of a function call."""
    if isinstance(tree, exp.Anonymous):
        return _named(tree)
    if isinstance(tree, exp.Extract):
        return _date_part(tree, tree.this.name, tree.expression)
    if isinstance(tree, exp.Trim) and not tree.args.get("collation"):
        side = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(tree.args.get("position") or "").upper(), "trim")
        return side, _arguments(tree, ("this", "expression"))
    if type(tree) in _CALLS:
        name, keys = _CALLS[type(tree)]
        return name, _arguments(tree, keys)
    raise _unsupported(tree)


def _unsupported(tree: exp.Expr) -> ExpressionError:
    """The error that says which unsupported part of SQL this is."""
    row = "an expression sees one row at a time"
    if isinstance(tree, exp.Query | exp.Subquery | exp.Exists | exp.SubqueryPredicate):
        return refuse(tree, f"there are no subqueries; {row}")
    if isinstance(tree, exp.Window | exp.Filter | exp.WithinGroup):
        return refuse(tree, f"there are no window functions or aggregates; {row}")
    if isinstance(tree, exp.RegexpLike):
        return refuse(
            tree,
            "~ means different things in different versions of DuckDB; write regexp_matches for a part "
            "of the text, regexp_full_match for all of it",
        )
    if isinstance(tree, exp.Func) and tree.sql_name().lower() in _CHANGING:
        return _unknown_function(tree, tree.sql_name().lower())
    return refuse(tree, f"{tree.key} is not supported")


def _named(tree: exp.Anonymous) -> tuple[str, list[exp.Expr]]:
    name = tree.name.lower()
    if name in ("date_part", "datepart"):
        if len(tree.expressions) != 2:
            raise ExpressionError(f"{name} takes 2 arguments, not {len(tree.expressions)}: {name}(part, t).")
        return _date_part(tree, tree.expressions[0].name, tree.expressions[1])
    known = ALIASES.get(name, name)
    if known not in FUNCTIONS or not name[0].isalpha() or name == "negate":
        raise _unknown_function(tree, name)
    return known, list(tree.expressions)


def _date_part(tree: exp.Expr, part: str, value: exp.Expr) -> tuple[str, list[exp.Expr]]:
    name = UNITS.get(part.lower())
    if name is None or name not in PARTS:
        known = ", ".join(sorted(PARTS))
        raise refuse(tree, f"a date has no part {part.lower()!r}; parts are {known}")
    return name, [value]


def _unknown_function(tree: exp.Expr, name: str) -> ExpressionError:
    kind = exp.FUNCTION_BY_NAME.get(name.upper())
    if kind is not None and issubclass(kind, exp.AggFunc):
        return refuse(tree, f"{name} is an aggregate; an expression sees one row at a time")
    known = sorted(key for key in (*FUNCTIONS, *ALIASES) if key[0].isalpha() and key != "negate")
    near = nearest(name, known)
    hint = f" Did you mean {near!r}?" if near else " `dtap-dask docs sql` lists all."
    if name in _CHANGING:
        hint = " A run must give the same rows whenever it is repeated; write the date or number itself."
    return ExpressionError(f"there is no function {name!r} here ({to_sql(tree)}).{hint}")


def _arguments(tree: exp.Expr, keys: Sequence[str]) -> list[exp.Expr]:
    return [tree.args[key] for key in keys if tree.args.get(key) is not None]
