"""Errors for values of a batch that cannot be written: which column they are of, which step made them, what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Array, Column
from dtap_dask.features.engine.checks import can_clip, infinite, is_testable, null_is_wrong
from dtap_dask.features.engine.remedy import ValuePath, cures, remedy
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value
from dtap_dask.features.quoting import condition, sql_name
from dtap_dask.features.steps.elementwise import Log1p

BatchColumns = Mapping[Value, Column]


def refuse_nulls(output: Output, value: Value, columns: BatchColumns) -> None:
    """DataError for nulls of one of an output's values, where they must not be."""
    if not null_is_wrong(output, value) or columns[value].nulls() is None:
        return
    path = _origin(value, lambda one: columns[one].nulls() is not None)
    [column] = path[0].columns
    made, do = "", remedy([(column, cures(output, path))])
    for before, after in pairwise(path):
        if columns[before].nulls() is None and columns[after].nulls() is not None:
            made = f" by step {after.applied.title}, which has no result for them"
            if isinstance(after.operation, Log1p):
                rows = condition(f"{sql_name(column)} is null or {sql_name(column)} > -1")
                do = f"Put `clip: {{min: 0}}` before it, or leave such rows out with {rows}."
    alone = [one for one in path if len(one.inputs) < 2 and columns[one].nulls() is not None]  # of this column only
    nulls = columns[alone[-1] if alone else value].nulls()
    assert nulls is not None
    name = "" if output.name == column else f" (feature {output.name!r})"
    raise DataError(
        f"{int(nulls.sum()):,} of {len(nulls):,} rows of a batch of column {column!r}{name} are null (or NaN)"
        f"{made or ' and would reach the output'}. {do}"
    )


def refuse_infinite(output: Output, value: Value, count: int, columns: BatchColumns) -> None:
    """DataError if `count` values are infinite as they would be written."""
    if not count:
        return
    path = _origin(value, lambda one: columns[one].infinities() > 0)
    first = next((one for one in path if columns[one].infinities()), None)
    step, several = "output as float32", False
    if first is not None:
        made_by = path[1] if first is path[0] and len(path) > 1 else first
        step = made_by.applied.title if made_by.inputs else "passthrough"
        several = len(made_by.inputs) > 1
    testable = is_testable(path[0]) and not several
    raise infinite(count, path[0].columns[0], output.name, step, clips=can_clip(output), testable=testable)


def _origin(value: Value, is_wrong: Callable[[Value], bool]) -> ValuePath:
    """The path to a value from a column, along what is wrong; along the first inputs where nothing is."""
    path = [value]
    while path[0].inputs:
        path.insert(0, next(filter(is_wrong, path[0].inputs), path[0].inputs[0]))
    return tuple(path)


def refuse_narrow(output: Output, value: Value, values: Array, dtype: np.dtype[Any]) -> None:
    """DataError for integers that the stored dtype would wrap."""
    if values.dtype.kind not in "iu" or dtype.kind not in "iu" or np.can_cast(values.dtype, dtype):
        return
    limits = np.iinfo(dtype)
    if len(values) == 0 or (limits.min <= int(values.min()) and int(values.max()) <= limits.max):
        return
    raise beyond(value, output.name, dtype.name, output.role)


def beyond(value: Value, name: str, dtype: str, role: str) -> DataError:
    """The error for whole numbers that are larger than what they are written as."""
    column = value.columns[0]
    way = "Put `cast: float32` with it, or encode it."
    if role == "kept" and value.type.element is not None:
        way = "Leave it out of `keep`."
    elif role == "kept":
        way = f"`derive` a column such as `cast({sql_name(column)} as varchar)` and keep that."
    return DataError(f"Column {column!r} holds integers beyond {dtype}, which is what {name!r} is written as. {way}")
