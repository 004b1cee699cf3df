"""Datasets of an earlier release: they load, verify and continue from states, and new rows get their features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import dtap_dask
from dtap_dask.job.dataset import verification
from dtap_dask.loading.columns import Ragged
from dtap_dask.loading.dataset import open_dataset

DATA = Path(__file__).parents[1] / "data" / "of_0_1_0"
DATASETS = sorted(path.name for path in DATA.iterdir() if path.name != "lake")


def plain(column: Any) -> list[Any]:
    if isinstance(column, Ragged):
        return [part.tolist() for part in np.split(column.values, column.offsets[1:-1])]
    return column.tolist()


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_has_its_values(name: str) -> None:
    """Against the lake that the datasets were made from, and against what the fitted steps give for its rows."""
    lake = pq.ParquetFile(DATA / "lake" / "part.parquet").read(use_threads=False).to_pylist()
    expected = dtap_dask.transform(DATA / name, lake)
    seen = list[int]()
    for split in ("train", "eval"):
        for (features, late, weight), kept in dtap_dask.batches(DATA / name, split, batch_size=17, kept=True):
            rows = kept["row"].tolist()
            seen += rows
            assert late.tolist() == [float(row % 3 == 0) for row in rows]
            assert weight.tolist() == [1.0 + row % 2 for row in rows]
            assert plain(features["note"]) == [b"n%d" % row * (row % 3) for row in rows]
            assert plain(features["tags"]) == [list(range(row % 4)) for row in rows]
            for feature in ("fare", "miles", "company"):
                np.testing.assert_array_equal(features[feature], expected[feature][rows])
    assert sorted(seen) == list(range(300))


@pytest.mark.parametrize("name", DATASETS)
def test_it_loads_verifies_and_continues(name: str) -> None:
    whole = [kept["row"].tolist() for _, kept in dtap_dask.batches(DATA / name, batch_size=32, kept=True)]
    loaded = iter(dtap_dask.load(str(DATA / name), batch_size=32, kept=True))
    assert [next(loaded)[1]["row"].numpy().tolist() for _ in range(3)] == whole[:3]
    state = json.loads(json.dumps(loaded.state()))
    rest = dtap_dask.batches(DATA / name, batch_size=32, kept=True, state=state)
    assert [kept["row"].tolist() for _, kept in rest] == whole[3:]
    assert "matches its manifest: 300 rows" in verification(str(DATA / name))
    assert "240 rows" in str(open_dataset(DATA / name, None)[0])
