"""Loading from a real HDFS: the batches of a local copy, staged; and in place where it is mounted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from datasets import write_dataset
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.storage import open_store
from dtap_dask.train.load import load

INFOS = (FeatureInfo("fare", "feature", "float32", "float32"), FeatureInfo("row", "label", "int64", "int64"))
SHARDS, ROWS = 6, 300


def batches(data: tf.data.Dataset) -> list[Any]:
    return [[part.numpy().tobytes() for part in tf.nest.flatten(batch)] for batch in data]


def test_batches_from_hdfs_are_those_of_a_local_copy(tmp_path: Path, hdfs_url: str) -> None:
    def columns(first: int, count: int) -> dict[str, Any]:
        rows = np.arange(first, first + count)
        return {"fare": rows.astype(np.float32), "row": rows}

    local = open_store(
        write_dataset(tmp_path / "data", INFOS, Layout("blocks", 64), {"train": [ROWS] * SHARDS}, columns)
    )
    there = open_store(hdfs_url)
    for file in local.list_files():
        there.write_atomic(file.path, local.read_bytes(file.path))

    storage = {"cache": {"path": str(tmp_path / "cache"), "size": "1GiB"}}
    in_place, staged = load(local.url, batch_size=64), load(hdfs_url, batch_size=64, storage=storage)
    assert [batches(staged) for _ in range(2)] == [batches(in_place) for _ in range(2)]

    mounted = {**storage, "mounts": {hdfs_url: str(tmp_path / "data")}}
    assert batches(load(hdfs_url, batch_size=64, storage=mounted)) == batches(load(local.url, batch_size=64))
