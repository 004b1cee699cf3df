"""truncated_svd against scikit-learn's on the same block, dense or sparse, however rows are cut."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import OneHotEncoder

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.columns.column import Numbers
from dtap_dask.features.columns.onehot import OneHot
from dtap_dask.features.statistics import gram
from dtap_dask.features.steps import svd
from dtap_dask.features.steps.svd import TruncatedSvd
from fitting import fit_batches
from property_tests import examples


def graph_of(schema, *steps, columns=None):
    parsed = tuple(parse_step(*step) for step in steps)
    names = tuple(columns or schema.names)
    return build([FeatureSpec("v", "feature", names, parsed, vector=True, place="features[0]")], schema)


def run(rows, cuts, *steps):
    graph = graph_of(rows.schema, *steps)
    [block] = [value for value in graph.values if isinstance(value.operation, TruncatedSvd)]
    ends = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    state = fit_batches(graph, [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)])
    return graph, state.fitted[block], Transform(state).apply(rows)["v"]


def numbers(matrix):
    return pa.record_batch({f"x{i}": column for i, column in enumerate(matrix.T)})


def words(rows, sizes, seed=0):
    """Columns of words, the first of them frequent."""
    rng = np.random.default_rng(seed)
    drawn = {f"w{i}": (rng.random(rows) ** 2 * size).astype(int).astype(str) for i, size in enumerate(sizes)}
    return pa.record_batch({name: pa.array(column.tolist()) for name, column in drawn.items()})


def assert_same(fitted, out, block, kept):
    """The fitted numbers and the vectors are those of scikit-learn's exact algorithm."""
    oracle = TruncatedSVD(kept, algorithm="arpack", random_state=0).fit(block)
    signs = np.sign(oracle.components_[np.arange(kept), np.abs(oracle.components_).argmax(axis=1)])
    for name in ("singular_values_", "explained_variance_", "explained_variance_ratio_"):
        np.testing.assert_allclose(fitted[name], getattr(oracle, name), rtol=1e-7, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(fitted["components_"], oracle.components_ * signs[:, None], atol=1e-6)
    np.testing.assert_allclose(out, oracle.transform(block) * signs, rtol=1e-4, atol=1e-4)


@examples(0.2)
@given(st.integers(3, 6), st.integers(0, 99), st.lists(st.integers(0, 60), max_size=4), st.data())
def test_numbers_are_scikit_learns(width, seed, cuts, data):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(60, width)) * 2.0 ** np.arange(width) + rng.normal(size=width)
    kept = data.draw(st.integers(1, width - 1))
    graph, fitted, out = run(numbers(matrix), cuts, ("truncated_svd", kept))
    assert_same(fitted, out, matrix, kept)
    assert (graph.passes, out.shape, fitted["n_samples_"]) == (1, (60, kept), 60)


@pytest.mark.parametrize("decomposed", [svd.MOST_DECOMPOSED, 10])
def test_one_hot_vectors_are_scikit_learns(monkeypatch, decomposed):
    monkeypatch.setattr(svd, "MOST_DECOMPOSED", decomposed)
    monkeypatch.setattr(OneHot, "values", property(lambda self: pytest.fail("vectors are made dense")))
    rows = words(400, (30, 12))
    graph, fitted, out = run(rows, [100, 130], ("one_hot_encode",), ("truncated_svd", 3))
    block = OneHotEncoder().fit_transform(np.column_stack([column.to_pylist() for column in rows.columns]))
    assert graph.passes == 2
    assert fitted["n_features_in_"] == block.shape[1]
    assert_same(fitted, out, block, 3)


def test_vectors_of_floats_and_whole_numbers_and_numbers_side_by_side():
    rng = np.random.default_rng(3)
    embedded, counts, plain = rng.normal(size=(90, 3)) + 5, rng.poisson(0.3, size=(90, 6)), rng.normal(size=90)
    rows = pa.record_batch(
        {
            "counts": pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel(), pa.uint8()), 6),
            "embedded": pa.FixedSizeListArray.from_arrays(pa.array(embedded.ravel()), 3),
            "plain": plain,
        }
    )
    _, fitted, out = run(rows, [40], ("truncated_svd", 4))
    assert_same(fitted, out, np.column_stack([counts, embedded, plain]), 4)


def test_the_inverse_is_scikit_learns():
    rng = np.random.default_rng(5)
    plain, vectors = rng.normal(size=50), rng.normal(size=(50, 3))
    rows = pa.record_batch({"x": plain, "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 3)})
    _, fitted, out = run(rows, [], ("truncated_svd", 3))
    block = np.column_stack([plain, vectors])
    oracle = TruncatedSVD(3, algorithm="arpack", random_state=0).fit(block)
    back = parse_step("truncated_svd", 3).inverse(fitted)(Numbers(out))
    assert [one.values.shape for one in back] == [(50,), (50, 3)]
    expected = oracle.inverse_transform(oracle.transform(block))
    np.testing.assert_allclose(np.column_stack([one.values for one in back]), expected, atol=1e-5)


def test_words_come_back_from_all_components():
    rows = words(60, (4, 3))
    _, fitted, out = run(rows, [], ("one_hot_encode",), ("truncated_svd", 7))
    back = parse_step("truncated_svd", 7).inverse(fitted)(Numbers(out))
    assert [one.values.shape[1] for one in back] == list(fitted["input_widths_"])
    for made, column in zip(back, rows.columns, strict=True):
        names = sorted(set(column.to_pylist()))
        assert [names[place] for place in made.values.argmax(axis=1)] == column.to_pylist()


def test_wide_vectors_need_no_dense_matrix():
    rows = words(30_000, (9_000, 4_000))
    one_hot = ("one_hot_encode", {"max_values": 10_000})
    _, fitted, out = run(rows, [10_000], one_hot, ("truncated_svd", 4))
    _, again, _ = run(rows, [10_000], one_hot, ("truncated_svd", 4))
    assert fitted == again
    block = OneHotEncoder().fit_transform(np.column_stack([column.to_pylist() for column in rows.columns]))
    assert block.shape[1] > svd.MOST_DECOMPOSED
    oracle = TruncatedSVD(4, algorithm="arpack", random_state=0).fit(block)
    np.testing.assert_allclose(fitted["singular_values_"], oracle.singular_values_, rtol=1e-7)
    np.testing.assert_allclose(np.abs(out), np.abs(oracle.transform(block)), atol=1e-4)


def test_mistakes_are_named():
    schema = pa.schema({"a": pa.float64(), "s": pa.string()})
    for columns, steps, message in [
        (["a"], [("truncated_svd", 2)], r"n_components is 2.*1 columns"),
        (["s"], [("truncated_svd", 1)], "truncated_svd needs numbers, and the column is text"),
        (["a"], [("truncated_svd", 1), ("impute",)], "impute cannot follow truncated_svd"),
    ]:
        with pytest.raises(JobError, match=message):
            graph_of(schema, *steps, columns=columns)


def test_what_cannot_be_decomposed(monkeypatch):
    rows = words(50, (5, 5))
    hot = ("one_hot_encode",)
    with pytest.raises(DataError, match="has 10 places. Lower `n_components` from 11 to at most that"):
        run(rows, [], hot, ("truncated_svd", 11))
    with pytest.raises(DataError, match="There are 1 rows without nulls to fit"):
        run(numbers(np.ones((1, 3))), [], ("truncated_svd", 2))
    with pytest.raises(DataError, match="overflow float64. Scale them first"), np.errstate(over="ignore"):
        run(numbers(np.full((5, 2), 1e200)), [], ("truncated_svd", 1))
    with pytest.raises(DataError, match="infinite at step truncated_svd"):
        run(numbers(np.full((5, 2), np.inf)), [], ("truncated_svd", 1))
    with pytest.raises(DataError, match="would reach the output"):
        run(pa.record_batch({"a": [1.0, None], "b": [3.0, 4.0]}), [], ("truncated_svd", 1))
    monkeypatch.setattr(svd, "MOST_NUMBERS", 25)
    with pytest.raises(DataError, match="3 components of the 10 places.*30 numbers.*Lower `n_components` to 2"):
        run(rows, [], hot, ("truncated_svd", 3))


@pytest.mark.parametrize(
    ("bound", "most", "message"),
    [
        ("MOST_PLACES", 9, "10 numbers a row, and at most 9"),
        ("MOST_PAIRS", 9, "pairs of places in one row, and at most 9"),
    ],
)
def test_blocks_that_are_too_wide(monkeypatch, bound, most, message):
    monkeypatch.setattr(gram, bound, most)
    with pytest.raises(DataError, match=f"{message}.*`top_k`"):
        run(words(50, (5, 5)), [10], ("one_hot_encode",), ("truncated_svd", 2))


def test_too_many_numbers(monkeypatch):
    monkeypatch.setattr(gram, "MOST_DENSE", 2)
    with pytest.raises(DataError, match="3 numbers that are not one-hot vectors, and at most 2"):
        run(numbers(np.ones((9, 3))), [], ("truncated_svd", 2))
