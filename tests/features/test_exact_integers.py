"""Integers of every width, signed and not, through every step that takes categories: each value stays itself."""

from __future__ import annotations

from collections import Counter

import farmhash
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.features.columns.vocabulary import Vocabulary
from dtap_dask.lake.hashing import key_hash, splitmix64
from fitting import fit_batches
from property_tests import examples

WIDTHS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


def limits(kind: pa.DataType) -> tuple[int, int]:
    info = np.iinfo(kind.to_pandas_dtype())
    return int(info.min), int(info.max)


def train(array: pa.Array, *steps, role="feature", parts=2):
    rows = pa.record_batch({"x": array})
    parsed = tuple(parse_step(name, options) for name, options in steps)
    graph = build([FeatureSpec("x", role, ("x",), parsed)], rows.schema)
    size = -(-rows.num_rows // parts)
    batches = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    return Transform(fit_batches(graph, batches))


def through(array: pa.Array, *steps, role="feature"):
    return train(array, *steps, role=role).apply(pa.record_batch({"x": array}))["x"]


@st.composite
def columns(draw):
    """Integers that fill the range of their type, or crowd at its ends and around 2^53."""
    kind = draw(st.sampled_from(WIDTHS))
    low, high = limits(kind)
    near = [low, low + 1, -1, 0, 1, 127, 128, 2**53, 2**53 + 1, -(2**53) - 1, high - 1, high]
    value = st.integers(low, high) | st.sampled_from([number for number in near if low <= number <= high])
    values = draw(st.lists(st.none() | value, min_size=1, max_size=40))
    return kind, values if any(number is not None for number in values) else [*values, 0]


def rising(values):
    counts = Counter(value for value in values if value is not None)
    return sorted(counts, key=lambda value: (-counts[value], value))


@examples(1.5)
@given(columns(), st.integers(1, 5), st.booleans())
def test_ordinal_encode(column, buckets, dictionary):
    kind, values = column
    array = pa.array(values, kind)
    array = array.dictionary_encode() if dictionary else array
    ids = {value: place + 1 + buckets for place, value in enumerate(rising(values))}
    found = through(array, ("ordinal_encode", {"oov_buckets": buckets}))
    assert found.tolist() == [0 if value is None else ids[value] for value in values]


@given(columns(), columns(), st.integers(1, 5))
def test_unseen_integers(column, others, buckets):
    kind, values = column
    low, high = limits(kind)
    unseen = [value for value in others[1] if value is not None and low <= value <= high]
    transform = train(pa.array(values, kind), ("ordinal_encode", {"oov_buckets": buckets}))
    ids = {value: place + 1 + buckets for place, value in enumerate(rising(values))}
    found = transform.apply(pa.record_batch({"x": pa.array(unseen, kind)}))["x"]
    assert found.tolist() == [ids.get(value, 1 + value % buckets) for value in unseen]


@given(columns())
def test_one_hot_encode(column):
    kind, values = column
    order = sorted({value for value in values if value is not None})
    found = through(pa.array(values, kind), ("one_hot_encode", None))
    assert found.tolist() == [[int(value == known) for known in order] for value in values]


@given(columns())
def test_hash_encode(column):
    kind, values = column
    found = through(pa.array(values, kind), ("hash_encode", 1000))
    expected = [0 if value is None else 1 + farmhash.Fingerprint64(str(value).encode()) % 1000 for value in values]
    assert found.tolist() == expected


@given(columns())
def test_most_frequent(column):
    kind, values = column
    most = rising(values)[0]
    if kind == pa.uint64():
        values = [None if value is None else value % 2**63 for value in values]
        most = rising(values)[0]
    found = through(pa.array(values, kind), ("impute", "most_frequent"))
    assert found.tolist() == [most if value is None else value for value in values]


@pytest.mark.parametrize("kind", WIDTHS, ids=str)
@pytest.mark.parametrize("rows", [300, 5_000, 70_000])
def test_every_way_of_counting(kind, rows):
    low, high = limits(kind)
    low, high = max(low, -20_000), min(high, 20_000)
    values = np.random.default_rng(rows).integers(low, high, rows, endpoint=True).astype(kind.to_pandas_dtype())
    distinct, counts = np.unique(values, return_counts=True)
    order = distinct[np.lexsort((distinct, -counts))]
    found = through(pa.array(values), ("ordinal_encode", None))
    np.testing.assert_array_equal(order[found.astype(np.int64) - 2], values)
    if len(distinct) <= 1000:
        places = through(pa.array(values), ("one_hot_encode", None))
        np.testing.assert_array_equal(distinct[places.argmax(axis=1)], values)


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (pa.array([-1, 5], pa.int64()), pa.array([2**64 - 1, 5], pa.uint64())),
        (pa.array([2**64 - 1, 5], pa.uint64()), pa.array([-1, 5], pa.int64())),
        (pa.array([-1, 5, 2**62], pa.int64()), pa.array([2**64 - 1, 5], pa.uint64())),
        (pa.array([2**64 - 1, 5, 2**53], pa.uint64()), pa.array([-1, 5, 2**53 + 1], pa.int64())),
        (pa.array([-100, 5, 100], pa.int8()), pa.array([2**40, 5, -(2**63)], pa.int64())),
    ],
)
def test_a_vocabulary_of_another_integer_type(known, asked):
    places = {value: place for place, value in enumerate(known.to_pylist())}
    expected = [places.get(value, -1) for value in asked.to_pylist()]
    assert Vocabulary(known).find_numbers(asked.to_numpy()).tolist() == expected


CLIP = ("clip", {"min": 0})


def constant(value):
    return "impute", {"strategy": "constant", "value": value}


@pytest.mark.parametrize(
    ("array", "steps", "expected"),
    [
        (pa.array([1, None], pa.int8()), [("cast", "int64"), constant(1000)], [1, 1000]),
        (pa.array([1, 100], pa.int8()), [("clip", {"min": 200})], [200, 200]),
        (pa.array([1, 100], pa.uint8()), [("clip", {"max": -5})], [-5, -5]),
        (pa.array([1, 2], pa.int8()), [("hash_encode", 10**6), ("clip", {"min": 300})], None),
        (pa.array([1, 2], pa.int16()), [("hash_encode", 10**6), ("clip", {"min": 0})], None),
        (pa.array(range(-128, 128), pa.int8()), [("ordinal_encode", None), CLIP], [i + 2 for i in range(256)]),
        (pa.array([3, 4], pa.uint8()), [("ordinal_encode", {"oov_buckets": 300}), CLIP], [301, 302]),
        (pa.array([7, None], pa.uint8()), [("bucketize", {"boundaries": [1, 2]}), constant(-1)], [2, -1]),
        (pa.array([None, 2**62 + 1]), [constant(2**53 + 1)], [2**53 + 1, 2**62 + 1]),
        (pa.array([2**53 + 1, 2**53 + 3]), [("clip", {"min": 2**53 + 2})], [2**53 + 2, 2**53 + 3]),
        (pa.array([2**64 - 1, 5], pa.uint64()), [("clip", {"min": 7, "max": 2**53 + 1})], [2**53 + 1, 7]),
        (pa.array([100, -100], pa.int8()), [("cast", "int64"), ("clip", {"min": 0})], [100, 0]),
    ],
)  # fmt: skip
def test_results_wider_than_the_column(array, steps, expected):
    found = through(array, *steps)
    if expected is None:
        low = steps[1][1]["min"]
        hashes = [1 + farmhash.Fingerprint64(str(value).encode()) % 10**6 for value in array.to_pylist()]
        expected = [max(low, value) for value in hashes]
    assert found.tolist() == expected


def test_a_vector_of_integers_beyond_int64_is_refused():
    rows = pa.record_batch({"x": pa.array([2**63, 1], pa.uint64()), "y": pa.array([1, 2])})
    graph = build([FeatureSpec("v", "feature", ("x", "y"), (), True)], rows.schema)
    with pytest.raises(DataError, match=r"'x' holds integers beyond int64, which is what 'v' is written as"):
        Transform(fit_batches(graph, [rows])).apply(rows)


@given(columns(), st.lists(st.integers(-(2**70), 2**70) | st.integers(2**53 - 2, 2**53 + 2), min_size=1, unique=True))
def test_bucketize(column, bounds):
    kind, values = column
    bounds = sorted(bounds)
    present = [value for value in values if value is not None]
    found = through(pa.array(present, kind), ("bucketize", {"boundaries": bounds}))
    assert found.tolist() == [sum(bound <= value for bound in bounds) for value in present]


@given(columns(), st.sampled_from(["int8", "int16", "int32", "int64", "uint8", "uint16"]), st.booleans())
def test_cast(column, dtype, text):
    kind, values = column
    values = [value for value in values if value is not None]
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    array = pa.array(list(map(str, values))) if text else pa.array(values, kind)
    if all(low <= value <= high for value in values):
        assert through(array, ("cast", dtype)).tolist() == values
    else:
        with pytest.raises(DataError, match=r"do not fit|does not spell"):
            through(array, ("cast", dtype))


@given(columns())
def test_kept_labels_and_text(column):
    kind, values = column
    values = [value for value in values if value is not None]
    assert through(pa.array(values, kind), ("cast", "string")).to_pylist() == [str(value).encode() for value in values]
    for role in ("kept", "label"):
        if max(values) < 2**63:
            assert through(pa.array(values, kind), role=role).tolist() == values
        else:
            with pytest.raises(DataError, match="holds integers beyond int64"):
                through(pa.array(values, kind), role=role)
    ids = through(pa.array(values, kind), ("ordinal_encode", None), role="label")
    assert ids.tolist() == [rising(values).index(value) for value in values]


@pytest.mark.parametrize(("dtype", "buckets"), [("float16", 2049), ("float32", 2**24 + 1)])
def test_floats_that_would_merge_ids_are_refused(dtype, buckets):
    array = pa.array([1, 2])
    with pytest.raises(DataError, match=rf"hash_encode of column 'x' makes ids up to {buckets:,}, and {dtype} holds"):
        train(array, ("hash_encode", buckets), ("cast", dtype))
    train(array, ("hash_encode", buckets - 1), ("cast", dtype))
    rows = pa.record_batch({"x": array, "y": [0.5, 1.5]})
    specs = [FeatureSpec("v", "feature", ("x", "y"), (parse_step("cast", "float32"),), True)]
    graph = build(specs, rows.schema)
    Transform(fit_batches(graph, [rows]))


@pytest.mark.parametrize(
    ("kind", "factor"),
    [(pa.timestamp("s"), 10**6), (pa.timestamp("ms"), 1000), (pa.timestamp("us"), 1), (pa.date32(), 86_400_000_000)],
)
def test_times_are_microseconds_or_refused(kind, factor):
    storage = pa.int32() if kind == pa.date32() else pa.int64()
    most = min(2**63 // factor - 2, limits(storage)[1])
    values = [0, -1, most, -most, None]
    found = train(
        pa.array(values, storage).view(kind), ("cast", "int64"), ("impute", {"strategy": "constant", "value": 5})
    )
    rows = pa.record_batch({"x": pa.array(values, storage).view(kind)})
    assert found.apply(rows)["x"].tolist() == [5 if value is None else value * factor for value in values]
    if factor > 1:
        beyond = pa.array([0, limits(storage)[1]], storage).view(kind)
        with pytest.raises(
            DataError, match=r"Column 'x', step reading, failed with OverflowError: 1 dates or times lie"
        ):
            through(beyond, ("cast", "int64"))


@given(columns())
def test_weights_and_split_keys(column):
    kind, values = column
    values = [abs(value) for value in values if value is not None and value != limits(kind)[0]] or [1]
    found = through(pa.array(values, kind), role="weight")
    np.testing.assert_array_equal(found, np.array([float(value) for value in values]).astype(np.float32))
    hashes = key_hash([("k", pa.array(values, kind))])
    np.testing.assert_array_equal(hashes, splitmix64(np.array(values, np.uint64)))
