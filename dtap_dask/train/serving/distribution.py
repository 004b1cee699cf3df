"""The twins of steps that scale by a column's distribution."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from dtap_dask.features.columns.column import Floats
from dtap_dask.features.graph.value import Value
from dtap_dask.features.steps.distribution import TAIL, QuantileTransform, RobustScale, normal_ends
from dtap_dask.features.steps.operation import Fitted
from dtap_dask.features.steps.scale import EPSILON
from dtap_dask.features.steps.yeo_johnson import PowerTransform
from dtap_dask.train.serving.tensors import NumberTensor, Tensor, TensorBound, TensorColumn, fixed, floats, refuse


def robust_scale(step: RobustScale, fitted: Fitted, value: Value) -> TensorBound:
    """(x - center_) / scale_."""
    center, scale = fitted.get("center_", 0.0), fitted.get("scale_", 1.0)
    return lambda column: NumberTensor((floats(column) - fixed(center)) / fixed(scale))


def quantile_transform(step: QuantileTransform, fitted: Fitted, value: Value) -> TensorBound:
    """The place among the quantiles, or its normal score: see QuantileTransform."""
    quantiles = np.array(fitted["quantiles_"], np.float64)

    def apply(column: TensorColumn) -> TensorColumn:
        given = floats(column)
        refuse(tf.math.is_inf(given), value, "an infinite value")
        null = tf.math.is_nan(given)
        values = tf.where(null, tf.zeros_like(given), given)
        made = _shares(values, quantiles)
        if step.output_distribution == "normal":
            made = _normal_scores(values, made, quantiles)
        return NumberTensor(tf.where(null, given, made))

    return apply


def power_transform(step: PowerTransform, fitted: Fitted, value: Value) -> TensorBound:
    """The power of Yeo and Johnson, see PowerTransform; then (x - mean_) / scale_."""
    power, mean, scale = fitted["lambdas_"], fitted.get("mean_", 0.0), fitted.get("scale_", 1.0)

    def apply(column: TensorColumn) -> TensorColumn:
        given = floats(column)
        refuse(tf.math.is_inf(given), value, "an infinite value")
        growth = tf.math.log1p(tf.abs(given))
        made = tf.where(given < 0, -_grown(growth, 2 - power), _grown(growth, power))
        return NumberTensor((made - fixed(mean)) / fixed(scale))

    return apply


def _grown(growth: Tensor, power: float) -> Tensor:
    """(e^(growth * power) - 1) / power."""
    return growth if abs(power) < EPSILON else tf.math.expm1(growth * fixed(power)) / fixed(power)


def _shares(values: Tensor, quantiles: Floats) -> Tensor:
    """Where values are among rising quantiles, 0 to 1: in the middle of equal ones, between others linearly."""
    last, among = len(quantiles) - 1, fixed(quantiles)
    above = tf.minimum(tf.searchsorted(among, values, side="left"), last)
    below = tf.maximum(tf.searchsorted(among, values, side="right") - 1, 0)
    low, high = tf.gather(among, below), tf.gather(among, above)
    between = high > low
    inner = tf.minimum(tf.maximum(values, low), tf.maximum(low, high))
    share = (inner - low) / tf.where(between, high - low, tf.ones_like(low))
    first, after = tf.cast(below, tf.float64), tf.cast(above, tf.float64)
    places = tf.where(between, first + share, (first + after) / 2)
    ends = tf.where(values >= quantiles[-1], tf.fill(tf.shape(values), fixed(float(last))), places)
    return tf.where(values <= quantiles[0], tf.zeros_like(values), ends) / max(last, 1)


def _normal_scores(values: Tensor, shares: Tensor, quantiles: Floats) -> Tensor:
    """The normal scores of shares; of values within TAIL of an end the score of that end."""
    low, high = normal_ends()
    shares = tf.where(values + TAIL > quantiles[-1], tf.ones_like(shares), shares)
    shares = tf.where(values - TAIL < quantiles[0], tf.zeros_like(shares), shares)
    return tf.clip_by_value(tf.math.ndtri(shares), fixed(low), fixed(high))
