"""Splits and samples by hash: intervals, independence, stability."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.lake.hashing import key_hash
from dtap_dask.lake.split import by_fraction, by_predicate, in_sample, to_unit, upper_bounds
from dtap_dask.lake.sql.expression import compile_sql

PARTS = (0.8, 0.1, 0.1)
HASHES = key_hash([("id", pa.array(np.arange(200_000)))])


def test_unit_interval_is_half_open():
    edges = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    unit = to_unit(edges)
    assert unit[0] == 0
    assert unit[2] == 0.5
    assert unit[3] < 1


def test_bounds_are_the_written_decimals():
    assert upper_bounds((0.8, 0.1, 0.1)).tolist() == [0.8, 0.9, 1.0]
    assert upper_bounds((0.1, 0.2, 0.7)).tolist() == [0.1, 0.3, 1.0]
    assert upper_bounds((1.0,)).tolist() == [1.0]


def test_pinned_assignment():
    """Whoever changes this moves rows of finished datasets from training to evaluation."""
    ids = by_fraction(key_hash([("id", pa.array(range(1, 41)))]), PARTS)
    assert "".join(map(str, ids)) == "0000000000000000000000200000001200020210"
    letters = by_fraction(key_hash([("id", pa.array(list("abcdefghijklmnopqrst")))]), PARTS)
    assert "".join(map(str, letters)) == "00001201020011001000"


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_every_row_is_in_the_interval_of_its_part(weights, hashes):
    fractions = [weight / sum(weights) for weight in weights]
    h = np.array(hashes, np.uint64)
    bounds = [0.0, *upper_bounds(fractions)]
    for part, u in zip(by_fraction(h, fractions), to_unit(h), strict=True):
        assert bounds[part] <= u < bounds[part + 1]


def test_an_empty_part_gets_nothing():
    assert set(by_fraction(HASHES, (0.5, 0.0, 0.5)).tolist()) == {0, 2}


def test_shares_come_out_as_asked():
    counts = np.bincount(by_fraction(HASHES, PARTS), minlength=3) / len(HASHES)
    assert counts == pytest.approx(PARTS, abs=0.004)


def test_sample_is_independent_of_the_split():
    sampled = in_sample(HASHES, 0.1)
    assert sampled.mean() == pytest.approx(0.1, abs=0.003)
    counts = np.bincount(by_fraction(HASHES[sampled], PARTS), minlength=3) / sampled.sum()
    assert counts == pytest.approx(PARTS, abs=0.01)
    assert not in_sample(HASHES, 0.0).any()
    assert in_sample(HASHES, 1.0).all()


def test_a_larger_sample_holds_the_smaller():
    assert in_sample(HASHES, 0.3)[in_sample(HASHES, 0.1)].all()


def test_first_matching_predicate_wins():
    rows = pa.record_batch({"month": pa.array([1, 5, 9, None, 12], pa.int32())})
    predicates = [compile_sql(sql, rows.schema) for sql in ("month <= 4", "month < 10")]
    assert by_predicate(rows, predicates).tolist() == [0, 1, 1, -1, -1]


@pytest.mark.parametrize("count", [128, 129, 300])
def test_many_parts_keep_their_rows(count):
    shares = by_fraction(HASHES, [1 / count] * count)
    assert set(shares.tolist()) == set(range(count))
    rows = pa.record_batch({"x": pa.array(range(count))})
    predicates = [compile_sql(f"x = {index}", rows.schema) for index in range(count)]
    assert by_predicate(rows, predicates).tolist() == list(range(count))
