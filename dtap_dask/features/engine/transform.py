"""A fitted state applied to batches: rows of the lake in, columns as records hold them out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy

import numpy as np
import pyarrow as pa

from dtap_dask.errors import DtapError
from dtap_dask.features.columns.column import Array, Decimals, Lists, Numbers, Text, numbers
from dtap_dask.features.columns.decimals import spelled, whole
from dtap_dask.features.engine.checks import negative
from dtap_dask.features.engine.program import Program
from dtap_dask.features.engine.refuse import BatchColumns, beyond, refuse_infinite, refuse_narrow, refuse_nulls
from dtap_dask.features.graph.graph import Output
from dtap_dask.features.graph.output import ValueOutput
from dtap_dask.features.graph.state import FittedState
from dtap_dask.features.info import FeatureInfo
from dtap_dask.features.steps.operation import ErrorContext, unforeseen

Rows = dict[str, Array | pa.Array]


class Transform:
    """A fitted state as a function of record batches.

    `infos` describes the outputs; `apply` gives them by name: fixed-width ones as C-contiguous NumPy arrays [n] or
    [n, k] of `FeatureInfo.stored`, text as large_binary, lists as large_list.
    """

    def __init__(self, state: FittedState, like: Transform | None = None):
        """`like`: a transform of the same fitted numbers, whose lookup tables are shared where values are equal."""
        if not state.is_complete:
            raise ValueError(f"the state has {state.passes} of {state.graph.passes} passes")
        self._outputs = state.graph.outputs
        self._program: Program = Program(
            state.graph.values, state.fitted, state.graph.context, like._program if like is not None else None
        )
        self._parts = state.parts
        self.infos: tuple[FeatureInfo, ...] = state.infos

    def of(self, names: Collection[str]) -> Transform:
        """The transform of the outputs of these names alone."""
        made = copy(self)
        lines = zip(self._outputs, self._parts, self.infos, strict=True)
        made._outputs, made._parts, made.infos = zip(*(one for one in lines if one[2].name in names), strict=True)
        made._program = self._program.of(value for output in made._outputs for value in output.values)
        return made

    def apply(self, rows: pa.RecordBatch) -> Rows:
        """The outputs of a batch. DataError for a null, an infinity or an unseen value that is not allowed."""
        columns = dict(zip(self._program.values, self._program.run(rows), strict=True))
        made: Rows = {}
        try:
            for output, parts, info in zip(self._outputs, self._parts, self.infos, strict=True):
                made[info.name] = _written(output, parts, info, columns)
        except (DtapError, MemoryError):
            raise
        except Exception as error:
            failed = self.infos[len(made)]
            raise unforeseen(ErrorContext(failed.name, ", ".join(failed.columns[:4]), "output"), error) from error
        return made


def _written(
    output: Output, parts: Sequence[ValueOutput], info: FeatureInfo, columns: BatchColumns
) -> Array | pa.Array:
    """An output of a batch, checked."""
    for value in output.values:
        refuse_nulls(output, value, columns)
    value = output.values[0]
    result = columns[value]
    if isinstance(result, Lists):
        elements = _elements(output, result.elements, info, columns)
        return pa.LargeListArray.from_arrays(pa.array(result.offsets), pa.array(elements))
    if output.vector:
        return _vector(output, parts, info, columns)
    values = _elements(output, result, info, columns)
    return values if info.stored == "bytes" else values.reshape(len(values), *info.shape)


def _elements(
    output: Output, result: Numbers | Decimals | Text, info: FeatureInfo, columns: BatchColumns
) -> Array | pa.Array:
    """The values of rows, or of the elements of lists, as they are stored."""
    if isinstance(result, Text):
        return result.plain()
    if isinstance(result, Decimals) and output.role == "kept":
        return _kept(output, result, info)
    return _numbers(output, numbers(result), info, columns)


def _numbers(output: Output, result: Numbers, info: FeatureInfo, columns: BatchColumns) -> Array:
    """The values in their stored dtype, checked for infinities."""
    [value], values, dtype = output.values, result.values, np.dtype(info.stored)
    refuse_narrow(output, value, values, dtype)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(dtype, copy=False)
        if not np.isfinite(values).all():
            refuse_infinite(output, value, Numbers(values).infinities(), columns)
    elif dtype.kind == "f":
        values = result.floats().astype(dtype)
    if output.role == "weight" and (values < 0).any():
        raise negative(int((values < 0).sum()), value.columns[0])
    return np.ascontiguousarray(values.astype(dtype, copy=False))


def _vector(output: Output, parts: Sequence[ValueOutput], info: FeatureInfo, columns: BatchColumns) -> Array:
    """The values side by side, [n, k]."""
    results = [numbers(columns[value]) for value in output.values]
    block = np.empty((len(results[0]), sum(part.width for part in parts)), np.dtype(info.stored))
    at = 0
    for value, result, part in zip(output.values, results, parts, strict=True):
        values = result.floats() if block.dtype.kind == "f" else result.values
        refuse_narrow(output, value, values, block.dtype)
        with np.errstate(over="ignore"):
            block[:, at : at + part.width] = values if values.ndim == 2 else values[:, None]
        at += part.width
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        for value, result in zip(output.values, results, strict=True):
            with np.errstate(over="ignore"):
                count = Numbers(result.floats().astype(block.dtype)).infinities()
            refuse_infinite(output, value, count, columns)
    return block


def _kept(output: Output, column: Decimals, info: FeatureInfo) -> Array | pa.Array:
    """Decimals as they are: integers, or their digits as text."""
    if info.stored == "bytes":
        return spelled(column.array).cast(pa.large_binary())
    values, bad = whole(column.array, np.dtype(info.stored))
    if bad is not None:
        raise beyond(output.values[0], info.name, info.stored, "kept")
    return values
