"""Datasets with columns of every kind, in which each value follows from the number of its row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets import write_dataset
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.example import Layout

# Neighbours differ in role, dtype and shape.
INFOS = (
    FeatureInfo("fare", "feature", "float32", "float32"),
    FeatureInfo("late", "label", "bool", "bool"),
    FeatureInfo("miles", "feature", "float32", "float32"),
    FeatureInfo("company", "feature", "int64", "uint16", ids=1000),
    FeatureInfo("payment", "feature", "int64", "uint8", ids=200),
    FeatureInfo("sizes", "feature", "float32", "float32", (3,)),
    FeatureInfo("flags", "feature", "int64", "uint8", (2,)),
    FeatureInfo("big", "feature", "uint32", "uint32"),
    FeatureInfo("weight", "weight", "float32", "float32"),
    FeatureInfo("row", "kept", "int64", "int64"),
    FeatureInfo("note", "feature", "bytes", "bytes"),
    FeatureInfo("tags", "feature", "int64", "int32", (None,)),
    FeatureInfo("words", "feature", "bytes", "bytes", (None,)),
    FeatureInfo("pair", "feature", "bytes", "bytes", (2,)),
)
PLAIN = tuple(info for info in INFOS if info.name in ("fare", "miles", "company", "sizes", "late", "row"))


def values(name: str, rows: Sequence[int]) -> list[Any]:
    """The oracle: what a column holds in the rows with these numbers."""
    return [_VALUE[name](row) for row in rows]


_VALUE = {
    "fare": lambda row: row * 0.5,
    "late": lambda row: row % 3 == 0,
    "miles": lambda row: -row,
    "company": lambda row: row % 1000,
    "payment": lambda row: row * 7 % 200,
    "sizes": lambda row: [row, row + 0.25, -row],
    "flags": lambda row: [row % 2, row % 5],
    "big": lambda row: 2**32 - 1 - row,
    "weight": lambda row: 1 + row % 4,
    "row": lambda row: row,
    "none": lambda row: [],
    "note": lambda row: b"" if row % 4 == 0 else b"\x00\xff" + str(row).encode() * (row % 4),
    "tags": lambda row: list(range(row, row + row % 3)),
    "words": lambda row: [b"w%d" % (row + i) for i in range(row % 4)],
    "pair": lambda row: [b"%d" % row, b""],
}


def column(info: FeatureInfo, rows: Sequence[int]) -> Any:
    found = values(info.name, rows)
    if info.stored == "bytes" and info.shape == ():
        return pa.array(found, pa.large_binary())
    if info.stored == "bytes" or None in info.shape:
        kind = pa.large_binary() if info.stored == "bytes" else pa.from_numpy_dtype(info.stored)
        return pa.array(found, pa.large_list(kind))
    return np.array(found, info.stored).reshape(len(rows), *info.shape)


def write(
    folder: Path, shards: Sequence[int], layout: Layout, infos: tuple[FeatureInfo, ...] = INFOS, split: str = "train"
) -> str:
    """A finished dataset of one split whose shards have these numbers of rows, numbered through in order; its path."""

    def columns(first: int, rows: int) -> dict[str, Any]:
        return {info.name: column(info, range(first, first + rows)) for info in infos}

    return write_dataset(folder, infos, layout, {split: shards}, columns)


def rows_of(data: Iterable[Any]) -> list[int]:
    """The numbers of the rows of batches with kept columns, but for padding."""
    found = list[int]()
    for batch, kept in data:
        rows = np.asarray(kept["row"])
        found += rows[np.asarray(batch[2]) > 0].tolist() if len(batch) == 3 else rows.tolist()
    return found
