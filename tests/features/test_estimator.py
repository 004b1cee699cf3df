"""The step `estimator`, against the transformers themselves."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn import cluster, decomposition, impute, kernel_approximation, preprocessing

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.columns.column import Numbers
from dtap_dask.features.graph.serving import of_new_rows, unservable
from dtap_dask.features.statistics.rows import RowSample
from dtap_dask.features.steps import transformers
from dtap_dask.features.steps.fitted_objects import decoded, encoded
from dtap_dask.features.steps.transformers import WRONG, allow_estimators
from dtap_dask.features.steps.valuetype import Unfit
from dtap_dask.lake.split import ROW_FOLDS, fold_column
from dtap_dask.storage import open_store
from fitting import fit_batches
from property_tests import examples

COUNT = 400
RNG = np.random.default_rng(7)
ROWS = pa.record_batch({name: RNG.gamma(2, size=COUNT) for name in "abcd"} | {"word": ["x", "y"] * (COUNT // 2)})
HOLED = ROWS.set_column(0, "a", pa.array(np.where(np.arange(COUNT) % 7, ROWS["a"], np.nan), from_pandas=True))


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "_allowed", [*transformers.allowed_estimators()])
    allow_estimators("odd_transformers")


def state_of(
    path: str,
    parameters: Any = None,
    *,
    rows: pa.RecordBatch = ROWS,
    columns: str = "abcd",
    cuts: Any = (),
    before: Any = (),
    most: int = 100_000,
    output: str = "float",
) -> FittedState:
    step = parse_step("estimator", {"path": path, "parameters": parameters or {}, "rows": most, "output": output})
    steps = (*map(parse_step, before), step)
    spec = FeatureSpec("f", "feature", tuple(columns), steps, vector=True, place="features[0]")
    hashes = pa.array(np.random.default_rng(1).permutation(rows.num_rows))
    whole = rows.append_column(fold_column(ROW_FOLDS), hashes)
    ends = [0, *cuts, rows.num_rows]
    return fit_batches(build([spec], rows.schema), [whole.slice(a, b - a) for a, b in itertools.pairwise(ends)])


def applied(state: FittedState, rows: pa.RecordBatch = ROWS) -> Any:
    return Transform(of_new_rows(state)).apply(rows)["f"]


def block(rows: pa.RecordBatch = ROWS) -> Any:
    hashes = np.random.default_rng(1).permutation(rows.num_rows)
    made = np.column_stack([rows[name].to_numpy(zero_copy_only=False) for name in "abcd"])
    return made, made[np.argsort(hashes)]


TAKEN: list[tuple[Any, dict[str, Any]]] = [
    (decomposition.FastICA, {"n_components": 2, "random_state": 0}),
    (decomposition.FactorAnalysis, {"n_components": 2, "random_state": 3}),
    (cluster.KMeans, {"n_clusters": 3, "random_state": 0}),
    (kernel_approximation.Nystroem, {"n_components": 5, "random_state": 1}),
    (kernel_approximation.RBFSampler, {"n_components": 6, "random_state": 1}),
    (preprocessing.SplineTransformer, {"n_knots": 4}),
    (preprocessing.KBinsDiscretizer, {"n_bins": 3, "quantile_method": "averaged_inverted_cdf", "random_state": 0}),
    (preprocessing.Normalizer, {"norm": "l1"}),
    (preprocessing.MinMaxScaler, {"feature_range": [-1, 1]}),
]


@pytest.mark.parametrize(("kind", "parameters"), TAKEN, ids=[one.__name__ for one, _ in TAKEN])
def test_results_are_those_of_the_transformer(kind: Any, parameters: Any, tmp_path: Path) -> None:
    state = state_of(f"{kind.__module__.partition('._')[0]}.{kind.__name__}", parameters, cuts=(90, 300))
    given, sample = block()
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
    theirs = kind(**tuples).fit(sample).transform(given)
    wanted = theirs.toarray() if hasattr(theirs, "toarray") else theirs
    np.testing.assert_allclose(applied(state), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert applied(state).dtype == np.float32
    state.save(open_store(str(tmp_path)))
    again = FittedState.load(open_store(str(tmp_path)))
    np.testing.assert_array_equal(applied(again), applied(state))
    np.testing.assert_array_equal(applied(again, ROWS.slice(7, 1)), applied(state)[7:8])
    assert applied(again, ROWS.slice(0, 0)).shape == (0, wanted.shape[1])


@examples(0.3)
@given(st.lists(st.integers(1, COUNT - 1), max_size=5, unique=True).map(sorted), st.integers(2, 500))
def test_the_sample_does_not_depend_on_how_rows_are_cut(cuts: list[int], most: int) -> None:
    given, _ = block()
    hashes = np.random.default_rng(2).integers(0, 50, COUNT)  # many rows share a key

    def sampled(ends: list[int]) -> Any:
        parts = []
        for a, b in itertools.pairwise([0, *ends, COUNT]):
            parts.append(RowSample(most, with_nulls=False))
            parts[-1].add_rows(given[a:b], hashes[a:b])
        return RowSample.merged(parts).rows

    np.testing.assert_array_equal(sampled(cuts), sampled([]))
    order = sorted(range(COUNT), key=lambda row: (hashes[row], *given[row]))
    np.testing.assert_array_equal(sampled(cuts), given[order[:most]])


def test_a_sample_is_what_is_fitted_and_no_wider_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "sklearn.preprocessing.StandardScaler"
    given, sample = block()
    state = state_of(path, cuts=(50,), most=40)
    wanted = preprocessing.StandardScaler().fit(sample[:40]).transform(given)
    np.testing.assert_allclose(applied(state), wanted, rtol=1e-5, atol=1e-6)
    assert next(iter(state.fitted.values()))["n_samples_"] == 40
    monkeypatch.setattr("dtap_dask.features.statistics.rows.MOST_NUMBERS", 100)
    assert next(iter(state_of(path).fitted.values()))["n_samples_"] == 25


def test_whole_numbers_and_steps_before_it() -> None:
    state = state_of("sklearn.preprocessing.KBinsDiscretizer", {"n_bins": 4, "encode": "ordinal", "random_state": 0,
                     "quantile_method": "averaged_inverted_cdf"}, before=["standard_scale"], output="int")  # fmt: skip
    assert applied(state).dtype == np.int64
    assert np.unique(applied(state)).tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"gives numbers that are not whole\. Leave out `output: int`"):
        applied(state_of("sklearn.preprocessing.StandardScaler", output="int"))


def test_imputers_get_nulls_and_others_do_not() -> None:
    state = state_of("sklearn.impute.KNNImputer", {"n_neighbors": 2}, rows=HOLED)
    wanted = impute.KNNImputer(n_neighbors=2).fit(block(HOLED)[1]).transform(block(HOLED)[0])
    np.testing.assert_allclose(applied(state, HOLED), wanted, rtol=1e-6)
    with pytest.raises(DataError, match=r"Nulls \(or NaN\) of column 'a' \(58\) among 400 rows would reach the output"):
        state_of("sklearn.preprocessing.StandardScaler", rows=HOLED)
    filled = state_of("sklearn.preprocessing.StandardScaler", rows=HOLED, before=["impute"])
    assert np.isfinite(applied(filled, HOLED)).all()


@pytest.mark.parametrize("path", ["sklearn.preprocessing.StandardScaler", "sklearn.decomposition.PCA"])
def test_inverse_is_that_of_the_transformer(path: str) -> None:
    state = state_of(path, {"random_state": 0} if "PCA" in path else {})
    [(value, fitted)] = state.fitted.items()
    undo = value.applied.inverse(fitted)
    assert undo is not None
    back = undo(Numbers(applied(state).astype(np.float64)))
    np.testing.assert_allclose(np.column_stack([one.values for one in back]), block()[0], rtol=1e-4, atol=1e-5)
    [(value, fitted)] = state_of("sklearn.preprocessing.SplineTransformer").fitted.items()
    assert value.applied.inverse(fitted) is None


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    state_of("sklearn.preprocessing.StandardScaler").save(open_store(str(tmp_path)))
    text = (tmp_path / "transform.json").read_text()
    (tmp_path / "transform.json").write_text(text.replace('"array": 1', '"array": 9'))
    with pytest.raises(
        DataError, match=r"learnt by sklearn\.preprocessing\.StandardScaler was damaged\. Fit and write"
    ):
        applied(FittedState.load(open_store(str(tmp_path))))


def test_it_cannot_be_served() -> None:
    assert unservable(state_of("sklearn.preprocessing.Normalizer").graph, ()) == (
        "feature 'f': step estimator has no TensorFlow twin: only Python has sklearn.preprocessing.Normalizer",
    )


NOT_ALLOWED: list[tuple[str, Any, str]] = [
    ("FastICA", {}, r"`path` takes the import path of a class, such as sklearn.decomposition.FastICA, not 'FastICA'"),
    ("sklearn.decom position.X", {}, "`path` takes the import path of a class"),
    ("os.system", {}, r"module 'os' is not allowed: sklearn, dask_ml, odd_transformers are\. If you trust its code, "
     r"give --allow-estimators os \(in Python dtap_dask\.allow_estimators\('os'\)\)"),
    ("sklearn.decomposition.FastIca", {}, "module 'sklearn.decomposition' has no 'FastIca'"),
    ("sklearn.nothing.FastICA", {}, "sklearn.nothing.FastICA cannot be imported: ModuleNotFoundError"),
    ("sklearn.base.defaultdict", {}, "is collections.defaultdict, whose module is not allowed"),
    ("odd_transformers.function", {}, "odd_transformers.function is no class, but function"),
    ("odd_transformers.Untransforming", {}, "is no transformer: it lacks `fit`, `transform` or `get_params`"),
    ("sklearn.cluster.DBSCAN", {}, "is no transformer"),
    ("sklearn.preprocessing.Normalizer", {"norms": "l1"}, "has no parameter 'norms'; it has norm, copy"),
    ("sklearn.preprocessing.Normalizer", {"norm": "l3"}, "does not take these parameters: InvalidParameterError: The "
     "'norm' parameter of Normalizer must be a str among"),
    ("sklearn.compose.ColumnTransformer", {}, "does not take these parameters: TypeError"),
    ("sklearn.decomposition.FastICA", {}, r"draws random numbers. Fix them with `parameters: \{random_state: 0\}`"),
    ("sklearn.cluster.FeatureAgglomeration", {"memory": "/tmp/x"}, "with `memory` would read pickles from a folder"),
    ("sklearn.preprocessing.TargetEncoder", {"random_state": 0}, "learns from a label.*target_encode"),
    ("sklearn.feature_extraction.text.CountVectorizer", {}, "takes no rows of numbers. For text there are tokenize"),
    *((f"dask_ml.preprocessing.{name}", {}, f"is not offered: .*Use the step {WRONG[name][0]}")
      for name in ("MinMaxScaler", "RobustScaler", "QuantileTransformer", "PolynomialFeatures", "Categorizer",
                   "DummyEncoder", "OrdinalEncoder", "OneHotEncoder", "LabelEncoder")),
    ("dask_ml.impute.SimpleImputer", {}, "Use the step impute"),
    ("dask_ml.decomposition.PCA", {}, "Use the step pca"),
    ("dask_ml.decomposition.IncrementalPCA", {}, "Use the step pca"),
    ("dask_ml.feature_extraction.text.HashingVectorizer", {}, "Use the step text_hash"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "parameters", "message"), NOT_ALLOWED, ids=[path for path, *_ in NOT_ALLOWED])
def test_what_is_wrong_before_any_row_is_read(odd: None, path: str, parameters: Any, message: str) -> None:
    with pytest.raises(JobError, match=r"features\[0\]\.steps\[0\]: .*" + message):
        state_of(path, parameters)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("word", "estimator needs numbers, and the column is text"),
        ("abcd", "estimator works on several columns"),
    ],
)
def test_text_and_blocks_without_a_name_are_refused(columns: str, message: str) -> None:
    step = parse_step("estimator", "sklearn.preprocessing.Normalizer")
    names = ("word",) if columns == "word" else tuple(columns)
    with pytest.raises(JobError, match=message):
        build([FeatureSpec("f", "feature", names, (step,), vector=columns == "word")], ROWS.schema)


REFUSED: list[tuple[str, Any, str]] = [
    ("sklearn.decomposition.NMF", {"random_state": 0}, "gives a row other results among other rows"),
    ("sklearn.ensemble.RandomTreesEmbedding", {"n_estimators": 2, "max_depth": 2, "random_state": 0},
     r"has learnt holds sklearn\.tree\._tree\.Tree, and only numbers"),
    ("odd_transformers.Drawing", {}, r"Fitted twice on the same rows, odd_transformers\.Drawing \(column 'a, b, c, d' "
     r"\(feature 'f'\), step estimator\) gives different results\. Fix what it draws"),
    ("odd_transformers.Centring", {}, "gives a row other results among other rows, and rows come in "
     "batches of any size"),
    ("odd_transformers.Holding", {}, "has learnt holds builtins.module, and only numbers, text and arrays are "
     "kept: pickles would run code"),
    ("odd_transformers.Forgetful", {}, "has learnt cannot be kept: read back, it gives other results"),
    ("odd_transformers.Labelled", {}, "cannot be fitted: TypeError: .*label"),
    ("odd_transformers.Spelling", {}, "cannot transform rows: ValueError: the result has shape .* and dtype <U32"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "parameters", "message"), REFUSED, ids=[path for path, *_ in REFUSED])
def test_what_the_sample_shows_to_be_wrong_is_refused(odd: None, path: str, parameters: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        state_of(path, parameters)


def test_parameters_that_do_not_fit_the_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"PCA \(.*\) cannot be fitted: ValueError: n_components=9 must be between"):
        state_of("sklearn.decomposition.PCA", {"n_components": 9, "random_state": 0})
    empty = pa.record_batch({name: pa.array([], pa.float64()) for name in "abcd"})
    with pytest.raises(DataError, match="There is nothing to learn"):
        state_of("sklearn.impute.KNNImputer", rows=empty)


def test_infinities_and_results_that_are_null_are_refused(odd: None) -> None:
    endless = ROWS.set_column(0, "a", pa.array(np.where(np.arange(COUNT) == 3, np.inf, ROWS["a"])))
    state = state_of("odd_transformers.Missing")
    with pytest.raises(DataError, match="values of column.*are infinite"):
        applied(state, endless)
    with pytest.raises(DataError, match="are infinite"):
        state_of("odd_transformers.Missing", rows=endless)
    low = ROWS.set_column(0, "a", pa.array(np.full(COUNT, -101.0)))
    with pytest.raises(DataError, match="gives NaN for some rows"):
        applied(state, low)


def test_datasets_with_a_transformer_that_is_not_allowed_open_and_do_not_run_it(odd: None, tmp_path: Path) -> None:
    state = state_of("odd_transformers.Doubling")
    state.save(open_store(str(tmp_path)))
    np.testing.assert_allclose(applied(state), block()[0] * 2, rtol=1e-6)
    transformers._allowed.remove("odd_transformers")
    loaded = FittedState.load(open_store(str(tmp_path)))
    assert "odd_transformers" not in repr(loaded.infos)
    with pytest.raises(DataError, match=r"Step estimator: module 'odd_transformers' is not allowed: .*--allow"):
        applied(loaded)


def test_another_release_is_refused(tmp_path: Path) -> None:
    state_of("sklearn.preprocessing.Normalizer").save(open_store(str(tmp_path)))
    text = (tmp_path / "transform.json").read_text()
    (tmp_path / "transform.json").write_text(text.replace(json.dumps(sklearn.__version__), '"0.99.1"'))
    with pytest.raises(DataError, match=r"it was fitted by release 0\.99\.1, and this is .*: install that, or"):
        applied(FittedState.load(open_store(str(tmp_path))))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    | st.sampled_from([np.float32(0.1), np.int8(3), np.dtype("<f4"), np.float64, float, np.array(["a", "bc"])])
    | st.lists(st.floats(), max_size=3).map(np.array),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=2) | st.integers(0, 9), inner, max_size=3)
    | st.lists(inner, min_size=1, max_size=3).map(lambda values: np.array([*values, None], object)[:-1]
                                                  if all(not isinstance(one, np.ndarray) for one in values) else None),
)  # fmt: skip


@examples(0.5)
@given(VALUES)
def test_plain_data_is_read_back_as_it_was(value: Any) -> None:
    arrays: list[bytes] = []
    text = json.dumps(encoded(value, arrays), allow_nan=False)
    assert_same(decoded(json.loads(text), arrays), value)


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(right, dict):
        assert list(left) == list(right)
        left, right = list(left.values()), list(right.values())
    if isinstance(right, list | tuple) or (isinstance(right, np.ndarray) and right.dtype == object):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(right, np.ndarray | np.generic | float):
        np.testing.assert_array_equal(left, right)
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None)
    else:
        assert left == right


def test_a_forged_state_runs_nothing() -> None:
    for forged in ("os.system", "subprocess.Popen"):
        with pytest.raises(Unfit, match="is not allowed"):
            decoded({"transformer": forged, "state": {"dict": []}}, [])
    pickled = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(128) + b"\n"
    with pytest.raises(ValueError, match="allow_pickle=False"):
        decoded({"array": 0}, [pickled])
