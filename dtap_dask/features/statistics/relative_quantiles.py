"""A summary of a column's distribution that keeps its tails, for moments of functions of the values."""

from __future__ import annotations

import numpy as np

from dtap_dask.features.statistics.quantiles import Quantiles, Summary

TAIL = 256
"""How many values at either end a summary keeps as they are."""


class RelativeQuantiles(Quantiles):
    """As Quantiles, but with runs that are the shorter the nearer they are to the smallest or the largest value.

    A run whose values are r places from the nearer end has about r / TAIL values, at least one, and becomes their
    mean. A summary of n values has some 2 * TAIL * (1 + ln(n / (2 * TAIL))) points: 7,900 of 1,000,000,000. Compare the
    scale functions of t-digests (Dunning and Ertl, 2019).
    """

    @staticmethod
    def compressed(summary: Summary) -> Summary:
        ends = np.cumsum(summary.weights)
        middles = ends - summary.weights / 2
        places = np.minimum(middles, ends[-1] - middles)  # from the nearer end
        runs = np.floor(np.where(places < TAIL, places, TAIL + TAIL * np.log(np.maximum(places, TAIL) / TAIL)))
        runs = np.where(places < middles, -1 - runs, runs)
        first = np.flatnonzero(np.concatenate(([True], runs[1:] != runs[:-1])))
        weights = np.add.reduceat(summary.weights, first)
        shares = summary.weights / np.repeat(weights, np.diff(np.append(first, len(runs))))
        return Summary(np.add.reduceat(summary.points * shares, first), weights, summary.level + 1)
