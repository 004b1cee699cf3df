"""Several columns as one text, against plain Python and TensorFlow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import JobError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.train.serving.program import ServingModule, features_only
from dtap_dask.train.serving.rows import raw_tensors
from fitting import fit_batches
from property_tests import examples

WORDS = st.sampled_from([None, "", "a", "é", "a\x1f", "bb"])
ROWS = st.lists(st.tuples(WORDS, st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.booleans()), max_size=12)
SCHEMA = pa.schema({"word": pa.string(), "number": pa.int64(), "flag": pa.bool_()})


def batch(rows: Any, dictionary: bool = False) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    made = pa.record_batch(
        [pa.array(one, field.type) for one, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    return made.set_column(0, "word", made.column(0).dictionary_encode()) if dictionary else made


def spec(*steps: Any, columns: tuple[str, ...] = tuple(SCHEMA.names)) -> FeatureSpec:
    parsed = tuple(parse_step(*one) if isinstance(one, tuple) else parse_step(one) for one in steps)
    return FeatureSpec("x", "feature", columns, parsed, vector=True, place="features[0]")


def applied(rows: pa.RecordBatch, *steps: Any) -> Any:
    return Transform(fit_batches(build([spec(*steps)], rows.schema), [rows])).apply(rows)["x"]


def joined(row: Any, separator: str) -> bytes | None:
    texts = [one if isinstance(one, str) else str(int(one)) for one in row if one is not None]
    return separator.encode().join(text.encode() for text in texts) if len(texts) == len(row) else None


@examples(1)
@given(ROWS, st.sampled_from(["\x1f", "", "_x_"]), st.booleans())
def test_rows_are_joined_as_in_plain_python(rows: Any, separator: str, dictionary: bool) -> None:
    given = batch(rows, dictionary)
    made = applied(
        given, ("cross", separator), ("impute", {"strategy": "constant", "value": "null"}), ("hash_encode", 999)
    )
    texts = [joined(row, separator) or b"null" if None in row else joined(row, separator) for row in rows]
    hashed = 1 + tf.strings.to_hash_bucket_fast(tf.constant(texts, tf.string), 999).numpy()
    assert made.tolist() == hashed.tolist()


def test_a_cross_that_is_hashed_is_that_of_tensorflow() -> None:
    rows = [("a", 1, True), ("", -5, False), ("é", 2**62, True)]
    ours = applied(batch(rows), ("cross", "_"), ("hash_encode", 50))
    numbers = tf.strings.as_string(tf.constant([row[1] for row in rows], tf.int64))
    flags = tf.strings.as_string(tf.constant([int(row[2]) for row in rows]))
    theirs = tf.strings.join([tf.constant([row[0] for row in rows]), numbers, flags], "_")
    assert ours.tolist() == (1 + tf.strings.to_hash_bucket_fast(theirs, 50)).numpy().tolist()


def test_a_null_in_any_column_is_null_for_the_encoder_behind() -> None:
    rows = [("a", 1, True), (None, 1, True), ("a", None, True), ("a", 1, None), ("b", 1, True), ("a", 1, True)]
    assert applied(batch(rows), "cross", "ordinal_encode").tolist() == [2, 0, 0, 0, 3, 2]
    hot = applied(batch(rows), "cross", "one_hot_encode")
    assert hot.tolist() == [[1, 0], [0, 0], [0, 0], [0, 0], [0, 1], [1, 0]]


def test_many_distinct_rows_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    rows = pa.record_batch({name: rng.integers(0, 2**40, 50_000) for name in "abcd"})
    graph = build([spec("cross", "ordinal_encode", columns=("a", "b", "c", "d"))], rows.schema)
    made = Transform(fit_batches(graph, [rows.slice(0, 30_000), rows.slice(30_000)])).apply(rows)["x"]
    assert len(np.unique(made)) == 50_000


PARTS = st.sampled_from([None, "", "a", "b", "a_b", "_", "b_a", "__"])
ENCODERS = st.sampled_from(["ordinal_encode", "one_hot_encode", "count_encode", "target_encode"])


def learnt(columns: dict[str, Any], steps: Any, cuts: list[int]) -> FittedState:
    """The feature x of the columns but y, fitted on batches that end at the cuts."""
    rows = pa.record_batch(columns)
    names = tuple(name for name in columns if name not in ("y", "<fold 2>"))
    specs = [spec(*steps, columns=names), FeatureSpec("y", "label", ("y",), ())]
    ends = sorted({0, *(cut for cut in cuts if cut < rows.num_rows), rows.num_rows})
    pieces = [rows.slice(low, high - low) for low, high in pairwise(ends)]
    return fit_batches(build(specs, pa.schema(list(rows.schema)[:-1])), pieces)


@examples(0.4)
@given(
    st.lists(st.tuples(PARTS, PARTS, st.integers(0, 1)), max_size=20),
    st.lists(st.integers(0, 20), max_size=3),
    ENCODERS,
)
def test_rows_whose_parts_join_to_one_text_are_one_value(
    drawn: list[tuple[str | None, str | None, int]], cuts: list[int], encoder: str
) -> None:
    drawn = [("a_b", "a", 1), ("a", "b_a", 0), *drawn]
    texts = [None if one is None or other is None else f"{one}_{other}" for one, other, _ in drawn]
    first, second, labels = map(list, zip(*drawn, strict=True))
    encode = (encoder, {"cv": 2} if encoder == "target_encode" else None)
    more = {"y": pa.array(labels), "<fold 2>": pa.array(np.arange(len(drawn)) % 2)}
    parts = {"a": pa.array(first, pa.string()), "b": pa.array(second, pa.string())} | more
    text = {"a": pa.array(texts, pa.string())} | more
    crossed, joined = learnt(parts, (("cross", "_"), encode), cuts), learnt(text, (encode,), cuts)
    made = Transform(crossed).apply(pa.record_batch(parts))["x"].reshape(len(drawn), -1)
    np.testing.assert_array_equal(made, Transform(joined).apply(pa.record_batch(text))["x"])

    of_new, rows = features_only(crossed), pa.record_batch(parts).select(["a", "b"])
    served = ServingModule(of_new, {})(raw_tensors(rows))["x"].numpy()
    np.testing.assert_array_equal(served, Transform(of_new).apply(rows)["x"])


REFUSED = [
    (("x",), {"x": pa.string()}, "cross joins several columns, and the block has one"),
    (
        ("x", "y"),
        {"x": pa.string(), "y": pa.float64()},
        "cross needs integers, booleans or text, and the column is float",
    ),
    (("x", "y"), {"x": pa.string(), "y": pa.list_(pa.string())}, "cross needs integers, booleans or text"),
]


@pytest.mark.parametrize(("columns", "types", "message"), REFUSED)
def test_what_cannot_be_crossed_is_refused(columns: tuple[str, ...], types: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        build([spec("cross", "ordinal_encode", columns=columns)], pa.schema(types))


def test_a_cross_needs_a_block_with_a_name() -> None:
    parsed = (parse_step("cross"), parse_step("ordinal_encode"))
    with pytest.raises(JobError, match="cross works on several columns at once. Give the block a `name`"):
        build([FeatureSpec("word", "feature", ("word",), parsed)], SCHEMA)
