"""Rows that are dicts: the values of each name, null where a row lacks it, however many are read together."""

from __future__ import annotations

import math
from collections import UserDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.apply import dicts, encoded
from dtap_dask.apply.dicts import Pieces, columns_of_dicts
from dtap_dask.apply.rows import GivenRows
from dtap_dask.errors import DataError
from property_tests import examples

SCHEMA = pa.schema({"number": pa.float64(), "word": pa.string(), "count": pa.int64()})


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "ENCODED_FROM", 10)
    monkeypatch.setattr(encoded, "SAMPLED_TEXT", 10)
    monkeypatch.setattr(dicts, "BLOCK_ROWS", 7)


def lists(columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns as lists, NaN as null."""
    found = {}
    for name, values in columns.items():
        made = values.joined().encoded() if isinstance(values, Pieces) else values
        found[name] = _null(made.to_pylist() if isinstance(made, pa.Array) else made)
    return found


def _null(values: Sequence[Any]) -> list[Any]:
    return [None if isinstance(one, float) and math.isnan(one) else one for one in values]


def obvious(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What `columns_of_dicts` gives, one value after the other."""
    rows = [dict(row) for row in rows]
    names = [name for name in SCHEMA.names if not rows or any(name in row for row in rows)]
    return {name: _null([row.get(name) for row in rows]) for name in names}


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"count": row, "word": "añb"[row % 3], "more": (), "number": row / 4} for row in range(count)]


def test_floats_and_texts_of_many_rows_are_read_together() -> None:
    rows = rows_of(40)
    made = columns_of_dicts(rows, SCHEMA)
    assert isinstance(made["number"], pa.DoubleArray)
    assert isinstance(made["word"], Pieces)
    assert isinstance(made["count"], list)
    assert len(made["word"]) == 40
    assert lists(made) == obvious(rows)
    assert GivenRows(made, 40).batch(SCHEMA).to_pylist() == [{name: row[name] for name in SCHEMA.names} for row in rows]


def test_few_rows_are_lists() -> None:
    for count in (0, 1, 10):
        made = columns_of_dicts(rows_of(count), SCHEMA)
        assert all(isinstance(values, list) for values in made.values())
        assert lists(made) == obvious(rows_of(count))


class MadeUp(UserDict[str, Any]):
    """A mapping with a value under every name."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name) if name in self.data else "made up"


@pytest.mark.parametrize("kind", [dict, lambda row: defaultdict(str, row), MadeUp])
@pytest.mark.parametrize("lacking", [(), range(40), range(3), range(30, 33), [0], [39]])
@pytest.mark.parametrize("name", SCHEMA.names)
def test_a_value_that_a_row_lacks_is_null(name: str, lacking: Sequence[int], kind: Any) -> None:
    rows = rows_of(40)
    for row in lacking:
        del rows[row][name]
    assert lists(columns_of_dicts([kind(row) for row in rows], SCHEMA)) == obvious(rows)
    if len(lacking) == 40:
        with pytest.raises(DataError, match=f"The rows lack column '{name}', which the features need"):
            GivenRows.of(rows, SCHEMA)


ODD = st.sampled_from([None, math.nan, "\0", "a\0b", b"a", 1, True, "\ud800", "b", 2.5, ["a"]])
PLACES = st.tuples(st.integers(0, 29), st.sampled_from(SCHEMA.names), ODD)


@examples(2)
@given(
    st.integers(0, 30),
    st.lists(PLACES, max_size=3),
    st.lists(st.tuples(st.integers(0, 29), st.sampled_from(SCHEMA.names)), max_size=3),
    st.sampled_from([dict, MadeUp]),
)
def test_columns_are_those_read_one_by_one(
    count: int, odd: list[tuple[int, str, Any]], lacking: list[tuple[int, str]], kind: Any
) -> None:
    rows = rows_of(count)
    for place, name, one in odd:
        if place < count:
            rows[place][name] = one
    for place, name in lacking:
        if place < count:
            rows[place].pop(name, None)
    assert lists(columns_of_dicts([kind(row) for row in rows], SCHEMA)) == obvious(rows)
