"""Values of other types than the lake's: those with the same meaning are taken, ambiguous ones are refused."""

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
