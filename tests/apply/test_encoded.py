"""Text as codes into its distinct words: when it is, and that it stays the same text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.apply import encoded
from dtap_dask.apply.rows import GivenRows
from property_tests import examples

REPEATED = ["a", "b", None, "a", "é"] * 4
TEXTS = ["a", "", "a", "é", "\U0001f600"] * 4
DISTINCT = [f"word {number}" for number in range(20)]
ENCODED = pa.dictionary(pa.int32(), pa.string())


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "ENCODED_FROM", 10)
    monkeypatch.setattr(encoded, "JOINED", 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (pa.array(REPEATED), ENCODED),
        (pa.array(REPEATED, pa.large_string()), ENCODED),
        (pa.chunked_array([REPEATED[:3], REPEATED[3:]]), ENCODED),
        (pa.array(REPEATED[:10]), pa.string()),
        (pa.array(DISTINCT), pa.string()),
        (pa.array(REPEATED[:10]).dictionary_encode(), ENCODED),
        (pd.Series(REPEATED[:10], dtype="category"), ENCODED),
        (pa.array(REPEATED, pa.binary()), pa.string()),
        (pa.nulls(20), pa.string()),
        (REPEATED, ENCODED),
        (TEXTS, ENCODED),
        (tuple(TEXTS), ENCODED),
        (np.array(TEXTS, object), ENCODED),
        (pd.Series(TEXTS, dtype=object), ENCODED),
        (TEXTS[:10], pa.string()),
        (DISTINCT, pa.string()),
    ],
)
def test_text_that_repeats_in_many_rows_is_encoded(text: Any, expected: pa.DataType) -> None:
    made = GivenRows({"text": text}, len(text)).batch(pa.schema({"text": pa.string()}), encode=True).column(0)
    assert made.type == expected
    assert made.to_pylist() == _as_text(text)


def _as_text(values: Any) -> list[Any]:
    found = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    return found.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", [TEXTS, tuple(TEXTS), np.array(TEXTS, object), pd.Series(TEXTS, dtype=object)])
def test_short_texts_of_python_are_joined(text: Any) -> None:
    made = encoded.of_objects(text)
    assert made is not None
    assert made.type == pa.dictionary(pa.int32(), pa.large_string())
    assert made.dictionary.to_pylist() == ["a", "", "é", "\U0001f600"]


LATE = ["a"] * 18
NOT_JOINED = [
    [*LATE, None],
    [*LATE, float("nan")],
    [*LATE, "with \0 within"],
    [*LATE, "\0"],
    [*LATE, b"bytes"],
    [*LATE, 1],
    [*LATE, "\ud800"],
    [1] * 20,
    ["long" * 5] * 20,
    pd.Series(TEXTS, dtype="category"),
    np.array(TEXTS),
    np.array([TEXTS, TEXTS], object).T,
]


@pytest.mark.parametrize("values", NOT_JOINED)
def test_anything_else_is_left_to_arrow(values: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "SAMPLED_TEXT", 10)
    assert encoded.of_objects(values) is None


ODD = st.sampled_from([None, float("nan"), "\0", "a\0b", b"a", 1, "\ud800", pd.NA])


@examples(1)
@given(st.lists(st.text(max_size=3) | st.sampled_from(["a", "b"]), min_size=11, max_size=40), st.lists(ODD, max_size=1))
def test_objects_are_what_arrow_makes_of_them(texts: list[Any], odd: list[Any]) -> None:
    values = [*texts, *odd]
    made = encoded.of_objects(values)
    if made is not None:
        assert made.to_pylist() == pa.array(values, from_pandas=True).to_pylist()
    elif not odd:
        joined = set(map(type, texts)) == {str} and not any("\0" in text for text in texts)
        assert not joined or len(set(texts)) == len(texts)
