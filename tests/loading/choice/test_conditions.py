"""`where`: the rows of which a condition is true, against DuckDB."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from datasets import write_dataset
from dtap_dask.errors import DataError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.batches import batches
from dtap_dask.records.example import Layout
from numbered_rows import PLAIN, write

TEXTS = (
    FeatureInfo("size", "feature", "float32", "float32"),
    FeatureInfo("Kind", "feature", "int64", "uint8", ids=9),
    FeatureInfo("half", "feature", "float16", "float16"),
    FeatureInfo("far", "label", "float32", "uint8"),
    FeatureInfo("weight", "weight", "float32", "float32"),
    FeatureInfo("row", "kept", "int64", "int64"),
    FeatureInfo("city", "kept", "bytes", "bytes"),
    FeatureInfo("exact", "kept", "float64", "float64"),
    FeatureInfo("wide", "feature", "float32", "float32", (2,)),
)


def texts(first: int, count: int) -> dict[str, Any]:
    rows = np.arange(first, first + count)
    return {
        "size": np.where(rows % 6 == 0, np.nan, rows / 4).astype(np.float32),
        "Kind": (rows % 9).astype(np.uint8),
        "half": (rows / 8).astype(np.float16),
        "far": (rows % 4 == 0).astype(np.uint8),
        "weight": (rows % 3).astype(np.float32),
        "row": rows,
        "city": pa.array([["Köln", "", "São Paulo", "oslo"][row % 4] for row in rows], pa.large_string()).cast(
            pa.large_binary()
        ),
        "exact": rows / 3,
        "wide": np.zeros((count, 2), np.float32),
    }


@pytest.fixture(scope="module")
def text_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same rows in both layouts, of which `rows` holds neither float64 nor float16."""
    paths = {}
    for kind in ("blocks", "rows"):
        infos = tuple(info for info in TEXTS if kind == "blocks" or info.name not in ("half", "exact"))

        def columns(first: int, count: int, infos: tuple[FeatureInfo, ...] = infos) -> dict[str, Any]:
            return {info.name: texts(first, count)[info.name] for info in infos}

        folder = tmp_path_factory.mktemp("texts")
        layout = Layout(kind, 16)  # type: ignore[arg-type]
        paths[kind] = write_dataset(folder, infos, layout, {"train": [60, 50]}, columns)
    return paths


def of_duckdb(where: str) -> list[int]:
    columns = {name: column for name, column in texts(0, 110).items() if name != "wide"}
    columns["half"] = columns["half"].astype(np.float32)
    columns["city"] = columns["city"].cast(pa.large_string())
    columns["size"] = pa.array(columns["size"], from_pandas=True)  # NaN is null
    database = duckdb.connect()
    database.register("rows", pa.table(columns))
    return database.sql(f'select "row" from rows where {where} order by 1').fetchnumpy()["row"].tolist()


WHERES = [
    "size > 5",
    "not (size > 5)",
    "size is null or kind = 3",
    "city = 'Köln' and far = 1",
    "lower(city) like '%o%' and weight > 0",
    "coalesce(size, -1) < 0 or city = ''",
    "size > 5 or null",
    "(kind in (1, 2)) is distinct from (far = 0)",
]


@pytest.mark.parametrize(
    ("kind", "where"),
    [*itertools.product(["blocks", "rows"], WHERES), ("blocks", "half between 2 and 4 and exact * 3 <> 18")],
)
def test_conditions_choose_what_duckdb_chooses(text_paths: dict[str, str], kind: str, where: str) -> None:
    expected = of_duckdb(where)
    assert 0 < len(expected) < 110
    data = batches(text_paths[kind], features=["Kind"], where=where, shuffle=False, kept=True)
    assert [row for _, kept in data for row in kept["row"]] == expected


def test_a_condition_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path, [12], Layout("blocks", 8), PLAIN)
    with pytest.raises(DataError, match=r"`where` leaves no row of the split 'train' of .*'fare < 0' is true of none"):
        batches(path, where="fare < 0")


def test_texts_must_be_text(tmp_path: Path) -> None:
    path = write(tmp_path, [12], Layout("blocks", 8))
    with pytest.raises(DataError, match="Column 'note' has bytes that are not UTF-8 text"):
        batches(path, where="note = 'x'")
