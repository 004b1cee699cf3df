"""What of an expression a TensorFlow graph can compute when a model serves: known here, without TensorFlow.

The twins are in train/serving/sql/. Each function of registry.py has one there or a reason in WITHOUT_TWIN.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from dtap_dask.lake.sql.functions.registry import FUNCTIONS
from dtap_dask.lake.sql.literals import exact, has_grid, step
from dtap_dask.lake.sql.tree import Call, ColumnReference, Constant, In, Node, TypeCast, describe, scalar_text
from dtap_dask.lake.sql.types import Family, family

WITHOUT_TWIN: dict[str, str] = {}
"""Functions without a twin, and why."""

CONSTANT_FOR_TWIN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("trim", "ltrim", "rtrim"), ("characters",)),
    **dict.fromkeys(("lpad", "rpad"), ("width", "fill")),
    "repeat": ("times",),
    **dict.fromkeys(("replace", "translate"), ("old", "new")),
    "split_part": ("separator", "index"),
    **dict.fromkeys(("contains", "strpos"), ("part",)),
}
"""Parameters that must be the same for every row: TensorFlow's operations take one value of them."""

WITHIN = 1e-14
CLOSE = frozenset(
    ("power", "cbrt", "exp", "ln", "log", "log2", "log10", "sin", "cos", "tan", "cot", "asin", "acos", "atan", "atan2")
)
"""Functions whose twin gives another last digit: it is within WITHIN of the value, or of the value for an argument that
is. All others are equal."""

_CASTS: dict[tuple[Family, Family], str] = {
    ("float", "text"): "the text of a float",
    ("binary", "text"): "the text of bytes",
    **{("text", kind): f"text as {kind}" for kind in ("decimal", "binary")},
}


def unserved(tree: Node) -> tuple[str, ...]:
    """What no TensorFlow graph computes of an expression, each once; empty if it can be served."""
    return tuple(dict.fromkeys(reason for node in reversed([*tree.walk()]) for reason in _reasons(node)))


def _reasons(node: Node) -> Iterator[str]:
    if isinstance(node, ColumnReference) and (node.path or family(node.type) == "nested"):
        yield f"{describe(node)} is nested"
        return
    if pa.types.is_uint64(node.type) and not isinstance(node, Constant):
        yield f"{describe(node)} has 64 bits without a sign, and TensorFlow's integers have one"
    constants = (node.value,) if isinstance(node, Constant) else node.values if isinstance(node, In) else ()
    for value in constants:
        if value.is_valid and has_grid(value.type) and not -(2**63) <= exact(value) / step(value.type) < 2**63:
            yield f"{scalar_text(value)} has more than 64 bits"
    if isinstance(node, TypeCast):
        kinds = family(node.arg.type), family(node.type)
        if kinds in _CASTS:
            yield f"{node.text or describe(node.arg)}: {_CASTS[kinds]} has no TensorFlow twin"
    if isinstance(node, Call):
        yield from _of_call(node)


def _of_call(node: Call) -> Iterator[str]:
    if node.name in WITHOUT_TWIN:
        yield f"function {node.name} has no TensorFlow twin: {WITHOUT_TWIN[node.name]}"
    wanted = CONSTANT_FOR_TWIN.get(node.name, ())
    for parameter, arg in zip(FUNCTIONS[node.name].parameters, node.args, strict=False):
        if parameter.name in wanted and not isinstance(arg, Constant):
            yield f"{node.text}: {parameter.name!r} must be constant for its TensorFlow twin"
