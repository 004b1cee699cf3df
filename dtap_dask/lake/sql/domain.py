"""Statistics of a column and possible values of an expression in a chunk of rows; possible outcomes of comparisons."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.lake.sql.kernels.casts import cast
from dtap_dask.lake.sql.types import family, plain_type

Truth = frozenset[bool | None]
_TEMPORAL = (pa.Date32Scalar, pa.Date64Scalar, pa.TimestampScalar, pa.Time32Scalar, pa.Time64Scalar)
_FLOATS = (pa.HalfFloatScalar, pa.FloatScalar, pa.DoubleScalar)
_EXACT = frozenset(("bool", "int", "decimal", "date", "timestamp", "time"))


@dataclass(frozen=True)
class ColumnStats:
    """Statistics of a column in a chunk of `rows` rows: bounds of its values and the number of nulls; None is unknown.

    `exact`: whether min and max occur as values, as for partition columns.
    """

    min: pa.Scalar | None
    max: pa.Scalar | None
    null_count: int | None
    rows: int
    exact: bool = False


@dataclass(frozen=True)
class Domain:
    """Possible values: within [low, high] (None: unbounded); whether there may be `nulls` and `values` at all.

    `exact`: see ColumnStats.
    """

    low: pa.Scalar | None = None
    high: pa.Scalar | None = None
    nulls: bool = True
    values: bool = True
    exact: bool = False

    @cached_property
    def bounds(self) -> tuple[Any, Any]:
        """`order_key` of low and high."""
        return order_key(self.low), order_key(self.high)

    @property
    def single(self) -> bool:
        """Whether all values are equal."""
        low, high = self.bounds
        return self.exact and low is not None and low == high


def order_key(value: pa.Scalar | None) -> Any:
    """A Python value that is ordered as the scalar is in SQL."""
    if value is None or not value.is_valid:
        return None
    return value.value if isinstance(value, _TEMPORAL) else value.as_py()


def from_stats(dtype: pa.DataType, stats: ColumnStats) -> Domain:
    """The possible values of a column of plain type `dtype`."""
    low, high = (_bound(value, dtype) for value in (stats.min, stats.max))
    floats = family(dtype) == "float"
    some_null = stats.null_count is None or stats.null_count > 0 or (floats and not stats.exact)
    all_null = stats.null_count is not None and stats.null_count >= stats.rows
    domain = Domain(low, high, some_null, not all_null, stats.exact or family(dtype) in _EXACT)
    if low is not None and high is not None and operator.gt(*domain.bounds):
        return replace(domain, low=None, high=None)
    return domain


def _bound(value: pa.Scalar | None, dtype: pa.DataType) -> pa.Scalar | None:
    """A bound as a scalar of the column's type; None if it is unknown, NaN, or not exactly representable."""
    if value is None or not value.is_valid:
        return None
    try:
        if value.type == dtype:
            return _usable(value)
        plain = pc.cast(pa.array([value.as_py()], value.type), plain_type(value.type))
        bound = cast(plain, dtype)
        return _usable(bound[0]) if cast(bound, plain.type) == plain else None
    except (DataError, pa.ArrowException, UnicodeDecodeError):
        return None


def _usable(bound: pa.Scalar) -> pa.Scalar | None:
    """The bound, None if it is null or NaN."""
    if not bound.is_valid or (isinstance(bound, _FLOATS) and math.isnan(bound.as_py())):
        return None
    return bound


def within(key: Any, low: Any, high: Any) -> bool:
    """Whether a key is in [low, high]; None is unbounded."""
    return (low is None or low <= key) and (high is None or key <= high)


def order(op: str, left: Domain, right: Domain) -> Truth:
    """Possible outcomes of comparing a value of `left` with a value of `right`, neither null."""
    (a, b), (c, d) = left.bounds, right.bounds
    falls_below = a is None or d is None or a < d  # some left < some right
    rises_above = b is None or c is None or b > c
    meets = (a is None or d is None or a <= d) and (b is None or c is None or c <= b)
    differs = not (left.single and right.single and a == c)
    above_or_meets, below_or_meets = b is None or c is None or b >= c, a is None or d is None or a <= d
    possible = {
        "=": (meets, differs),
        "<>": (differs, meets),
        "distinct": (differs, meets),
        "<": (falls_below, above_or_meets),
        "<=": (below_or_meets, rises_above),
        ">": (rises_above, below_or_meets),
        ">=": (above_or_meets, falls_below),
    }[op]
    return frozenset(outcome for outcome, can in zip((True, False), possible, strict=True) if can)


def hull(parts: Iterable[Domain]) -> Domain:
    """The domain of a value that is in one of `parts`."""
    parts = list(parts)
    nulls = any(part.nulls for part in parts)
    parts = [part for part in parts if part.values]
    if not parts:
        return Domain(nulls=nulls, values=False)
    known = all(part.low is not None and part.high is not None for part in parts)
    if not known:
        return Domain(nulls=nulls)
    low = min(parts, key=lambda part: part.bounds[0]).low
    return Domain(low, max(parts, key=lambda part: part.bounds[1]).high, nulls)
