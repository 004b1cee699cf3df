"""The typed tree that a SQL expression is bound to: immutable nodes with an Arrow type.

binding.py makes the tree; evaluate.py computes it on batches, matching.py on statistics. All types in it are plain (see
types.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa

ComparisonOperator = Literal["=", "<>", "<", "<=", ">", ">=", "distinct"]


@dataclass(frozen=True)
class Node:
    """A value of `type` for every row."""

    type: pa.DataType

    @property
    def children(self) -> tuple[Node, ...]:
        return ()

    @cached_property
    def columns(self) -> frozenset[str]:
        """Top-level columns this value is computed from."""
        return frozenset().union(*(child.columns for child in self.children))

    @cached_property
    def leaves(self) -> frozenset[ColumnReference]:
        """The columns, and fields of columns, that this value is computed from."""
        return frozenset(part for part in self.walk() if isinstance(part, ColumnReference))

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Constant(Node):
    """The same value for every row; `value` is a scalar of `type` (or of null)."""

    value: pa.Scalar

    @property
    def is_null(self) -> bool:
        return not self.value.is_valid


@dataclass(frozen=True)
class ColumnReference(Node):
    """A column, or the field `path` inside a struct column."""

    name: str
    path: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> frozenset[str]:
        return frozenset((self.name,))


@dataclass(frozen=True)
class Compare(Node):
    """`left op right`, both of one type; `distinct` is IS DISTINCT FROM."""

    op: ComparisonOperator
    left: Node
    right: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return self.left, self.right


@dataclass(frozen=True)
class Logic(Node):
    """AND or OR in Kleene's three-valued logic."""

    op: Literal["and", "or"]
    left: Node
    right: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return self.left, self.right


@dataclass(frozen=True)
class Unary(Node):
    """Nodes with the one child `arg`."""

    arg: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.arg,)


@dataclass(frozen=True)
class Not(Unary):
    """NOT; null stays null."""


@dataclass(frozen=True)
class IsNull(Unary):
    """IS NULL: never null itself."""


@dataclass(frozen=True)
class Is(Unary):
    """IS TRUE or IS FALSE: never null itself."""

    value: bool


@dataclass(frozen=True)
class Always(Unary):
    """`value` where `arg` is not null, else null: a comparison whose outcome no value of `arg` can change."""

    value: bool


@dataclass(frozen=True)
class In(Unary):
    """`arg IN values`; `has_null`: whether NULL is among the values, so that no match gives null."""

    values: tuple[pa.Scalar, ...]
    has_null: bool


@dataclass(frozen=True)
class Like(Unary):
    """`arg LIKE pattern`, escaped with backslashes as Arrow expects."""

    pattern: str
    ignore_case: bool

    @cached_property
    def prefix(self) -> str:
        """The common prefix of all matches (empty for ILIKE)."""
        text = ""
        escaped = False
        for char in "" if self.ignore_case else self.pattern:
            if not escaped and char in "%_":
                break
            if not escaped and char == "\\":
                escaped = True
                continue
            text, escaped = text + char, False
        return text


@dataclass(frozen=True)
class TypeCast(Unary):
    """CAST, or TRY_CAST if `lenient`; `text` is the SQL for messages, empty for a cast added by binding."""

    lenient: bool = False
    text: str = ""


@dataclass(frozen=True)
class Call(Node):
    """A function or operator of functions.registry on its arguments."""

    name: str
    args: tuple[Node, ...]
    text: str

    @property
    def children(self) -> tuple[Node, ...]:
        return self.args


@dataclass(frozen=True)
class Case(Node):
    """CASE WHEN: the result of the first condition that is TRUE, else `default`."""

    branches: tuple[tuple[Node, Node], ...]
    default: Node

    @property
    def children(self) -> tuple[Node, ...]:
        return (*(node for branch in self.branches for node in branch), self.default)


def scalar_text(value: pa.Scalar) -> str:
    """A value for messages; a date beyond Python's range as its count of days or smaller units since 1970."""
    try:
        return repr(value.as_py())
    except (OverflowError, ValueError):
        return str(value.value)


def describe(node: Node) -> str:
    """Describes `node` in a message so that users find it in their expression."""
    if isinstance(node, ColumnReference):
        return f"column {'.'.join((node.name, *node.path))!r} ({node.type})"
    if isinstance(node, Constant):
        return "NULL" if node.is_null else f"the literal {scalar_text(node.value)} ({node.type})"
    if isinstance(node, Call | TypeCast) and node.text:
        return f"{node.text} ({node.type})"
    return f"an expression of type {node.type}"
