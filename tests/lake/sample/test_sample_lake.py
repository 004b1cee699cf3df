"""The made-up lake: complete, repeatable, and shaped like a real one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dtap_dask.errors import OutputError, SourceError
from dtap_dask.lake.listing.discover import SourceFile, list_source
from dtap_dask.lake.listing.partitions import partition_schema
from dtap_dask.lake.parquet.footers import read_footer
from dtap_dask.lake.sample.sample_lake import SampleSummary, write_sample
from dtap_dask.lake.sample.taxi_trips import SCHEMA
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task
from dtap_dask.storage import open_store


def make(root: Path, rows: int, seed: int = 0) -> SampleSummary:
    return write_sample(open_store(str(root)), rows, seed)


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def load(root: Path, where: str | None = None) -> pa.Table:
    store, files = list_source([str(root / "trips")], {})
    partitions = partition_schema(files, {"year": "int32", "month": "int32"})
    footers = [read_footer(store, file, SCHEMA.names) for file in files]
    spec = ScanSpec(SCHEMA, partitions, where, (), None, None, (*SCHEMA.names, "month"))
    task = ScanTask(0, tuple(group for footer in footers for group in footer.groups))
    return pa.Table.from_batches([batch.rows for batch in read_task(store, spec, task)])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample")
    make(root, 60_000)
    return root


@pytest.mark.parametrize(("rows", "months"), [(1, 1), (7, 1), (120, 2), (599, 11), (601, 12), (5000, 12)])
def test_any_number_of_rows(tmp_path, rows, months):
    summary = make(tmp_path, rows)
    store, files = list_source([str(tmp_path / "trips")], {})
    footers = [read_footer(store, file) for file in files]
    assert summary.rows == rows == sum(group.rows for footer in footers for group in footer.groups)
    assert summary.files == len(files)
    assert summary.row_groups == sum(len(footer.groups) for footer in footers)
    assert summary.bytes == sum(file.size for file in files)
    assert len({file.partition for file in files}) == months
    assert sorted(load(tmp_path)["trip_id"].to_pylist()) == list(range(rows))


def test_same_rows_and_seed_give_the_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make(tmp_path / name, 3000, seed)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a != c


def test_layout_of_a_larger_lake(lake):
    store, files = list_source([str(lake / "trips")], {})
    assert len(files) == 24
    assert files[0].path.endswith("trips/year=2013/month=1/part-00000.parquet")
    assert all(len(read_footer(store, file).groups) == 4 for file in files)
    every = {info.path.rpartition("trips/")[2] for info in store.list_files()}
    litter = every - {file.key for file in files}
    assert litter == {"_SUCCESS", "_temporary/0/part-00000.parquet", "year=2013/month=1/.part-00000.parquet.crc"}
    aborted = next(info for info in store.list_files() if "_temporary" in info.path)
    with pytest.raises(SourceError, match="begins as Parquet but has no footer"):
        read_footer(store, SourceFile(aborted.path, aborted.path, aborted.size))


def test_rows_look_like_trips(lake):
    table = load(lake)
    starts = table["trip_start"].combine_chunks()
    assert pc.equal(pc.month(starts), table["month"].combine_chunks().cast(pa.int64())).false_count == 0
    by_file = starts.to_numpy()
    assert (np.diff(by_file[table["month"].to_numpy() == 3].astype(np.int64)) >= 0).all()
    nulls = {name for name in SCHEMA.names if table[name].null_count}
    places = {f"{end}_{what}" for end in ("pickup", "dropoff") for what in ("community_area", "latitude", "longitude")}
    assert nulls == {"trip_seconds", "trip_miles", "company", "shared", *places}
    assert pc.sum(pc.is_nan(table["trip_miles"])).as_py() > 10
    assert pc.count_distinct(table["company"].cast(pa.string())).as_py() == 60
    companies = pc.value_counts(table["company"].cast(pa.string()).drop_null()).field("counts").to_numpy()
    assert companies.max() > 20 * companies.min()
    assert {len(row) for row in table["waypoints"].slice(0, 2000).to_pylist()} >= {0, 1, 2, 3}


def test_there_is_something_to_learn(lake):
    table = load(lake)
    big = pc.greater(table["tips"], pc.multiply(table["fare"], 0.2)).to_numpy()
    card = pc.equal(table["payment_type"].cast(pa.string()), "Credit Card").to_numpy()
    evening = pc.greater_equal(pc.hour(table["trip_start"]), 18).to_numpy()
    assert 0.1 < big.mean() < 0.3
    assert big[card].mean() > 20 * big[~card].mean()
    assert big[card & evening].mean() > 1.5 * big[card & ~evening].mean()


def test_the_filter_of_the_readme_keeps_some_rows(lake):
    where = "trip_start >= '2013-06-01' and fare > 0 and company is not null"
    table = load(lake, where)
    assert 0.4 < table.num_rows / 60_000 < 0.6
    assert min(table["trip_start"].to_pylist()).month == 6


def test_a_place_that_is_taken_is_refused(lake, tmp_path):
    with pytest.raises(OutputError, match=r"/trips has files already. Choose another folder"):
        make(lake, 10)
    with pytest.raises(OutputError, match="at least one row, not 0"):
        make(tmp_path, 0)
