"""CAST and TRY_CAST, with the rounding and the limits of lake.sql.kernels.casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from dtap_dask.lake.sql.kernels.calendar import PER_DAY
from dtap_dask.lake.sql.types import Family, family
from dtap_dask.train.serving.sql import parsing_times
from dtap_dask.train.serving.sql.arithmetic import beyond, times
from dtap_dask.train.serving.sql.moments import days
from dtap_dask.train.serving.sql.numbers import cut, rounded_counts
from dtap_dask.train.serving.sql.parsing import boolean, floating, whole_number
from dtap_dask.train.serving.sql.spelling import to_text
from dtap_dask.train.serving.sql.tensor import SqlTensor, any_of, dtype_of, unless
from dtap_dask.train.serving.tensors import Tensor, fixed

CastTwin = Callable[[SqlTensor, pa.DataType], Any]
"""The values, or these and where they do not fit, or also where this cannot be decided here."""

_EXACT_DIGITS = 15  # of whole numbers that are doubles
_BELOW_HALF = float(np.nextafter(0.5, 0))


def cast(given: SqlTensor, target: pa.DataType, *, lenient: bool = False) -> SqlTensor:
    """`given` as `target`; values that do not fit are null if `lenient`, else bad."""
    if given.type == target:
        return given
    if family(given.type) == "null":
        return given.but(type=target, values=tf.zeros_like(given.values, dtype_of(target)))
    wide = pa.types.is_decimal256(target)  # only of decimals that are compared
    made = RULES[family(given.type), "decimal" if wide else family(target)](given, target)
    values, wrong, unknown = (*made, None, None)[:3] if isinstance(made, tuple) else (made, None, None)
    wrong, unknown = unless(wrong, given.null), unless(unknown, given.null)
    null = given.null
    if pa.types.is_floating(target):
        null = any_of(null, tf.math.is_nan(values))
    if lenient:
        return SqlTensor(target, values, any_of(null, wrong), any_of(given.bad, unknown))
    return SqlTensor(target, values, null, any_of(given.bad, wrong, unknown))


def _limits(target: pa.DataType) -> tuple[int, int]:
    """The least and the largest integer of a type."""
    limits = np.iinfo(str(target))
    return int(limits.min), int(limits.max)


def _int_to_int(given: SqlTensor, target: pa.DataType) -> Any:
    low, high = _limits(target)
    return given.values, None if target == pa.int64() else (given.values < low) | (given.values > high)


def _float_to_int(given: SqlTensor, target: pa.DataType) -> Any:
    low, high = _limits(target)
    rounded = tf.round(given.values)
    wrong = ~((rounded >= float(low)) & (rounded < float(high + 1)))
    return tf.cast(tf.where(wrong, tf.zeros_like(rounded), rounded), tf.int64), wrong


def _decimal_to_int(given: SqlTensor, target: pa.DataType) -> Any:
    counts = rounded_counts(given.values, given.type.scale, "half")
    low, high = _limits(target)
    return counts, (counts < low) | (counts > high)


def _float_to_float(given: SqlTensor, target: pa.DataType) -> Any:
    values = tf.cast(given.values, dtype_of(target))
    return values, tf.math.is_inf(values) & tf.math.is_finite(given.values)


def _to_decimal(values: Tensor, scale: int, target: pa.DataType) -> Any:
    """Counts of the digits of `target`; those that need more than 64 bits cannot be held here."""
    up = target.scale - scale
    counts, over = times(values, 10**up) if up >= 0 else (rounded_counts(values, -up, "half"), None)
    if target.precision > 18:
        return counts, None, over
    return counts, any_of(over, beyond(counts, target.precision))


def _float_to_decimal(given: SqlTensor, target: pa.DataType) -> Any:
    product = tf.cast(given.values, tf.float64) * fixed(10.0**target.scale)
    half = fixed(_BELOW_HALF)
    counts = cut(product + tf.where(product < 0, -half, half))
    wrong = ~(tf.abs(counts) < 10.0**target.precision)
    large = ~wrong & (tf.abs(counts) >= 2.0**63)
    return tf.cast(tf.where(wrong | large, tf.zeros_like(counts), counts), tf.int64), wrong, large


def _decimal_to_float(given: SqlTensor, target: pa.DataType) -> Any:
    """The nearest float: dividing two exact doubles rounds once; for others by the text."""
    if given.type.precision <= _EXACT_DIGITS and pa.types.is_float64(target):
        return tf.cast(given.values, tf.float64) / fixed(10.0**given.type.scale)
    text, wrong = to_text(given)
    text = text if wrong is None else tf.where(wrong, tf.constant("0"), text)
    return tf.strings.to_number(text, dtype_of(target)), None, wrong


def _text(given: SqlTensor, target: pa.DataType) -> Any:
    return to_text(given)


def _to_stamp(given: SqlTensor, target: pa.DataType) -> Any:
    """Another unit, rounded half away from 1970."""
    return _in_unit(given.values, given.type.unit, target.unit)


def _in_unit(values: Tensor, source: str, target: str) -> Any:
    ratio = PER_DAY[source] // PER_DAY[target]
    if ratio > 1:
        halves = tf.truncatediv(values, tf.constant(ratio // 2, tf.int64))
        return tf.truncatediv(halves + tf.sign(halves), tf.constant(2, tf.int64)), None
    return times(values, PER_DAY[target] // PER_DAY[source])


def _date_to_stamp(given: SqlTensor, target: pa.DataType) -> Any:
    return times(given.values, PER_DAY[target.unit])


def _stamp_to_date(given: SqlTensor, target: pa.DataType) -> Any:
    micros, wrong = _in_unit(given.values, given.type.unit, "us")
    return days(SqlTensor(pa.timestamp("us"), micros)), wrong


def _stamp_to_time(given: SqlTensor, target: pa.DataType) -> Any:
    micros, wrong = _in_unit(given.values, given.type.unit, "us")
    time = micros % PER_DAY["us"]
    if target.unit == "ns":
        return time * 1000, wrong
    return time // (PER_DAY["us"] // PER_DAY[target.unit]), wrong


def _time_to_time(given: SqlTensor, target: pa.DataType) -> Any:
    have, want = PER_DAY[given.type.unit], PER_DAY[target.unit]
    if want >= have:
        return given.values * (want // have)
    return given.values // (have // want), given.values % (have // want) != 0


RULES: dict[tuple[Family, Family], CastTwin] = {
    **{(kind, "text"): _text for kind in ("bool", "int", "decimal", "date", "timestamp", "time")},
    ("bool", "int"): lambda given, _: tf.cast(given.values, tf.int64),
    ("bool", "float"): lambda given, target: tf.cast(given.values, dtype_of(target)),
    ("bool", "decimal"): lambda given, target: _to_decimal(tf.cast(given.values, tf.int64), 0, target),
    ("int", "bool"): lambda given, _: given.values != 0,
    ("int", "int"): _int_to_int,
    ("int", "float"): lambda given, target: tf.cast(given.values, dtype_of(target)),
    ("int", "decimal"): lambda given, target: _to_decimal(given.values, 0, target),
    ("float", "bool"): lambda given, _: given.values != 0,
    ("float", "int"): _float_to_int,
    ("float", "float"): _float_to_float,
    ("float", "decimal"): _float_to_decimal,
    ("decimal", "bool"): lambda given, _: given.values != 0,
    ("decimal", "int"): _decimal_to_int,
    ("decimal", "float"): _decimal_to_float,
    ("decimal", "decimal"): lambda given, target: _to_decimal(given.values, given.type.scale, target),
    ("text", "bool"): lambda given, _: boolean(given.values),
    ("text", "int"): lambda given, target: whole_number(given.values, *_limits(target)),
    ("text", "float"): lambda given, target: floating(given.values, dtype_of(target)),
    ("text", "date"): lambda given, _: parsing_times.date(given.values),
    ("text", "timestamp"): lambda given, target: parsing_times.timestamp(given.values, target),
    ("text", "time"): lambda given, target: parsing_times.time_of_day(given.values, target),
    ("date", "date"): lambda given, _: given.values,
    ("date", "timestamp"): _date_to_stamp,
    ("timestamp", "date"): _stamp_to_date,
    ("timestamp", "timestamp"): _to_stamp,
    ("timestamp", "time"): _stamp_to_time,
    ("time", "time"): _time_to_time,
}
"""The casts between families of types; the others are refused by lake.sql.serving."""
