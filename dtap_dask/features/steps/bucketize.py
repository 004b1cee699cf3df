"""Buckets of numbers, as numpy.digitize and scikit-learn's KBinsDiscretizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from dtap_dask.features.columns.column import Array, Column, Numbers, numbers, offsets_of
from dtap_dask.features.statistics.quantiles import Quantiles
from dtap_dask.features.steps.keyed import ByRow, Keyable
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    StatisticSpec,
    is_finite,
    narrow,
    need_values,
    refuse_infinities,
)
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe


class Bucketize(Keyable):
    """The number of boundaries that are not above the value: 0..len(boundaries).

    Give `boundaries`, or `quantiles`, the number of buckets of nearly equal count; equal boundaries become one.
    Nulls stay null. Fitted: `boundaries_`.
    """

    name: ClassVar[str] = "bucketize"
    on_elements: ClassVar[bool] = True
    on_places: ClassVar[bool] = True
    makes_ids: ClassVar[bool] = True

    boundaries: Annotated[tuple[int | float, ...], Field(min_length=1)] | None = None
    quantiles: Annotated[int, Field(ge=2, le=4096)] | None = None

    @field_validator("boundaries")
    @classmethod
    def _as_floats(cls, found: tuple[float, ...] | None) -> tuple[float, ...] | None:
        """Floats, but for integers that no float is equal to."""
        return found and tuple(float(one) if is_finite(one) and float(one) == one else one for one in found)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.boundaries is None) == (self.quantiles is None):
            raise ValueError("needs either `boundaries` or `quantiles`")
        bounds = self.boundaries or ()
        if not all(map(is_finite, bounds)) or any(a >= b for a, b in pairwise(bounds)):
            raise ValueError("`boundaries` must be finite and rise")
        if self.boundaries and self.by is not None:
            raise ValueError("`by` goes with `quantiles`: `boundaries` are the same for all keys")
        return self

    def check_input(self, given: ValueType) -> None:
        if given.width is not None and self.quantiles:
            raise Unfit(f"bucketize of {describe(given)} needs `boundaries`, which are the same for all of its places.")

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.number_only(given)
        return given.become("int", ids=True)

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(Quantiles) if self.quantiles else None

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        need_values(statistic, context, "give `boundaries`, or impute a constant first")
        buckets = self.quantiles or 0
        inner = statistic.quantiles(np.arange(1, buckets) / buckets)
        return {"boundaries_": tuple(np.unique(inner).tolist()), "n_samples_seen_": statistic.count}

    def _boundaries(self, fitted: Fitted) -> tuple[float, ...]:
        return self.boundaries or fitted["boundaries_"]

    @property
    def planned_ids(self) -> int | None:
        return len(self.boundaries) + 1 if self.boundaries else None

    def ids(self, fitted: Fitted) -> int | None:
        return len(self._boundaries(fitted)) + 1

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        fitted = {"boundaries_": (0.0,) * ((self.quantiles or 1) - 1)}
        return fitted, fitted

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        bounds = self._boundaries(fitted)
        boundaries = np.array(bounds, np.float64)
        dtype = np.dtype(narrow(len(boundaries)))

        def apply(column: Column) -> Column:
            given = numbers(column)
            if given.values.dtype.kind in "iu":
                return Numbers(_exactly(given.values, bounds).astype(dtype), given.valid)
            values = given.floats()
            valid = None
            if not np.isfinite(values).all():
                refuse_infinities(values, context)
                nulls = Numbers(values).nulls()
                valid = None if nulls is None else ~nulls
            return Numbers(np.searchsorted(boundaries, values, side="right").astype(dtype), valid)

        return apply

    def bind_by_row(self, tables: Mapping[str, pa.Array], context: ErrorContext) -> ByRow:
        bounds = KeyBoundaries.of(tables["boundaries_"])
        among_all = self.bind({"boundaries_": bounds.distinct}, context)
        dtype = np.dtype(narrow(bounds.most))

        def apply(column: Column, places: Array) -> Column:
            found = numbers(among_all(column))
            passed = np.searchsorted(bounds.order, places * bounds.step + found.values, side="right")
            return Numbers((passed - bounds.starts[places]).astype(dtype), found.valid)

        return apply


@dataclass(frozen=True)
class KeyBoundaries:
    """The boundaries of all keys in one rising array, so that one search finds the bucket of each row.

    `distinct` are those of all keys together, and `order` says of each boundary of each key which key it is of and how
    many of `distinct` are not above it: place of the key * `step` + this number, int64. `starts` is where each key's
    begin in `order`, int64 [keys + 1].
    """

    distinct: tuple[float, ...]
    order: Array
    starts: Array

    @classmethod
    def of(cls, table: pa.Array) -> KeyBoundaries:
        """Of a list of rising floats for each key."""
        bounds, lengths = table.flatten().to_numpy(), pc.list_value_length(table).to_numpy()
        distinct, places = np.unique(bounds, return_inverse=True)
        keys = np.repeat(np.arange(len(lengths)), lengths)
        return cls(tuple(distinct.tolist()), keys * (len(distinct) + 1) + places + 1, offsets_of(lengths))

    @property
    def step(self) -> int:
        """The distance of two keys in `order`."""
        return len(self.distinct) + 1

    @property
    def most(self) -> int:
        """The largest number of boundaries of a key."""
        return int(np.diff(self.starts).max())


def _exactly(values: Array, bounds: Sequence[float]) -> Array:
    """The buckets of integers, shape [n]: float64 does not tell those beyond 2^53 apart."""
    wide = np.dtype(np.uint64 if values.dtype == np.uint64 else np.int64)
    limits = np.iinfo(wide)
    whole = [math.ceil(bound) for bound in bounds]
    below = sum(bound < limits.min for bound in whole)
    within = np.array([bound for bound in whole if limits.min <= bound <= limits.max], wide)
    return np.asarray(np.searchsorted(within, values.astype(wide, copy=False), side="right") + below)
