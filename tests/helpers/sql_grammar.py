"""Random expressions over the columns of sql_rows, each as we read it and as DuckDB must read it to mean the same.

Functions, with the kinds of their parameters, come from the product's own table, so that a new function is tried
without a change here. Where a difference of sql_differences is known beforehand, DuckDB's text has the casts that take
it away. Whether an expression makes sense is not known here: those that are refused are thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import pyarrow as pa

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.coercion import as_decimal
from dtap_dask.lake.sql.expression import Expression, compile_sql
from dtap_dask.lake.sql.functions.definition import Parameter
from dtap_dask.lake.sql.functions.registry import FUNCTIONS
from dtap_dask.lake.sql.tree import Constant
from dtap_dask.lake.sql.types import MAX_PRECISION, Family, family
from sql_rows import COLUMNS, WORDS, make_batch

SCHEMA = make_batch(0).schema


@lru_cache(1000)
def compiled(sql: str) -> Expression:
    """The expression; terms are made of others, and with the types of others."""
    return compile_sql(sql, SCHEMA)


TARGETS = [
    "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
    "DOUBLE", "DECIMAL(4,1)", "DECIMAL(9,2)", "DECIMAL(18,3)", "DECIMAL(18,0)", "DECIMAL(38,0)", "DECIMAL(38,10)",
    "VARCHAR", "BLOB", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ",
]  # fmt: skip
LITERALS = {
    "int": ["0", "1", "-1", "2", "5", "100", "3000000000", "9223372036854775807"],
    "decimal": ["0.5", "1.5", "-2.5", "0.1", "1.005", "-0.0", "99.995", ".25"],
    "float": ["1e0", "1e3", "2.5e-1", "0.1::FLOAT", "0.3::DOUBLE"],
    "text": [f"'{word.replace(chr(39), chr(39) * 2)}'" for word in (*WORDS, "A", "b", "a%", "_b%", "[a-c]+")],
    "bool": ["true", "false"],
    "date": ["DATE '2013-01-31'", "DATE '2012-02-29'", "DATE '1969-12-31'"],
    "timestamp": ["TIMESTAMP '2013-06-01 12:00:00.25'", "TIMESTAMPTZ '2013-06-01 12:00:00+02'"],
    "time": ["TIME '12:30:00'", "TIME '23:59:59.5'"],
    "interval": ["INTERVAL 1 MONTH", "INTERVAL '36' HOUR", "INTERVAL 1 DAY", "INTERVAL 5 YEAR"],
    "null": ["NULL"],
}  # fmt: skip
_KINDS: dict[str, tuple[Family, ...]] = {
    "text": ("text",),
    "integer": ("int",),
    "number": ("int", "float", "decimal"),
    "numeric": ("int", "float", "decimal"),
    "moment": ("date", "timestamp"),
    "instant": ("date", "timestamp"),
    "clock": ("date", "timestamp", "time"),
}
_SUITABLE: dict[Family, list[str]] = {
    "text": ["VARCHAR"],
    "int": TARGETS[1:17],
    "bool": ["BOOLEAN"],
    "binary": ["BLOB"],
    "date": ["DATE", "TIMESTAMP"],
    "time": ["TIME"],
}
_UNITS = ("'year'", "'quarter'", "'month'", "'week'", "'day'", "'hour'", "'minute'", "'second'", "'decade'")
_COMPARISONS = ("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")


@dataclass(frozen=True)
class Term:
    """One expression: our text, DuckDB's text, our type; `rough` if its last digits depend on a library, see DIGITS."""

    ours: str
    theirs: str
    type: pa.DataType
    constant: bool = False
    rough: bool = False

    @property
    def family(self) -> Family:
        return family(self.type)


class Grammar:
    """An endless supply of expressions; the same seed gives the same ones."""

    def __init__(self, seed: int):
        self.random = Random(seed)
        self.refused = 0
        self.columns = [Term(name, name, compiled(name).type) for name in COLUMNS]

    def expression(self) -> tuple[Term, Expression]:
        """A term of up to three operators deep, and the expression it is for us."""
        while True:
            term = self.random.choice(_RULES)(self, self.random.choice((1, 1, 2, 2, 3)))
            if term is not None:
                return term, compiled(term.ours)

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def term(self, depth: int, families: tuple[Family, ...] = ()) -> Term:
        """A term of one of `families`, if these are given."""
        if depth == 0:
            return self.leaf(families)
        found = self.random.choice(_RULES)(self, depth)
        if found is None or found.rough:
            return self.leaf(families)
        if families and found.family not in families:
            found = self.cast_to(found, self.pick(*_SUITABLE.get(families[0], TARGETS)))
        return self.leaf(families) if found is None else found

    def leaf(self, families: tuple[Family, ...] = ()) -> Term:
        columns = [column for column in self.columns if not families or column.family in families]
        if columns and self.random.random() < 0.75:
            return self.random.choice(columns)
        return self.literal(self.random.choice(families or tuple(LITERALS)))  # type: ignore[arg-type]

    def literal(self, kind: str) -> Term:
        text = self.pick(*LITERALS.get(kind, ["NULL"]))
        return Term(text, text, compiled(text).type, constant=True)

    def made(self, ours: str, theirs: str) -> Term | None:
        """The term, NaN being NULL in DuckDB's text; None if we refuse it."""
        try:
            expression = compiled(ours)
        except ExpressionError:
            self.refused += 1
            return None
        dtype = expression.type
        if family(dtype) == "float":
            theirs = f"nullif({theirs}, 'nan'::{sql_type(dtype)})"
        return Term(ours, theirs, dtype, isinstance(expression.tree, Constant))

    def arithmetic(self, depth: int) -> Term | None:
        operator = self.pick("+", "-", "*", "/", "%", "//")
        numbers: tuple[Family, ...] = ("int", "float", "decimal")
        if self.random.random() < 0.15:
            left, right = self.term(depth - 1, ("date", "timestamp")), self.term(depth - 1, ("interval", "int", "date"))
        else:
            left, right = self.term(depth - 1, numbers), self.term(depth - 1, numbers)
        ours = f"({left.ours} {operator} {right.ours})"
        made = self.made(ours, "")
        if made is None:
            return None
        a, b = (widened(side, made.type) for side in (left, right))
        return self.made(ours, f"({a} {operator} {b})")

    def negation(self, depth: int) -> Term | None:
        arg = self.term(depth - 1, ("int", "float", "decimal"))
        return self.made(f"(- {arg.ours})", f"(- {widened(arg, pa.int64())})")

    def comparison(self, depth: int) -> Term | None:
        left = self.term(depth - 1)
        right = self.alike(left, depth - 1)
        if self.random.random() < 0.3:
            left, right = right, left
        operator = self.pick(*_COMPARISONS)
        a, b = met(left, right)
        return self.made(f"({left.ours} {operator} {right.ours})", f"({a} {operator} {b})")

    def alike(self, term: Term, depth: int) -> Term:
        """A term that may be compared with `term`."""
        if term.family in ("int", "float", "decimal"):
            return self.term(depth, ("int", "float", "decimal"))
        if term.family in ("date", "timestamp"):
            return self.term(depth, ("date", "timestamp"))
        return self.term(depth, (term.family,))

    def choice(self, depth: int) -> Term | None:
        condition, left = self.term(depth - 1, ("bool",)), self.term(depth - 1)
        right = self.alike(left, depth - 1)
        form = self.pick("CASE WHEN {c} THEN {a} ELSE {b} END", "CASE WHEN {c} THEN {a} END", "if({c}, {a}, {b})")
        if "{b}" in form and clash(left, right):
            return None
        a, b = met(left, right) if "{b}" in form else (left.theirs, "")
        return self.made(
            form.format(c=condition.ours, a=left.ours, b=right.ours), form.format(c=condition.theirs, a=a, b=b)
        )

    def membership(self, depth: int) -> Term | None:
        left = self.term(depth - 1)
        options = [self.alike(left, 0) for _ in range(self.random.choice((1, 2, 3)))]
        no = self.pick("", "NOT ")
        if len(options) == 2:
            form = "({} " + no + "BETWEEN {} AND {})"
        else:
            form = "({} " + no + "IN (" + ", ".join("{}" for _ in options) + "))"
        everything = met(left, *options)
        return self.made(form.format(left.ours, *(option.ours for option in options)), form.format(*everything))

    def test(self, depth: int) -> Term | None:
        arg = self.term(depth - 1)
        what = self.pick("IS NULL", "IS NOT NULL")
        if arg.family == "bool":
            what = self.pick("IS TRUE", "IS NOT FALSE", "IS NULL")
        elif arg.family == "text":
            pattern = self.pick("'a%'", "'%b'", "'_'", "'%'", "''", "'A%'", "'ä'")
            what = f"{self.pick('', 'NOT ')}{self.pick('LIKE', 'ILIKE')} {pattern}"
        return self.made(f"({arg.ours} {what})", f"({arg.theirs} {what})")

    def logic(self, depth: int) -> Term | None:
        left, right = self.term(depth - 1, ("bool",)), self.term(depth - 1, ("bool",))
        operator = self.pick("AND", "OR")
        if self.random.random() < 0.2:
            return self.made(f"(NOT {left.ours})", f"(NOT {left.theirs})")
        return self.made(f"({left.ours} {operator} {right.ours})", f"({left.theirs} {operator} {right.theirs})")

    def cast(self, depth: int) -> Term | None:
        return self.cast_to(self.term(depth - 1), self.pick(*TARGETS))

    def cast_to(self, arg: Term, target: str) -> Term | None:
        if not comparable(arg, target):
            return None
        form = self.pick("CAST({} AS {})", "TRY_CAST({} AS {})")
        theirs = nearest(arg, target) if target in ("FLOAT", "DOUBLE") else arg.theirs
        return self.made(form.format(arg.ours, target), form.format(theirs, target))

    def call(self, depth: int) -> Term | None:
        name = self.random.choice(CALLED)
        function = FUNCTIONS[name]
        parts = list(function.parameters)
        required = sum(not part.optional for part in parts)
        parts = parts[: self.random.randint(required, len(parts))]
        if parts and parts[-1].repeats:
            parts += parts[-1:] * self.random.randint(0, 2)
        args: list[Term] = []
        for part in parts:
            args.append(self.argument(part, args, depth - 1))
        ours = f"{name}({', '.join(arg.ours for arg in args)})"
        if name == "||":
            ours = f"({args[0].ours} || {args[1].ours})"
        made = self.made(ours, "")
        if made is None or (name in ("coalesce", "greatest", "least") and clash(*args)):
            return None
        try:
            nodes = [compiled(arg.ours).tree for arg in args]
            wanted, _ = function.types(name, nodes)
        except ExpressionError:  # another function under the same name for these arguments
            wanted = tuple(arg.type for arg in args)
        texts = [as_type(arg, dtype) for arg, dtype in zip(args, wanted, strict=True)]
        term = self.made(ours, f"{name}({', '.join(texts)})" if name != "||" else f"({' || '.join(texts)})")
        return None if term is None else replace(term, rough=name in ROUGH)

    def argument(self, part: Parameter, before: list[Term], depth: int) -> Term:
        if part.name in ("unit", "part"):
            text = self.pick(*_UNITS)
            return Term(text, text, pa.string(), constant=True)
        families = _KINDS.get(part.kind, ())
        if part.constant:
            if families == ("int",):
                text = self.pick("0", "1", "2", "3", "-1", "-2")
                return Term(text, text, pa.int64(), constant=True)
            return self.literal(self.random.choice(families or ("text",)))
        if families == ("int",):
            return self.random.choice([column for column in self.columns if column.ours in ("i8", "u8")])
        return self.alike(before[0], depth) if before and not families else self.term(depth, families)


ROUGH = frozenset(
    ("power", "sqrt", "cbrt", "exp", "ln", "log", "log2", "log10", "sin", "cos", "tan", "cot", "asin", "acos", "atan")
) | {"epoch", "atan2", "degrees", "radians"}
CALLED = sorted(name for name in FUNCTIONS if name[0].isalpha() and name != "negate")
CALLED.append("||")
_RULES = (
    *(Grammar.arithmetic,) * 3,
    Grammar.negation,
    *(Grammar.comparison,) * 2,
    Grammar.choice,
    Grammar.membership,
    Grammar.test,
    Grammar.logic,
    *(Grammar.cast,) * 3,
    *(Grammar.call,) * 4,
)


def sql_type(dtype: pa.DataType) -> str:
    return "FLOAT" if pa.types.is_float32(dtype) else "DOUBLE"


def nearest(term: Term, target: str) -> str:
    """A decimal as the nearest float: see NEAREST."""
    if term.family == "decimal":
        return f"({term.theirs})::VARCHAR::{target}"
    return term.theirs


def widened(term: Term, result: pa.DataType) -> str:
    """An operand in the type in which we compute: see WIDER and NEAREST."""
    if family(result) == "float":
        return nearest(term, sql_type(result))
    if term.family == "int" and family(result) == "int":
        return f"({term.theirs})::{'UBIGINT' if pa.types.is_uint64(result) else 'BIGINT'}"
    return term.theirs


def as_type(term: Term, wanted: pa.DataType) -> str:
    """An argument in the type that our function computes in."""
    return widened(term, wanted) if term.family in ("int", "decimal") else term.theirs


def comparable(term: Term, target: str) -> bool:
    """Whether both sides have this cast (see CASTS), and read such text alike (see TEXTS)."""
    if pa.types.is_timestamp(term.type):
        return not ((term.type.unit == "ns" and target == "TIMESTAMP_S") or (term.type.tz and target == "TIME"))
    return term.family != "text" or target[:4] not in ("DATE", "TIME") or term.ours in COLUMNS


def clash(*terms: Term) -> bool:
    """Whether decimals or integers among `terms` have no common decimal of 38 digits: see COMMON."""
    types = [as_decimal(term.type) for term in terms if term.family in ("int", "decimal")]
    if not any(term.family == "decimal" for term in terms):
        return False
    return max(dtype.precision - dtype.scale for dtype in types) + max(dtype.scale for dtype in types) > MAX_PRECISION


def met(*terms: Term) -> list[str]:
    """Operands that meet in one type; decimals that meet floats become the nearest ones."""
    floats = [term.type for term in terms if term.family == "float"]
    if not floats:
        return [term.theirs for term in terms]
    target = "DOUBLE" if pa.float64() in floats else "FLOAT"
    return [nearest(term, target) for term in terms]
