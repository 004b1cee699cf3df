"""`dtap_dask.inverse`: values of a label or feature back through the steps to the columns of the lake."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.apply.dataset import FittedFeatures, open_features
from dtap_dask.apply.vocabulary import find_output
from dtap_dask.errors import DataError, JobError, Problem
from dtap_dask.features.columns.column import Array, Column, Lists, Numbers, Text, lists, numbers, offsets_of
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.value import Value, in_order
from dtap_dask.features.steps.elements import lifted
from dtap_dask.features.steps.operation import Inverse, Source
from dtap_dask.features.steps.places import inverse_of


def inverse(
    path: str | os.PathLike[str], name: str, values: npt.ArrayLike, *, storage: Mapping[str, Any] | None = None
) -> Array | dict[str, Array]:
    """What values of the label or feature `name` stand for in the lake, by what the job at `path` has fitted.

    `values` has a row for each value, [n] or [n, k] for vectors: float64 is best for numbers, ids are whole numbers.
    Arrow columns and pandas Series, as `transform` returns them of tables, are taken, too. A column of one number a row
    may also be [n, 1], as a model predicts it. Lists come as n sequences of numbers. The result is an array [n] of the
    column's values: float64, integers, or objects (text, bytes, None for null, arrays for lists). For an output of
    several columns it is a dict of such arrays by column. Values that a step made alike stay so: what was filled,
    clipped or rounded is not undone.

    Raises OutputError where there is no finished dataset; JobError for a name that is not there, and for steps without
    an inverse, of which the first is named; DataError for values of another shape, and for ids that there are not.
    """
    opened = open_features(path, storage)
    output = find_output(opened, name)
    undo = _inverses(opened, output)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        values = values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)
    found: dict[str, Array] = {}
    for value, part in _parts(opened, output, values):
        for column, result in _back(undo, value, part, name):
            found[column] = _plain(result)
    return next(iter(found.values())) if len(found) == 1 else found


def _inverses(opened: FittedFeatures, output: Output) -> dict[Value, Inverse]:
    """What undoes each step of an output. JobError for steps without an inverse, which names the first of them."""
    found: dict[Value, Inverse] = {}
    for value in in_order(output.values, given=True):
        if isinstance(value.operation, Source):
            continue
        undo = inverse_of(value.operation, opened.state.fitted.get(value, {}), value.inputs[0].type)
        if undo is None:
            raise JobError(
                Problem("name", f"{output.name!r} cannot be taken back: step {value.operation.title} has no inverse. "
                        "Keep the column instead (`keep`), and join by a key.")
            )  # fmt: skip
        found[value] = undo
    return found


def _parts(opened: FittedFeatures, output: Output, given: npt.ArrayLike) -> list[tuple[Value, Column]]:
    """Each value of an output with its own columns of what is given."""
    position = opened.state.graph.outputs.index(output)
    widths = [part.width for part in opened.state.parts[position]]
    info = opened.state.infos[position]
    if info.shape == (None,) and info.dtype != "bytes":
        return [(output.values[0], _lists(given))]
    if info.dtype == "bytes":
        kind = "lists of text" if info.shape else "text"
        raise JobError(Problem("name", f"{output.name!r} holds {kind}: nothing to invert."))
    values = _array(given)
    if values.dtype.kind not in "biuf":
        raise DataError(f"The values of {output.name!r} are to be numbers, as `load` yields them, without nulls.")
    block = values.reshape(len(values), -1) if len(values) else values.reshape(0, sum(widths))
    if block.shape[1] != sum(widths):
        raise DataError(
            f"{output.name!r} has {sum(widths)} numbers a row, and the values have {block.shape[1]}: their shape is "
            f"{values.shape}. Give them as `load` yields them."
        )
    cuts = np.cumsum(widths)[:-1]
    pieces = np.split(block, cuts, axis=1)
    vectors = [value.type.base == "onehot" or value.type.width is not None for value in output.values]
    return [
        (value, Numbers(piece if is_vector else piece[:, 0]))
        for value, piece, is_vector in zip(output.values, pieces, vectors, strict=True)
    ]


def _array(given: Any) -> Array:
    """Numbers [n] or [n, k], those of rows that are arrays of their own included."""
    is_rows = getattr(given, "dtype", None) == np.dtype(object) and all(hasattr(row, "__len__") for row in given)
    try:
        values = np.asarray([*given] if is_rows else given)
    except ValueError as error:
        raise DataError(f"The rows of a vector are to have one length: {error}") from error
    if not values.ndim:
        raise DataError("The values to be taken back are to be an array or a list, also where there is one.")
    return values


def _lists(given: Any) -> Lists:
    rows = [np.asarray(row) for row in given]
    if any(row.ndim != 1 or (len(row) and row.dtype.kind not in "biuf") for row in rows):
        raise DataError("The values of a feature of lists are to be a sequence of numbers for each row.")
    elements = np.concatenate([row for row in rows if len(row)] or [np.empty(0, np.int64)])
    return Lists(offsets_of([len(row) for row in rows]), Numbers(elements))


def _back(inverses: Mapping[Value, Inverse], value: Value, column: Column, name: str) -> Sequence[tuple[str, Column]]:
    """The columns of the lake that a value is made from."""
    if isinstance(value.operation, Source):
        return [(value.operation.column, column)]
    step, undo = value.operation, inverses[value]
    try:
        inputs = _of_elements(column, undo) if lifted(step, value.inputs[0].type) else undo(column)
    except ValueError as error:
        raise DataError(f"Values of {name!r} cannot be taken back through step {step.title}: {error}.") from error
    pairs = zip(value.inputs, inputs, strict=False)  # a label or fold that a step has learnt from is not given back
    return [found for one, made in pairs for found in _back(inverses, one, made, name)]


def _of_elements(column: Column, undo: Inverse) -> Sequence[Column]:
    """The lists whose elements an operation has made into those of `column`."""
    made, [elements] = lists(column), undo(lists(column).elements)
    assert not isinstance(elements, Lists)
    return (Lists(made.offsets, elements, made.valid),)


def _plain(column: Column) -> Array:
    if isinstance(column, Lists):
        return _objects(np.split(_plain(column.elements), column.offsets[1:-1]) if len(column) else [])
    if isinstance(column, Text):
        return np.asarray(_as_text(column.plain()).to_numpy(zero_copy_only=False), object)
    given = numbers(column)
    if given.valid is None or given.valid.all():
        return given.values
    return _objects([value if there else None for value, there in zip(given.values.tolist(), given.valid, strict=True)])


def _as_text(array: pa.Array) -> pa.Array:
    try:
        return array.cast(pa.large_string())
    except pa.ArrowInvalid:  # not UTF-8
        return array


def _objects(values: list[Any]) -> Array:
    made = np.empty(len(values), object)
    for row, value in enumerate(values):  # arrays of equal length would become columns
        made[row] = value
    return made
