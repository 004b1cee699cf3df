"""What a function is: its parameters, its result's type, the kernel that computes it, and a line of documentation.

numeric.py, text.py, regexp.py, dateparts.py and temporal.py have the tables of functions; registry.py joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

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

# kind -> families it accepts, how messages call it, how the documentation calls it. A number becomes a DOUBLE, a
# numeric keeps its type; a moment keeps its type, an instant becomes microseconds, a clock may be a time of day.
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
    """One parameter: its name, the kind of values, and whether it must be constant, may be missing, or may repeat."""

    name: str
    kind: ParameterKind
    constant: bool = False
    optional: bool = False
    repeats: bool = False

    @property
    def families(self) -> frozenset[Family]:
        return _KINDS[self.kind][0]

    @property
    def words(self) -> str:
        return _KINDS[self.kind][1]

    @property
    def sql_type(self) -> str:
        return _KINDS[self.kind][2]

    def takes(self, node: Node) -> bool:
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
    """Parameters as the tables write them: 's text, [count constant integer], more any...'."""
    return tuple(map(_parameter, filter(None, (part.strip() for part in spec.split(",")))))


def _parameter(spec: str) -> Parameter:
    optional = spec.startswith("[")
    name, *words = spec.strip("[]").split()
    kind: Any = words[-1].removesuffix("...")
    return Parameter(name, kind, "constant" in words, optional, words[-1].endswith("..."))


@dataclass(frozen=True)
class Function:
    """One entry of the tables of functions.

    `result` is the result's type, or a signature that gives from the arguments the types they are cast to and the
    result's type; `gives` is how the documentation then describes the result. `run` gets the result's type and the
    values, arrays or scalars; where `strict`, a scalar that is null makes the result null without a call. `rising` says
    for given arguments that the function never falls in the one that is no constant, so that bounds can be mapped.
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
        return sum(not part.optional for part in self.parameters)

    @property
    def most(self) -> int:
        return 1000 if any(part.repeats for part in self.parameters) else len(self.parameters)

    def usage(self, name: str) -> str:
        """The call as the documentation shows it: lpad(s, count, fill)."""
        text = ", ".join(f"[{part.name}]" if part.optional else part.name for part in self.parameters)
        return f"{name}({text}{', ...' if self.most > len(self.parameters) else ''})"

    def types(self, name: str, args: Sequence[Node]) -> Types:
        """What the arguments are cast to, and the result's type; ExpressionError if the function does not take them."""
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
        """The value for each row: an array, or a scalar if it is the same for all."""
        if self.strict and any(isinstance(arg, pa.Scalar) and not arg.is_valid for arg in args):
            return pa.scalar(None, dtype)
        if args and all(isinstance(arg, pa.Scalar) for arg in args):
            return self._once(dtype, args)
        return self.run(dtype, args)

    def _once(self, dtype: pa.DataType, args: Args) -> pa.Scalar:
        """The value of arguments that are all the same for every row: kernels want one of them as an array."""
        place = next(index for index, part in enumerate(self.parameters) if not part.constant)
        values = list(args)
        values[place] = one_row(args[place])
        return self.run(dtype, values)[0]


def one_row(value: pa.Scalar) -> pa.Array:
    """A scalar as an array of length 1."""
    return pa.repeat(value, 1) if value.is_valid else pa.nulls(1, value.type)


def plain(kernel: Callable[..., Any]) -> Kernel:
    """A kernel of Arrow's on the arguments as they are, cast to the result's type."""
    return lambda dtype, args: typed(kernel(*args), dtype)


def typed(values: Any, dtype: pa.DataType) -> Any:
    """An array or scalar cast to `dtype`, or as it is."""
    return values if values.type == dtype else values.cast(dtype)


def always(args: Sequence[Node]) -> bool:
    """`rising` of a function that never falls."""
    return True


def constant(args: Sequence[Node], index: int) -> Any:
    """The Python value of a constant argument; None if it is missing or null."""
    arg = args[index] if index < len(args) else None
    return arg.value.as_py() if isinstance(arg, Constant) and arg.value.is_valid else None
