"""Steps as tensors give what Keras' own preprocessing layers give, where Keras has the layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from dtap_dask.features import FeatureSpec, build, parse_step
from dtap_dask.train.serving.program import ServingModule
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches

WORDS = ["b", "a", "b", "c", "", "b", "c", "z", "ä", "z", "z"]
SEEN = [word for word in WORDS if word]  # Keras takes the mask token, here the empty text, out of its vocabulary
INTEGERS = [5, -2, 5, 9, 5, -2, 9, 7]
NUMBERS = [0.5, -3.25, 1e3, 2.0, 7.5, 0.0]


def served(values: list[Any], kind: pa.DataType, step: str, options: Any, rows: list[Any]) -> Any:
    """The step, fitted on `values`, of `rows`."""
    schema = pa.schema({"a": kind})
    graph = build([FeatureSpec("a", "feature", ("a",), (parse_step(step, options),))], schema)
    state = fit_batches(graph, [pa.record_batch({"a": pa.array(values, kind)})])
    return ServingModule(state, {})(raw_tensors(pa.record_batch({"a": pa.array(rows, kind)})))["a"].numpy()


def test_string_lookup() -> None:
    rows: list[Any] = [*SEEN, "new", "other", None]
    ids = served(SEEN, pa.string(), "ordinal_encode", {"oov_buckets": 3}, rows)
    vocabulary = ["b", "z", "c", "a", "ä"]  # by falling count, then rising; ours, as Keras leaves ties open
    theirs = keras.layers.StringLookup(vocabulary=vocabulary, num_oov_indices=3, mask_token="")
    np.testing.assert_array_equal(ids, theirs(tf.constant([word or "" for word in rows])))


def test_integer_lookup() -> None:
    rows: list[Any] = [*INTEGERS, 100, -101, None]
    ids = served(INTEGERS, pa.int64(), "ordinal_encode", {"oov_buckets": 4}, rows)
    theirs = keras.layers.IntegerLookup(vocabulary=[5, -2, 9, 7], num_oov_indices=4, mask_token=-(2**31))
    np.testing.assert_array_equal(
        ids, theirs(tf.constant([-(2**31) if one is None else one for one in rows], tf.int64))
    )


def test_normalization() -> None:
    made = served(NUMBERS, pa.float64(), "standard_scale", None, NUMBERS)
    theirs = keras.layers.Normalization(axis=None)
    theirs.adapt(np.array(NUMBERS, np.float32))
    np.testing.assert_allclose(made, theirs(np.array(NUMBERS, np.float32)), rtol=1e-5)  # Keras computes in float32


def test_discretization() -> None:
    bounds, rows = [-1.0, 0.5, 7.5], [*NUMBERS, -1.0, 1e30]
    made = served(rows, pa.float64(), "bucketize", {"boundaries": bounds}, rows)
    np.testing.assert_array_equal(made, keras.layers.Discretization(bounds)(np.array(rows, np.float32)))


def test_hashing() -> None:
    made = served(WORDS, pa.string(), "hash_encode", 7, WORDS)
    theirs = keras.layers.Hashing(8, mask_value="\x00")  # Keras counts the bucket of the mask among its bins
    np.testing.assert_array_equal(made, theirs(tf.constant(WORDS)))


def test_hashing_of_integers() -> None:
    made = served(INTEGERS, pa.int64(), "hash_encode", 7, INTEGERS)
    theirs = keras.layers.Hashing(8, mask_value=-(2**31))
    np.testing.assert_array_equal(made, theirs(tf.constant(INTEGERS, tf.int64)))


CROSSED = {"word": WORDS[:8], "number": INTEGERS}


def crossed(buckets: int, rows: dict[str, list[Any]]) -> Any:
    """`cross` of both columns and `hash_encode`, which learn nothing."""
    schema = pa.schema({"word": pa.string(), "number": pa.int64()})
    steps = (parse_step("cross", "_X_"), parse_step("hash_encode", buckets))
    graph = build([FeatureSpec("a", "feature", tuple(rows), steps, vector=True)], schema)
    state = fit_batches(graph, [])
    return ServingModule(state, {})(raw_tensors(pa.record_batch(rows, schema)))["a"].numpy().ravel()


def test_hashed_crosses_are_hashes_of_the_joined_text() -> None:
    joined = tf.strings.join([CROSSED["word"], tf.strings.as_string(tf.constant(CROSSED["number"], tf.int64))], "_X_")
    ids = crossed(7, CROSSED)
    np.testing.assert_array_equal(ids, 1 + tf.strings.to_hash_bucket_fast(joined, 7).numpy())
    np.testing.assert_array_equal(ids, keras.layers.Hashing(8, mask_value="\x00")(joined))


def test_hashed_crossing_tells_the_same_rows_apart_but_hashes_each_column() -> None:
    bins = 1 << 30
    inputs = (tf.constant(CROSSED["word"]), tf.constant(CROSSED["number"], tf.int64))
    theirs = keras.layers.HashedCrossing(bins)(inputs).numpy()
    ours = crossed(bins, CROSSED)
    np.testing.assert_array_equal(theirs[:, None] == theirs, ours[:, None] == ours)
    assert (1 + theirs != ours).all()  # a hash of the columns' hashes, not of a text
    assert crossed(bins, {"word": [None, "a"], "number": [1, None]}).tolist() == [0, 0]  # Keras has no null here


def test_category_encoding() -> None:
    values = [0, 1, 2, 3, 1]
    made = served(values, pa.int64(), "one_hot_encode", None, [3, 0, 2])
    theirs = keras.layers.CategoryEncoding(4, output_mode="one_hot")
    np.testing.assert_array_equal(made, theirs(np.array([3, 0, 2])))


@pytest.mark.parametrize(("mode", "theirs"), [("binary", "multi_hot"), ("count", "count")])
def test_category_encoding_of_lists(mode: str, theirs: str) -> None:
    rows = [[0, 3, 3], [2, 2, 2], [1, 0, 3]]
    made = served(rows, pa.list_(pa.int64()), "multi_hot", {"places": 4, "mode": mode}, rows)
    np.testing.assert_array_equal(made, keras.layers.CategoryEncoding(4, output_mode=theirs)(np.array(rows)))
