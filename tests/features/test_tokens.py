"""Words of texts and hashed counts, against TensorFlow, scikit-learn, and plain Python."""

from __future__ import annotations

import itertools
import re
from typing import Any

import farmhash
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from fitting import fit_batches
from property_tests import examples

TEXTS = st.lists(st.none() | st.text("aAbé ,\t\n\0\u00a0\u2003ΣİÄ", max_size=14), min_size=1, max_size=8)


def run(array: pa.Array, *steps: tuple[str, Any]) -> Any:
    rows = pa.record_batch({"x": array})
    parsed = tuple(parse_step(name, options) for name, options in steps)
    graph = build([FeatureSpec("x", "feature", ("x",), parsed, place="features[0]")], rows.schema)
    return Transform(fit_batches(graph, [rows])).apply(rows)["x"]


def words_of(text: str, options: dict[str, Any]) -> list[str]:
    """The definition."""
    text = pc.utf8_lower(text).as_py() if options.get("lower", True) else text
    if "pattern" in options:
        words = re.split(f"{options['pattern']}|\0", text, flags=re.ASCII)
    else:
        words = text.split(options["separator"]) if "separator" in options else re.split("[ \t\n\v\f\r]", text)
    words = [word for word in words if word][: options.get("max_tokens")]
    sizes = options.get("ngrams", 1)
    sizes = range(1, sizes + 1) if isinstance(sizes, int) else sorted(sizes)
    return [" ".join(words[at : at + n]) for n in sizes for at in range(len(words) - n + 1)]


OPTIONS = [
    {},
    {"lower": False, "ngrams": 2},
    {"separator": ",", "ngrams": [3, 1]},
    {"pattern": "[^a-z]+", "max_tokens": 2},
    {"pattern": ",\\s*", "max_tokens": 3, "ngrams": [2]},
]


@pytest.mark.parametrize("options", OPTIONS)
@examples(0.3)
@given(TEXTS)
def test_words_are_those_of_the_definition(options: dict[str, Any], texts: list[str | None]) -> None:
    expected = [[word.encode() for word in words_of(text or "", options)] for text in texts]
    for array in (
        pa.array(texts, pa.string()),
        pa.array(["x", *texts], pa.large_string()).dictionary_encode().slice(1),
    ):
        assert run(array, ("tokenize", options), ("null_as_empty", None)).to_pylist() == expected


@pytest.mark.parametrize("mode", ["count", "binary", "signed"])
@examples(0.3)
@given(TEXTS.map(lambda texts: [text or "" for text in texts]), st.integers(1, 9))
def test_hashed_counts_are_those_of_the_definition(mode: str, texts: list[str], buckets: int) -> None:
    expected = np.zeros((len(texts), buckets), np.int64)
    for row, text in enumerate(texts):
        for word in words_of(text, {"ngrams": 2}):
            fingerprint = farmhash.Fingerprint64(word.encode())
            sign = -1 if mode == "signed" and fingerprint % (2 * buckets) >= buckets else 1
            expected[row, fingerprint % buckets] += sign
    if mode == "binary":
        expected = np.minimum(expected, 1)
    options = {"signed": True} if mode == "signed" else {"mode": mode}
    found = run(pa.array(texts), ("text_hash", {"buckets": buckets, "ngrams": 2, **options}))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == {"count": np.uint16, "binary": np.uint8, "signed": np.int16}[mode]


def test_hashed_counts_are_tensorflows_buckets() -> None:
    tf = pytest.importorskip("tensorflow")
    texts = ["the quick  brown the", "", "ÜBER über"]
    tokens = tf.strings.split(["the quick  brown the", "", "über über"])
    buckets = tf.strings.to_hash_bucket_fast(tokens, 11).to_list()
    expected = [np.bincount(row, minlength=11).tolist() if row else [0] * 11 for row in buckets]
    assert run(pa.array(texts), ("text_hash", 11)).tolist() == expected


def test_counts_are_count_vectorizers() -> None:
    texts = ["The cat and the dog", "a dog", "", "cat cat cat"]
    known = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, 2))
    expected = known.fit_transform(texts).toarray()
    found = run(pa.array(texts), ("tokenize", {"ngrams": 2}), ("multi_hot", {"mode": "count"}))
    np.testing.assert_array_equal(found, expected)


def test_lower_case_in_tensorflow_is_arrows_for_every_code_point() -> None:
    tf = pytest.importorskip("tensorflow")
    from dtap_dask.train.serving.tokens import LowerCase

    points = [chr(one) for one in itertools.chain(range(0xD800), range(0xE000, 0x110000))]
    lower = pc.utf8_lower(pa.array(points)).to_pylist()
    texts = tf.constant([one.encode() for one in points])
    assert LowerCase()(texts).numpy().tolist() == [one.encode() for one in lower]
    theirs = tf.strings.lower(texts, encoding="utf-8").numpy().tolist()
    differ = {a for a, b, c in zip(points, lower, theirs, strict=True) if b.encode() != c}
    # besides the dotted I, and NUL, which is dropped, only letters that TensorFlow's older Unicode does not know
    assert all(tf.strings.lower(one, encoding="utf-8") == one.encode() for one in differ - {"İ", "\0"})
    assert pc.utf8_lower("ΟΔΟΣ").as_py() == "οδοσ"
    assert LowerCase()(tf.constant(["ΟΔΟΣ"])).numpy()[0].decode() == "οδοσ"


def test_ids_of_words_for_an_embedding() -> None:
    texts = pa.array(["Red car", "a red  CAR", None])
    steps = (("tokenize", None), ("null_as_empty", None), ("ordinal_encode", 2), ("pad", 3))
    assert run(texts, *steps).tolist() == [[3, 2, 0], [1, 3, 2], [0, 0, 0]]


def test_nulls_and_bytes_that_are_not_utf8_are_errors() -> None:
    for step in (("tokenize", None), ("text_hash", 4)):
        with pytest.raises(DataError, match=r"1 of 2 rows of a batch of column 'x' are null.*impute: .*value: ''"):
            run(pa.array(["a", None]), step)
        assert len(run(pa.array(["a", None]), ("impute", {"strategy": "constant", "value": ""}), step)) == 2
        with pytest.raises(DataError, match=r"1 values of column 'x', step .* are not UTF-8. Leave such rows out"):
            run(pa.array([b"a", b"\xff b"], pa.binary()), step)
        unused = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array([b"a", b"\xff"], pa.binary()))
        assert len(run(unused, step)) == 2


def test_a_word_that_comes_too_often_is_an_error() -> None:
    text = pa.array(["a " * 65_536])
    with pytest.raises(DataError, match=r"65,536 times, and counts go up to 65,535.*binary"):
        run(text, ("text_hash", 3))
    assert run(text, ("text_hash", {"buckets": 3, "mode": "binary"})).sum() == 1
    with pytest.raises(DataError, match=r"counts go up to 32,767"):
        run(text, ("text_hash", {"buckets": 3, "signed": True}))


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("tokenize", {"separator": ",", "pattern": ","}, "not both"),
        ("tokenize", {"separator": ""}, "separator"),
        ("tokenize", {"pattern": "("}, "no regular expression of RE2"),
        ("tokenize", {"pattern": "a*"}, "matches an empty text"),
        ("tokenize", {"ngrams": 0}, "from 1 to 10"),
        ("tokenize", {"ngrams": []}, "from 1 to 10"),
        ("tokenize", {"max_tokens": 0}, "at least 1"),
        ("text_hash", None, "buckets: this key is required"),
        ("text_hash", {"buckets": 2, "signed": True, "mode": "binary"}, "`signed` goes with `mode: count`"),
        ("multi_hot", 0, "at least 1"),
    ],
)
def test_options_that_are_refused(name: str, options: Any, text: str) -> None:
    with pytest.raises(JobError, match=text):
        parse_step(name, options)


@pytest.mark.parametrize(
    ("kind", "name", "options", "text"),
    [
        (pa.int64(), "tokenize", None, "tokenize needs text, and the column is int. Put `cast: string` before it"),
        (pa.list_(pa.string()), "text_hash", 3, "text_hash needs text, and the column is a list"),
        (pa.float32(), "tokenize", None, "tokenize needs text, and the column is float"),
    ],
)
def test_columns_that_are_refused(kind: pa.DataType, name: str, options: Any, text: str) -> None:
    with pytest.raises(JobError, match=text):
        run(pa.array([], kind), (name, options))
