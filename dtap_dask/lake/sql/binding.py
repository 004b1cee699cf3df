"""Binds sqlglot's syntax tree to a schema: names become columns, literals take the type they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pyarrow as pa
from sqlglot import exp

from dtap_dask.errors import DataError, ExpressionError, did_you_mean
from dtap_dask.lake.sql.comparing import as_floats, cast_to, compare, computed, fold, one_of
from dtap_dask.lake.sql.functions.registry import FUNCTIONS, OPERATORS
from dtap_dask.lake.sql.kernels.casts import castable
from dtap_dask.lake.sql.literals import number
from dtap_dask.lake.sql.parsing import to_sql
from dtap_dask.lake.sql.syntax import function_call, interval, refuse, sql_type
from dtap_dask.lake.sql.tree import (
    Call,
    Case,
    ColumnReference,
    ComparisonOperator,
    Constant,
    Is,
    IsNull,
    Like,
    Logic,
    Node,
    Not,
    TypeCast,
    describe,
)
from dtap_dask.lake.sql.types import BOOL, TEXT, family, plain_type

COMPARISONS: dict[type[exp.Expr], ComparisonOperator] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "distinct",
    exp.NullSafeNEQ: "distinct",
}
_ARITHMETIC: dict[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.IntDiv: "//",
    exp.Mod: "%",
    exp.DPipe: "||",
}
_LOOSE = (*COMPARISONS, exp.In, exp.Like, exp.ILike, exp.Between, exp.Is, exp.Not, exp.Escape)


def bind(tree: exp.Expr, schema: pa.Schema) -> Node:
    """The typed tree of an expression over the columns of `schema`; ExpressionError if it does not fit them."""
    return _Binder(schema).bind(tree)


class _Binder:
    def __init__(self, schema: pa.Schema):
        self.schema = schema

    def bind(self, tree: exp.Expr) -> Node:
        for kind in type(tree).__mro__:
            rule = _RULES.get(kind)
            if rule is not None:
                return fold(rule(self, tree))
        return fold(self.function(tree))

    def condition(self, tree: exp.Expr) -> Node:
        node = self.bind(tree)
        if family(node.type) not in ("bool", "null"):
            raise ExpressionError(
                f"{describe(node)} is used where a condition is expected. Compare it with something, numbers with <> 0."
            )
        return cast_to(node, BOOL)

    def literal(self, tree: exp.Literal) -> Node:
        value = pa.scalar(tree.this, TEXT) if tree.is_string else number(tree.this)
        return Constant(value.type, value)

    def column(self, tree: exp.Column) -> Node:
        if isinstance(tree.this, exp.Star):
            raise refuse(tree, "* is not a value")
        names = [part.name for part in tree.parts]
        node: Node = self.top_level(names)
        for name in names[1:]:
            node = self.field(node, name)
        return node

    def top_level(self, names: Sequence[str]) -> ColumnReference:
        known = self.schema.names
        found = _match(names[0], known)
        if len(found) == 1:
            return ColumnReference(plain_type(self.schema.field(found[0]).type), found[0])
        if found:
            raise ExpressionError(f"the column {names[0]!r} is ambiguous: there are {', '.join(map(repr, found))}.")
        dotted = ".".join(names)
        if len(names) > 1 and dotted in known:
            raise ExpressionError(
                f'the column {dotted!r} has a dot in its name; write it in double quotes: "{dotted}".'
            )
        raise ExpressionError(
            f"there is no column {names[0]!r}.{did_you_mean(names[0], known)} (Text is written in single quotes.)"
        )

    def field(self, node: Node, name: str) -> Node:
        if not isinstance(node, ColumnReference) or not pa.types.is_struct(node.type):
            raise ExpressionError(f"{describe(node)} has no field {name!r}: it is not a struct.")
        known = [node.type.field(i).name for i in range(node.type.num_fields)]
        found = _match(name, known)
        if len(found) != 1:
            raise ExpressionError(f"{describe(node)} has no field {name!r}.{did_you_mean(name, known)}")
        index = node.type.get_field_index(found[0])
        return ColumnReference(plain_type(node.type.field(index).type), node.name, (*node.path, found[0]))

    def bracket(self, tree: exp.Bracket) -> Node:
        keys = tree.expressions
        if len(keys) != 1 or not (isinstance(keys[0], exp.Literal) and keys[0].is_string):
            raise refuse(tree, "[...] is for fields of structs only, as in s['a']")
        return self.field(self.bind(tree.this), keys[0].this)

    def comparison(self, tree: exp.Expr) -> Node:
        for side in (tree.this, tree.expression):
            if isinstance(side, _LOOSE):
                raise refuse(tree, "put parentheses around the inner comparison")
        op = COMPARISONS[type(tree)]
        node = compare(op, self.bind(tree.this), self.bind(tree.expression))
        return Not(BOOL, node) if isinstance(tree, exp.NullSafeEQ) else node

    def logic(self, tree: exp.Expr) -> Node:
        op: Literal["and", "or"] = "and" if isinstance(tree, exp.And) else "or"
        parts = [self.condition(part) for part in _chain(tree)]
        while len(parts) > 1:  # balanced, so that a thousand ORs are not nested a thousand deep
            pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
            parts = [Logic(BOOL, op, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
        return parts[0]

    def is_(self, tree: exp.Is) -> Node:
        if isinstance(tree.expression, exp.Null):
            return IsNull(BOOL, self.bind(tree.this))
        if isinstance(tree.expression, exp.Boolean):
            return Is(BOOL, self.condition(tree.this), bool(tree.expression.this))
        raise refuse(tree, "IS is followed by [NOT] NULL, TRUE, FALSE or DISTINCT FROM")

    def in_(self, tree: exp.In) -> Node:
        if tree.args.get("query") or tree.args.get("unnest") or tree.args.get("field") or not tree.expressions:
            raise refuse(tree, "IN takes a list of values in parentheses, not a subquery")
        return one_of(self.bind(tree.this), [self.bind(value) for value in tree.expressions])

    def between(self, tree: exp.Between) -> Node:
        if tree.args.get("symmetric"):
            raise refuse(tree, "BETWEEN SYMMETRIC is not available")
        arg = self.bind(tree.this)
        arg, low, high = as_floats([arg, self.bind(tree.args["low"]), self.bind(tree.args["high"])])
        return Logic(BOOL, "and", fold(compare(">=", arg, low)), fold(compare("<=", arg, high)))

    def like(self, tree: exp.Expr, escape: str = "") -> Node:
        arg, pattern = self.bind(tree.this), self.bind(tree.expression)
        if family(arg.type) not in ("text", "null"):
            raise ExpressionError(f"LIKE takes text, not {describe(arg)}; CAST it to VARCHAR first if that is meant.")
        if not isinstance(pattern, Constant) or family(pattern.type) not in ("text", "null"):
            raise ExpressionError(f"LIKE takes a constant text as pattern, not {describe(pattern)}.")
        if pattern.is_null or family(arg.type) == "null":
            return Constant(BOOL, pa.scalar(None, BOOL))
        node = Like(BOOL, arg, _arrow_pattern(pattern.value.as_py(), escape), isinstance(tree, exp.ILike))
        return Not(BOOL, node) if tree.args.get("negate") else node

    def escape(self, tree: exp.Escape) -> Node:
        character = tree.expression
        if not (isinstance(character, exp.Literal) and character.is_string and len(character.this) == 1):
            raise refuse(tree, "ESCAPE takes one character in quotes")
        if isinstance(tree.this, exp.Not):
            return Not(BOOL, self.like(tree.this.this, character.this))
        return self.like(tree.this, character.this)

    def case(self, tree: exp.Case) -> Node:
        subject = self.bind(tree.this) if tree.this is not None else None
        branches = []
        for part in tree.args["ifs"]:
            test = self.condition(part.this) if subject is None else compare("=", subject, self.bind(part.this))
            branches.append((fold(test), self.bind(part.args["true"])))
        return self.choose(branches, tree.args.get("default"))

    def if_(self, tree: exp.If) -> Node:
        return self.choose([(self.condition(tree.this), self.bind(tree.args["true"]))], tree.args.get("false"))

    def choose(self, branches: list[tuple[Node, Node]], otherwise: exp.Expr | None) -> Node:
        default = self.bind(otherwise) if otherwise is not None else Constant(pa.null(), pa.scalar(None))
        values = [*(value for _, value in branches), default]
        _, result = FUNCTIONS["coalesce"].types("CASE", values)
        cased = [(test, cast_to(value, result)) for test, value in branches]
        return Case(result, tuple(cased), cast_to(default, result))

    def cast(self, tree: exp.Cast) -> Node:
        arg, target = self.bind(tree.this), sql_type(tree)
        lenient = isinstance(tree, exp.TryCast)
        text = to_sql(tree)
        if not castable(arg.type, target):
            raise ExpressionError(f"{text}: {describe(arg)} cannot be cast to {target}.")
        node = TypeCast(target, arg, lenient, text)
        if not isinstance(arg, Constant):
            return node
        try:  # a constant that cannot be cast is a mistake in the expression, not in the data
            return computed(node)
        except DataError as error:
            raise ExpressionError(str(error)) from None

    def negate(self, tree: exp.Neg) -> Node:
        if isinstance(tree.this, exp.Literal) and not tree.this.is_string:
            value = number(tree.this.this, negative=True)
            return Constant(value.type, value)
        return self.call("negate", [self.bind(tree.this)], tree)

    def arithmetic(self, tree: exp.Expr) -> Node:
        return self.call(_ARITHMETIC[type(tree)], [self.bind(tree.this), self.bind(tree.expression)], tree)

    def function(self, tree: exp.Expr) -> Node:
        name, args = function_call(tree)
        return self.call(name, [self.bind(arg) for arg in args], tree)

    def call(self, name: str, args: list[Node], tree: exp.Expr) -> Node:
        text = to_sql(tree)
        wanted_types, result = FUNCTIONS[name].types(name, args)
        if (FUNCTIONS[name].strict or name in OPERATORS) and any(
            isinstance(arg, Constant) and arg.is_null for arg in args
        ):
            return Constant(result, pa.scalar(None, result))
        cast_args = tuple(cast_to(arg, dtype) for arg, dtype in zip(args, wanted_types, strict=True))
        return Call(result, name, cast_args, text)


def _match(name: str, known: Sequence[str]) -> list[str]:
    """The exact name; otherwise all names that differ in case only."""
    exactly = [other for other in known if other == name]
    return exactly or [other for other in known if other.lower() == name.lower()]


def _chain(tree: exp.Expr) -> list[exp.Expr]:
    """The operands of `a AND b AND c`, from left to right."""
    parts: list[exp.Expr] = []
    pending = [tree]
    while pending:
        part = pending.pop()
        if type(part) is type(tree):
            pending.extend((part.expression, part.this))
        else:
            parts.append(part)
    return parts


def _arrow_pattern(pattern: str, escape: str) -> str:
    """A LIKE pattern escaped as Arrow expects: with backslashes, before wildcards meant literally and backslashes."""
    result = ""
    chars = iter(pattern)
    for char in chars:
        if escape and char == escape:
            following = next(chars, None)
            if following is None:
                raise ExpressionError(f"the LIKE pattern {pattern!r} ends with its escape character.")
            result += f"\\{following}" if following in "%_\\" else following
        else:
            result += "\\\\" if char == "\\" else char
    return result


_RULES: dict[type, Callable[[_Binder, Any], Node]] = {
    exp.Literal: _Binder.literal,
    exp.Boolean: lambda _, tree: Constant(BOOL, pa.scalar(bool(tree.this))),
    exp.Null: lambda _, tree: Constant(pa.null(), pa.scalar(None)),
    exp.Column: _Binder.column,
    exp.Dot: lambda self, tree: self.field(self.bind(tree.this), tree.expression.name),
    exp.Bracket: _Binder.bracket,
    exp.Paren: lambda self, tree: self.bind(tree.this),
    exp.And: _Binder.logic,
    exp.Or: _Binder.logic,
    exp.Not: lambda self, tree: Not(BOOL, self.condition(tree.this)),
    **dict.fromkeys(COMPARISONS, _Binder.comparison),
    **dict.fromkeys(_ARITHMETIC, _Binder.arithmetic),
    exp.Is: _Binder.is_,
    exp.In: _Binder.in_,
    exp.Between: _Binder.between,
    exp.Like: _Binder.like,
    exp.ILike: _Binder.like,
    exp.Escape: _Binder.escape,
    exp.Case: _Binder.case,
    exp.If: _Binder.if_,
    exp.Cast: _Binder.cast,
    exp.TryCast: _Binder.cast,
    exp.Neg: _Binder.negate,
    exp.Interval: lambda _, tree: interval(tree),
}
