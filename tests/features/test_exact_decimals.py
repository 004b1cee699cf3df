"""Decimals of every precision and scale: exact wherever no step is defined on floats."""

from __future__ import annotations

from collections import Counter
from decimal import Context, Decimal

import farmhash
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError
from dtap_dask.features import FeatureSpec, Transform, build, parse_step
from dtap_dask.lake.hashing import key_hash, splitmix64
from fitting import fit_batches
from property_tests import examples


@st.composite
def columns(draw, most=76, scale=None):
    """A decimal type and values of it, those at its ends and around 2^53, 2^63 and 2^64 among them."""
    precision = draw(st.integers(1, most))
    behind = draw(st.integers(0, precision)) if scale is None else scale
    kind = pa.decimal128(precision, behind) if precision <= 38 else pa.decimal256(precision, behind)
    end = 10**precision - 1
    near = [n for n in (2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, end - 1) if n <= end]
    unscaled = st.sampled_from([0, 1, -1, end, -end, *near, *(-n for n in near)]) | st.integers(-end, end)
    values = draw(st.lists(st.none() | unscaled, min_size=1, max_size=20))
    values = values if any(value is not None for value in values) else [*values, 0]
    return kind, [None if value is None else Decimal(value).scaleb(-behind, EXACT) for value in values]


EXACT = Context(prec=200)


def made_of(array, steps=(), role="feature", name="x"):
    rows = pa.record_batch({"x": array})
    parsed = tuple(parse_step(step, options) for step, options in steps)
    graph = build([FeatureSpec(name, role, ("x",), parsed)], rows.schema)
    half = -(-rows.num_rows // 2)
    return Transform(fit_batches(graph, [rows.slice(0, half), rows.slice(half)])), rows


def through(array, *steps, role="feature"):
    transform, rows = made_of(array, steps, role)
    made = transform.apply(rows)["x"]
    return made.to_pylist() if isinstance(made, pa.Array) else made.tolist()


def digits(value):
    return format(value, "f")


def order(values):
    counts = Counter(value for value in values if value is not None)
    return sorted(counts, key=lambda value: (-counts[value], value))


def beyond(value, low, high):
    return value is not None and not low <= int(value) <= high


@examples(1.5)
@given(columns())
def test_kept_decimals_keep_their_value(column):
    kind, values = column
    values = [value for value in values if value is not None]
    if kind.scale:
        assert through(pa.array(values, kind), role="kept") == [digits(value).encode() for value in values]
    elif any(beyond(value, -(2**63), 2**63 - 1) for value in values):
        with pytest.raises(DataError, match=r"'x' holds integers beyond int64.*cast\(x as varchar\)"):
            through(pa.array(values, kind), role="kept")
    else:
        assert through(pa.array(values, kind), role="kept") == [int(value) for value in values]


@examples(1.5)
@given(columns(), st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "int64"]))
def test_cast_to_integers(column, dtype):
    kind, values = column
    values = [value for value in values if value is not None]
    limits = np.iinfo(dtype)
    if any(beyond(value, limits.min, limits.max) for value in values):
        with pytest.raises(DataError, match=rf"of column 'x', step cast do not fit {dtype}"):
            through(pa.array(values, kind), ("cast", dtype))
    else:
        assert through(pa.array(values, kind), ("cast", dtype)) == [int(value) for value in values]


@given(columns())
def test_categories_by_their_digits(column):
    kind, values = column
    array = pa.array(values, kind)
    texts = [None if value is None else digits(value) for value in values]
    ids = {word: place + 2 for place, word in enumerate(order(texts))}
    assert through(array, ("cast", "string"), ("ordinal_encode", None)) == [ids.get(word, 0) for word in texts]
    known = sorted({word for word in texts if word is not None})
    places = [[int(word == one) for one in known] for word in texts]
    assert through(array, ("cast", "string"), ("one_hot_encode", None)) == places
    hashes = [0 if word is None else 1 + farmhash.Fingerprint64(word.encode()) % 999 for word in texts]
    assert through(array, ("cast", "string"), ("hash_encode", 999)) == hashes


@given(columns(most=18, scale=0))
def test_ids_of_whole_decimals(column):
    kind, values = column
    ids = {value: place + 2 for place, value in enumerate(order(values))}
    assert through(pa.array(values, kind), ("cast", "int64"), ("ordinal_encode", None)) == [
        ids.get(value, 0) for value in values
    ]


@given(columns())
def test_the_most_frequent_decimal_fills_exactly(column):
    kind, values = column
    filled = [order(values)[0] if value is None else value for value in values]
    assert through(pa.array(values, kind), ("impute", "most_frequent"), ("cast", "string")) == [
        digits(value).encode() for value in filled
    ]


@given(columns(scale=0), st.integers(-9, 9))
def test_constants_and_bounds_leave_decimals_exact(column, number):
    kind, values = column
    filled = [Decimal(number) if value is None else value for value in values]
    steps = [("impute", {"strategy": "constant", "value": number}), ("cast", "string")]
    assert through(pa.array(values, kind), *steps) == [digits(value).encode() for value in filled]
    limited = [max(value, Decimal(number)) for value in filled]
    steps.insert(1, ("clip", {"min": number}))
    assert through(pa.array(values, kind), *steps) == [digits(value).encode() for value in limited]


@given(columns())
def test_numbers_become_floats_once(column):
    kind, values = column
    values = [value for value in values if value is not None and abs(value) < Decimal("1e38")] or [Decimal(0)]
    for role in ("feature", "label"):
        found = np.array(through(pa.array(values, kind), role=role))
        np.testing.assert_allclose(found, [float(value) for value in values], rtol=1e-7, atol=1e-45)
    weights = [EXACT.abs(value) for value in values]
    found = np.array(through(pa.array(weights, kind), role="weight"))
    np.testing.assert_allclose(found, [float(value) for value in weights], rtol=1e-7, atol=1e-45)


def test_labels_of_ids_that_floats_would_merge():
    array = pa.array([Decimal(2**53), Decimal(2**53 + 1), None][:2], pa.decimal128(38, 0))
    assert through(array, ("cast", "int64"), ("ordinal_encode", None), role="label") == [0, 1]
    assert through(array, ("cast", "int64"), role="label") == [2**53, 2**53 + 1]


def test_a_negative_decimal_weight_is_refused():
    with pytest.raises(DataError, match="1 values of the weight 'x' are negative"):
        through(pa.array([Decimal("-0.1"), Decimal(1)]), role="weight")


@given(columns(scale=0))
def test_split_keys(column):
    kind, values = column
    hashes = key_hash([("k", pa.array(values, kind))]).tolist()
    for value, found in zip(values, hashes, strict=True):
        if value is None:
            assert found == 0x6A09E667F3BCC909
        elif -(2**63) <= value < 2**64:
            assert found == splitmix64(np.array([int(value) % 2**64], np.uint64))[0]
        else:
            assert found == farmhash.Fingerprint64(digits(value).encode())


def test_decimals_with_fractions_are_no_split_key():
    with pytest.raises(DataError, match="cannot be part of a split key"):
        key_hash([("k", pa.array([Decimal("1.5")]))])


def test_encoders_name_the_casts_that_are_exact():
    with pytest.raises(JobError, match=r"Put `cast: string` before it"):
        made_of(pa.array([Decimal("1.5")]), [("ordinal_encode", None)])
    with pytest.raises(JobError, match=r"Put `cast: int64` or `cast: string` before it"):
        made_of(pa.array([Decimal(15)]), [("ordinal_encode", None)])


def test_kept_lists_of_decimals():
    amounts = pa.array([[Decimal("1.50"), Decimal("16777217.25")], []], pa.list_(pa.decimal128(12, 2)))
    assert through(amounts, role="kept") == [[b"1.50", b"16777217.25"], []]
    ids = pa.array([[Decimal(2**53 + 1)]], pa.list_(pa.decimal128(38, 0)))
    assert through(ids, role="kept") == [[2**53 + 1]]
    with pytest.raises(DataError, match="beyond int64.*Leave it out of `keep`"):
        through(pa.array([[Decimal(2**63)]], pa.list_(pa.decimal128(38, 0))), role="kept")


def test_vectors_of_decimals_are_cast_to_floats_only():
    vectors = pa.array([[Decimal(2**53 + 1), Decimal(1)]], pa.list_(pa.decimal128(38, 0), 2))
    with pytest.raises(JobError, match="cast to int64 cannot be of a vector"):
        made_of(vectors, [("cast", "int64")])
    with pytest.raises(JobError, match="decimals exactly"):
        made_of(vectors, role="kept")
    assert through(vectors, ("cast", "float64")) == [[2.0**53, 1.0]]
