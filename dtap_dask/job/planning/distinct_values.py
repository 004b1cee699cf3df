"""Estimates the distinct values of all rows from how often each value occurs in some of them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def expected_distinct(tally: npt.NDArray[np.int64], rows: float, all_rows: float) -> int:
    """The number of distinct values expected in `all_rows` rows, `rows` of which held value i `tally[i]` times.

    Efron and Thisted, "Estimating the number of unseen species" (Biometrika 63, 1976): the rates of the values are
    assumed to be gamma distributed, and the two parameters follow from how many values occurred once, twice and three
    times. That fits vocabularies that are soon complete, values that never repeat, and the long tails in between.
    `tally` has shape [n]; the result is at least n and at most `all_rows`.
    """
    seen = len(tally)
    once, twice, thrice = map(int, np.bincount(np.minimum(tally, 4), minlength=4)[1:4])
    more = all_rows / rows - 1 if rows > 0 else 0.0
    if not once or more <= 0:
        return seen
    found: float = seen + once * _growth(2 * twice / once, 3 * thrice / twice if twice else 0.0, more)
    return round(min(found, max(seen, all_rows)))


def _growth(second: float, third: float, more: float) -> float:
    """New values in `more` times the rows per value that occurred once; `second` is (1 + a) g, `third` (2 + a) g.

    `a` is the shape of the gamma distribution; g = 0 means that all values are equally frequent.
    """
    spread = min(third - second, 1.0)
    if second <= 0:
        return more  # no value occurred twice: as far as can be seen, they never repeat
    if spread < 1e-6:
        return -math.expm1(-second * more) / second
    shape = second / spread - 1
    if abs(shape) < 1e-6:
        return math.log1p(spread * more) / spread
    return -math.expm1(-shape * math.log1p(spread * more)) / (spread * shape)
