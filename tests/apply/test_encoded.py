"""Text as codes into its distinct words: when it is, and that it stays the same text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dtap_dask.apply import encoded, objects
from dtap_dask.apply.rows import GivenRows

REPEATED = ["a", "b", None, "a", "é"] * 4
TEXTS = ["a", "", "a", "é", "\U0001f600"] * 4
DISTINCT = [f"word {number}" for number in range(20)]
ENCODED = pa.dictionary(pa.int32(), pa.string())


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "ENCODED_FROM", 10)
    monkeypatch.setattr(objects, "BLOCK", 7)


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
