"""What scalers learn from the smallest and the largest value, of columns and of the rows of each key alike."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dtap_dask.features.statistics.statistic import Extremes
from dtap_dask.features.steps.scale import is_constant


def extremes(count: int, low: float, high: float) -> Extremes:
    """The statistic of that many values from `low` to `high`."""
    found = Extremes()
    found.count, found.smallest, found.largest = count, low, high
    return found


def with_constants(own: Mapping[str, float], low: float, high: float) -> dict[str, float]:
    """What a StandardScaler has learnt of values from `low` to `high`, with the constants of `standard_scale`:
    dask-ml scales by the rounding of a variance, scikit-learn takes the larger a spread for rounding the more rows
    there are, and to both the mean of equal values may be another number."""
    found = dict(own)
    if low == high:
        found |= {name: value for name, value in (("mean_", low), ("var_", 0.0)) if name in own}
    if "var_" in found:
        constant = is_constant(found["var_"], max(abs(low), abs(high)))
        found["scale_"] = 1.0 if constant else math.sqrt(found["var_"])
    return found
