"""The hashes that decide which split a row is in. The literal values here may not change: they move users' rows."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import farmhash
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError
from dtap_dask.lake.hashing import NULL_HASH, fingerprint64, fold, is_key_type, key_hash, row_hash, splitmix64


def splitmix_of(value: int) -> int:
    """The reference in whole numbers: java.util.SplittableRandom's mix64 after its golden-ratio step."""
    z = (value + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def hash_of(values: list[object], kind: pa.DataType | None = None) -> list[int]:
    return key_hash([("k", pa.array(values, kind))]).tolist()


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_splitmix64_is_the_published_one(values):
    assert splitmix64(np.array(values, np.int64).view(np.uint64)).tolist() == [splitmix_of(v % 2**64) for v in values]


def test_pinned_values():
    assert splitmix64(np.zeros(1, np.uint64))[0] == 0xE220A8397B1DCDAF  # first output of the C reference, seed 0
    assert hash_of([1, -1, None]) == [0x910A2DEC89025CC1, 16490336266968443936, 0x6A09E667F3BCC909]
    assert hash_of(["a", "", "Ünïcode"]) == [12917804110809363939, 11160318154034397263, 16052287216537153341]
    two = [("a", pa.array([1, None])), ("b", pa.array(["x", "x"]))]
    assert key_hash(two).tolist() == [11617727935586459402, 14205097681134409685]
    rows = row_hash("year=2013/part-0.parquet", np.array([0, 1], np.int64))
    assert rows.tolist() == [16980828520235854586, 14687435753720724321]


TEXT = st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=30)


@given(TEXT, st.integers(0, 5))
def test_fingerprint64_of_every_layout(values, start):
    expected = [int(NULL_HASH) if v is None else farmhash.Fingerprint64(v.encode()) for v in values][start:]
    plain = pa.array(values, pa.string())
    layouts = [plain, plain.cast(pa.large_string()), plain.cast(pa.binary()), plain.cast(pa.string_view())]
    layouts += [plain.dictionary_encode(), pa.concat_arrays([plain, plain]).dictionary_encode()[: len(plain)]]
    for array in layouts:
        assert fingerprint64(array[start:]).tolist() == expected


def test_dictionary_with_null_and_repeated_words():
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None, 3]), pa.array(["a", None, "b", "a"]))
    a, b = farmhash.Fingerprint64(b"a"), farmhash.Fingerprint64(b"b")
    assert fingerprint64(words).tolist() == [a, int(NULL_HASH), b, int(NULL_HASH), a]


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
)
def test_integers_of_any_width_are_alike(kind):
    assert hash_of([0, 1, 100, None], kind) == hash_of([0, 1, 100, None])
    assert hash_of([2**63 + 5], pa.uint64()) == [splitmix_of(2**63 + 5)]


def test_times_count_as_microseconds():
    moment = datetime(2013, 6, 1)
    micros = int((moment - datetime(1970, 1, 1)).total_seconds()) * 10**6
    for kind in (*(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")), pa.timestamp("us", "UTC")):
        assert hash_of([moment, None], kind) == [splitmix_of(micros), int(NULL_HASH)]
    for kind in (pa.date32(), pa.date64()):
        assert hash_of([date(2013, 6, 1), None], kind) == [splitmix_of(micros), int(NULL_HASH)]
    before_1970 = pa.array([-1, 1_999], pa.timestamp("ns"))
    assert key_hash([("k", before_1970)]).tolist() == [splitmix_of(-1 % 2**64), splitmix_of(1)]


def test_booleans_and_nulls():
    assert hash_of([True, False, None]) == [splitmix_of(1), splitmix_of(0), int(NULL_HASH)]
    assert hash_of([None, None], pa.null()) == [int(NULL_HASH)] * 2
    encoded = pa.array([7, None, 7]).dictionary_encode()
    assert key_hash([("k", encoded)]).tolist() == hash_of([7, None, 7])


def test_empty_and_sliced():
    assert hash_of([], pa.string()) == hash_of([], pa.int64()) == []
    assert key_hash([("k", pa.array([1, None, 3])[1:])]).tolist() == hash_of([None, 3])
    assert key_hash([("k", pa.array([True, None, False])[1:])]).tolist() == hash_of([None, False])


def test_order_of_columns_matters():
    a, b = splitmix64(np.array([1], np.uint64)), splitmix64(np.array([2], np.uint64))
    assert fold(a, b)[0] != fold(b, a)[0]


@pytest.mark.parametrize("values", [[1.5], [Decimal("1.5")], [[1]], [{"a": 1}]])
def test_what_cannot_be_a_key(values):
    array = pa.array(values)
    assert not is_key_type(array.type)
    with pytest.raises(DataError, match=r"'fee' is .* split key"):
        key_hash([("fee", array)])


def test_key_types():
    assert all(map(is_key_type, [pa.int8(), pa.bool_(), pa.string(), pa.date32(), pa.timestamp("ns"), pa.binary()]))
    assert is_key_type(pa.dictionary(pa.int32(), pa.string()))
    assert not is_key_type(pa.dictionary(pa.int32(), pa.float64()))
