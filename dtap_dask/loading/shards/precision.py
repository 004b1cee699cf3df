"""Float features delivered in another dtype than theirs, and values that it does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Mask
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns

FloatDtype = Literal["float32", "float16", "bfloat16"]  # NumPy knows the last one once ml_dtypes is imported


def is_float(info: FeatureInfo) -> bool:
    """Whether a column is a feature of floats."""
    return info.role == "feature" and info.dtype.startswith("float")


def largest(dtype: str) -> float:
    """The largest finite number of a dtype; float features may be stored as integers or booleans."""
    kind = np.dtype(dtype).kind
    if kind in "iu":
        return float(np.iinfo(dtype).max)
    if kind == "b":
        return 1.0
    return float(ml_dtypes.finfo(np.dtype(dtype)).max)  # type: ignore[no-untyped-call]


def before_cast(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """What to cast to a dtype, so that all loaders round alike: TensorFlow rounds float64 to float32 before float16."""
    return values.astype(np.float32) if dtype == "float16" and values.dtype == np.float64 else values


def refuse_overflow(
    spans: Mapping[str, Sequence[FeatureInfo]], variable: Sequence[FeatureInfo], packed: Rows, dtypes: Mapping[str, str]
) -> None:
    """DataError where a feature that `dtypes` names holds a finite number that is infinite in this dtype.

    `spans` are the columns of each matrix of the packed rows, `variable` those of texts and lists. NaN and infinities
    may be there.
    """
    for stored, infos in spans.items():
        limits = [largest(dtypes[info.name]) for info in infos if info.name in dtypes]
        if not limits or _within(packed[stored], min(limits)):
            continue
        at = 0
        for info in infos:
            stop = at + columns.width(info)
            _refuse(info, packed[stored][:, at:stop], dtypes)
            at = stop
    for info in variable:
        if info.name in dtypes:
            lists: pa.Array = packed[f"{info.name}/values"]
            _refuse(info, lists.flatten().to_numpy(), dtypes)


def _within(values: npt.NDArray[Any], limit: float) -> bool:
    """Whether all values but NaN are; this is fast for a whole matrix."""
    return bool(
        np.fmax.reduce(values, axis=None, initial=0) <= limit and np.fmin.reduce(values, axis=None, initial=0) >= -limit
    )


def _refuse(info: FeatureInfo, values: npt.NDArray[Any], dtypes: Mapping[str, str]) -> None:
    if info.name not in dtypes:
        return
    limit = largest(dtypes[info.name])
    wrong: Mask = np.isfinite(values) & (np.abs(values) > limit)
    if wrong.any():
        raise DataError(_TOO_LARGE.format(name=info.name, value=values[wrong][0], dtype=dtypes[info.name], limit=limit))


_TOO_LARGE = (
    "The feature {name!r} holds {value:,g}, but the largest number of {dtype} is {limit:,g}. Load it with another "
    "`floats`, such as 'bfloat16', which holds larger numbers with fewer digits, or scale it in the job that writes it."
)
