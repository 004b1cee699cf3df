"""Steps of lists and vectors: which take them, and each place of vectors as scikit-learn's transformers of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

import dtap_dask
from dtap_dask.errors import DataError, JobError
from dtap_dask.features import STEPS, FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.columns.column import Numbers, numbers
from dtap_dask.features.graph.graph import Graph
from dtap_dask.features.steps.places import inverse_of
from fitting import fit_batches, learnt, pieces
from property_tests import examples

LIST, WORDS, VECTOR, WHOLE = (
    pa.list_(pa.float64()),
    pa.list_(pa.string()),
    pa.list_(pa.float32(), 3),
    pa.list_(pa.int8(), 3),
)
ELEMENTS, PLACES, VECTORS, LISTS = "list", "each place", "vectors", "whole lists"
NUMBER, TEXT, BEFORE_PAD = "needs one number a row", "needs integers, booleans or text", "Put it before `pad`"
ONE_VALUE = "needs one integer, boolean or text a row"

# What a step, with these options, makes of a list and of a vector: of each element, or the message that refuses it.
TAKEN: dict[str, tuple[Any, str, str]] = {
    "impute": ("mean", ELEMENTS, PLACES),
    "clip": ({"min": 0}, ELEMENTS, PLACES),
    "log1p": (None, ELEMENTS, PLACES),
    "standard_scale": (None, ELEMENTS, PLACES),
    "minmax_scale": (None, ELEMENTS, PLACES),
    "maxabs_scale": (None, ELEMENTS, PLACES),
    "robust_scale": (None, ELEMENTS, PLACES),
    "quantile_transform": (None, ELEMENTS, f"{NUMBER}, .* a vector .*{BEFORE_PAD}"),
    "power_transform": (None, ELEMENTS, f"{NUMBER}, .* a vector .*{BEFORE_PAD}"),
    "bucketize": ({"boundaries": [0]}, ELEMENTS, PLACES),
    "ordinal_encode": (None, ELEMENTS, f"{ONE_VALUE}, .* a vector .*{BEFORE_PAD}"),
    "one_hot_encode": (None, f"{TEXT}, .*Use `multi_hot`", f"{ONE_VALUE}, .* a vector"),
    "hash_encode": (9, ELEMENTS, f"{ONE_VALUE}, .* a vector .*{BEFORE_PAD}"),
    "count_encode": (None, f"{TEXT}, .*Use `multi_hot`", f"{ONE_VALUE}, .* a vector"),
    "cross": (None, f"{TEXT}, .*Use `multi_hot`", f"{ONE_VALUE}, .* a vector"),
    "target_encode": (None, f"{TEXT}, .*Use `multi_hot`", f"{ONE_VALUE}, .* a vector"),
    "datetime_parts": ("hour", "needs dates, .* a list", "needs dates, .* a vector"),
    "tokenize": (None, "needs text, .* a list", "needs text, .* a vector"),
    "text_hash": (9, "needs text, .* a list", "needs text, .* a vector"),
    "null_as_empty": (None, LISTS, "needs lists, .* a vector"),
    "list_length": (None, LISTS, "needs lists, .* a vector"),
    "first": (2, LISTS, "needs lists, .* a vector"),
    "last": (2, LISTS, "needs lists, .* a vector"),
    "pad": (2, LISTS, "needs lists, .* a vector"),
    "multi_hot": (None, LISTS, "needs lists, .* a vector"),
    "pca": (1, f"{NUMBER}, .* a list", "needs one number a row of each column, .* a vector .*`truncated_svd`"),
    "truncated_svd": (1, f"{NUMBER}, .* a list", VECTORS),
    "polynomial": (None, f"{NUMBER}, .* a list", f"{NUMBER}, .* a vector"),
    "estimator": ("sklearn.preprocessing.Normalizer", f"{NUMBER}, .* a list", VECTORS),
    "cast": ("float64", ELEMENTS, PLACES),
    "passthrough": (None, LISTS, VECTORS),
}  # fmt: skip


def graph_of(kind: pa.DataType, *steps: Any, columns: tuple[str, ...] = ("x",), **more: Any) -> Graph:
    parsed = tuple(parse_step(*next(iter(one.items()))) if isinstance(one, dict) else parse_step(one) for one in steps)
    more.setdefault("vector", any(step.on_block for step in parsed))
    spec = FeatureSpec("x", "feature", columns, parsed, place="features[0]", **more)
    return build([spec], pa.schema(dict.fromkeys(columns, kind)))


@pytest.mark.parametrize("name", STEPS)
def test_what_each_step_takes(name: str) -> None:
    options, of_list, of_vector = TAKEN[name]
    of_text = name in ("ordinal_encode", "hash_encode", "multi_hot")
    inputs = [(WORDS if of_text else LIST, [], of_list), (VECTOR, [], of_vector), (LIST, [{"pad": 3}], of_vector)]
    for kind, before, expected in inputs:
        if expected not in (ELEMENTS, PLACES, LISTS, VECTORS):
            with pytest.raises(JobError, match=expected):
                graph_of(kind, *before, {name: options})
            continue
        [made] = graph_of(kind, *before, {name: options}).outputs[0].values
        assert made.type.base == "list" or expected != ELEMENTS
        assert made.type.width == 3 or expected != PLACES


ROWS = arrays(np.float32, st.tuples(st.integers(2, 12), st.just(3)), elements=st.integers(-40, 40).map(lambda x: x / 4))
MEAN = SimpleImputer()
CASES: list[tuple[list[Any], Any]] = [
    (["impute", "standard_scale"], make_pipeline(MEAN, StandardScaler())),
    ([{"impute": "median"}, {"standard_scale": {"with_mean": False}}],
     make_pipeline(SimpleImputer(strategy="median"), StandardScaler(with_mean=False))),
    ([{"impute": "most_frequent"}, {"minmax_scale": [-1, 2]}],
     make_pipeline(SimpleImputer(strategy="most_frequent"), MinMaxScaler((-1, 2)))),
    ([{"impute": {"strategy": "constant", "value": 3}}, "maxabs_scale"],
     make_pipeline(SimpleImputer(strategy="constant", fill_value=3), MaxAbsScaler())),
    (["impute", {"robust_scale": {"quantile_range": [10, 80]}}],
     make_pipeline(MEAN, RobustScaler(quantile_range=(10, 80)))),
]  # fmt: skip


def vectors(block: Any, missing: Any) -> pa.RecordBatch:
    """The rows [n, k], null where `missing` [n, k] is true; a row with nothing else is null itself."""
    values = pa.array(block.ravel(), mask=missing.ravel())
    return pa.record_batch({"x": pa.FixedSizeListArray.from_arrays(values, 3, mask=pa.array(missing.all(axis=1)))})


@pytest.mark.parametrize(("steps", "twin"), CASES)
@examples(0.2)
@given(ROWS, st.data())
def test_each_place_is_a_column_of_scikit_learn(steps: list[Any], twin: Any, block: Any, data: Any) -> None:
    missing = data.draw(arrays(np.bool_, block.shape))
    missing[0] = False  # or there would be nothing to learn
    batch, holes = vectors(block, missing), np.where(missing, np.nan, block.astype(np.float64))
    state = fit_batches(graph_of(VECTOR, *steps), pieces(batch, data.draw(st.lists(st.integers(1, 11), max_size=2))))
    expected = twin.fit_transform(holes)
    np.testing.assert_allclose(Transform(state).apply(batch)["x"], expected, rtol=1e-5, atol=1e-6)
    [entry] = dtap_dask.to_dask_ml(state)["x"]
    for (_, ours), (_, theirs) in zip(entry.steps, twin.steps, strict=True):
        np.testing.assert_allclose(ours.transform(holes), theirs.transform(holes), rtol=1e-9, atol=1e-9)
        holes = theirs.transform(holes)


def test_the_remedy_for_pca_of_a_vector_finds_its_components() -> None:
    block = np.random.default_rng(0).normal([3, -1, 8], [1, 4, 2], (50, 3)).astype(np.float32)
    batch = vectors(block, np.zeros(block.shape, bool))
    state = fit_batches(graph_of(VECTOR, {"standard_scale": {"with_std": False}}, {"truncated_svd": 2}), [batch])
    theirs = PCA(2).fit(block.astype(np.float64))
    largest = np.take_along_axis(theirs.components_, np.abs(theirs.components_).argmax(1)[:, None], 1)
    expected = theirs.transform(block.astype(np.float64)) * np.sign(largest.T)
    np.testing.assert_allclose(Transform(state).apply(batch)["x"], expected, rtol=1e-5, atol=1e-6)


def test_steps_that_learn_nothing_and_the_indicator() -> None:
    block = np.array([[0.5, -2.0, 9.0], [1.0, 0.0, np.nan]], np.float32)
    batch = vectors(block, np.isnan(block))
    steps = [{"impute": {"strategy": "constant", "value": 0, "indicator": True}}, {"clip": {"min": 0, "max": 4}}]
    state = fit_batches(graph_of(VECTOR, *steps, "log1p", {"bucketize": {"boundaries": [0.1, 1]}}), [batch])
    made = Transform(state).apply(batch)
    [entry, indicator] = [one for each in dtap_dask.to_dask_ml(state).values() for one in each]
    assert made["x"].tolist() == [[1, 0, 2], [1, 0, 0]]
    assert made["x_missing"].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert state.infos[0].ids == 3
    frame = np.where(np.isnan(block), 0, block)
    for _, estimator in entry.steps[1:]:
        frame = estimator.transform(frame)
    assert frame.tolist() == made["x"].tolist()
    assert indicator.steps[0][1].transform(block).tolist() == (made["x_missing"] == 1).tolist()


def test_tensors_keep_their_shape_and_whole_numbers_their_rows() -> None:
    kind = pa.list_(pa.list_(pa.int16(), 2), 2)
    batch = pa.record_batch({"x": pa.array([[[1, 2], [3, 4]], [[3, 2], [5, 0]], None], kind)})
    state = fit_batches(graph_of(kind, "standard_scale", allow_null=True), [batch])
    assert state.infos[0].shape == (2, 2)
    assert learnt(state)["mean_"] == (2.0, 2.0, 4.0, 2.0)
    made = Transform(state).apply(batch)["x"]
    assert made[:2].tolist() == [[[-1, 0], [-1, 1]], [[1, 0], [1, -1]]]
    assert np.isnan(made[2]).all()


def test_a_scaler_behind_a_block_is_one_of_its_products() -> None:
    rng = np.random.default_rng(3)
    block = rng.normal(size=(30, 2))
    batch = pa.record_batch({"a": block[:, 0], "b": block[:, 1]})
    state = fit_batches(graph_of(pa.float64(), "polynomial", "standard_scale", columns=("a", "b")), [batch])
    expected = make_pipeline(PolynomialFeatures(), StandardScaler()).fit_transform(block)
    np.testing.assert_allclose(Transform(state).apply(batch)["x"], expected, rtol=1e-5, atol=1e-6)


def test_the_inverse_of_each_place() -> None:
    block = np.array([[1.0, 10.0, 0.0], [3.0, 20.0, 7.0], [9.0, 0.0, -7.0]], np.float32)
    batch = vectors(block, np.isnan(block))
    for step in ("standard_scale", "minmax_scale", "maxabs_scale", "robust_scale"):
        state = fit_batches(graph_of(VECTOR, step), [batch])
        back = inverted(state, Transform(state).apply(batch)["x"])
        np.testing.assert_allclose(back, block, rtol=1e-5, atol=1e-5)


def inverted(state: FittedState, values: Any) -> Any:
    [value] = state.graph.outputs[0].values
    undo = inverse_of(value.applied, state.fitted[value], value.inputs[0].type)
    assert undo is not None
    [column] = undo(Numbers(values))
    return numbers(column).values


NULLS = pa.array([[1.0, None, 2.0], [0.0, None, np.inf]], VECTOR)


@pytest.mark.parametrize(
    ("kind", "steps", "message"),
    [
        (WHOLE, ["impute"], r"impute takes vectors of floats, .* a vector \(fixed_size_list<item: int8>"),
        (VECTOR, [{"bucketize": {"quantiles": 3}}], r"bucketize of a vector .* needs `boundaries`"),
        (VECTOR, [{"standard_scale": {"by": "x"}}], r"`by` takes one number or text a row, .*Leave `by` out"),
        (pa.list_(pa.int8()), [{"pad": 2}, "impute"], r"steps\[1\]: .*a vector \(int8\).*Put it before `pad`"),
    ],
)  # fmt: skip
def test_what_vectors_cannot_have(kind: pa.DataType, steps: list[Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        graph_of(kind, *steps)


@pytest.mark.parametrize(
    ("rows", "steps", "message"),
    [
        (
            NULLS,
            [{"clip": {"max": 5}}, "impute"],
            r"column 'x', step impute \(place 1, counted from 0\): .* 2 nulls and",
        ),
        (NULLS, [{"clip": {"max": 5}}, "maxabs_scale"], r"column 'x' \(2\) .*Put `impute` before the other steps"),
        (
            pa.array([[0.0, 1.0, np.inf]], VECTOR),
            ["standard_scale"],
            "1 values of column 'x' are infinite at step stan",
        ),
    ],
)
def test_values_that_are_refused(rows: pa.Array, steps: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_batches(graph_of(VECTOR, *steps), [pa.record_batch({"x": rows})])
