"""A dataset of a small lake, and jobs that encode with its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from documents import Document
from in_process import run_in_process

ROWS = 400
FEATURES: list[Document] = [
    {"columns": ["fare"], "steps": [{"impute": {"indicator": True}}, "standard_scale"]},
    {"columns": ["company"], "steps": [{"ordinal_encode": {"top_k": 3}}]},
    {"columns": ["c*"], "as": "hashed_{column}", "steps": [{"hash_encode": 8}]},
    {"columns": ["count", "later"], "name": "both", "steps": ["minmax_scale"]},
    {"columns": ["company"], "as": "mean", "steps": [{"target_encode": {"cv": 3}}]},
]


def trips(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Trips with nulls; `seed` decides their values."""
    rng = np.random.default_rng(seed)
    companies = ["blue", "réd", "green", "", None]
    return pa.table(
        {
            "id": pa.array(range(rows)),
            "fare": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1),
            "company": pa.array([companies[i] for i in rng.integers(0, 5, rows)]),
            "count": pa.array(rng.integers(0, 9, rows), pa.int32()),
            "tip": rng.random(rows),
            "kind": pa.array([["a", "b", "c"][i] for i in rng.integers(0, 3, rows)]),
            "weight": rng.random(rows).astype(np.float32),
        }
    )


def training(folder: Path, **changes: Any) -> Document:
    """A job on `folder/lake`, whose label is derived."""
    return {
        "version": 1,
        "source": {"path": str(folder / "lake")},
        "derive": {"next": "count + 1", "later": "next * 2", "good": "tip > 0.5"},
        "label": "good",
        "keep": ["id"],
        "features": FEATURES,
        "output": {"path": str(folder / "out"), "shuffle": "none"},
        **changes,
    }


def scoring(folder: Path, name: str = "scores", **changes: Any) -> Document:
    """A job that encodes `folder/lake` with the state of `folder/out`, without a label."""
    return {
        "version": 1,
        "source": {"path": str(folder / "lake")},
        "keep": ["id"],
        "fit": {"from": str(folder / "out")},
        "output": {"path": str(folder / name), "shuffle": "none"},
        **changes,
    }


def write_lake(folder: Path, table: pa.Table, name: str = "lake", rows: int = 100) -> str:
    """Write a lake of row groups of `rows` rows; its path."""
    (folder / name).mkdir(exist_ok=True)
    pq.write_table(table, folder / name / "a.parquet", row_group_size=rows)
    return str(folder / name)


def write_training(folder: Path, **changes: Any) -> Path:
    """Write the lake and its dataset; the folder."""
    write_lake(folder, trips())
    run_in_process(training(folder, **changes))
    return folder
