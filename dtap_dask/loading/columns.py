"""Packed rows as the columns that a training loop takes.

Columns of fixed width are made of whole windows, by the threads that read these; texts and lists batch by batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.shards.decode import Decoder, parts_of
from dtap_dask.loading.shards.precision import before_cast
from dtap_dask.records import columns

ALIGNMENT = 64  # bytes


class Ragged(NamedTuple):
    """Lists of any length: row i holds `values[offsets[i]:offsets[i + 1]]`; `offsets` is int64 [rows + 1]."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]


class Unpacker:
    """The columns whose names `dtypes` has, in these dtypes; those of `vectors` side by side, one matrix of each."""

    def __init__(
        self, decoder: Decoder, dtypes: Mapping[str, str], vectors: Mapping[str, Sequence[FeatureInfo]]
    ) -> None:
        self._decoder, self._dtypes, self._vectors = decoder, dtypes, vectors
        wide = {info.name for infos in vectors.values() for info in infos}
        self._single = {name: dtype for name, dtype in dtypes.items() if name not in wide}

    def fixed(self, packed: Rows) -> Rows:
        """Packed rows with columns of fixed width in place of matrices: scalars [rows], vectors [rows, k]."""
        spans = self._decoder.spans
        found: Rows = {dtype: self._vector(packed, dtype, infos) for dtype, infos in self._vectors.items()}
        for stored, span in spans.items():
            found.update(_of_matrix(span.infos, packed[stored], self._single))
        found.update((name, column) for name, column in packed.items() if name not in spans)
        return found

    def finished(self, fixed: Rows) -> dict[str, Any]:
        """All columns of what `fixed` returned: texts as arrays of bytes objects, lists of any length as Ragged."""
        found = dict[str, Any](fixed)
        for info in self._decoder.variable:
            found[info.name] = _variable(info, found.pop(f"{info.name}/values"), self._dtypes[info.name])
        return found

    def _vector(self, packed: Rows, dtype: str, infos: Sequence[FeatureInfo]) -> npt.NDArray[Any]:
        """Features of one delivered dtype side by side: [rows, width]."""
        found = _aligned((columns.row_count(packed), sum(map(columns.width, infos))), dtype)
        at = 0
        for stored, part in parts_of(self._decoder.spans, {info.name for info in infos}):
            values = packed[stored][:, part]
            _copy(values, found[:, at : at + values.shape[1]])
            at += values.shape[1]
        return found


def _aligned(shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Memory that begins where TensorFlow wants it, or it would copy the array."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    begin = -raw.ctypes.data % ALIGNMENT
    return raw[begin : begin + size].view(dtype).reshape(shape)


def _copy(values: npt.NDArray[Any], into: npt.NDArray[Any]) -> None:
    np.copyto(into, before_cast(values, into.dtype.name), casting="unsafe")


def _of_matrix(
    infos: Sequence[FeatureInfo], matrix: npt.NDArray[Any], dtypes: Mapping[str, str]
) -> dict[str, npt.NDArray[Any]]:
    """Neighbours of one dtype are cast together. Each column is contiguous."""
    found: dict[str, npt.NDArray[Any]] = {}
    rows = len(matrix)
    at = 0
    for (dtype, scalar), run in itertools.groupby(infos, lambda info: (dtypes.get(info.name), info.shape == ())):
        members = list(run)
        size = sum(map(columns.width, members))
        values, at = matrix[:, at : at + size], at + size
        if dtype is None:
            continue
        if scalar:
            padded = rows + -rows % ALIGNMENT  # so that every column begins where TensorFlow wants it
            side_by_side = _aligned((size, padded), dtype)[:, :rows]
            _copy(values.T, side_by_side)
            found.update(zip((info.name for info in members), side_by_side, strict=True))
            continue
        start = 0
        for info in members:
            stop = start + columns.width(info)
            column = _aligned((rows, stop - start), dtype)
            _copy(values[:, start:stop], column)
            found[info.name] = column.reshape(rows, *info.shape)
            start = stop
    return found


def _variable(info: FeatureInfo, array: pa.Array, dtype: str) -> Any:
    if columns.is_text(info):
        return np.array(array.to_pylist(), object)
    offsets = array.offsets.to_numpy()
    values = array.flatten()
    if info.stored == "bytes":
        numbers = np.array(values.to_pylist(), object)
    else:
        numbers = before_cast(values.to_numpy(), dtype).astype(dtype)
    return Ragged(numbers, offsets - offsets[0]) if None in info.shape else numbers.reshape(len(array), *info.shape)
