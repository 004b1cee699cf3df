"""Ids, one-hot places and hash buckets against Keras, TensorFlow, scikit-learn, dask-ml and a Counter."""

from __future__ import annotations

from collections import Counter

import dask.dataframe as dd
import farmhash
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask_ml.preprocessing import Categorizer
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.columns.column import Words
from dtap_dask.features.columns.vocabulary import Vocabulary, WordTables
from fitting import fit_batches, pieces
from property_tests import examples

words = st.lists(st.none() | st.text("abé😀\0", max_size=3), min_size=1, max_size=60).filter(
    lambda values: any(value is not None for value in values)
)
integers = st.lists(st.none() | st.integers(-9, 9) | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60).filter(
    lambda values: any(value is not None for value in values)
)
cuts = st.lists(st.integers(0, 60), max_size=5)


def train(array: pa.Array, name, options=None, at=(), role="feature"):
    rows = pa.record_batch({"x": array})
    graph = build([FeatureSpec("x", role, ("x",), (parse_step(name, options),))], rows.schema)
    return Transform(fit_batches(graph, pieces(rows, list(at))))


def encode(transform, array):
    return transform.apply(pa.record_batch({"x": array}))["x"]


def obvious_ids(seen, values, top_k=None, min_count=1, oov_buckets=1):
    """The definition, a row at a time."""
    counts = Counter(value for value in seen if value is not None)
    order = sorted(counts, key=lambda v: (-counts[v], v.encode() if isinstance(v, str) else v))
    order = [value for value in order if counts[value] >= min_count][:top_k]
    ids = {value: 1 + oov_buckets + place for place, value in enumerate(order)}

    def unseen(value):
        return farmhash.Fingerprint64(value.encode()) if isinstance(value, str) else value

    return [0 if v is None else ids[v] if v in ids else 1 + unseen(v) % oov_buckets for v in values]


bounds = st.tuples(st.none() | st.integers(1, 5), st.integers(1, 3), st.integers(1, 4))


@given(words, words, cuts, bounds)
def test_ids_of_text(seen, values, at, options):
    top_k, min_count, buckets = options
    options = {"top_k": top_k, "min_count": min_count, "oov_buckets": buckets}
    transform = train(pa.array(seen, pa.string()), "ordinal_encode", options, at)
    expected = obvious_ids(seen, values, top_k, min_count, buckets)
    for array in (pa.array(values, pa.string()), pa.array(values, pa.large_string()).dictionary_encode()):
        assert encode(transform, array).tolist() == expected
    assert transform.infos[0].ids == 1 + buckets + len(
        set(obvious_ids(seen, seen, top_k, min_count, buckets)) - set(range(buckets + 1))
    )


@given(integers, integers, cuts, st.integers(1, 4))
def test_ids_of_integers(seen, values, at, buckets):
    transform = train(pa.array(seen, pa.int64()), "ordinal_encode", {"oov_buckets": buckets}, at)
    assert encode(transform, pa.array(values, pa.int64())).tolist() == obvious_ids(seen, values, oov_buckets=buckets)


def test_ids_of_unsigned_integers_and_booleans():
    seen = [2**64 - 1, 0, 2**64 - 1, None]
    transform = train(pa.array(seen, pa.uint64()), "ordinal_encode", {"oov_buckets": 3})
    assert encode(transform, pa.array([2**64 - 1, 0, None, 2**64 - 2], pa.uint64())).tolist() == [
        4,
        5,
        0,
        1 + (2**64 - 2) % 3,
    ]
    transform = train(pa.array([True, True, False, None]), "ordinal_encode")
    assert encode(transform, pa.array([True, False, None])).tolist() == [2, 3, 0]


def test_ids_are_kerases():
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    seen = ["b", "a", "b", "c", "c", "b", "ü"]
    transform = train(pa.array(seen), "ordinal_encode", {"oov_buckets": 5})
    vocabulary = ["b", "c", "a", "ü"]
    lookup = keras.layers.StringLookup(vocabulary=vocabulary, num_oov_indices=5, mask_token="")
    values = ["a", "b", "c", "ü", "unseen", "x", "yy", "😀", "zzz"]
    assert encode(transform, pa.array(values)).tolist() == lookup(tf.constant(values)).numpy().tolist()
    assert encode(transform, pa.array([None], pa.string())).tolist() == lookup(tf.constant([""])).numpy().tolist()
    transform = train(pa.array([5, 5, 9, -3]), "ordinal_encode", {"oov_buckets": 4})
    lookup = keras.layers.IntegerLookup(vocabulary=[5, -3, 9], num_oov_indices=4, mask_token=0)
    values = [5, -3, 9, 1, 2, 3, 4, -7, 10**15]
    assert encode(transform, pa.array(values)).tolist() == lookup(tf.constant(values, tf.int64)).numpy().tolist()


def test_hash_buckets_are_tensorflows():
    tf = pytest.importorskip("tensorflow")
    values = ["", "a", "ü", "😀", "a longer value " * 20]
    transform = train(pa.array([], pa.string()), "hash_encode", 1000)
    expected = tf.strings.to_hash_bucket_fast(values, 1000).numpy() + 1
    assert encode(transform, pa.array(values)).tolist() == expected.tolist()
    assert encode(transform, pa.array([None, "a"])).tolist()[0] == 0
    numbers = [0, -5, 2**63 - 1]
    transform = train(pa.array([], pa.int64()), "hash_encode", {"buckets": 77})
    expected = tf.strings.to_hash_bucket_fast([str(value) for value in numbers], 77).numpy() + 1
    assert encode(transform, pa.array([*numbers, None])).tolist() == [*expected.tolist(), 0]
    assert transform.infos[0].ids == 78


@examples(0.4)
@given(words, words, cuts)
def test_one_hot_is_scikit_learns(seen, values, at):
    transform = train(pa.array(seen, pa.string()), "one_hot_encode", at=at)
    known = np.array([[value] for value in seen if value is not None], object)
    oracle = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    oracle.fit(np.array([[value.encode()] for [value] in known], object))
    found = encode(transform, pa.array(values, pa.string()).dictionary_encode())
    plain = np.array([[b"never" if value is None else value.encode()] for value in values], object)
    np.testing.assert_array_equal(found, oracle.transform(plain))
    assert transform.infos[0].shape == (found.shape[1],)
    assert transform.infos[0].classes == tuple(value.decode() for value in oracle.categories_[0])


def test_one_hot_of_integers_and_its_limits():
    transform = train(pa.array([3, 1, 3], pa.int8()), "one_hot_encode")
    assert encode(transform, pa.array([1, 3, 2, None], pa.int8())).tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    with pytest.raises(DataError, match=r"3 distinct values, and max_values is 2"):
        train(pa.array([1, 2, 3]), "one_hot_encode", {"max_values": 2})
    transform = train(pa.array(["a"]), "one_hot_encode", {"unseen": "error"})
    with pytest.raises(DataError, match=r"1 values of column 'x', step one_hot_encode.*'b'"):
        encode(transform, pa.array(["a", "b", None]))
    with pytest.raises(DataError, match=r"Nulls.*'x' \(1\)"):
        train(pa.array(["a", None]), "one_hot_encode", {"null": "error"})


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_one_hot_categories_are_dask_mls_categorizers():
    values = list("cabbac")
    frame = dd.from_pandas(pd.DataFrame({"x": pd.Series(values, dtype=object)}), npartitions=2)
    oracle = Categorizer(columns=["x"]).fit(frame)
    categories = sorted(map(str, oracle.categories_["x"].categories))
    assert list(train(pa.array(values), "one_hot_encode").infos[0].classes) == categories


def test_a_dictionary_may_repeat_hold_null_and_what_no_row_uses():
    dictionary = pa.array(["a", "b", None, "a", "never"])
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, None, 3], pa.int8()), dictionary)
    transform = train(array, "ordinal_encode")
    assert encode(transform, array).tolist() == [2, 3, 0, 2, 0, 2]
    assert transform.infos[0].ids == 4
    assert encode(transform, array.slice(3)).tolist() == [2, 0, 2]


def test_without_buckets_an_unseen_value_is_an_error_only_where_a_row_has_it():
    transform = train(pa.array(["a", "b"]), "ordinal_encode", {"oov_buckets": 0})
    unused = pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array(["b", "unused"]))
    assert encode(transform, unused).tolist() == [2, 0]
    with pytest.raises(DataError, match=r"2 values of column 'x', step ordinal_encode.*'new'.*oov_buckets"):
        encode(transform, pa.array(["new", "a", "new"]))
    transform = train(pa.array([1, 2]), "ordinal_encode", {"oov_buckets": 0})
    with pytest.raises(DataError, match=r"among them 7"):
        encode(transform, pa.array([7, 1]))


def test_nulls_can_be_errors():
    with pytest.raises(DataError, match=r"Nulls.*'x' \(2\)"):
        train(pa.array(["a", None, None]), "ordinal_encode", {"null": "error"})
    transform = train(pa.array(["a"]), "ordinal_encode", {"null": "error"})
    with pytest.raises(DataError, match="1 of 2 rows"):
        encode(transform, pa.array(["a", None]))


def test_a_labels_ids_start_at_0_and_know_no_strangers():
    transform = train(pa.array(["no", "yes", "no"]), "ordinal_encode", role="label")
    info = transform.infos[0]
    assert (info.classes, info.ids, info.dtype) == (("no", "yes"), 2, "int64")
    assert encode(transform, pa.array(["yes", "no"])).tolist() == [1, 0]
    with pytest.raises(DataError, match="'maybe'"):
        encode(transform, pa.array(["maybe"]))
    with pytest.raises(DataError, match="Nulls"):
        train(pa.array(["no", None]), "ordinal_encode", role="label")


@pytest.mark.parametrize("values", [["no", "yes", None], [0, 1, None], [True, False, None]])
@pytest.mark.parametrize("name", ["ordinal_encode", "one_hot_encode"])
def test_a_null_label_is_an_error_with_every_encoder(values, name):
    array = pa.array(values)
    with pytest.raises(DataError, match=r"Nulls.*'x' \(1\).*coalesce"):
        train(array, name, role="label")
    transform = train(array.drop_null(), name, role="label")
    with pytest.raises(DataError, match="1 of 3 rows of a batch of column 'x' are null"):
        encode(transform, array)


@pytest.mark.parametrize("name", ["ordinal_encode", "one_hot_encode"])
@pytest.mark.parametrize(("seen", "value"), [(["no", "yes"], "maybe"), ([0, 1], 7)])
def test_an_unseen_label_is_an_error_with_every_encoder(name, seen, value):
    with pytest.raises(DataError, match=r"did not occur.*add such rows to the fitted part") as error:
        encode(train(pa.array(seen), name, role="label"), pa.array([value]))
    assert "oov_buckets" not in str(error.value)


def test_a_label_is_not_hashed():
    with pytest.raises(JobError, match="hash_encode cannot make a label.*ordinal_encode"):
        train(pa.array(["a"]), "hash_encode", 9, role="label")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ordinal_encode", {"oov_buckets": 5}),
        ("ordinal_encode", {"null": "id"}),
        ("one_hot_encode", {"null": "zeros"}),
        ("one_hot_encode", {"unseen": "zeros"}),
    ],
)
def test_options_that_a_label_cannot_have_are_refused(name, options):
    [(option, value)] = options.items()
    rows = pa.record_batch({"x": pa.array(["a"])})
    spec = FeatureSpec("x", "label", ("x",), (parse_step(name, options),), place="label")
    with pytest.raises(JobError, match=rf"{name}\.{option}: found {value!r}.*Leave the option out") as error:
        build([spec], rows.schema)
    assert [problem.place for problem in error.value.problems] == ["label.steps[0]"]


def test_options_that_a_label_has_anyway_are_taken_and_defaults_written_out_too():
    for name, options in (
        ("ordinal_encode", {"null": "error", "oov_buckets": 0, "top_k": 3}),
        ("ordinal_encode", parse_step("ordinal_encode").model_dump()),
        ("one_hot_encode", {"null": "error", "unseen": "error"}),
        ("one_hot_encode", parse_step("one_hot_encode").model_dump()),
    ):
        transform = train(pa.array(["no", "yes", "no"]), name, options, role="label")
        assert transform.infos[0].classes == ("no", "yes")
    with pytest.raises(JobError, match=r"oov_buckets: found 5"):
        train(
            pa.array(["a"]),
            "ordinal_encode",
            parse_step("ordinal_encode", {"oov_buckets": 5}).model_dump(),
            role="label",
        )


@pytest.mark.parametrize(("size", "stored"), [(253, "uint8"), (255, "uint16"), (70_000, "int32")])
def test_ids_are_stored_as_narrow_as_they_fit(size, stored):
    transform = train(pa.array([str(i) for i in range(size)]), "ordinal_encode")
    assert (transform.infos[0].stored, transform.infos[0].dtype) == (stored, "int64")
    out = encode(transform, pa.array([str(i) for i in range(size)]))
    assert sorted(out.tolist()) == list(range(2, size + 2))


@pytest.mark.parametrize(("kind", "remedy"), [(pa.float64(), "cast: int64"), (pa.date32(), "cast: int64")])
@pytest.mark.parametrize("name", ["ordinal_encode", "one_hot_encode", "hash_encode"])
def test_floats_and_dates_are_refused_with_a_remedy(kind, remedy, name):
    with pytest.raises(JobError, match=remedy):
        train(pa.array([], kind), name, {"buckets": 3} if name == "hash_encode" else None)


def test_bytes_that_are_no_text_are_encoded_too():
    values = pa.array([b"\xff", b"\xff", b"a", None], pa.binary())
    assert encode(train(values, "ordinal_encode"), values).tolist() == [2, 2, 3, 0]


def test_a_vocabulary_survives_colliding_hashes(monkeypatch):
    def all_alike(array):
        return np.zeros(len(array), np.uint64)

    monkeypatch.setattr("dtap_dask.features.columns.vocabulary.fingerprint64", all_alike)
    vocabulary = Vocabulary(pa.array(["a", "b", "c"]))
    assert vocabulary.find_words(pa.array(["c", "x", "a"], pa.large_binary())).tolist() == [2, -1, 0]
    single = Vocabulary(pa.array(["a"]))
    assert single.find_words(pa.array(["b", "a"], pa.large_binary())).tolist() == [-1, 0]


def test_many_words_are_found_where_they_are():
    values = [str(i * 7919) for i in range(20_000)]
    vocabulary = Vocabulary(pa.array(values))
    asked = pa.array([*values[::-1], "no", "-1"], pa.large_binary())
    assert vocabulary.find_words(asked).tolist() == [*range(19_999, -1, -1), -1, -1]


def test_tables_are_made_once_for_each_dictionary_and_forgotten_in_turn():
    made = []

    def make(words):
        made.append(words.array.to_pylist())
        return len(words)

    tables = WordTables(make, kept=5)
    first, second, third = (Words(pa.array(values)) for values in (["a", "b"], ["b", "a"], ["c", "d"]))
    for asked in (first, second, Words(pa.array(["a", "b"])), third, first):
        assert tables(asked) == 2
    assert made == [["a", "b"], ["b", "a"], ["c", "d"]]
    tables(second)
    assert made[3:] == [["b", "a"]]
