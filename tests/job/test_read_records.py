"""`dtap_dask.read_records`: what was written comes back as Arrow and as a Dask DataFrame."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from dtap_dask.errors import DataError, JobError, OutputError
from dtap_dask.job.read_records import read_records
from dtap_dask.records.example import Layout
from dtap_dask.storage import open_store
from numbered_rows import INFOS, PLAIN, values, write

SHARDS = [30, 0, 1, 47]


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_every_value_comes_back_in_order_as_arrow_and_as_dask(tmp_path: Path, kind: Any, compression: Any) -> None:
    path = write(tmp_path, SHARDS, Layout(kind, 8, compression))
    table = read_records(path)
    assert table.column_names == [info.name for info in INFOS]
    for info in INFOS:
        assert table[info.name].to_pylist() == values(info.name, range(78)), info.name
        if info.stored != "bytes" and info.shape == ():
            assert table[info.name].type == pa.from_numpy_dtype(np.dtype(info.dtype))
    assert table.schema.field("sizes").type == pa.list_(pa.float32(), 3)
    assert table.schema.field("tags").type == pa.large_list(pa.int64())
    frame = read_records(path, as_dask=True)
    assert frame.npartitions == 3
    computed = frame.compute(scheduler="sync")
    assert (frame.dtypes == computed.dtypes).all()
    again = pa.Table.from_pandas(computed, preserve_index=False)
    assert again.to_pylist() == table.to_pylist()
    some = read_records(path, columns=["row", "fare"])
    assert some.equals(table.select(["row", "fare"]))
    assert read_records(path, columns="late", as_dask=True).compute(scheduler="sync").columns.tolist() == ["late"]


def test_tensorflow_reads_the_same_values_from_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, SHARDS, Layout("rows"), PLAIN)
    table = read_records(path)
    files = sorted(map(str, tmp_path.glob("train/*")))
    spec = {name: tf.io.FixedLenFeature([], kind) for name, kind in (("fare", tf.float32), ("company", tf.int64))}
    parsed = tf.io.parse_example([record.numpy() for record in tf.data.TFRecordDataset(files)], spec)
    for name in spec:
        assert table[name].to_pylist() == parsed[name].numpy().tolist()


def test_scikit_learn_fits_what_comes(tmp_path: Path) -> None:
    frame = read_records(write(tmp_path, [60], Layout("blocks", 8), PLAIN), columns=["fare", "company", "late"])
    data = frame.to_pandas()
    assert LogisticRegression().fit(data[["fare", "company"]], data["late"]).n_features_in_ == 2


def test_a_store_that_is_not_local_is_fetched_to_the_cache(tmp_path: Path) -> None:
    local = write(tmp_path / "local", SHARDS, Layout("blocks", 8), PLAIN)
    remote = open_store("memory://read-records")
    for file in sorted((tmp_path / "local").rglob("*")):
        if file.is_file():
            with remote.create(str(file.relative_to(local))) as copy:
                copy.write(file.read_bytes())
    storage = {"cache": {"path": str(tmp_path / "cache"), "size": "1MiB"}}
    expected = read_records(local)
    assert read_records(remote.url, storage=storage).equals(expected)
    frame = read_records(remote.url, as_dask=True, storage=storage).compute(scheduler="sync")
    assert pa.Table.from_pandas(frame, preserve_index=False).to_pylist() == expected.to_pylist()
    assert len([*(tmp_path / "cache").glob("*.shard")]) == 3


def test_the_table_needs_no_dask_and_no_tensorflow(tmp_path: Path) -> None:
    path = write(tmp_path, [5], Layout("blocks", 8), PLAIN)
    code = (
        f"import sys, dtap_dask; dtap_dask.read_records({path!r}); print({{'tensorflow', 'dask'}} & {{*sys.modules}})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, r"no split 'trian'\. Did you mean 'train'"),
        ({"columns": ["fair", "row", "row"]}, r"(?s)no column 'fair'\. Did you mean 'fare'.*'row' is named twice"),
        ({"columns": []}, r"columns: \[\] is not a list of names"),
        ({"columns": 3}, "columns: 3 is not a list of names"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = write(tmp_path, [5], Layout("blocks", 8), PLAIN)
    for as_dask in (False, True):
        with pytest.raises(JobError, match=message):
            read_records(path, **options, as_dask=as_dask)


def test_damage_and_splits_without_rows_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        read_records(write(tmp_path / "none", [0], Layout("blocks", 8), PLAIN))
    path = write(tmp_path, [30], Layout("blocks", 8), PLAIN)
    frame = read_records(path, as_dask=True)
    (shard,) = tmp_path.glob("train/*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    for read in (lambda: read_records(path), lambda: frame.compute(scheduler="sync")):
        with pytest.raises(OutputError, match=rf"{shard.name} is damaged: the checksum of record \d"):
            read()
