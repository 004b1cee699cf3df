"""Fingerprint64 in NumPy against Google's own code, as the `farmhash` package wraps it."""

from __future__ import annotations

import farmhash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.lake.fingerprint import fingerprints


def hashed(texts: list[bytes]) -> list[int]:
    ends = np.cumsum([0, *map(len, texts)])
    return fingerprints(np.frombuffer(b"".join(texts), np.uint8), ends).tolist()


@pytest.mark.parametrize("size", range(80))
def test_every_size(size: int) -> None:
    random = np.random.default_rng(size)
    texts = [random.bytes(size) for _ in range(20)]
    assert hashed(texts) == [farmhash.Fingerprint64(text) for text in texts]


@given(st.lists(st.binary(max_size=100), max_size=40))
def test_sizes_mixed(texts: list[bytes]) -> None:
    assert hashed(texts) == [farmhash.Fingerprint64(text) for text in texts]


def test_more_than_a_block() -> None:
    texts = [str(number).encode() * (number % 3) for number in range(20_000)]
    assert hashed(texts) == [farmhash.Fingerprint64(text) for text in texts]


def test_texts_that_begin_anywhere() -> None:
    data, ends = np.frombuffer(b"beforeone, two", np.uint8), np.array([6, 9, 14])
    assert fingerprints(data, ends).tolist() == [farmhash.Fingerprint64(text) for text in (b"one", b", two")]
