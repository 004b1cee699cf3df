"""Every step in TensorFlow gives what records hold, for any rows, and refuses what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, DtapError
from dtap_dask.features import STEPS, FeatureSpec, Transform, build, parse_step
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches
from property_tests import examples
from serving_parity import (
    BOOL,
    BOOLEANS,
    DIGITS,
    F32,
    F64,
    FLOATS,
    I8,
    I64,
    INTEGERS,
    MICROSECONDS,
    PLAIN,
    TEXT,
    WORDS,
    assert_equal,
    outcome,
)

NUMBERS = st.lists(st.integers(-300, 300), max_size=5)
TEXTS = st.text("aAbÄäΣİ ,\t\0\u00a0", max_size=12).map(str.encode)
WORDS_ONLY = WORDS.filter(lambda word: word is not None)
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
        (F64, st.sampled_from([41.7, 41.9]) | st.floats(41.6, 42.1), ["power_transform"]),  # as degrees of latitude
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
        (TEXT, WORDS, [{"ordinal_encode": {"share": "all", "top_k": 3}}]),
        (TEXT, WORDS, [{"ordinal_encode": {"vocabulary": ["b", "", "\\n"], "oov_buckets": 0}}]),
        (I64, INTEGERS, [{"ordinal_encode": {"vocabulary": [5, -3, 2**63 - 1], "oov_buckets": 3}}]),
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


@pytest.mark.parametrize("name", sorted(STEPS.keys() - {"estimator"}))  # which cannot be served
def test_every_step_has_cases(name: str) -> None:
    assert CASES.get(name), f"step {name} has no case in CASES: its columns, values and steps"
    used = {step if isinstance(step, str) else next(iter(step)) for *_, steps in CASES[name] for step in steps}
    assert name in used


def test_an_estimator_is_refused() -> None:
    graph = graph_of(F64, [{"estimator": "sklearn.preprocessing.Normalizer"}])
    state = features_only(fit_batches(graph, [batch(graph, [1.0, 2.0, 4.0])]))
    with pytest.raises(DtapError, match="feature 'a': step estimator has no TensorFlow twin: only Python has sklearn"):
        ServingModule(state, {})


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
