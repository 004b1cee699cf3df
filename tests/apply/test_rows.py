"""Columns of pandas and of Python, also of other types than the lake's: what means the same is taken, or refused."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dtap_dask.apply.rows import as_batch
from dtap_dask.errors import DataError

NEW_YORK = "America/New_York"
NOON = datetime.datetime(2024, 3, 1, 12)
UTC_NOON = NOON.replace(tzinfo=datetime.UTC)
ZONED = [
    pa.array([NOON.replace(hour=17)], pa.timestamp("us", NEW_YORK)),  # which holds instants
    pd.Series([NOON]).dt.tz_localize(NEW_YORK),
    [NOON.replace(tzinfo=ZoneInfo(NEW_YORK))],
    [NOON.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-5)))],
]


def times(values: Any, zone: str | None) -> list[Any]:
    """The values as a column of timestamps."""
    made = as_batch({"at": values}, pa.schema([("at", pa.timestamp("us", zone))]))["at"].to_pylist()
    return list(made)


@pytest.mark.parametrize("values", ZONED)
def test_times_of_a_zone_are_not_taken_for_times_without_one(values: Any) -> None:
    with pytest.raises(DataError, match=r"Column 'at' is timestamp\[us\] in the lake, .*: they are timestamp\[us, tz="):
        times(values, None)
    assert times(values, "UTC") == [UTC_NOON.replace(hour=17)]


@pytest.mark.parametrize("values", [[UTC_NOON], pd.Series([UTC_NOON]), pa.array([NOON], pa.timestamp("ms", "+00:00"))])
def test_times_in_utc_are_those_without_a_zone(values: Any) -> None:
    assert times(values, None) == [NOON]
    assert times([NOON], "UTC") == [UTC_NOON]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_decimals_become_the_nearest_float(kind: pa.DataType) -> None:
    texts = [f"{cents / 1000:.3f}" for cents in range(3000)]
    made = as_batch({"fare": [Decimal(text) for text in texts]}, pa.schema([("fare", kind)]))["fare"]
    assert np.array_equal(made, np.array(texts, kind.to_pandas_dtype()))


@pytest.mark.parametrize(
    ("rows", "given"),
    [([{"x": 1}, None], "list of NoneType and dict"), (pd.Series({"x": 1}), "Series"), ((1, 2), "tuple of int")],
)
def test_other_forms_are_refused_by_name(rows: Any, given: str) -> None:
    with pytest.raises(DataError, match=f"a dict or a list of dicts, not {given}"):
        as_batch(rows, pa.schema([("x", pa.int64())]))


PANDAS = {
    "floats": [1.5, None],
    "float32": np.array([0.1, np.nan], np.float32),
    "int8": np.array([1, -1], np.int8),
    "uint64": np.array([1, 2**64 - 1], np.uint64),
    "bool": [True, False],
    "objects": np.array(["a", None], object),
    "numbers": np.array([2**53 + 1, None], object),
    "bytes": np.array([b"\xff", None], object),
    "str": pd.array(["a", None], "str"),
    "string": pd.array(["a", None], "string[python]"),
    "arrow text": pd.array(["a", None], "string[pyarrow]"),
    "nullable": pd.array([2**53 + 1, None], "Int64"),
    "boolean": pd.array([True, None], "boolean"),
    "categories": pd.Categorical(["a", None]),
    "times": pd.array(pd.to_datetime(["2020-01-01 00:00:00.000000001", None], format="ISO8601")),
    "zoned": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Paris"),
    "lists": pd.array([[1, 2], None], pd.ArrowDtype(pa.list_(pa.int64()))),
    "dates": pd.array([1, None], pd.ArrowDtype(pa.date32())),
    "decimals": pd.array(["1.5", None], pd.ArrowDtype(pa.decimal128(9, 2))),
}


@pytest.mark.parametrize("few_rows", [0, 16])
def test_columns_of_pandas_are_what_arrow_makes_of_them(few_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtap_dask.apply.rows.FEW_ROWS", few_rows)
    frame = pd.DataFrame({name: pd.Series(values) for name, values in PANDAS.items()})
    expected = {name: pa.array(frame[name], from_pandas=True) for name in frame}
    expected["categories"] = expected["categories"].cast(pa.string())
    schema = pa.schema([(name, values.type) for name, values in expected.items()])
    for begin in (0, 1):
        made = as_batch(frame.iloc[begin : begin + 1], schema)
        for name, values in expected.items():
            assert made[name].to_pylist() == values[begin : begin + 1].to_pylist(), name
    whole = as_batch(frame, schema)
    assert all(whole[name].equals(values) for name, values in expected.items())


LARGE = 2**64 - 1


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.uint64(), [1, LARGE, None]),
        (pa.list_(pa.uint64()), [[1, LARGE], None, []]),
        (pa.list_(pa.uint64(), 2), [[1, LARGE], None]),
    ],
)
def test_integers_beyond_int64_may_follow_small_ones(kind: pa.DataType, values: list[Any]) -> None:
    assert as_batch({"x": values}, pa.schema([("x", kind)]))["x"].to_pylist() == values
    for wrong in (LARGE + 1, -1, 1.5):
        with pytest.raises(DataError, match="'x' is uint64 in the lake"):
            as_batch({"x": [1, LARGE, wrong]}, pa.schema([("x", pa.uint64())]))
