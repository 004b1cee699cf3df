"""Every step gives the same in the records of a job, in `transform` and in TensorFlow, and refuses the same rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from dtap_dask.errors import DtapError
from dtap_dask.features import STEPS, Transform
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches
from parity_jobs import NEW, Case, Drawn, ParityJob
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
    TIMES,
    WHOLE,
    WORDS,
    WORDS_ONLY,
)

NUMBERS = st.lists(st.integers(-300, 300), max_size=5)
TEXTS = st.text("aAbÄäΣİ ,\t\0\u00a0", max_size=12).map(str.encode)
TIME = pa.timestamp("us")
LISTS = pa.list_(pa.int16())
VECTORS = pa.list_(F64, 2)
PAIRS = st.none() | st.lists(PLAIN, min_size=2, max_size=2)
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
        (F64, PLAIN, [{"impute": {"strategy": "median", "by": "KEY"}}]),
        (TEXT, WORDS, [{"impute": {"strategy": "constant", "value": "ä"}}]),
        (VECTORS, PAIRS, [{"impute": {"strategy": "median", "indicator": True}}]),
    ],
    "clip": [
        (F64, FLOATS, [FILL, {"clip": {"min": -1, "max": 2.5}}]),
        (I64, INTEGERS, [FILL, {"clip": {"min": -1, "max": 2**60}}]),
        (I64, INTEGERS, [FILL, {"clip": {"min": 0.5}}]),
        (BOOL, BOOLEANS, [{"impute": "most_frequent"}, {"clip": {"max": 0.5}}]),
        (LISTS, NUMBERS, [{"pad": 3}, {"clip": {"min": -1, "max": 200}}, "standard_scale"]),
    ],
    "log1p": [
        (F64, FLOATS, [FILL, "log1p"]),
        (I64, INTEGERS, [FILL, {"clip": {"min": 0}}, "log1p"]),
        (VECTORS, PAIRS, [FILL, "log1p"]),
    ],
    "standard_scale": [
        (F64, PLAIN, ["impute", "standard_scale"]),
        (I64, INTEGERS, [FILL, "standard_scale"]),
        (F64, PLAIN, [FILL, {"standard_scale": {"by": "KEY"}}]),
        (VECTORS, PAIRS, ["impute", "standard_scale", {"minmax_scale": (-1, 1)}]),
        (F64, PLAIN, [FILL, "standard_scale", {"pca": 3}, "standard_scale"]),
    ],
    "minmax_scale": [(F64, PLAIN, [FILL, {"minmax_scale": (-1, 1)}])],
    "maxabs_scale": [(F32, PLAIN, [FILL, "maxabs_scale"]), (VECTORS, PAIRS, [FILL, "maxabs_scale"])],
    "robust_scale": [
        (F32, PLAIN, [FILL, {"robust_scale": {"unit_variance": True}}]),
        (pa.list_(F32), st.lists(PLAIN, max_size=5), [{"pad": 2}, "impute", "robust_scale"]),
    ],
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
        (F64, PLAIN, [FILL, {"bucketize": {"quantiles": 2, "by": "KEY"}}]),
        (VECTORS, PAIRS, [FILL, {"bucketize": {"boundaries": [-1, 0, 2.5]}}]),
        (pa.list_(I64, 2), st.lists(WHOLE, min_size=2, max_size=2), [{"bucketize": {"boundaries": [0, 2**53 + 1]}}]),
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
        (pa.list_(TEXT), st.lists(WORDS_ONLY, max_size=3), ["ordinal_encode"]),
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
        (pa.list_(I64), st.lists(WHOLE, max_size=3), [{"hash_encode": 9}]),
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
        (TIME, TIMES, [{"datetime_parts": {"extract": ["year", "hour"]}}]),
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
        (TEXT, TEXTS, ["tokenize", {"ordinal_encode": 3}, "multi_hot"]),
        (TEXT, TEXTS, ["tokenize", "ordinal_encode", {"multi_hot": {"places": 3, "mode": "count"}}]),
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
ALL = [(f"{name}_{number}", case) for name in STEPS for number, case in enumerate(CASES.get(name, ()))]


@pytest.mark.parametrize("name", sorted(STEPS.keys() - {"estimator"}))  # which cannot be served
def test_every_step_has_cases(name: str) -> None:
    assert CASES.get(name), f"step {name} has no case in CASES: its columns, values and steps"
    used = {step if isinstance(step, str) else next(iter(step)) for *_, steps in CASES[name] for step in steps}
    assert name in used


def test_an_estimator_is_refused() -> None:
    case = Case("a", F64, [{"estimator": "sklearn.preprocessing.Normalizer"}])
    state = features_only(fit_batches(case.graph, case.rows([1.0, 2.0, 4.0]).to_batches()))
    with pytest.raises(DtapError, match="feature 'a': step estimator has no TensorFlow twin: only Python has sklearn"):
        ServingModule(state, {})


GROUPS = 10  # jobs, each of every tenth case: hypothesis gives up on examples of too many values


@pytest.mark.parametrize("group", range(GROUPS))
@examples(0.04, suppress_health_check=list(HealthCheck), phases=[Phase.generate])  # each step of shrinking is a job
@given(st.data())
def test_records_transform_and_serving_hold_the_same(group: int, data: Any) -> None:
    drawn = {}
    for name, (kind, values, steps) in ALL[group::GROUPS]:
        seen = data.draw(st.lists(values, min_size=4, max_size=6), label=f"{name}, fitted")
        new = data.draw(st.lists(values, min_size=2, max_size=4), label=f"{name}, new")
        drawn[Case(name, kind, steps)] = (seen, new)
    row = data.draw(st.integers(0, NEW - 1), label="row")
    sorted_out = [Drawn.of(case, seen, new) for case, (seen, new) in drawn.items()]
    layout = "blocks" if group % 2 or any("float16" in str(case.steps) for case in drawn) else "rows"
    with tempfile.TemporaryDirectory() as folder:
        ParityJob.run(Path(folder), [one for one in sorted_out if one is not None], layout).check(row)


def test_a_module_and_its_saved_model(tmp_path: Path) -> None:
    words = pa.record_batch({"a": pa.array([b"", b"a\nb", b"\xff", b"\\", None], TEXT)})
    state = fit_batches(Case("a", TEXT, [{"ordinal_encode": {"oov_buckets": 2}}]).graph, [words])
    module = ServingModule(state, {})
    tf.saved_model.save(module, tmp_path / "saved", signatures=tf.function(module).get_concrete_function(
        {"a": tf.TensorSpec([None], tf.string, "a"), "a_null": tf.TensorSpec([None], tf.bool, "a_null")}
    ))  # fmt: skip
    loaded = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    rows = pa.record_batch({"a": pa.array([b"", b"a\nb", b"\xff", b"\\", b"new", None], TEXT)})
    found = loaded(**raw_tensors(rows))["a"].numpy().tolist()
    assert found == Transform(state).apply(rows)["a"].tolist()
    assert [path.name for path in (tmp_path / "saved" / "assets").iterdir()] == ["vocabulary.txt"]
