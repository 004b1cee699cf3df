"""Statistics of column chunks from the footer, as values of the columns' types."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from dtap_dask.lake.sql.domain import ColumnStats

_KEPT_AS_INTEGERS = (pa.types.is_integer, pa.types.is_date32, pa.types.is_timestamp, pa.types.is_time)


def column_stats(chunk: Any, kind: StatisticKind, rows: int) -> ColumnStats:
    """The statistics of a column chunk; what cannot be relied on is None."""
    stats = chunk.statistics if chunk.is_stats_set else None
    if stats is None:
        return ColumnStats(min=None, max=None, null_count=None, rows=rows)
    nulls = stats.null_count if stats.has_null_count else None
    if kind.floats and nulls != rows:
        nulls = None  # NaN counts as null here, and Parquet does not count NaNs
    low = high = None
    if stats.has_min_max and kind.bound is not None:
        try:
            low, high = kind.bound(stats, "min", kind.type), kind.bound(stats, "max", kind.type)
        except (pa.ArrowException, ArithmeticError, AttributeError, TypeError, ValueError):
            low = high = None  # not of the column's type, or out of its range
        if low is None or high is None:
            low = high = None
    return ColumnStats(min=low, max=high, null_count=nulls, rows=rows)


def null_count(chunk: Any) -> int:
    """The nulls of a column chunk (NaN excluded); 0 if their number is unknown."""
    stats = chunk.statistics if chunk.is_stats_set else None
    return int(stats.null_count) if stats is not None and stats.has_null_count else 0


def _integer_bound(stats: Any, side: str, kind: pa.DataType) -> pa.Scalar | None:
    return _from_integer(getattr(stats, f"{side}_raw"), kind) if stats.physical_type in ("INT32", "INT64") else None


def _boolean_bound(stats: Any, side: str, kind: pa.DataType) -> pa.Scalar | None:
    return pa.scalar(getattr(stats, f"{side}_raw"), kind)


def _float_bound(stats: Any, side: str, kind: pa.DataType) -> pa.Scalar | None:
    raw = getattr(stats, f"{side}_raw")
    return None if math.isnan(raw) else pa.scalar(raw, kind)


def _text_bound(stats: Any, side: str, kind: pa.DataType) -> pa.Scalar | None:
    try:
        return pa.scalar(getattr(stats, f"{side}_raw").decode("utf-8"), kind)
    except UnicodeDecodeError:
        return None  # the bound was truncated within a character


def _binary_bound(stats: Any, side: str, kind: pa.DataType) -> pa.Scalar | None:
    return pa.scalar(getattr(stats, f"{side}_raw"), kind) if stats.physical_type == "BYTE_ARRAY" else None


def _decimal_bound(stats: Any, side: str, kind: pa.DataType) -> pa.Scalar | None:
    """From the raw value (pyarrow before 23 makes no decimal of an integer); bytes are big-endian."""
    raw = getattr(stats, f"{side}_raw")
    unscaled = raw if isinstance(raw, int) else int.from_bytes(raw, "big", signed=True)
    return pa.scalar(Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -kind.scale)), kind)


# Makes a scalar of the column's type from a minimum or maximum (`side`); None if it is unknown.
_Bound = Callable[[Any, str, pa.DataType], "pa.Scalar | None"]
_BOUNDS: Sequence[tuple[Callable[[pa.DataType], bool], _Bound]] = (
    *((is_kind, _integer_bound) for is_kind in _KEPT_AS_INTEGERS),
    (pa.types.is_boolean, _boolean_bound),
    (pa.types.is_float32, _float_bound),
    (pa.types.is_float64, _float_bound),
    (pa.types.is_string, _text_bound),
    (pa.types.is_binary, _binary_bound),
    (pa.types.is_decimal128, _decimal_bound),
)


@dataclass(frozen=True)
class StatisticKind:
    """A column's type and the function that gives its bounds; None if they are never known."""

    type: pa.DataType
    floats: bool
    bound: _Bound | None

    @classmethod
    def of(cls, kind: pa.DataType) -> StatisticKind:
        """The kind of a canonical type."""
        return cls(kind, pa.types.is_floating(kind), next((bound for fits, bound in _BOUNDS if fits(kind)), None))


def _from_integer(raw: int, kind: pa.DataType) -> pa.Scalar:
    """Parquet stores small and unsigned integers, dates and times as signed 32 or 64 bits."""
    if pa.types.is_unsigned_integer(kind):
        raw &= (1 << kind.bit_width) - 1
        return pa.scalar(raw, kind)
    if pa.types.is_integer(kind):
        return pa.scalar(raw, kind)
    storage = np.array([raw], np.int32 if kind.bit_width == 32 else np.int64)
    return pa.array(storage).view(kind)[0]
