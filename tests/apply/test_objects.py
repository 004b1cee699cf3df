"""Many Python objects read at once: the values that Arrow reads one by one, or left to Arrow."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.apply import encoded, objects
from property_tests import examples

TEXTS = ["a", "", "a", "é", "\U0001f600"] * 4
FLOATS = [0.5, -0.0, math.inf, 1e-310, 2.0] * 4


class Named(str, enum.Enum):  # noqa: UP042
    A = "a"


class Float(float):
    pass


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "ENCODED_FROM", 10)
    monkeypatch.setattr(encoded, "SAMPLED_TEXT", 10)
    monkeypatch.setattr(objects, "BLOCK", 7)


def of_objects(values: list[Any]) -> Any:
    """A NumPy array of these objects."""
    made = np.empty(len(values), object)
    made[:] = values
    return made


FORMS: list[Callable[[list[Any]], Any]] = [list, tuple, of_objects, lambda values: pd.Series(values, dtype=object)]


def read(values: Any) -> pa.Array | None:
    made = objects.read(values, text=True)
    return made.encoded() if isinstance(made, objects.Joined) else made


@pytest.mark.parametrize("form", FORMS)
def test_short_texts_are_joined(form: Callable[[list[Any]], Any]) -> None:
    made = read(form(TEXTS))
    assert made is not None
    assert made.type == pa.dictionary(pa.int32(), pa.large_string())
    assert made.dictionary.to_pylist() == ["a", "", "é", "\U0001f600"]
    assert made.to_pylist() == TEXTS
    assert objects.read(form(TEXTS), text=False) is None


@pytest.mark.parametrize("form", FORMS)
def test_floats_are_read_together(form: Callable[[list[Any]], Any]) -> None:
    made = read(form([*FLOATS, math.nan]))
    assert made is not None
    assert made.equals(pa.array([*FLOATS, math.nan], from_pandas=True))
    assert made.null_count == 1
    assert np.signbit(made.to_numpy(zero_copy_only=False)[1])


LATE = ["a"] * 18
OTHERS = [
    *([*LATE, one] for one in (None, math.nan, "with \0 within", "\0", b"bytes", 1, "\ud800", ["a"])),
    *([*FLOATS, one] for one in (None, 1, True, np.float64(1), Float(1), "1.0", 1j, decimal.Decimal(1), [1.0])),
    *([*FLOATS, one] for one in (datetime.date(2024, 2, 29), b"g1234567", FLOATS, pd.NA, np.float32(0.1))),
    [1] * 20,
    [True] * 20,
    [None] * 20,
    [np.float64(1)] * 20,
    ["long" * 5] * 20,
    [f"word {number}" for number in range(20)],
    TEXTS[:10],
    FLOATS[:10],
]


@pytest.mark.parametrize("values", OTHERS)
@pytest.mark.parametrize("form", FORMS[:3])
def test_anything_else_is_left_to_arrow(form: Callable[[list[Any]], Any], values: list[Any]) -> None:
    assert read(form(values)) is None


@pytest.mark.parametrize(
    "values",
    [pd.Series(TEXTS, dtype="category"), np.array(TEXTS), np.array([TEXTS, TEXTS], object).T, np.array(FLOATS)],
)
def test_other_arrays_are_left_to_arrow(values: Any) -> None:
    assert read(values) is None


ODD = st.sampled_from([None, math.nan, "\0", "a\0b", b"a", 1, True, "\ud800", pd.NA, Named.A, Float(2.5), 2.5, "b"])


@examples(2)
@given(
    st.lists(st.text(max_size=3) | st.sampled_from(["a", "b"]), min_size=11, max_size=40)
    | st.lists(st.floats(), min_size=11, max_size=40),
    st.lists(st.tuples(st.integers(0, 40), ODD), max_size=2),
    st.sampled_from(FORMS),
)
def test_objects_are_what_arrow_reads(
    values: list[Any], odd: list[tuple[int, Any]], form: Callable[[list[Any]], Any]
) -> None:
    values = values.copy()
    for place, one in odd:
        values.insert(place, one)
    made = read(form(values))
    if made is not None:
        expected = pa.array(values, from_pandas=True)
        assert (made.dictionary_decode().cast(pa.string()) if made.type != pa.float64() else made).equals(expected)
    elif not odd:
        assert not all(type(one) is float for one in values)
        assert any("\0" in text for text in values) or len(set(values[:10])) == 10
