"""A program written from docs/transform.md alone computes the columns of a dataset from the rows of its source."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client

import dtap_dask
import transform_reader
from dtap_dask.features.registry import OPERATIONS
from format_reader import read

NUMBERS = ["trip_miles", "trip_seconds", "fare"]
OTHERS = ["company", "payment_type", "pickup_latitude", "pickup_community_area", "dropoff_community_area"]
COLUMNS = [*NUMBERS, *OTHERS, "trip_start", "tips", "minute", "trip_id"]


def job(source: Path, output: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "source": {"path": str(source), "where": "payment_type in ('Cash', 'Credit Card')"},
        "derive": {"minute": "extract(minute from trip_start)"},
        "label": {"column": "payment_type", "steps": ["ordinal_encode"]},
        "keep": ["trip_id"],
        "split": {"parts": {"train": 0.7, "eval": 0.3}, "key": ["trip_id"]},
        "features": [
            {"columns": NUMBERS, "steps": [{"impute": {"strategy": "mean", "indicator": True}}, "standard_scale"]},
            {"columns": NUMBERS, "steps": [{"impute": "median"}, {"clip": {"min": 1}}, "log1p", "minmax_scale"],
             "name": "sizes"},
            {"columns": NUMBERS, "steps": [{"impute": {"strategy": "constant", "value": 1}}, "maxabs_scale",
             {"pca": 2}], "name": "components"},
            {"columns": ["pickup_latitude"], "steps": [{"impute": "mean"}, {"bucketize": {"quantiles": 4}}]},
            {"columns": ["company"], "steps": [{"ordinal_encode": {"top_k": 5, "oov_buckets": 3}}]},
            {"columns": ["dropoff_community_area"], "steps": [{"ordinal_encode": {"min_count": 20}}]},
            {"columns": ["company"], "steps": ["one_hot_encode"], "as": "one_hot"},
            {"columns": ["company", "pickup_community_area"], "steps": [{"hash_encode": 50}], "as": "{column}_hash"},
            {"columns": ["trip_seconds"], "steps": [{"impute": "most_frequent"}, {"cast": "string"},
             {"hash_encode": 9}], "as": "text"},
            {"columns": ["trip_start"], "steps": [{"cast": "int64"}]},
            {"columns": ["tips"], "steps": ["passthrough"], "allow_null": True},
            {"columns": ["minute"]},
        ],
        "output": {"path": str(output)},
    }  # fmt: skip


@pytest.fixture(scope="module")
def dataset(lake: Path, tmp_path_factory: pytest.TempPathFactory, client: Client) -> Path:
    output = tmp_path_factory.mktemp("transform") / "out"
    dtap_dask.run(job(lake / "trips" / "year=2013" / "month=4", output), client=client, progress="silent")
    return output


def test_a_program_made_from_the_page_alone_computes_the_same(dataset: Path, lake: Path) -> None:
    described = job(lake / "trips" / "year=2013" / "month=4", dataset)
    rows = dtap_dask.read(described, columns=COLUMNS).compute()
    source = {name: [None if pd.isna(one) else one for one in rows[name].tolist()] for name in COLUMNS}
    computed, at = transform_reader.columns(dataset, source), {trip: row for row, trip in enumerate(source["trip_id"])}
    for split in ("train", "eval"):
        stored = read(dataset, split)
        order = [at[int(trip)] for trip in stored["trip_id"]]
        assert set(computed) == set(stored)
        for name, values in computed.items():
            np.testing.assert_allclose(values[order], stored[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_page_describes_every_operation_and_key(dataset: Path) -> None:
    page = (Path(dtap_dask.__file__).parent / "docs/transform.md").read_text()
    document = json.loads((dataset / "transform.json").read_text())
    keys = {*document, *(f"values[].{key}" for one in document["values"] for key in one)}
    keys |= {f"outputs[].{key}" for one in document["outputs"] for key in one}
    assert {key for key in keys if f"\n| `{key}` | " not in page} == set()
    assert {name for name in OPERATIONS if f"\n| `{name}` | " not in page} == set()
    assert set(transform_reader.OPERATIONS) == set(OPERATIONS)
    assert {one["operation"] for one in document["values"] if "operation" in one} == set(OPERATIONS)


def test_the_program_knows_nothing_but_the_page() -> None:
    tree = ast.parse(Path(transform_reader.__file__).read_text())
    modules = {getattr(node, "module", "") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not any(str(name).startswith("dtap_dask") for name in modules)
