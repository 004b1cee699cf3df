"""`to_dask_ml`: its estimators give the dataset's values, and hold what dask-ml's and scikit-learn's own fits give."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import dask_ml.impute
import dask_ml.preprocessing
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn.decomposition
import sklearn.impute
import sklearn.preprocessing
from sklearn.pipeline import Pipeline as SklearnPipeline

import dtap_dask
from dtap_dask.errors import DtapError, OutputError
from dtap_dask.features import Accumulator, FeatureSpec, FittedState, Transform, build, finish, parse_step
from dtap_dask.job.estimators.interop import Estimators, Refused

RNG = np.random.default_rng(3)
ROWS = 400
HOLES = RNG.random(ROWS) < 0.15
WORDS = np.array(["taxi", "cash", "crédit", "", "no charge"], object)


def table() -> pa.Table:
    return pa.table(
        {
            "x": pa.array(RNG.normal(3, 2, ROWS), mask=HOLES),
            "y": pa.array(RNG.lognormal(size=ROWS)),
            "z": pa.array(RNG.normal(size=ROWS)),
            "n": pa.array(RNG.integers(-5, 9, ROWS)),
            "m": pa.array(RNG.integers(0, 4, ROWS), mask=HOLES),
            "flag": pa.array(RNG.random(ROWS) < 0.3),
            "maybe": pa.array(RNG.random(ROWS) < 0.3, mask=HOLES),
            "raw": pa.array(RNG.choice(np.array([b"\xff", b"a", b"bc"], object), ROWS), pa.binary(), mask=HOLES),
            "single": pa.array(RNG.normal(1e6, 1, ROWS).astype(np.float32)),
            "word": pa.array(RNG.choice(WORDS, ROWS), mask=HOLES),
            "full": pa.array(RNG.choice(WORDS, ROWS)),
        }
    )


TABLE = table()
FRAME = TABLE.drop_columns(["raw"]).to_pandas()
BATCH = TABLE.to_batches()[0]


def spec(name: str, columns: Sequence[str], *steps: Any, role: Any = "feature", **more: Any) -> FeatureSpec:
    parsed = [parse_step(*next(iter(step.items()))) if isinstance(step, dict) else parse_step(step) for step in steps]
    return FeatureSpec(name, role, tuple(columns), tuple(parsed), **more)


def fitted(*specs: FeatureSpec) -> FittedState:
    graph = build(specs, TABLE.schema)
    state = FittedState.unfitted(graph)
    for _ in range(graph.passes):
        accumulator = Accumulator(state)
        accumulator.add(BATCH)
        state = finish(accumulator.partial(), state)
    return state


def through(entry: Estimators, frame: Any) -> Any:
    frame = frame[list(entry.columns)].copy()
    for _, estimator in entry.steps:
        frame = estimator.transform(frame)
    return frame


def expected(state: FittedState, name: str) -> np.ndarray[Any, Any]:
    values = Transform(state).apply(BATCH)[name]
    assert isinstance(values, np.ndarray)
    return values.astype(np.float64).reshape(ROWS, -1)


MEAN = {"impute": {"strategy": "mean"}}
NUMBERS = {
    "standard": spec("f", ["x"], MEAN, "standard_scale"),
    "standard of nulls": spec("f", ["x"], "standard_scale", allow_null=True),
    "centred": spec("f", ["y"], {"standard_scale": {"with_std": False}}),
    "uncentred": spec("f", ["n"], {"standard_scale": {"with_mean": False}}),
    "minmax": spec("f", ["x"], {"impute": {"strategy": "constant", "value": 0.5}}, {"minmax_scale": [-1, 1]}),
    "minmax of integers": spec("f", ["n"], "minmax_scale"),
    "maxabs": spec("f", ["x"], {"impute": {"strategy": "median"}}, "maxabs_scale"),
    "robust": spec("f", ["x"], MEAN, "robust_scale"),
    "robust, not centred": spec("f", ["y"], {"robust_scale": {"with_centering": False, "unit_variance": True}}),
    "ranks": spec("f", ["x"], MEAN, {"quantile_transform": {"n_quantiles": 20}}),
    "normal scores": spec("f", ["y"], {"quantile_transform": "normal"}),
    "powers": spec("f", ["x"], MEAN, "power_transform"),
    "powers as they are": spec("f", ["y"], {"power_transform": False}),
    "most frequent": spec("f", ["m"], {"impute": {"strategy": "most_frequent"}}, "standard_scale"),
    "log1p between clips": spec(
        "f", ["x"], MEAN, {"clip": {"min": 0}}, "log1p", {"clip": {"max": 1.5}}, "minmax_scale"
    ),
    "clip of integers": spec("f", ["n"], {"clip": {"min": -2, "max": 4}}),
    "bucketize": spec("f", ["y"], {"bucketize": {"quantiles": 8}}),
    "bucketize by boundaries": spec("f", ["n"], {"bucketize": {"boundaries": [-1, 0, 3.5]}}),
    "scaled, then buckets, then scaled": spec(
        "f", ["y"], "standard_scale", {"bucketize": {"quantiles": 5}}, "minmax_scale"
    ),
    "cast": spec("f", ["n"], {"cast": "float64"}, "standard_scale", {"cast": "float32"}),
    "one-hot text": spec("f", ["word"], "one_hot_encode"),
    "one-hot integers": spec("f", ["n"], {"one_hot_encode": {"null": "error", "unseen": "error"}}, {"cast": "float32"}),
    "one-hot booleans": spec("f", ["flag"], "one_hot_encode"),
    "one-hot of filled text": spec("f", ["word"], {"impute": {"strategy": "most_frequent"}}, "one_hot_encode"),
    "one-hot of given text": spec("f", ["word"], {"impute": {"strategy": "constant", "value": "?"}}, "one_hot_encode"),
    "a text label": spec("f", ["full"], "ordinal_encode", role="label"),
    "one-hot booleans and nulls": spec("f", ["maybe"], "one_hot_encode"),
    "filled booleans": spec("f", ["maybe"], {"impute": {"strategy": "most_frequent"}}, "one_hot_encode"),
    "booleans filled with one": spec("f", ["maybe"], {"impute": {"strategy": "constant", "value": True}}),
    "booleans as numbers": spec("f", ["maybe"], MEAN, "standard_scale"),
    "float32": spec("f", ["single"], "standard_scale"),
    "float32 between bounds": spec("f", ["single"], "minmax_scale"),
    "as it is": spec("f", ["y"]),
    "passthrough": spec("f", ["n"], "passthrough"),
}


@pytest.mark.parametrize("case", list(NUMBERS))
def test_estimators_give_the_values_of_the_dataset(case: str) -> None:
    state = fitted(NUMBERS[case])
    (entry,) = dtap_dask.to_dask_ml(state)["f"]
    assert not entry.refused
    made = np.asarray(through(entry, FRAME), np.float64).reshape(ROWS, -1)
    np.testing.assert_allclose(made, expected(state, "f"), rtol=2e-7, atol=1e-7)
    copied = pickle.loads(pickle.dumps(entry))
    np.testing.assert_array_equal(np.asarray(through(copied, FRAME), np.float64).reshape(ROWS, -1), made)


@pytest.mark.parametrize("case", ["standard", "minmax", "log1p between clips"])
def test_estimators_take_dask_frames(case: str) -> None:
    state = fitted(NUMBERS[case])
    (entry,) = dtap_dask.to_dask_ml(state)["f"]
    made = through(entry, dd.from_pandas(FRAME, npartitions=3))
    assert isinstance(made, dd.DataFrame)
    np.testing.assert_allclose(made.compute(), expected(state, "f"), rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("column", ["word", "m", "flag", "maybe"])
def test_ids_are_codes_and_an_offset(column: str) -> None:
    state = fitted(spec("f", [column], {"ordinal_encode": {"oov_buckets": 3}}))
    (entry,) = dtap_dask.to_dask_ml(state)["f"]
    ids = expected(state, "f")[:, 0]
    # Dask would make strings of booleans with nulls, which pandas holds as objects
    for frame in (FRAME, dd.from_pandas(FRAME.drop(columns="maybe"), npartitions=3))[: 1 if column == "maybe" else 2]:
        codes = through(entry, frame)[column].cat.codes
        codes = np.asarray(codes.compute() if isinstance(frame, dd.DataFrame) else codes)
        np.testing.assert_array_equal(codes[ids > 0] + 1 + 3, ids[ids > 0])
        assert (codes[ids == 0] == -1).all()


@pytest.mark.parametrize(
    "options", [{}, {"first": ["never", "a"]}, {"vocabulary": ["no charge", "", "never", "crédit", "taxi", "cash"]}]
)
def test_ids_without_buckets_are_those_of_an_ordinal_encoder(options: dict[str, Any]) -> None:
    state = fitted(spec("f", ["word"], {"ordinal_encode": {"oov_buckets": 0, **options}}))
    (entry,) = dtap_dask.to_dask_ml(state)["f"]
    np.testing.assert_array_equal(through(entry, FRAME) + 1, expected(state, "f"))
    with pytest.raises(ValueError, match="unknown categories"):
        through(entry, pd.DataFrame({"word": ["unseen"]}))


def test_pca_works_on_all_columns() -> None:
    state = fitted(spec("f", ["x", "y", "z"], MEAN, "standard_scale", {"pca": {"n_components": 2}}, vector=True))
    *columns, whole = dtap_dask.to_dask_ml(state)["f"]
    assert [entry.columns for entry in columns] == [("x",), ("y",), ("z",)]
    block = pd.concat([through(entry, FRAME) for entry in columns], axis=1)
    np.testing.assert_allclose(through(whole, block), expected(state, "f"), rtol=2e-7, atol=1e-7)
    own = sklearn.decomposition.PCA(2, svd_solver="full").fit(block)
    pca = whole.steps[0][1]
    for name, value in vars(own).items():
        if name.endswith("_") and name != "feature_names_in_":
            np.testing.assert_allclose(np.abs(getattr(pca, name)), np.abs(value), rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal(pca.feature_names_in_, own.feature_names_in_)


@pytest.mark.parametrize("step", [{"polynomial": [1, 3]}, {"pca": {"n_components": 2, "whiten": True}}])
def test_blocks_are_as_their_estimators(step: dict[str, Any]) -> None:
    state = fitted(spec("f", ["x", "y", "z"], MEAN, "standard_scale", step, vector=True))
    *columns, whole = dtap_dask.to_dask_ml(state)["f"]
    block = pd.concat([through(entry, FRAME) for entry in columns], axis=1)
    np.testing.assert_allclose(through(whole, block), expected(state, "f"), rtol=2e-6, atol=1e-6)


def test_the_indicator_of_an_imputer() -> None:
    state = fitted(spec("f", ["x"], {"impute": {"indicator": True}}), spec("w", ["word"], {"impute": {
        "strategy": "most_frequent", "indicator": True}}, "one_hot_encode"),
        spec("b", ["maybe"], {"impute": {"strategy": "constant", "value": False, "indicator": True}}))  # fmt: skip
    made = dtap_dask.to_dask_ml(state)
    assert list(made) == ["f", "f_missing", "w", "w_missing", "b", "b_missing"]
    for name in ("f_missing", "w_missing", "b_missing"):
        np.testing.assert_array_equal(through(made[name][0], FRAME), expected(state, name))


OWN = {
    "standard": (dask_ml.preprocessing.StandardScaler, sklearn.preprocessing.StandardScaler, {}, "standard_scale"),
    "minmax": (dask_ml.preprocessing.MinMaxScaler, sklearn.preprocessing.MinMaxScaler, {}, "minmax_scale"),
    "mean": (dask_ml.impute.SimpleImputer, sklearn.impute.SimpleImputer, {"strategy": "mean"}, MEAN),
    "constant": (
        dask_ml.impute.SimpleImputer,
        sklearn.impute.SimpleImputer,
        {"strategy": "constant", "fill_value": 7.0},
        {"impute": {"strategy": "constant", "value": 7.0}},
    ),
}


@pytest.mark.parametrize("case", list(OWN))
def test_attributes_are_those_of_dask_ml_and_of_scikit_learn(case: str) -> None:
    parallel, plain, options, step = OWN[case]
    (entry,) = dtap_dask.to_dask_ml(fitted(spec("f", ["x"], step, allow_null=True)))["f"]
    estimator = entry.steps[0][1]
    assert type(estimator) is parallel
    assert estimator.get_params() == parallel(**options).get_params()
    data = FRAME[["x"]]
    theirs = parallel(**options).fit(dd.from_pandas(data, npartitions=3))
    assert set(vars(estimator)) == set(vars(theirs))
    for name, value in fitted_attributes(theirs):
        if name != "n_samples_seen_":  # dask-ml counts nulls too, or gives NaN
            assert type(getattr(estimator, name)) is type(value), name
            np.testing.assert_allclose(getattr(estimator, name), value, rtol=1e-12, err_msg=name)
    for name, value in fitted_attributes(plain(**options).fit(data)):
        if name != "feature_names_in_" and not (case == "minmax" and name == "n_samples_seen_"):
            np.testing.assert_allclose(
                getattr(estimator, name), np.asarray(value, np.float64), rtol=1e-12, err_msg=name
            )


def fitted_attributes(estimator: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(estimator).items() if name.endswith("_") and value is not None]


PLAIN = {
    "maxabs": (sklearn.preprocessing.MaxAbsScaler(), "z", "maxabs_scale"),
    "median": (sklearn.impute.SimpleImputer(strategy="median"), "x", {"impute": {"strategy": "median"}}),
    "most frequent": (
        sklearn.impute.SimpleImputer(strategy="most_frequent"), "m", {"impute": {"strategy": "most_frequent"}}
    ),
    "one-hot": (
        sklearn.preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32),
        "full",
        "one_hot_encode",
    ),
    "quantiles": (
        sklearn.preprocessing.KBinsDiscretizer(
            10, encode="ordinal", strategy="quantile", quantile_method="linear", subsample=None
        ),
        "y",
        {"bucketize": {"quantiles": 10}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(PLAIN))
def test_attributes_are_those_of_scikit_learn(case: str) -> None:
    own, column, step = PLAIN[case]
    state = fitted(spec("f", [column], step, allow_null=column == "x"))
    estimator = dtap_dask.to_dask_ml(state)["f"][0].steps[0][1]
    assert type(estimator) is type(own)
    own.fit(FRAME[[column]])
    for name, value in fitted_attributes(own):
        mine = getattr(estimator, name)
        if name == "bin_edges_":  # the outermost are never looked at
            np.testing.assert_allclose(mine[0][1:-1], value[0][1:-1], rtol=1e-12)
        elif name == "categories_":
            np.testing.assert_array_equal(mine[0], value[0])
        elif value.__class__.__name__ == "ndarray" and value.dtype == object:
            np.testing.assert_array_equal(mine, value, err_msg=name)
        else:
            np.testing.assert_allclose(mine, value, rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(estimator.transform(FRAME[[column]]), own.transform(FRAME[[column]]))


def test_the_vocabulary_is_that_of_a_categorizer() -> None:
    (entry,) = dtap_dask.to_dask_ml(fitted(spec("f", ["word"], "ordinal_encode")))["f"]
    estimator = entry.steps[0][1]
    assert type(estimator) is dask_ml.preprocessing.Categorizer
    own = dask_ml.preprocessing.Categorizer(columns=["word"]).fit(dd.from_pandas(FRAME, npartitions=2))
    assert set(vars(estimator)) == set(vars(own))
    assert list(estimator.columns_) == list(own.columns_)
    categories = list(estimator.categories_["word"].categories)
    assert sorted(categories) == sorted(own.categories_["word"].categories)
    counts = FRAME.word.value_counts()
    assert categories == sorted(counts.index, key=lambda word: (-counts[word], word.encode()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Constructing a Categorical", category=FutureWarning)
        warnings.filterwarnings("ignore", "Constructing a Categorical", category=DeprecationWarning)
        unseen = estimator.transform(pd.DataFrame({"word": ["taxi", "unseen", None]}))
    assert unseen.word.cat.codes.tolist() == [categories.index("taxi"), -1, -1]


REFUSED = {
    "hash_encode": ([{"hash_encode": 10}], "word", "Fingerprint64"),
    "standard_scale by 'n'": ([{"standard_scale": {"by": "n"}}], "y", "fit one on each group of a pandas groupby"),
    "cast to an integer": ([{"cast": "int32"}], "n", "checks every value"),
    "cast of text": ([{"cast": "float32"}], "digits", "checks every value"),
    "unseen values apart from nulls": ([{"one_hot_encode": {"unseen": "error"}}], "word", "null"),
    "bytes": (["one_hot_encode"], "raw", "bytes"),
    "ids of bytes": (["ordinal_encode"], "raw", "bytes"),
    "what follows ids": (["ordinal_encode", "standard_scale"], "full", "ids"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_refused_with_a_reason(case: str) -> None:
    steps, column, reason = REFUSED[case]
    if column == "digits":
        steps, column = [{"cast": "string"}, *steps], "n"
    (entry,) = dtap_dask.to_dask_ml(fitted(spec("f", [column], *steps)))["f"]
    refused = entry.refused[-1]
    assert isinstance(refused, Refused)
    assert reason in refused.reason
    with pytest.raises(DtapError, match=refused.step):
        refused.transform(FRAME)


def test_steps_make_a_scikit_learn_pipeline() -> None:
    state = fitted(NUMBERS["log1p between clips"])
    (entry,) = dtap_dask.to_dask_ml(state)["f"]
    assert [name for name, _ in entry.steps] == ["impute", "clip-1", "log1p", "clip-2", "minmax_scale"]
    pipeline = SklearnPipeline(list(entry.steps))
    np.testing.assert_allclose(pipeline.transform(FRAME[["x"]]), expected(state, "f"), rtol=2e-7, atol=1e-7)


def test_a_state_that_is_not_finished() -> None:
    done = fitted(NUMBERS["scaled, then buckets, then scaled"])
    half = FittedState(done.graph, 1, done.rows, done.fitted)
    with pytest.raises(DtapError, match="1 of 3 passes"):
        dtap_dask.to_dask_ml(half)


def test_the_folder_of_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        dtap_dask.to_dask_ml(tmp_path)


def test_truncated_svd_of_numbers_and_of_one_hot_vectors() -> None:
    state = fitted(
        spec("f", ["x", "y", "z"], MEAN, "standard_scale", {"truncated_svd": 2}, vector=True),
        spec("w", ["word"], {"one_hot_encode": {}}, {"truncated_svd": 2}, vector=True),
    )
    for name in ("f", "w"):
        *columns, whole = dtap_dask.to_dask_ml(state)[name]
        block = pd.concat([through(entry, FRAME) for entry in columns], axis=1)
        if name == "w":
            block = block.to_numpy()  # the estimator knows no names of places
        np.testing.assert_allclose(whole.steps[0][1].transform(block), expected(state, name), rtol=1e-5, atol=1e-6)
