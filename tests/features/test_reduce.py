"""Principal components against scikit-learn, however rows are cut, and scaling folded into the same pass."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.steps.reduce import Pca
from fitting import fit_batches
from property_tests import examples

ATTRIBUTES = ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "noise_variance_")


def spec(columns, *steps):
    return FeatureSpec(
        "v", "feature", columns, tuple(parse_step(*step) for step in steps), vector=True, place="features[0]"
    )


def run(matrix, cuts, *steps):
    rows = pa.record_batch({f"x{i}": pa.array(column, from_pandas=True) for i, column in enumerate(matrix.T)})
    graph = build([spec(tuple(rows.schema.names), *steps)], rows.schema)
    [block] = [value for value in graph.values if isinstance(value.operation, Pca)]
    ends = sorted({0, len(matrix), *(cut for cut in cuts if cut < len(matrix))})
    state = fit_batches(graph, [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)])
    return graph, state.fitted[block], Transform(state).apply(rows)["v"]


def positive(oracle_components, rows):
    signs = np.sign(oracle_components[np.arange(len(oracle_components)), np.abs(oracle_components).argmax(1)])
    return oracle_components * signs[:, None], rows * signs


def sample(rows, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width) * 10


@examples(0.2)
@given(st.integers(5, 80), st.integers(1, 5), st.integers(0, 99), st.lists(st.integers(0, 80), max_size=4), st.data())
def test_pca_is_scikit_learns(rows, width, seed, cuts, data):
    kept = data.draw(st.integers(1, width))
    matrix = sample(max(rows, width + 1), width, seed)
    graph, fitted, out = run(matrix, cuts, ("pca", kept))
    oracle = PCA(kept, svd_solver="full").fit(matrix)
    components, expected = positive(oracle.components_, oracle.transform(matrix))
    np.testing.assert_allclose(fitted["components_"], components, atol=1e-6)
    for name in ATTRIBUTES:
        np.testing.assert_allclose(fitted[name], getattr(oracle, name), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    assert (graph.passes, out.shape, out.dtype) == (1, (len(matrix), kept), np.float32)


@examples(0.1)
@given(st.integers(1, 5), st.integers(0, 99))
def test_whitened_components_are_scikit_learns(width, seed):
    matrix = sample(60, width, seed)
    _, fitted, out = run(matrix, [20], ("pca", {"n_components": width, "whiten": True}))
    oracle = PCA(width, svd_solver="full", whiten=True).fit(matrix)
    components, expected = positive(oracle.components_, oracle.transform(matrix))
    np.testing.assert_allclose(fitted["components_"], components, atol=1e-6)
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-4)


def test_whitening_refuses_components_without_variance():
    matrix = sample(50, 2)
    whiten = ("pca", {"n_components": 3, "whiten": True})
    with pytest.raises(DataError, match="only 2 of the 3 components of.*Lower `n_components` to 2, or leave out"):
        run(np.column_stack([matrix, matrix[:, 0] - matrix[:, 1]]), [], whiten)
    with pytest.raises(DataError, match="only 0 of the 3 components of.*Leave the block out, or leave out"):
        run(np.ones((9, 3)), [], whiten)


@pytest.mark.parametrize(("step", "scaler"), [("standard_scale", StandardScaler), ("minmax_scale", MinMaxScaler)])
def test_scale_then_pca_is_one_level(step, scaler):
    matrix = sample(500, 6) * [1, 10, 100, 1000, 0.1, 0.01]
    graph, fitted, out = run(matrix, [100, 350], (step,), ("pca", 4))
    assert graph.passes == 1
    oracle = make_pipeline(scaler(), PCA(4, svd_solver="full")).fit(matrix)
    components, expected = positive(oracle[-1].components_, oracle.transform(matrix))
    np.testing.assert_allclose(fitted["components_"], components, atol=1e-6)
    np.testing.assert_allclose(fitted["explained_variance_"], oracle[-1].explained_variance_, rtol=1e-7)
    np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize("scale", [(), (("standard_scale",),)])
def test_impute_then_pca_is_two_levels(scale):
    matrix = sample(400, 4)
    matrix[::5, 1] = np.nan
    matrix[3::7, 2] = np.nan
    graph, fitted, out = run(matrix, [50, 60], ("impute",), *scale, ("pca", 2))
    assert graph.passes == 2
    assert "pca of v" in graph.reasons[1]
    steps = [SimpleImputer(), *([StandardScaler()] if scale else []), PCA(2, svd_solver="full")]
    oracle = make_pipeline(*steps).fit(matrix)
    components, expected = positive(oracle[-1].components_, oracle.transform(matrix))
    np.testing.assert_allclose(fitted["components_"], components, atol=1e-6)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_a_constant_imputed_is_not_learnt_so_one_level_is_enough():
    matrix = sample(100, 3)
    matrix[::4, 0] = np.nan
    constant = ("impute", {"strategy": "constant", "value": 1.0})
    graph, _, out = run(matrix, [30], constant, ("standard_scale",), ("pca", 2))
    assert graph.passes == 1
    filled = np.nan_to_num(matrix, nan=1.0)
    oracle = make_pipeline(StandardScaler(), PCA(2, svd_solver="full")).fit(filled)
    _, expected = positive(oracle[-1].components_, oracle.transform(filled))
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_mistakes_are_named():
    schema = pa.schema({"a": pa.float64(), "s": pa.string()})
    one = FeatureSpec("a", "feature", ("a",), (parse_step("pca", 1),), place="features[1]")
    after = spec(("a",), ("pca", 1), ("power_transform",))
    problems = [
        (one, r"features\[1\].steps\[0\]: pca works on several columns"),
        (spec(("a",), ("pca", 2)), r"n_components is 2.*1 columns"),
        (after, r"features\[0\].steps\[1\]: power_transform cannot follow pca; valid: scalers"),
        (spec(("s",), ("one_hot_encode",), ("pca", 1)), "needs one number a row"),
    ]
    for wrong, message in problems:
        with pytest.raises(JobError, match=message):
            build([wrong], schema)


def test_too_few_rows_and_nulls_are_errors():
    with pytest.raises(DataError, match="1 rows without nulls to fit"):
        run(np.ones((1, 2)), [], ("pca", 1))
    with pytest.raises(DataError, match=r"'x1' \(1\)"):
        run(np.array([[1, 2], [3, np.nan], [4, 5.0]]), [], ("pca", 1))


def test_cast_behind_pca():
    _, _, out = run(sample(20, 3), [], ("pca", 2), ("cast", "float64"))
    assert out.dtype == np.float64
