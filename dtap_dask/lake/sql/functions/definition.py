"""Defines a function: its parameters, the type of its result, the kernel that computes it, a line of documentation.

The tables of functions are in numeric.py, text.py, regexp.py, dateparts.py and temporal.py; registry.py joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from dtap_dask.errors import ExpressionError
from dtap_dask.lake.sql.tree import Constant, Node, describe
from dtap_dask.lake.sql.types import DOUBLE, INT64, NUMBERS, TEXT, Family, family

ParameterKind = Literal["any", "text", "integer", "number", "numeric", "moment", "clock", "instant"]
Types = tuple[tuple[pa.DataType, ...], pa.DataType]
Signature = Callable[[str, Sequence[Node]], Types]
Args = Sequence[Any]
Kernel = Callable[[pa.DataType, Args], Any]
STAMP = pa.timestamp("us")

# kind -> accepted families, name in messages, name in the documentation. A number becomes DOUBLE, a numeric keeps its
# type; a moment keeps its type, an instant becomes microseconds, a clock may be a time of day.
_KINDS: dict[ParameterKind, tuple[frozenset[Family], str, str]] = {
    "any": (frozenset(), "", "any"),
    "text": (frozenset(("text",)), "text", "VARCHAR"),
    "integer": (frozenset(("int",)), "a whole number", "BIGINT"),
    "number": (NUMBERS, "a number", "DOUBLE"),
    "numeric": (NUMBERS, "a number", "number"),
    "moment": (frozenset(("date", "timestamp")), "a date or timestamp", "DATE or TIMESTAMP"),
    "clock": (
        frozenset(("date", "timestamp", "time")),
        "a date, timestamp or time of day",
        "DATE, TIMESTAMP or TIME",
    ),
    "instant": (frozenset(("date", "timestamp")), "a date or timestamp", "DATE or TIMESTAMP"),
}
_FIXED: dict[ParameterKind, pa.DataType] = {"text": TEXT, "integer": INT64, "number": DOUBLE}


@dataclass(frozen=True)
class Parameter:
    """A parameter: name, kind of values, and whether it must be constant, may be omitted, or may be repeated."""

    name: str
    kind: ParameterKind
    constant: bool = False
    optional: bool = False
    repeats: bool = False

    @property
    def families(self) -> frozenset[Family]:
        """The accepted families; empty for all."""
        return _KINDS[self.kind][0]

    @property
    def words(self) -> str:
        """The kind in messages."""
        return _KINDS[self.kind][1]

    @property
    def sql_type(self) -> str:
        """The kind in the documentation."""
        return _KINDS[self.kind][2]

    def takes(self, node: Node) -> bool:
        """Whether the type of an argument is accepted."""
        return not self.families or family(node.type) in self.families | {"null"}

    def target(self, dtype: pa.DataType) -> pa.DataType:
        """The type that an argument of `dtype` is cast to."""
        kind = family(dtype)
        if self.kind in _FIXED:
            return _FIXED[self.kind]
        if self.kind == "instant":  # microseconds, as DuckDB computes
            return pa.timestamp("us", dtype.tz if kind == "timestamp" else None)
        if self.kind == "clock" and kind == "time":
            return pa.time64("ns" if dtype.unit == "ns" else "us")
        if self.kind in ("moment", "clock"):
            return STAMP if kind == "null" or (self.kind == "clock" and kind == "date") else dtype
        return DOUBLE if self.kind == "numeric" and kind == "null" else dtype


def parameters(spec: str) -> tuple[Parameter, ...]:
    """Parse parameters as written in the tables: 's text, [count constant integer], more any...'."""
    return tuple(map(_parameter, filter(None, (part.strip() for part in spec.split(",")))))


def _parameter(spec: str) -> Parameter:
    optional = spec.startswith("[")
    name, *words = spec.strip("[]").split()
    kind: Any = words[-1].removesuffix("...")
    return Parameter(name, kind, "constant" in words, optional, words[-1].endswith("..."))


@dataclass(frozen=True)
class Function:
    """An entry of the tables of functions.

    - `result`: the type of the result, or a signature: from the arguments it gives the types that they are cast to, and
      the type of the result, which `gives` describes in the documentation.
    - `run`: the kernel; it gets the type of the result and the arguments, arrays or scalars.
    - `strict`: a null scalar among the arguments makes the result null without calling the kernel.
    - `rising`: whether, for these arguments, the function rises monotonically in the one that is not constant, so that
      bounds can be mapped.
    - `check`: raises ExpressionError for arguments that only the function itself can judge.
    """

    spec: str
    result: pa.DataType | Signature
    run: Kernel
    doc: str = ""
    example: str = ""
    gives: str = ""
    strict: bool = True
    rising: Callable[[Sequence[Node]], bool] = lambda args: False
    check: Callable[[str, Sequence[Node]], None] = lambda name, args: None

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return parameters(self.spec)

    @property
    def fewest(self) -> int:
        """The least number of arguments."""
        return sum(not part.optional for part in self.parameters)

    @property
    def most(self) -> int:
        """The greatest number of arguments."""
        return 1000 if any(part.repeats for part in self.parameters) else len(self.parameters)

    def usage(self, name: str) -> str:
        """The call as shown in the documentation: lpad(s, count, fill)."""
        text = ", ".join(f"[{part.name}]" if part.optional else part.name for part in self.parameters)
        return f"{name}({text}{', ...' if self.most > len(self.parameters) else ''})"

    def types(self, name: str, args: Sequence[Node]) -> Types:
        """The types that arguments are cast to, and that of the result; ExpressionError if they are not accepted."""
        if not self.fewest <= len(args) <= self.most:
            wanted = f"{self.fewest}" + (f" to {self.most}" if self.most > self.fewest else "")
            plural = "" if wanted == "1" else "s"
            raise ExpressionError(f"{name} takes {wanted} argument{plural}, not {len(args)}: {self.usage(name)}.")
        for index, arg in enumerate(args):
            self._accept(name, self.parameters[min(index, len(self.parameters) - 1)], arg)
        self.check(name, args)
        if not isinstance(self.result, pa.DataType):
            return self.result(name, args)
        return self.targets(args), self.result

    def targets(self, args: Sequence[Node]) -> tuple[pa.DataType, ...]:
        """The types that arguments are cast to by their parameters."""
        last = len(self.parameters) - 1
        return tuple(self.parameters[min(index, last)].target(arg.type) for index, arg in enumerate(args))

    def _accept(self, name: str, parameter: Parameter, arg: Node) -> None:
        if parameter.takes(arg) and (not parameter.constant or isinstance(arg, Constant)):
            return
        what = f"{parameter.name!r} of {self.usage(name)}" if len(self.parameters) > 1 else name
        constant = " that is the same for every row" if parameter.constant else ""
        raise ExpressionError(
            f"{what} takes {parameter.words}{constant}, not {describe(arg)}; CAST it first if that is meant."
        )

    def compute(self, dtype: pa.DataType, args: Args) -> Any:
        """The value of each row: an array, or a scalar if it is the same for all rows."""
        if self.strict and any(isinstance(arg, pa.Scalar) and not arg.is_valid for arg in args):
            return pa.scalar(None, dtype)
        if args and all(isinstance(arg, pa.Scalar) for arg in args):
            return self._once(dtype, args)
        return self.run(dtype, args)

    def _once(self, dtype: pa.DataType, args: Args) -> pa.Scalar:
        """The value for scalar arguments; kernels need one of them as an array."""
        place = next(index for index, part in enumerate(self.parameters) if not part.constant)
        values = list(args)
        values[place] = one_row(args[place])
        return self.run(dtype, values)[0]


def one_row(value: pa.Scalar) -> pa.Array:
    """A scalar as an array of length 1."""
    return pa.repeat(value, 1) if value.is_valid else pa.nulls(1, value.type)


def plain(kernel: Callable[..., Any]) -> Kernel:
    """An Arrow kernel applied to the arguments, its output cast to the type of the result."""
    return lambda dtype, args: typed(kernel(*args), dtype)


def per_value(kernel: Callable[..., Any]) -> Kernel:
    """Run a kernel whose further arguments are Python values.

    If they are arrays, the kernel is called once for each distinct combination of values, on the rows that have it.
    """

    def run(dtype: pa.DataType, args: Args) -> Any:
        first, *rest = args
        if all(isinstance(arg, pa.Scalar) for arg in rest):
            return typed(kernel(first, *(arg.as_py() for arg in rest)), dtype)
        rows = next(len(arg) for arg in args if not isinstance(arg, pa.Scalar))
        columns = [pa.repeat(arg, rows) if isinstance(arg, pa.Scalar) else arg for arg in args]
        return _grouped(kernel, dtype, columns)

    return run


def _grouped(kernel: Callable[..., Any], dtype: pa.DataType, columns: list[pa.Array]) -> pa.Array:
    if not len(columns[0]):
        return pa.array([], dtype)
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns[1:]:
        encoded = column.dictionary_encode(null_encoding="encode")
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
        codes = np.unique(codes, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    parts = []
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        rows = pa.array(order[start:stop])
        values = [column[int(order[start])].as_py() for column in columns[1:]]
        known = columns[0].take(rows)
        part = pa.nulls(len(rows), dtype) if None in values else typed(kernel(known, *values), dtype)
        parts.append(part)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays([pa.array([], dtype), *parts]).take(pa.array(back))


def typed(values: Any, dtype: pa.DataType) -> Any:
    """An array or scalar cast to `dtype` if it has another type."""
    return values if values.type == dtype else values.cast(dtype)


def always(args: Sequence[Node]) -> bool:
    """`rising` of a function that always rises."""
    return True


def constant(args: Sequence[Node], index: int) -> Any:
    """The Python value of a constant argument; None if it is omitted or null."""
    arg = args[index] if index < len(args) else None
    return arg.value.as_py() if isinstance(arg, Constant) and arg.value.is_valid else None
