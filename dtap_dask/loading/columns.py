"""Packed rows as the columns that a training loop takes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.shards.decode import Decoder, parts_of
from dtap_dask.loading.shards.precision import before_cast, cast
from dtap_dask.records import columns


class Ragged(NamedTuple):
    """Lists of any length: row i holds `values[offsets[i]:offsets[i + 1]]`; `offsets` is int64 [rows + 1]."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]


def unpacked(
    decoder: Decoder, packed: Rows, dtypes: Mapping[str, str], vectors: Mapping[str, Sequence[FeatureInfo]]
) -> dict[str, Any]:
    """The columns of packed rows whose names `dtypes` has, in these dtypes; those of `vectors` as one matrix of each.

    Scalars are [rows], vectors [rows, k], texts arrays of bytes objects, lists of any length Ragged.
    """
    found: dict[str, Any] = {}
    wide = {info.name for infos in vectors.values() for info in infos}
    single = {name: dtype for name, dtype in dtypes.items() if name not in wide}
    for stored, span in decoder.spans.items():
        found.update(_of_matrix(span.infos, packed[stored], single))
    for info in decoder.variable:
        found[info.name] = _variable(info, packed[f"{info.name}/values"], dtypes[info.name])
    return {**{dtype: _vector(decoder, packed, dtype, infos) for dtype, infos in vectors.items()}, **found}


def _vector(decoder: Decoder, packed: Rows, dtype: str, infos: Sequence[FeatureInfo]) -> npt.NDArray[Any]:
    """Features of one delivered dtype side by side: [rows, width]."""
    names = {info.name for info in infos}
    parts = [before_cast(packed[stored][:, part], dtype) for stored, part in parts_of(decoder.spans, names)]
    return np.concatenate(parts, axis=1, dtype=dtype, casting="unsafe")


def _of_matrix(
    infos: Sequence[FeatureInfo], matrix: npt.NDArray[Any], dtypes: Mapping[str, str]
) -> dict[str, npt.NDArray[Any]]:
    """Neighbours of one dtype are cast together, scalars after they were transposed while they are narrow."""
    found: dict[str, npt.NDArray[Any]] = {}
    at = 0
    for (dtype, scalar), run in itertools.groupby(infos, lambda info: (dtypes.get(info.name), info.shape == ())):
        members = list(run)
        size = sum(map(columns.width, members))
        values, at = matrix[:, at : at + size], at + size
        if dtype is None:
            continue
        if scalar:
            found.update(zip((info.name for info in members), cast(np.ascontiguousarray(values.T), dtype), strict=True))
            continue
        start = 0
        for info in members:
            stop = start + columns.width(info)
            found[info.name] = cast(values[:, start:stop], dtype).reshape(len(values), *info.shape)
            start = stop
    return found


def _variable(info: FeatureInfo, array: pa.Array, dtype: str) -> Any:
    if columns.is_text(info):
        return np.array(array.to_pylist(), object)
    offsets = array.offsets.to_numpy()
    values = array.flatten()
    numbers = np.array(values.to_pylist(), object) if info.stored == "bytes" else cast(values.to_numpy(), dtype)
    return Ragged(numbers, offsets - offsets[0]) if None in info.shape else numbers.reshape(len(array), *info.shape)
