"""How many distinct values all rows will hold, from how often each came in some of them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def expected_distinct(tally: npt.NDArray[np.int64], rows: float, all_rows: float) -> int:
    """The distinct values to be expected of `all_rows` rows, of which `rows` held `tally[i]` times the value i.

    Efron and Thisted, "Estimating the number of unseen species" (Biometrika 63, 1976): the rates of the values are
    taken to be gamma distributed, and the two parameters follow from how many values came once, twice and three times.
    That fits vocabularies that are soon complete, values that never repeat, and the long tails between. Shape [n] of
    `tally`; never fewer than n, never more than `all_rows`.
    """
    seen = len(tally)
    once, twice, thrice = map(int, np.bincount(np.minimum(tally, 4), minlength=4)[1:4])
    more = all_rows / rows - 1 if rows > 0 else 0.0
    if not once or more <= 0:
        return seen
    found: float = seen + once * _growth(2 * twice / once, 3 * thrice / twice if twice else 0.0, more)
    return round(min(found, max(seen, all_rows)))


def _growth(second: float, third: float, more: float) -> float:
    """New values in `more` times the rows, for each value that came once; `second` is (1 + a) g, `third` (2 + a) g.

    `a` is the shape of the gamma distribution; g = 0 stands for values that are all as frequent.
    """
    spread = min(third - second, 1.0)
    if second <= 0:
        return more  # none came twice: they never repeat, as far as one can see
    if spread < 1e-6:
        return -math.expm1(-second * more) / second
    shape = second / spread - 1
    if abs(shape) < 1e-6:
        return math.log1p(spread * more) / spread
    return -math.expm1(-shape * math.log1p(spread * more)) / (spread * shape)
