"""Buckets are numpy.digitize's; quantiles keep their promised rank error however many parts are merged."""

from __future__ import annotations

import pickle
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import KBinsDiscretizer

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.columns.column import Numbers
from dtap_dask.features.statistics.quantiles import POINTS, Quantiles
from dtap_dask.features.statistics.sample import Sample
from fitting import fit_batches

finite = st.floats(-1e300, 1e300)


def run(values, options):
    rows = pa.record_batch({"x": values})
    graph = build([FeatureSpec("x", "feature", ("x",), (parse_step("bucketize", options),))], rows.schema)
    transform = Transform(fit_batches(graph, [rows]))
    return transform.infos[0], transform.apply(rows)["x"]


@given(
    hnp.arrays(np.float64, st.integers(0, 50), elements=finite), st.lists(finite, min_size=1, max_size=9, unique=True)
)
def test_boundaries_are_numpy_digitize(values, bounds):
    bounds = sorted(bounds)
    info, out = run(values, {"boundaries": bounds})
    assert out.tolist() == np.digitize(values, bounds).tolist()
    assert (info.ids, info.dtype, info.stored) == (len(bounds) + 1, "int64", "uint8")


@given(hnp.arrays(np.float64, st.integers(1, 200), elements=st.floats(-100, 100, width=16)), st.integers(2, 12))
def test_quantiles_of_few_values_are_exact(values, buckets):
    info, out = run(values, {"quantiles": buckets})
    bounds = np.unique(np.quantile(values, np.arange(1, buckets) / buckets))
    assert out.tolist() == np.digitize(values, bounds).tolist()
    assert info.ids == len(bounds) + 1


def test_quantiles_are_k_bins_discretizers():
    values = np.random.default_rng(0).normal(size=3000)
    _, out = run(values, {"quantiles": 7})
    oracle = KBinsDiscretizer(7, encode="ordinal", strategy="quantile", quantile_method="linear", subsample=None)
    assert out.tolist() == oracle.fit_transform(values[:, None])[:, 0].tolist()


def summary(values, weight=1):
    quantiles = Quantiles()
    quantiles.add_weighted(Sample(Numbers(values)), weight)
    quantiles.settle()
    return quantiles


def tree(parts, fan_in):
    while len(parts) > 1:
        parts = [Quantiles.merged(parts[i : i + fan_in]) for i in range(0, len(parts), fan_in)]
    return parts[0]


def worst_rank_error(found, values):
    """The largest distance of a quantile's true ranks from where it should be, as a share of the rows."""
    fractions = np.linspace(0.0005, 0.9995, 2000)
    points = found.quantiles(fractions)
    values = np.sort(values)
    below = np.searchsorted(values, points, side="left") / len(values)
    above = np.searchsorted(values, points, side="right") / len(values)
    return np.maximum(np.maximum(below - fractions, fractions - above), 0).max()


ORDERS = {
    "random": lambda rng, n: rng.normal(size=n),
    "rising": lambda rng, n: np.arange(n, dtype=float),
    "falling": lambda rng, n: -np.arange(n, dtype=float),
    "zigzag": lambda rng, n: np.where(np.arange(n) % 2, 1.0, -1.0) * np.arange(n),
    "heavy tail": lambda rng, n: np.exp(rng.normal(size=n) * 8),
    "ties": lambda rng, n: np.where(rng.random(n) < 0.7, 0.0, rng.normal(size=n)),
    "interleaved": lambda rng, n: (np.arange(n) * 7919 % n).astype(float),
}


@lru_cache(1)
def a_thousand_summaries(order):
    """Sorted values, and summaries of unequal parts of them, pickled."""
    values = ORDERS[order](np.random.default_rng(5), 2_000_000)
    sizes = np.random.default_rng(6).dirichlet(np.full(1000, 0.3)) * (len(values) - 1000) + 1
    ends = np.cumsum(sizes).astype(int)[:-1]
    parts = [summary(part) for part in np.split(values, ends)]
    return np.sort(values), pickle.dumps(parts)


@pytest.mark.parametrize("fan_in", [2, 8, 1000])
@pytest.mark.parametrize("order", ORDERS)
def test_a_thousand_merged_summaries_keep_ranks_within_a_thousandth(order, fan_in):
    values, parts = a_thousand_summaries(order)
    found = tree(pickle.loads(parts), fan_in)
    assert found.count == len(values)
    assert worst_rank_error(found, values) <= 0.001
    assert sum(len(each.points) for each in found.summaries) <= POINTS * 8 * 4


def test_one_long_part_keeps_ranks_within_a_thousandth():
    values = np.random.default_rng(5).normal(size=3_000_000)
    quantiles = Quantiles()
    for part in np.array_split(values, 50):
        quantiles.add(Sample(Numbers(part)))
    quantiles.settle()
    assert worst_rank_error(quantiles, values) <= 0.001


def test_merging_pair_after_pair_is_as_good_as_a_tree():
    values = np.random.default_rng(8).normal(size=900_000)
    total = summary(values[:1])
    for part in np.array_split(values[1:], 60):
        total = Quantiles.merged([total, summary(part)])
    assert worst_rank_error(total, values) <= 0.001


def test_a_weighted_value_counts_as_often_as_its_weight():
    values = np.arange(100_000, dtype=float)
    folded = summary(values).folded(Sample(Numbers(np.array([7.0]))), 300_000)
    repeated = np.concatenate([values, np.full(300_000, 7.0)])
    assert folded.count == len(repeated)
    assert worst_rank_error(folded, repeated) <= 0.0005
    exact = summary(values[:50]).folded(Sample(Numbers(np.array([3.5]))), 1001)
    fractions = np.linspace(0, 1, 37)
    oracle = np.quantile(np.concatenate([values[:50], np.full(1001, 3.5)]), fractions)
    np.testing.assert_allclose(exact.quantiles(fractions), oracle)


def test_the_ends_are_exact_and_signs_of_zero_do_not_matter():
    values = np.random.default_rng(2).normal(size=100_000)
    np.testing.assert_array_equal(summary(values).quantiles(np.array([0.0, 1.0])), [values.min(), values.max()])
    assert len(summary(np.array([0.0, -0.0])).summaries[0].points) == 1


def test_merging_leaves_the_parts_alone():
    parts = [summary(np.random.default_rng(i).normal(size=20_000)) for i in range(9)]
    before = [part.quantiles(np.linspace(0, 1, 11)).tolist() for part in parts]
    first = tree(parts, 9).quantiles(np.linspace(0, 1, 11)).tolist()
    assert [part.quantiles(np.linspace(0, 1, 11)).tolist() for part in parts] == before
    assert tree(parts, 9).quantiles(np.linspace(0, 1, 11)).tolist() == first


def test_a_null_needs_a_remedy_and_an_infinity_is_named():
    with pytest.raises(DataError, match=r"column 'x' \(1\).*impute"):
        run(pa.array([1.0, None]), {"quantiles": 2})
    with pytest.raises(DataError, match=r"'x', step bucketize are infinite"):
        run(pa.array([1.0, np.inf]), {"boundaries": [0]})


@pytest.mark.parametrize("options", [{}, {"boundaries": [1], "quantiles": 2}, {"boundaries": [2, 1]}, {"quantiles": 1}])
def test_wrong_options(options):
    with pytest.raises(JobError, match="bucketize"):
        parse_step("bucketize", options)
