"""Datasets of floats of every dtype and shape, in every role."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets import write_dataset
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.example import Layout

FIXED = (
    FeatureInfo("single", "feature", "float32", "float32"),
    FeatureInfo("double", "feature", "float64", "float64"),
    FeatureInfo("vector", "feature", "float32", "float32", (2,)),
    FeatureInfo("small", "feature", "float32", "float16"),
    FeatureInfo("count", "feature", "float32", "uint32"),
    FeatureInfo("flag", "feature", "float32", "bool"),
    FeatureInfo("id", "feature", "int64", "uint8", ids=200),
    FeatureInfo("label", "label", "float32", "float32"),
    FeatureInfo("kept", "kept", "float64", "float64"),
)
LISTS = (*FIXED, FeatureInfo("list", "feature", "float64", "float64", (None,)))
ROWS = 21


def arrays(seed: int = 0) -> dict[str, Any]:
    """The columns of LISTS as arrays.

    Features have NaN, infinities, and numbers that are subnormal, rounded, or nearly between two of float16.
    """
    random = np.random.default_rng(seed)

    def floats(*shape: int) -> Any:
        found = random.normal(0, 1, shape) * 10.0 ** random.integers(-9, 5, shape)
        found.flat[:7] = [np.nan, np.inf, -np.inf, -0.0, 65504, 1e-7, 1 + 2**-11 + 1e-12]
        return np.clip(found, -65504, 65504, where=np.isfinite(found), out=found)

    return {
        "single": floats(ROWS).astype(np.float32),
        "double": floats(ROWS),
        "vector": floats(ROWS, 2).astype(np.float32),
        "small": floats(ROWS).astype(np.float16),
        "count": np.arange(ROWS, dtype=np.uint32) * 100,
        "flag": np.arange(ROWS) % 3 == 0,
        "id": np.arange(ROWS, dtype=np.uint8),
        "label": np.full(ROWS, 1e30, np.float32),
        "kept": np.arange(ROWS) * 1e30,
        "list": [floats(7)[: row % 4 + 3].tolist() if row % 3 else [] for row in range(ROWS)],
    }


def write_floats(folder: Path, kind: Any, infos: tuple[FeatureInfo, ...], given: dict[str, Any]) -> str:
    """A finished dataset of these columns in one shard; its path. In the layout rows, all floats are float32."""
    if kind == "rows":
        floats = {"dtype": "float32", "stored": "float32"}
        infos = tuple(replace(info, **floats) if info.stored.startswith("float") else info for info in infos)

    def column(info: FeatureInfo, part: Any) -> Any:
        if info.shape == (None,):
            return pa.array(part, pa.large_list(pa.from_numpy_dtype(info.stored)))
        return part.astype(info.stored)

    def columns(first: int, rows: int) -> dict[str, Any]:
        return {info.name: column(info, given[info.name][first : first + rows]) for info in infos}

    return write_dataset(folder, infos, Layout(kind, 8), {"train": [ROWS]}, columns)
