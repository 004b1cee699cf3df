"""Loading from a real HDFS: the batches of a local copy, staged; and in place where it is mounted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.folder import MANIFEST
from dtap_dask.records.manifest import SourceTotals
from dtap_dask.records.manifest_build import build_manifest
from dtap_dask.records.shard import TaskShards, write_shards
from dtap_dask.storage import open_store
from dtap_dask.train.load import load

INFOS = (FeatureInfo("fare", "feature", "float32", "float32"), FeatureInfo("row", "label", "int64", "int64"))
SHARDS, ROWS = 6, 300


def batches(data: tf.data.Dataset) -> list[Any]:
    return [[part.numpy().tobytes() for part in tf.nest.flatten(batch)] for batch in data]


def test_batches_from_hdfs_are_those_of_a_local_copy(tmp_path: Path, hdfs_url: str) -> None:
    local, there = open_store(str(tmp_path / "data")), open_store(hdfs_url)
    names = [f"train/part-{number}.tfrecord" for number in range(SHARDS)]
    layout, written = Layout("blocks", 64), []
    for number, name in enumerate(names):
        rows = np.arange(number * ROWS, (number + 1) * ROWS)
        plan = TaskShards(number, ("train",), (ROWS,), ((name,),))
        columns = {"fare": rows.astype(np.float32), "row": rows}
        rows_of = [(np.zeros(ROWS, np.int8), columns)]
        written += write_shards(local, "draft", plan, rows_of, infos=INFOS, layout=layout, shuffle="none")
        local.publish(f"draft/{name}", name)
    totals = SourceTotals()
    manifest = build_manifest(
        job={}, fingerprint="f", source=totals, infos=INFOS, layout=layout, splits=["train"], shards=written
    )
    local.write_atomic(MANIFEST, manifest.to_bytes())
    for name in (*names, MANIFEST):
        there.write_atomic(name, local.read_bytes(name))

    storage = {"cache": {"path": str(tmp_path / "cache"), "size": "1GiB"}}
    in_place, staged = load(local.url, batch_size=64), load(hdfs_url, batch_size=64, storage=storage)
    assert [batches(staged) for _ in range(2)] == [batches(in_place) for _ in range(2)]

    mounted = {**storage, "mounts": {hdfs_url: str(tmp_path / "data")}}
    assert batches(load(hdfs_url, batch_size=64, storage=mounted)) == batches(load(local.url, batch_size=64))
