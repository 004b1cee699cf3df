"""Compressed shards are named so that other readers know them, and those named otherwise by earlier versions load."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import first_rows, verify_dataset
from dtap_dask.storage import open_store
from in_process import run_in_process

OLD = Path(__file__).parents[1] / "data" / "gzip_named_tfrecord"


@pytest.mark.parametrize("layout", ["blocks", "rows"])
def test_datasets_of_the_old_names_load(layout: str, tmp_path: Path) -> None:
    path = tmp_path / layout
    shutil.copytree(OLD / layout, path)
    store = open_store(str(path))
    manifest = read_manifest(store)
    assert all(shard.path.endswith(".tfrecord") for shard in manifest.shards)
    assert verify_dataset(store, manifest).rows == 24
    ids = []
    for split in ("train", "eval"):
        for (features, label), kept in dtap_dask.load(path, split, batch_size=5, kept=True):
            rows = kept["id"].numpy()
            np.testing.assert_array_equal(features["x"], rows * 0.5)
            np.testing.assert_array_equal(features["word"], np.array([b"red", b"", b"blue"], object)[rows % 3])
            np.testing.assert_array_equal(label, rows % 2)
            ids += rows.tolist()
        assert len(first_rows(store, manifest, split, 3)["id"]) == 3
    assert sorted(ids) == list(range(24))


@pytest.mark.parametrize("layout", ["blocks", "rows"])
def test_compressed_shards_say_so_in_their_names(layout: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(50)}), tmp_path / "table.parquet")
    job: dict[str, Any] = {
        "version": 1,
        "source": {"path": str(tmp_path / "table.parquet")},
        "features": [{"columns": ["id"]}],
        "output": {"path": str(tmp_path / "out"), "layout": layout, "compression": "gzip"},
    }
    manifest = run_in_process(job)
    for shard in manifest.shards:
        assert shard.path.endswith(f"{manifest.fingerprint[:8]}.tfrecord.gz")
        file = str(tmp_path / "out" / shard.path)
        with fsspec.open(file, compression="infer") as plain:  # by the name, as Beam, Ray and Hadoop do
            raw = io.BytesIO(plain.read())
        (tmp_path / "plain").write_bytes(raw.getvalue())
        records = [list(tf.data.TFRecordDataset(*one)) for one in ((file, "GZIP"), (str(tmp_path / "plain"),))]
        assert records[0] == records[1]
        assert len(records[0]) == shard.records
    assert sorted(int(row) for batch in dtap_dask.load(tmp_path / "out") for row in batch["id"]) == list(range(50))
    assert verify_dataset(open_store(str(tmp_path / "out")), manifest).rows == 50
