"""A feature as the job asks for it, and what keeps its result from being an output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dtap_dask.errors import Problem
from dtap_dask.features.columns.column import item_of
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value, in_order
from dtap_dask.features.info import Role
from dtap_dask.features.quoting import sql_name
from dtap_dask.features.steps.operation import Operation
from dtap_dask.features.steps.valuetype import ValueType, describe


@dataclass(frozen=True)
class FeatureSpec:
    """One feature as the job wants it: `columns` through `steps` into the output `name`.

    `vector`: all columns side by side in one output; without it there is one column. `allow_null`: nulls of a float
    feature become NaN. `place` is where the job file asks for it, for messages: 'features[2]'.
    """

    name: str
    role: Role
    columns: tuple[str, ...]
    steps: tuple[Operation, ...] = ()
    vector: bool = False
    allow_null: bool = False
    place: str = ""


def output_problem(spec: FeatureSpec, kind: ValueType) -> str:
    """Why a value of this type cannot be written for a feature; empty if it can."""
    if kind.base == "time":
        return _time_problem(spec, kind)
    if kind.base == "list":
        return _list_problem(spec, kind)
    if kind.base == "text" and spec.vector:
        return "text cannot be part of a vector. Encode it, or leave out `name`."
    if kind.base == "text" and spec.role == "label":
        return "a label of text needs an encoder; put `steps: [ordinal_encode]` with it."
    if spec.role == "weight" and not kind.is_number:
        return f"a weight is one number a row, and the column is {describe(kind)}."
    inexact = spec.role == "kept" and kind.width is not None and pa.types.is_decimal(item_of(kind.source))
    no_dtype = f"it is {kind.source}, and no record holds a fixed number of decimals exactly. Leave it out of `keep`."
    return no_dtype if inexact else ""


def _list_problem(spec: FeatureSpec, kind: ValueType) -> str:
    if spec.vector:
        return f"it is a list ({kind.source}), which has any length. Put `pad` with it, or leave out `name`."
    if spec.role in ("label", "weight"):
        return f"it is a list ({kind.source}), and a {spec.role} is one number a row. Use another column."
    return ""


def _time_problem(spec: FeatureSpec, kind: ValueType) -> str:
    if spec.role in ("feature", "label"):
        return (
            f"it is {kind.source}, which needs `datetime_parts` (hour, weekday, ...), or `cast: int64` (microseconds "
            "since 1970)."
        )
    column = sql_name(spec.columns[0])
    if spec.role == "weight":
        return f"it is {kind.source}: `derive` a number such as `epoch({column})` and make that the weight."
    fine = pa.types.is_timestamp(kind.source) and kind.source.unit == "ns"
    function, unit = ("epoch_ns", "nanoseconds") if fine else ("epoch_us", "microseconds")
    return (
        f"it is {kind.source}: `derive` a whole number, `{function}({column})` ({unit} since 1970), or text, "
        f"`cast({column} as varchar)`, and keep that."
    )


def role_problems(spec: FeatureSpec, values: Sequence[Value]) -> list[str]:
    """What keeps the values of a feature from the role that it has in the job."""
    texts = []
    if not spec.vector and len(spec.columns) != 1:
        texts.append(f"feature {spec.name!r} has {len(spec.columns)} columns; give the block a `name`.")
    if spec.allow_null and spec.role != "feature":
        texts.append(f"allow_null is for float features, and {spec.name!r} is a {spec.role}.")
    elif spec.allow_null and not any(value.type.base == "float" for value in values):
        kind = values[0].type
        texts.append(
            f"allow_null writes NaN, which only float features have, and {spec.name!r} is {describe(kind)}. "
            f"{_without_nan(kind)}"
        )
    if spec.role == "weight" and any(value.learns for value in in_order(values)):
        texts.append("a weight is not fitted; derive it instead.")
    return texts


def _without_nan(kind: ValueType) -> str:
    """What to do instead of allow_null."""
    if kind.base == "list":
        return "Leave allow_null out, and rows with nulls with `source.where`."
    if kind.base == "text":
        return "Leave it out and encode the column, or `derive` it with `coalesce`."
    if kind.base == "onehot" or kind.ids:
        return "Leave it out."
    return f"{'Impute it, or put' if kind.width is None else 'Put'} `cast: float32` with it."


def unnameable(specs: Iterable[FeatureSpec]) -> list[Problem]:
    """Names that an output cannot have, one for each place."""
    found: dict[str, Problem] = {}
    for spec in specs:
        if not spec.name or "/" in spec.name:
            text = f"{spec.name!r} cannot name an output: names are not empty and hold no '/', which Keras refuses. "
            found.setdefault(spec.place or spec.name, Problem(spec.place, text + _rename(spec)))
    return list(found.values())


def _rename(spec: FeatureSpec) -> str:
    if spec.role == "feature":
        return f"Give it another name with `{'name' if spec.vector else 'as'}`."
    use = "keep" if spec.role == "kept" else "use"
    return f"`derive` the column under another name, and {use} that."


def used_twice(outputs: Iterable[tuple[FeatureSpec, Output]]) -> list[Problem]:
    """Outputs that are named as an earlier one is; each comes with the feature that asks for it."""
    seen: dict[str, FeatureSpec] = {}
    problems = []
    for spec, output in outputs:
        if output.name not in seen:
            seen[output.name] = spec
            continue
        other = seen[output.name]
        if {spec.role, other.role} == {"feature", "label"} and spec.columns == other.columns:
            at = spec if spec.role == "feature" else other
            name = output.name
            text = f"the label {name!r} is a feature, too, to be copied by any model. Take it out of the features."
            problems.append(Problem(at.place, text))
            continue
        named = f"Give the feature another name with `{'name' if other.vector else 'as'}`."
        way = named if spec.role != "feature" and other.role == "feature" else _rename(spec)
        text = f"the output {output.name!r} is already made by {other.place or 'another feature'}. {way}"
        problems.append(Problem(spec.place, text))
    return problems
