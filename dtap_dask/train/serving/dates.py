"""The twin of datetime_parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.dates import PARTS, DatetimeParts
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.zones import CYCLE, Zone, zone
from dtap_dask.lake.schema import MICROSECONDS
from dtap_dask.train.serving import calendar
from dtap_dask.train.serving.tensors import NumberTensor, Tensor, TensorBound, TensorColumn

_DAY = 86_400


def _is_weekend(days: Tensor) -> Tensor:
    return tf.cast(calendar.weekday(days) >= 5, tf.int64)


_OF_DAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "year": calendar.year_of,
    "month": calendar.month_of,
    "day": calendar.day_of,
    "weekday": calendar.weekday,
    "day_of_year": calendar.day_of_year,
    "week": calendar.iso_week,
    "is_weekend": _is_weekend,
}
_OF_SECONDS: dict[str, Callable[[Tensor], Tensor]] = {
    "hour": lambda seconds: seconds // 3600 % 24,
    "minute": lambda seconds: seconds // 60 % 60,
}


def offsets_at(clock: Zone, seconds: Tensor) -> Tensor:
    """The offset of a zone at each instant; its changes are constants of the graph."""
    cycles = tf.maximum((seconds - clock.end) // CYCLE + 1, 0)
    place = tf.searchsorted(tf.constant(clock.changes), seconds - cycles * CYCLE, side="right")
    return tf.gather(tf.constant(clock.offsets), place)


def datetime_parts(step: DatetimeParts, fitted: Fitted, value: Value) -> TensorBound:
    """One part of times, or its sine or cosine; times beyond 64 bits of microseconds are an InvalidArgumentError."""
    [part] = step.extract
    factor = MICROSECONDS[step.unit or "us"]
    most = int(np.iinfo(np.int64).max) // factor
    clock = zone(step.zone) if step.zone is not None else None

    def apply(column: TensorColumn) -> TensorColumn:
        assert isinstance(column, NumberTensor)
        values, null = column.values, column.null
        if null is not None:
            values = tf.where(null, tf.zeros_like(values), values)
        if factor > 1:
            fit = tf.reduce_all((values <= most) & (values >= -most - 1))
            what = f"column {', '.join(value.columns)!r}, step datetime_parts: times beyond 64 bits of microseconds"
            tf.debugging.Assert(fit, [tf.constant(what)])
        seconds = values // (1_000_000 // factor)
        if clock is not None:
            seconds += offsets_at(clock, seconds)
        found = _OF_SECONDS[part](seconds) if part in _OF_SECONDS else _OF_DAYS[part](seconds // _DAY)
        if not step.cyclic:
            return NumberTensor(found, null)
        wave = tf.gather(tf.constant(step.wave, tf.float64), found - PARTS[part].first)
        return NumberTensor(wave if null is None else tf.where(null, tf.constant(np.nan, tf.float64), wave))

    return apply
