"""Which component each row of a mixture is of: shares, places, and the ends of components and epochs."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.loading.mixture.draws import EpochDraws
from property_tests import examples

CHUNK = 16_384


@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    rows=st.lists(st.one_of(st.none(), st.integers(0, 60)), min_size=6, max_size=6),
    seed=st.integers(-(2**63), 2**63 - 1),
    data=st.data(),
)
@examples(0.5)
def test_draws_are_those_of_one_row_after_the_other(
    weights: list[float], rows: list[int | None], seed: int, data: st.DataObject
) -> None:
    """Also where a place is found at once. A component without rows left is drawn no more; an epoch ends in time."""
    left = rows[: len(weights)]
    found, places = list[int](), list[int]()
    drawn = EpochDraws((seed, 3), weights, left, 16)
    place = drawn.first
    while len(found) < 400 and (following := drawn.after(place)) is not place:
        places.append(place.row)
        found += drawn.choices(place).tolist()
        place = following
        assert place.row == len(found)
        assert place.drawn == tuple(found.count(number) for number in range(len(left)))
    once = [number for number, count in enumerate(left) if count is not None]
    if len(once) == len(left) or len(found) < 400:
        assert [found.count(number) for number in once] == [left[number] for number in once]
        assert drawn.end == len(found)
        assert not found or found[-1] in once
    again = EpochDraws((seed, 3), weights, left, 16)
    for row in data.draw(st.lists(st.integers(0, max(0, len(found) - 1)), max_size=5)):
        place, within = again.located(row)
        assert not found or again.choices(place)[within] == found[row]


def test_shares_are_those_of_independent_draws() -> None:
    """At the beginning of a chunk as over many chunks; neighbours are independent."""
    weights = [5, 0.25, 2.75, 2]
    drawn = EpochDraws((7, 0), weights, [None] * 4, CHUNK)
    found, place = list[Any](), drawn.first
    for _ in range(40):
        found.append(drawn.choices(place))
        place = drawn.after(place)
    for sample in (np.concatenate(found), np.concatenate([each[:100] for each in found])):
        for number, weight in enumerate(weights):
            share, n = weight / 10, len(sample)
            assert abs((sample == number).sum() - share * n) < 4.5 * math.sqrt(n * share * (1 - share))
    pairs, n = Counter(zip(found[0].tolist(), found[0][1:].tolist(), strict=False)), len(found[0])
    for (one, other), count in pairs.items():
        share = weights[one] * weights[other] / 100
        assert abs(count - share * n) < 6 * math.sqrt(n * share)
    sizes = [int((each == 0).sum()) for each in found]
    assert 0.4 < np.var(sizes) / (CHUNK * 0.25) < 2  # binomial, not the same number in each chunk


def test_draws_are_pinned() -> None:
    drawn = EpochDraws((5, 1), [3, 1], [40, None], 16)
    assert drawn.choices(drawn.first).tolist() == PINNED
    assert EpochDraws((5, 2), [3, 1], [40, None], 16).choices(drawn.first).tolist() != PINNED


PINNED = [0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
