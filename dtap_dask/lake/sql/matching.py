"""Evaluates a predicate on statistics: which of TRUE, FALSE and NULL some row of a chunk may give.

In doubt an outcome is possible. Minimum and maximum are only bounds: that they are equal determines the value only if
the statistics of the type are exact (not for text, which writers may truncate, nor for floats with NaN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pyarrow as pa

from dtap_dask.errors import DataError
from dtap_dask.lake.sql.domain import ColumnStats, Domain, Truth, from_stats, hull, order, order_key, within
from dtap_dask.lake.sql.evaluate import evaluate
from dtap_dask.lake.sql.functions.registry import FUNCTIONS
from dtap_dask.lake.sql.tree import (
    Always,
    Call,
    Case,
    ColumnReference,
    Compare,
    Constant,
    In,
    Is,
    IsNull,
    Like,
    Logic,
    Node,
    Not,
    TypeCast,
)
from dtap_dask.lake.sql.types import NUMBERS, family

_ANYTHING: Truth = frozenset((True, False, None))


def may_match(predicate: Node, stats: Mapping[str, ColumnStats], constants: Mapping[int, Domain]) -> bool:
    """False only if no row of the chunk can make `predicate` TRUE; `constants` as `constant_domains` returns them."""
    if any(column.rows == 0 for column in stats.values()):
        return False
    return True in _StatisticsEvaluator(stats, constants).truth(predicate)


def constant_domains(predicate: Node) -> Mapping[int, Domain]:
    """Domains of the constants of a predicate, by node id; they are the same for every chunk."""
    return {id(node): _constant(node.value) for node in predicate.walk() if isinstance(node, Constant)}


def _constant(value: pa.Scalar) -> Domain:
    return Domain(value, value, not value.is_valid, value.is_valid, True)


class _StatisticsEvaluator:
    def __init__(self, stats: Mapping[str, ColumnStats], constants: Mapping[int, Domain]):
        self.stats = stats
        self.known = dict(constants)  # by node id: hashing a node would take longer than everything else here

    def truth(self, node: Node) -> Truth:
        """The possible outcomes of a boolean `node`."""
        fixed = self.fixed(node)
        if fixed is not None:
            return frozenset((fixed.as_py(),))
        rule = _TRUTHS.get(type(node))
        return rule(self, node) if rule else _ANYTHING

    def domain(self, node: Node) -> Domain:
        """The possible values of `node`."""
        if id(node) in self.known:
            return self.known[id(node)]
        fixed = self.fixed(node)
        if fixed is not None:
            return _constant(fixed)
        rule = _DOMAINS.get(type(node))
        if rule is not None:
            return rule(self, node)
        outcomes = self.truth(node)
        sides = sorted(side for side in outcomes if side is not None) or [False]
        return Domain(pa.scalar(sides[0]), pa.scalar(sides[-1]), None in outcomes, len(outcomes - {None}) > 0, True)

    def chosen(self, node: Case) -> Domain:
        return hull([self.domain(value) for _, value in node.branches] + [self.domain(node.default)])

    def cast(self, node: TypeCast) -> Domain:
        return self.image(node, node.arg) if _keeps_order(node) else Domain()

    def column(self, node: ColumnReference) -> Domain:
        if id(node) not in self.known:
            stats = self.stats.get(node.name)
            usable = stats is not None and not node.path and family(node.type) not in ("nested", "other")
            self.known[id(node)] = from_stats(node.type, stats) if stats is not None and usable else Domain()
        return self.known[id(node)]

    def fixed(self, node: Node) -> pa.Scalar | None:
        """The value of `node` if each column that it depends on has only one value in the chunk; else None."""
        if isinstance(node, Constant):
            return node.value
        values: dict[str, pa.Array] = {}
        for column in node.leaves:
            domain = self.column(column)
            if column.path or not (domain.values ^ domain.nulls and (domain.nulls or domain.single)):
                return None
            values[column.name] = pa.array([domain.low if domain.values else None], column.type)
        if not values or any(len({part.type for part in node.leaves if part.name == name}) > 1 for name in values):
            return None
        try:
            return evaluate(node, pa.record_batch(values))[0]
        except DataError:
            return None

    def call(self, node: Call) -> Domain:
        if node.name == "coalesce":
            parts = [self.domain(arg) for arg in node.args]
            any_of = hull(parts)
            return Domain(any_of.low, any_of.high, all(part.nulls for part in parts), any_of.values)
        varying = [arg for arg in node.args if not isinstance(arg, Constant)]
        direction = _direction(node) if len(varying) == 1 else 0
        return self.image(node, varying[0], direction) if direction else Domain()

    def image(self, node: Node, arg: Node, direction: int = 1) -> Domain:
        """The domain of a function of `arg` alone that is monotone: rising (`direction` 1) or falling (-1)."""
        source = self.domain(arg)
        if not source.values:
            return Domain(nulls=True, values=False)
        if source.low is None or source.high is None:
            return Domain()
        ends = ColumnReference(arg.type, "ends")
        batch = pa.record_batch({"ends": pa.array([source.low, source.high], arg.type)})
        try:
            low, high = evaluate(_replace(node, arg, ends), batch)
        except DataError:
            return Domain()
        if not (low.is_valid and high.is_valid):
            return Domain()
        nulls = source.nulls or family(node.type) == "float"
        if direction < 0:
            low, high = high, low
        return Domain(low, high, nulls, True, source.exact)

    def compare(self, node: Compare) -> Truth:
        left, right = self.domain(node.left), self.domain(node.right)
        outcomes = order(node.op, left, right) if left.values and right.values else frozenset()
        if node.op != "distinct":
            return outcomes | {None} if left.nulls or right.nulls else outcomes
        if left.nulls and right.nulls:
            outcomes |= {False}
        if (left.nulls and right.values) or (left.values and right.nulls):
            outcomes |= {True}
        return outcomes

    def logic(self, node: Logic) -> Truth:
        left, right = self.truth(node.left), self.truth(node.right)
        combine = _and if node.op == "and" else _or
        return frozenset(combine(a, b) for a, b in product(left, right))

    def is_in(self, node: In) -> Truth:
        arg = self.domain(node.arg)
        outcomes: set[bool | None] = {None} if arg.nulls else set()
        if arg.values:
            low, high = arg.bounds
            inside = [key for key in map(order_key, node.values) if within(key, low, high)]
            if inside:
                outcomes.add(True)
            if not (inside and arg.single):
                outcomes.add(None if node.has_null else False)
        return frozenset(outcomes)

    def like(self, node: Like) -> Truth:
        arg = self.domain(node.arg)
        if not arg.values:
            return frozenset((None,))
        low, high = arg.bounds
        prefix = node.prefix
        misses = prefix and ((high is not None and high < prefix) or (low is not None and low[: len(prefix)] > prefix))
        return _ANYTHING - ({True} if misses else set())

    def column_truth(self, node: ColumnReference) -> Truth:
        domain = self.column(node)
        low, high = domain.bounds
        outcomes = {side for side in (False, True) if domain.values and within(side, low, high)}
        return frozenset(outcomes | ({None} if domain.nulls else set()))

    def case(self, node: Case) -> Truth:
        reachable = [value for condition, value in node.branches if True in self.truth(condition)]
        return frozenset().union(*(self.truth(value) for value in (*reachable, node.default)))

    def is_null(self, node: IsNull) -> Truth:
        arg = self.domain(node.arg)
        return frozenset({True} if arg.nulls else set()) | frozenset({False} if arg.values else set())

    def always(self, node: Always) -> Truth:
        arg = self.domain(node.arg)
        return frozenset({node.value} if arg.values else set()) | frozenset({None} if arg.nulls else set())


_TRUTHS: dict[type[Node], Callable[[_StatisticsEvaluator, Any], Truth]] = {
    ColumnReference: _StatisticsEvaluator.column_truth,
    Compare: _StatisticsEvaluator.compare,
    Logic: _StatisticsEvaluator.logic,
    Not: lambda self, node: frozenset(None if side is None else not side for side in self.truth(node.arg)),
    IsNull: _StatisticsEvaluator.is_null,
    Is: lambda self, node: frozenset(side is node.value for side in self.truth(node.arg)),
    Always: _StatisticsEvaluator.always,
    In: _StatisticsEvaluator.is_in,
    Like: _StatisticsEvaluator.like,
    Case: _StatisticsEvaluator.case,
}

_DOMAINS: dict[type[Node], Callable[[_StatisticsEvaluator, Any], Domain]] = {
    ColumnReference: _StatisticsEvaluator.column,
    Case: _StatisticsEvaluator.chosen,
    TypeCast: _StatisticsEvaluator.cast,
    Call: _StatisticsEvaluator.call,
}


def _and(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return True if a and b else None


def _or(a: bool | None, b: bool | None) -> bool | None:
    if a or b:
        return True
    return None if a is None or b is None else False


def _keeps_order(node: TypeCast) -> bool:
    source, target = family(node.arg.type), family(node.type)
    return {source, target} <= NUMBERS or {source, target} <= {"date", "timestamp"}


def _direction(node: Call) -> int:
    """1 if the function rises monotonically in its varying argument, -1 if it falls, 0 if neither is certain."""
    if FUNCTIONS[node.name].rising(node.args):
        return 1
    if node.name == "negate":
        return -1
    if len(node.args) != 2 or node.name not in ("+", "-", "*", "/", "//"):
        return 0
    left, right = node.args
    constant = right if isinstance(right, Constant) else left
    if not isinstance(constant, Constant) or constant.is_null:
        return 0
    if node.name in "+-":
        return -1 if node.name == "-" and constant is left else 1
    size = 0 if node.name in ("/", "//") and constant is left else constant.value.as_py()
    return int(size > 0) - int(size < 0)


def _replace(node: Node, arg: Node, column: ColumnReference) -> Node:
    if isinstance(node, TypeCast):
        return TypeCast(node.type, column, node.lenient, node.text)
    if isinstance(node, Call):
        return Call(node.type, node.name, tuple(column if part is arg else part for part in node.args), node.text)
    return node
