"""Values whose operations learn together: the option `share`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dtap_dask.errors import JobError, Problem
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value, in_order
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.valuetype import ValueType


def with_pools(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """The outputs, each value that shares what it learns with the inputs of all that share it as its pool.

    JobError where these differ in their options or types, or are made from one another.
    """
    groups = _groups(outputs)
    problems = [problem for name, group in groups.items() for problem in _problems(name, group)]
    if problems:
        raise JobError(problems)
    if not groups:
        return tuple(outputs)
    pools = {name: tuple(dict.fromkeys(member.value.inputs[0] for member in group)) for name, group in groups.items()}
    made: dict[Value, Value] = {}
    for value in in_order(value for output in outputs for value in output.values):
        pool = pools.get(_shared(value) or "", ())
        made[value] = replace(value, inputs=tuple(made[one] for one in value.inputs), pool=pool)
    return tuple(replace(output, values=tuple(made[value] for value in output.values)) for output in outputs)


@dataclass(frozen=True)
class _Member:
    value: Value
    output: Output

    @property
    def kind(self) -> str:
        """What may be counted together: text, booleans, signed integers, and those of 64 bits without a sign."""
        given: ValueType = self.value.inputs[0].type
        element = given.element or given
        return element.holds if element.base == "int" and element.holds == "uint64" else element.base

    def __str__(self) -> str:
        return f"column {', '.join(self.value.columns)!r} in {self.output.place or self.output.name}"


def _groups(outputs: Sequence[Output]) -> dict[str, list[_Member]]:
    """The values that share what they learn, by the name of what they share."""
    found: dict[str, dict[Value, _Member]] = {}
    for output in outputs:
        for value in in_order(output.values):
            name = _shared(value)
            if name is not None:
                found.setdefault(name, {}).setdefault(value, _Member(value, output))
    return {name: list(members.values()) for name, members in found.items()}


def _shared(value: Value) -> str | None:
    return value.operation.shared if isinstance(value.operation, Operation) else None


def _problems(name: str, group: Sequence[_Member]) -> list[Problem]:
    first, problems = group[0], []
    for member in group:
        text = ""
        if member.value.operation != first.value.operation:
            text = f"its options are not those of {first}. Give both the same, or another name"
        elif member.kind != first.kind:
            text = f"it is {member.kind}, and {first} is {first.kind}. `cast` one of them, or give it another name"
        elif any(map(_shared, in_order(member.value.inputs))):
            text = "it is made from ids that are shared themselves. Leave one `share` out"
        if text:
            step = member.value.applied.name
            column = f"column {', '.join(member.value.columns)!r}"
            problems.append(Problem(member.output.place, f"{column}, {step}.share {name!r}: {text}."))
    return problems
