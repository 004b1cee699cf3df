"""Every step in TensorFlow gives what records hold, for any rows, and refuses what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dtap_dask.errors import DataError
from dtap_dask.features import STEPS, FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches
from property_tests import examples

FLOATS = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 3e38, -1e300, -1.0]),
    st.floats(allow_subnormal=False),
    st.floats(-1e6, 1e6, allow_subnormal=False),
)
PLAIN = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-30))
INTEGERS = st.one_of(st.none(), st.integers(-3, 6), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1]))
WORDS = st.one_of(
    st.none(),
    st.sampled_from([b"", b"a", b"b", b"\\", b"\\n", b"\n", b"\r", b"\\e", b"\xff\xfe", "ä".encode(), b"a b", b"\x00"]),
    st.binary(max_size=4),
)
DIGITS = st.one_of(st.none(), st.sampled_from(["1", "-5", " 7", "x", "", "9223372036854775807", "1e3"]))
MICROSECONDS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-(10**15), 10**16))
BOOLEANS = st.one_of(st.none(), st.booleans())

NUMBERS = st.lists(st.integers(-300, 300), max_size=5)
TEXTS = st.text("aAbÄäΣİ ,\t\0\u00a0", max_size=12).map(str.encode)
WORDS_ONLY = WORDS.filter(lambda word: word is not None)
F64, F32, I64, I8, TEXT, BOOL = pa.float64(), pa.float32(), pa.int64(), pa.int8(), pa.binary(), pa.bool_()
TIME = pa.timestamp("us")
LISTS = pa.list_(pa.int16())
FILL = {"impute": {"strategy": "constant", "value": 0}}

# Of each step: the type of its columns, steps that it needs before or after it, and what values are drawn.
CASES: dict[str, list[tuple[pa.DataType, Any, list[Any]]]] = {
    "impute": [
        (F64, PLAIN, ["impute"]),
        (F32, PLAIN, [{"impute": {"strategy": "median"}}]),
        (I64, INTEGERS, [{"impute": {"strategy": "most_frequent", "indicator": True}}]),
        (I64, INTEGERS, [{"impute": "mean"}]),
        (TEXT, WORDS, [{"impute": "most_frequent"}]),
        (BOOL, BOOLEANS, [{"impute": {"strategy": "constant", "value": True}}]),
        (TEXT, WORDS, [{"impute": {"strategy": "constant", "value": "ä"}}]),
    ],
    "clip": [
        (F64, FLOATS, [FILL, {"clip": {"min": -1, "max": 2.5}}]),
        (I64, INTEGERS, [FILL, {"clip": {"min": -1, "max": 2**60}}]),
        (I64, INTEGERS, [FILL, {"clip": {"min": 0.5}}]),
        (BOOL, BOOLEANS, [{"impute": "most_frequent"}, {"clip": {"max": 0.5}}]),
    ],
    "log1p": [(F64, FLOATS, [FILL, "log1p"]), (I64, INTEGERS, [FILL, {"clip": {"min": 0}}, "log1p"])],
    "standard_scale": [(F64, PLAIN, ["impute", "standard_scale"]), (I64, INTEGERS, [FILL, "standard_scale"])],
    "minmax_scale": [(F64, PLAIN, [FILL, {"minmax_scale": (-1, 1)}])],
    "maxabs_scale": [(F32, PLAIN, [FILL, "maxabs_scale"])],
    "robust_scale": [(F32, PLAIN, [FILL, {"robust_scale": {"unit_variance": True}}])],
    "quantile_transform": [
        (F64, PLAIN, [FILL, {"quantile_transform": {"n_quantiles": 5}}]),
        (I64, INTEGERS, [FILL, {"quantile_transform": "normal"}]),
    ],
    "power_transform": [
        (F64, PLAIN, [FILL, "power_transform"]),
        (I64, INTEGERS, [FILL, {"power_transform": False}]),
    ],
    "bucketize": [
        (F64, FLOATS, [FILL, {"bucketize": {"boundaries": [-1, 0, 0.5, 1e10]}}]),
        (I64, INTEGERS, [FILL, {"bucketize": {"boundaries": [-1, 0.5, 2**53 + 1, 2**63]}}]),
        (F64, PLAIN, [FILL, {"bucketize": {"quantiles": 3}}]),
    ],
    "ordinal_encode": [
        (TEXT, WORDS, ["ordinal_encode"]),
        (TEXT, WORDS, [{"ordinal_encode": {"top_k": 2, "oov_buckets": 7}}]),
        (TEXT, WORDS, [{"ordinal_encode": {"oov_buckets": 0}}]),
        (I64, INTEGERS, [{"ordinal_encode": {"top_k": 2, "oov_buckets": 3}}]),
        (BOOL, BOOLEANS, ["ordinal_encode"]),
        (TEXT, WORDS, [{"ordinal_encode": {"first": ["ä", "never"], "min_count": 2}}]),
        (pa.list_(TEXT), st.lists(WORDS.filter(lambda word: word is not None), max_size=3), ["ordinal_encode"]),
    ],
    "one_hot_encode": [
        (TEXT, WORDS, ["one_hot_encode"]),
        (I64, INTEGERS, [{"one_hot_encode": {"unseen": "error"}}]),
        (BOOL, BOOLEANS, [{"one_hot_encode": {"null": "error"}}, {"cast": "float64"}]),
    ],
    "hash_encode": [
        (TEXT, WORDS, [{"hash_encode": 5}]),
        (I64, INTEGERS, [{"hash_encode": 1000}]),
        (BOOL, BOOLEANS, [{"hash_encode": 9}]),
        (pa.list_(I64), st.lists(INTEGERS.filter(lambda one: one is not None), max_size=3), [{"hash_encode": 9}]),
    ],
    "count_encode": [
        (TEXT, WORDS, ["count_encode"]),
        (I64, INTEGERS, [{"count_encode": True}]),
        (BOOL, BOOLEANS, ["count_encode", "log1p"]),
    ],
    "cross": [
        (TEXT, WORDS, ["cross", {"hash_encode": 1000}]),
        (I64, INTEGERS, [{"cross": "_"}, "ordinal_encode"]),
        (BOOL, BOOLEANS, ["cross", {"target_encode": {"cv": 2}}]),
    ],
    "target_encode": [
        (TEXT, WORDS, [{"target_encode": {"cv": 2}}]),
        (I64, INTEGERS, [{"target_encode": {"cv": 2, "target_type": "multiclass", "smooth": 2}}]),
        (BOOL, BOOLEANS, [{"target_encode": {"cv": 2, "target_type": "binary"}}]),
    ],
    "pca": [  # all components, or where a row has none of those kept there is only rounding
        (F64, PLAIN, [FILL, "standard_scale", {"pca": 3}]),
        (F64, PLAIN, [FILL, "standard_scale", {"pca": {"n_components": 3, "whiten": True}}]),
    ],
    "truncated_svd": [
        (F64, PLAIN, [FILL, "standard_scale", {"truncated_svd": 3}]),
        (TEXT, WORDS, ["one_hot_encode", {"truncated_svd": 2}]),
    ],
    "polynomial": [
        (F64, FLOATS, [FILL, {"polynomial": 3}]),
        (I8, st.integers(-128, 127),
         [{"polynomial": {"degree": (2, 3), "interaction_only": True, "include_bias": False}}]),
    ],
    "datetime_parts": [
        (TIME, MICROSECONDS.filter(lambda one: one is not None), [{"datetime_parts": {"extract": ["year", "hour"]}}]),
    ],
    "cast": [
        (F64, FLOATS, [{"cast": "int64"}]),
        (F64, FLOATS, [FILL, {"cast": "int8"}]),
        (F64, FLOATS, [FILL, {"cast": "float16"}]),
        (I64, INTEGERS, [FILL, {"cast": "int32"}]),
        (I64, INTEGERS, [FILL, {"cast": "bool"}]),
        (BOOL, BOOLEANS, [FILL | {"impute": {"strategy": "constant", "value": False}}, {"cast": "string"}]),
        (I64, INTEGERS, [{"cast": "string"}, "ordinal_encode"]),
        (pa.string(), DIGITS, [{"cast": "int64"}, FILL]),
        (pa.string(), DIGITS, [{"cast": "float64"}, FILL]),
        (TIME, MICROSECONDS, [{"cast": "int64"}, FILL]),
    ],
    "tokenize": [
        (TEXT, TEXTS, ["tokenize"]),
        (TEXT, TEXTS, [{"tokenize": {"pattern": "[^a-zä]+", "ngrams": [1, 3]}}]),
        (TEXT, WORDS_ONLY, [{"tokenize": {"lower": False, "separator": "b", "ngrams": 2, "max_tokens": 2}}]),
    ],
    "text_hash": [
        (TEXT, TEXTS, [{"text_hash": {"buckets": 3, "ngrams": 2}}]),
        (TEXT, TEXTS, [{"text_hash": {"buckets": 5, "signed": True}}]),
        (TEXT, TEXTS, [{"text_hash": {"buckets": 5, "mode": "binary"}}]),
    ],
    "multi_hot": [
        (TEXT, TEXTS, ["tokenize", {"multi_hot": 3}]),
        (LISTS, st.lists(st.integers(-2, 4), max_size=5), [{"multi_hot": {"places": 4, "mode": "count"}}]),
        (LISTS, st.lists(st.integers(-2, 4), max_size=5), [{"multi_hot": {"unseen": "error"}}]),
    ],
    "null_as_empty": [(LISTS, NUMBERS, ["null_as_empty"])],
    "list_length": [(LISTS, NUMBERS, ["list_length"])],
    "first": [(LISTS, NUMBERS, [{"first": 2}])],
    "last": [(LISTS, NUMBERS, [{"last": 2}]), (pa.list_(TEXT), st.lists(WORDS_ONLY, max_size=4), [{"last": 1}])],
    "pad": [
        (LISTS, NUMBERS, [{"pad": {"length": 3, "value": -7, "mask": True}}]),
        (pa.list_(F32), st.lists(PLAIN, max_size=5), [{"pad": {"length": 2, "side": "pre", "value": 0.5}}]),
        (pa.list_(TEXT), st.lists(WORDS_ONLY, max_size=4), ["ordinal_encode", {"pad": 2}]),
        (LISTS, NUMBERS, [{"hash_encode": 9}, {"pad": {"length": 2, "truncating": "post"}}]),
    ],
    "passthrough": [
        (F64, FLOATS, ["passthrough"]),
        (I8, st.integers(-128, 127), ["passthrough"]),
        (TEXT, WORDS, ["passthrough"]),
        (pa.list_(F32), st.lists(st.floats(width=32, allow_subnormal=False), max_size=3), ["passthrough"]),
        (pa.list_(F64, 2), st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), []),
    ],
}  # fmt: skip
ALL = [pytest.param(*case, id=f"{name}-{number}") for name in STEPS for number, case in enumerate(CASES.get(name, ()))]
SUMS = 4
"""Units in the last place of float32, of the largest entry, by which sums over a block may differ: of pca."""


@pytest.mark.parametrize("name", STEPS)
def test_every_step_has_cases(name: str) -> None:
    assert CASES.get(name), f"step {name} has no case in CASES: its columns, values and steps"
    used = {step if isinstance(step, str) else next(iter(step)) for *_, steps in CASES[name] for step in steps}
    assert name in used


def graph_of(kind: pa.DataType, steps: list[Any]) -> Any:
    """Features of the column a, and of a, b and c where a step takes a block."""
    parsed = tuple(parse_step(one) if isinstance(one, str) else parse_step(*next(iter(one.items()))) for one in steps)
    block = any(step.on_block for step in parsed)
    names = ("a", "b", "c") if block else ("a",)
    specs = [FeatureSpec("a", "feature", names, parsed, vector=block)]
    types = dict.fromkeys(names, kind)
    if any(step.needs() for step in parsed):
        specs, types = [*specs, FeatureSpec("y", "label", ("y",), ())], {**types, "y": I64}
    return build(specs, pa.schema(types))


def batch(graph: Any, values: list[Any]) -> pa.RecordBatch:
    """Rows whose columns hold the values, each in another order."""
    fields = [field for field in graph.schema if field.name != "y"]
    columns = {field.name: pa.array(values[at:] + values[:at], field.type) for at, field in enumerate(fields)}
    if len(fields) < len(graph.schema):
        number = np.arange(len(values))
        columns |= {"y": pa.array(number % 2), "<fold 2>": pa.array(number // 2 % 2)}
    return pa.record_batch(columns)


def outcome(make: Any, rows: Any) -> Any:
    """The features, or None where the rows are refused."""
    try:
        return make(rows)
    except (DataError, tf.errors.InvalidArgumentError):
        return None


@pytest.mark.parametrize(("kind", "values", "steps"), ALL)
@examples(0.1, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_serving_is_what_records_hold(kind: pa.DataType, values: Any, steps: list[Any], data: Any) -> None:
    graph = graph_of(kind, steps)
    seen = data.draw(st.lists(values, min_size=4, max_size=8), label="fitted")
    rows = data.draw(st.lists(values, min_size=1, max_size=8), label="served")
    try:
        state = features_only(fit_batches(graph, [batch(graph, seen)]))
        transform = Transform(state)
    except DataError:
        return
    served, given_rows = ServingModule(state, {}), batch(graph, seen + rows)
    for some in (given_rows, given_rows.slice(len(seen)), given_rows.slice(len(seen), 1)):
        ours, theirs = outcome(transform.apply, some), outcome(served, raw_tensors(some))
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_equal(state, ours, theirs)


def assert_equal(state: FittedState, ours: Any, theirs: Any) -> None:
    """The features of records and of TensorFlow are equal, in name, dtype, shape and values."""
    assert list(ours) == list(theirs)
    for info in state.infos:
        made, wanted = theirs[info.name], ours[info.name]
        assert made.dtype.name == ("string" if info.dtype == "bytes" else info.dtype)
        if isinstance(made, tf.RaggedTensor):
            assert made.to_list() == wanted.to_pylist()
        elif isinstance(wanted, pa.Array):
            assert made.numpy().tolist() == wanted.to_pylist()
        elif np.dtype(info.dtype).kind == "f":
            assert_close(made.numpy(), wanted.astype(info.dtype), is_sum=len(info.columns) > 1)
        else:
            np.testing.assert_array_equal(made, wanted)


def assert_close(made: Any, wanted: Any, *, is_sum: bool) -> None:
    """Floats within one unit in the last place; TensorFlow has 0 in place of denormals."""
    made, wanted = (np.where(np.abs(one) < np.finfo(one.dtype).tiny, one.dtype.type(0), one) for one in (made, wanted))
    if is_sum:
        largest = np.nanmax(np.abs(wanted), initial=1e-30)
        np.testing.assert_allclose(made, wanted, rtol=0, atol=SUMS * np.spacing(np.float32(largest)))
    else:
        assert made.shape == wanted.shape
        np.testing.assert_array_max_ulp(made, wanted, 1)


def test_a_module_and_its_saved_model(tmp_path: Any) -> None:
    graph = graph_of(TEXT, [{"ordinal_encode": {"oov_buckets": 2}}])
    state = fit_batches(graph, [batch(graph, [b"", b"a\nb", b"\xff", b"\\", None])])
    module = ServingModule(state, {})
    tf.saved_model.save(module, tmp_path / "saved", signatures=tf.function(module).get_concrete_function(
        {"a": tf.TensorSpec([None], tf.string, "a"), "a_null": tf.TensorSpec([None], tf.bool, "a_null")}
    ))  # fmt: skip
    loaded = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    rows = batch(graph, [b"", b"a\nb", b"\xff", b"\\", b"new", None])
    found = loaded(**raw_tensors(rows))["a"].numpy().tolist()
    assert found == Transform(state).apply(rows)["a"].tolist()
    assert [path.name for path in (tmp_path / "saved" / "assets").iterdir()] == ["vocabulary.txt"]
