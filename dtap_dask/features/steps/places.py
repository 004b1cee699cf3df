"""Operations on one value applied to each place of vectors, as scikit-learn's transformers of a 2-D array.

An operation with `on_places` is given the type of one place, and learns from each place alone: its fitted numbers are
tuples with an entry for each. It is applied to all places in one call, with these as arrays [k] beside values [n, k].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dtap_dask.features.statistics.places import PlacesStatistic
from dtap_dask.features.statistics.statistic import ColumnStatistic
from dtap_dask.features.steps.operation import ErrorContext, Fitted, Inverse, Operation, StatisticSpec
from dtap_dask.features.steps.valuetype import ValueType


def placed(operation: Operation, given: ValueType) -> bool:
    """Whether an operation is applied to each place of such an input."""
    return given.width is not None and operation.on_places


def place_type(given: ValueType) -> ValueType:
    """The type of one place of vectors."""
    return replace(given, width=None)


def statistic_of(operation: Operation, given: ValueType) -> StatisticSpec | None:
    """The statistic that an operation is fitted from, for a first input of this type."""
    spec = operation.statistic
    if spec is None or not placed(operation, given):
        return spec
    assert issubclass(spec.kind, ColumnStatistic)
    return StatisticSpec(PlacesStatistic, (spec.kind,))


def learnt(operation: Operation, given: ValueType, known: Fitted, statistic: Any, context: ErrorContext) -> Fitted:
    """What an operation learns from its statistic, for a first input of this type. DataError if there is nothing."""
    if not placed(operation, given):
        return operation.fit_further(known, statistic, context)
    places = statistic.places or [statistic.kind()]  # without a row there is nothing to learn
    return together([operation.fit(one, at_place(context, at)) for at, one in enumerate(places)])


def together(places: Sequence[Fitted]) -> Fitted:
    """What was learnt from each place as one: tuples with an entry for each."""
    return {name: tuple(one[name] for one in places) for name in places[0]}


def at_place(context: ErrorContext, at: int) -> ErrorContext:
    """The context of messages about one place."""
    return replace(context, step=f"{context.step} (place {at}, counted from 0)")


def as_arrays(fitted: Fitted) -> Fitted:
    """The fitted numbers of all places as arrays [k]."""
    return {name: np.asarray(value) if isinstance(value, tuple) else value for name, value in fitted.items()}


def inverse_of(operation: Operation, fitted: Fitted, given: ValueType) -> Inverse | None:
    """What undoes an operation whose first input is of this type; None if nothing does."""
    return operation.inverse(as_arrays(fitted) if placed(operation, given) else fitted)
