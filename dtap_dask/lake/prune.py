"""What statistics say about a predicate: which of TRUE, FALSE and NULL some row could still give.

Every answer errs on the side of "possible". Bounds are taken as bounds: that minimum and maximum are equal tells the
value only where the type's statistics are exact (not for text, which writers may truncate, nor for floats with NaN).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.lake.casts import cast
from dtap_dask.lake.evaluate import evaluate
from dtap_dask.lake.expression import (
    NUMBERS,
    Always,
    Call,
    Case,
    Cast,
    Column,
    Compare,
    Constant,
    In,
    Is,
    IsNull,
    Like,
    Logic,
    Node,
    Not,
    family,
    plain_type,
)

Truth = frozenset[bool | None]
_ANYTHING: Truth = frozenset((True, False, None))
_EXACT = frozenset(("bool", "int", "decimal", "date", "timestamp", "time"))
_INCREASING = frozenset(("floor", "ceil", "trunc", "round", "year", "date_trunc", "epoch", "exp"))


@dataclass(frozen=True)
class ColumnStats:
    """What is known of one column in a chunk of `rows` rows: bounds of its values and the number of its nulls.

    None means unknown. `exact` says that min and max occur as they stand, as for partition columns.
    """

    min: pa.Scalar | None
    max: pa.Scalar | None
    null_count: int | None
    rows: int
    exact: bool = False


@dataclass(frozen=True)
class Domain:
    """Values lie in [low, high] (None: unbounded); whether values and nulls are possible; `exact`: see ColumnStats."""

    low: pa.Scalar | None = None
    high: pa.Scalar | None = None
    nulls: bool = True
    values: bool = True
    exact: bool = False

    @cached_property
    def bounds(self) -> tuple[Any, Any]:
        return order_key(self.low), order_key(self.high)

    @property
    def single(self) -> bool:
        low, high = self.bounds
        return self.exact and low is not None and low == high


def order_key(value: pa.Scalar | None) -> Any:
    """A Python value that sorts as the scalar does in SQL."""
    if value is None or not value.is_valid:
        return None
    return value.value if family(value.type) in ("date", "timestamp", "time") else value.as_py()


def may_match(predicate: Node, stats: Mapping[str, ColumnStats]) -> bool:
    """False only if no row of the chunk can make `predicate` TRUE."""
    if any(column.rows == 0 for column in stats.values()):
        return False
    return True in _Pruner(stats).truth(predicate)


class _Pruner:
    def __init__(self, stats: Mapping[str, ColumnStats]):
        self.stats = stats
        self.known: dict[Column, Domain] = {}

    def truth(self, node: Node) -> Truth:
        """The outcomes that a boolean `node` may have."""
        fixed = self.fixed(node)
        if fixed is not None:
            return frozenset((fixed.as_py(),))
        rule = _TRUTHS.get(type(node))
        return rule(self, node) if rule else _ANYTHING

    def domain(self, node: Node) -> Domain:
        """The values that `node` may have."""
        fixed = self.fixed(node)
        if fixed is not None:
            return Domain(fixed, fixed, not fixed.is_valid, fixed.is_valid, True)
        rule = _DOMAINS.get(type(node))
        if rule is not None:
            return rule(self, node)
        outcomes = self.truth(node)
        sides = sorted(side for side in outcomes if side is not None) or [False]
        return Domain(pa.scalar(sides[0]), pa.scalar(sides[-1]), None in outcomes, len(outcomes - {None}) > 0, True)

    def chosen(self, node: Case) -> Domain:
        return _hull([self.domain(value) for _, value in node.branches] + [self.domain(node.default)])

    def cast(self, node: Cast) -> Domain:
        return self.image(node, node.arg) if _keeps_order(node) else Domain()

    def column(self, node: Column) -> Domain:
        if node not in self.known:
            stats = self.stats.get(node.name)
            usable = stats is not None and not node.path and family(node.type) not in ("nested", "other")
            self.known[node] = _from_stats(node.type, stats) if stats is not None and usable else Domain()
        return self.known[node]

    def fixed(self, node: Node) -> pa.Scalar | None:
        """The one value `node` has on every row, if the columns it needs have only one; else None."""
        if isinstance(node, Constant):
            return node.value
        needed = {part for part in node.walk() if isinstance(part, Column)}
        values: dict[str, pa.Array] = {}
        for column in needed:
            domain = self.column(column)
            if column.path or not (domain.values ^ domain.nulls and (domain.nulls or domain.single)):
                return None
            values[column.name] = pa.array([domain.low if domain.values else None], column.type)
        if not values or any(len({part.type for part in needed if part.name == name}) > 1 for name in values):
            return None
        try:
            return evaluate(node, pa.record_batch(values))[0]
        except DataError:
            return None

    def call(self, node: Call) -> Domain:
        if node.name == "coalesce":
            parts = [self.domain(arg) for arg in node.args]
            hull = _hull(parts)
            return Domain(hull.low, hull.high, all(part.nulls for part in parts), hull.values)
        varying = [arg for arg in node.args if not isinstance(arg, Constant)]
        direction = _direction(node) if len(varying) == 1 else 0
        return self.image(node, varying[0], direction) if direction else Domain()

    def image(self, node: Node, arg: Node, direction: int = 1) -> Domain:
        """The domain of a function of `arg` alone that never falls (`direction` 1) or never rises (-1)."""
        source = self.domain(arg)
        if not source.values:
            return Domain(nulls=True, values=False)
        if source.low is None or source.high is None:
            return Domain()
        ends = Column(arg.type, "ends")
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
        outcomes = _order(node.op, left, right) if left.values and right.values else frozenset()
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
            inside = [key for key in map(order_key, node.values) if _within(key, low, high)]
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

    def column_truth(self, node: Column) -> Truth:
        domain = self.column(node)
        low, high = domain.bounds
        outcomes = {side for side in (False, True) if domain.values and _within(side, low, high)}
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


_TRUTHS: dict[type[Node], Callable[[_Pruner, Any], Truth]] = {
    Column: _Pruner.column_truth,
    Compare: _Pruner.compare,
    Logic: _Pruner.logic,
    Not: lambda self, node: frozenset(None if side is None else not side for side in self.truth(node.arg)),
    IsNull: _Pruner.is_null,
    Is: lambda self, node: frozenset(side is node.value for side in self.truth(node.arg)),
    Always: _Pruner.always,
    In: _Pruner.is_in,
    Like: _Pruner.like,
    Case: _Pruner.case,
}

_DOMAINS: dict[type[Node], Callable[[_Pruner, Any], Domain]] = {
    Column: _Pruner.column,
    Case: _Pruner.chosen,
    Cast: _Pruner.cast,
    Call: _Pruner.call,
}


def _from_stats(dtype: pa.DataType, stats: ColumnStats) -> Domain:
    low, high = (_bound(value, dtype) for value in (stats.min, stats.max))
    floats = family(dtype) == "float"
    some_null = stats.null_count is None or stats.null_count > 0 or (floats and not stats.exact)
    all_null = stats.null_count is not None and stats.null_count >= stats.rows
    if low is not None and high is not None and order_key(low) > order_key(high):
        low = high = None
    return Domain(low, high, some_null, not all_null, stats.exact or family(dtype) in _EXACT)


def _bound(value: pa.Scalar | None, dtype: pa.DataType) -> pa.Scalar | None:
    """A bound as a scalar of the column's own type; None if it is unknown, NaN, or not exactly of that type."""
    if value is None or not value.is_valid:
        return None
    try:
        if value.type == dtype:
            return _usable(value)
        plain = pc.cast(pa.array([value.as_py()], value.type), plain_type(value.type))
        bound = cast(plain, dtype)
        return _usable(bound[0]) if cast(bound, plain.type) == plain else None
    except (DataError, pa.ArrowException, UnicodeDecodeError):
        return None


def _usable(bound: pa.Scalar) -> pa.Scalar | None:
    """The bound, None if it is null or NaN."""
    key = order_key(bound)
    return None if key is None or (isinstance(key, float) and math.isnan(key)) else bound


def _within(key: Any, low: Any, high: Any) -> bool:
    return (low is None or low <= key) and (high is None or key <= high)


def _order(op: str, left: Domain, right: Domain) -> Truth:
    """Outcomes of comparing a value of `left` with one of `right`, neither null."""
    (a, b), (c, d) = left.bounds, right.bounds
    falls_below = a is None or d is None or a < d  # some left < some right
    rises_above = b is None or c is None or b > c
    meets = (a is None or d is None or a <= d) and (b is None or c is None or c <= b)
    differs = not (left.single and right.single and a == c)
    above_or_meets, below_or_meets = b is None or c is None or b >= c, a is None or d is None or a <= d
    possible = {
        "=": (meets, differs),
        "<>": (differs, meets),
        "distinct": (differs, meets),
        "<": (falls_below, above_or_meets),
        "<=": (below_or_meets, rises_above),
        ">": (rises_above, below_or_meets),
        ">=": (above_or_meets, falls_below),
    }[op]
    return frozenset(outcome for outcome, can in zip((True, False), possible, strict=True) if can)


def _and(a: bool | None, b: bool | None) -> bool | None:
    if a is False or b is False:
        return False
    return True if a and b else None


def _or(a: bool | None, b: bool | None) -> bool | None:
    if a or b:
        return True
    return None if a is None or b is None else False


def _hull(parts: Iterable[Domain]) -> Domain:
    """What any of `parts` allows."""
    parts = list(parts)
    nulls = any(part.nulls for part in parts)
    parts = [part for part in parts if part.values]
    if not parts:
        return Domain(nulls=nulls, values=False)
    known = all(part.low is not None and part.high is not None for part in parts)
    if not known:
        return Domain(nulls=nulls)
    low = min(parts, key=lambda part: part.bounds[0]).low
    return Domain(low, max(parts, key=lambda part: part.bounds[1]).high, nulls)


def _keeps_order(node: Cast) -> bool:
    source, target = family(node.arg.type), family(node.type)
    return {source, target} <= NUMBERS or {source, target} <= {"date", "timestamp"}


def _direction(node: Call) -> int:
    """1 if the function of its one varying argument never falls, -1 if it never rises, 0 if neither is sure."""
    if node.name in _INCREASING or node.name == "negate":
        return -1 if node.name == "negate" else 1
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


def _replace(node: Node, arg: Node, column: Column) -> Node:
    if isinstance(node, Cast):
        return Cast(node.type, column, node.lenient, node.text)
    if isinstance(node, Call):
        return Call(node.type, node.name, tuple(column if part is arg else part for part in node.args), node.text)
    return node
