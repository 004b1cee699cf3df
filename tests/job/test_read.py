"""`dtap_dask.read`: rows of a job or a lake as a lazy Dask DataFrame, held against DuckDB and the records."""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from distributed import Client

import dtap_dask
from documents import Document
from dtap_dask.errors import JobError, SourceError
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import first_rows
from dtap_dask.storage import open_store
from in_process import run_in_process

Row = tuple[str, ...]


def computed(frame: dd.DataFrame) -> pa.Table:
    """The whole frame as Arrow, which keeps every type, in this process."""
    return pa.Table.from_pandas(frame.compute(scheduler="sync"), preserve_index=False)


def multiset(table: pa.Table, names: list[str]) -> Counter[Row]:
    """How often each row comes, by its values as Python writes them; NaN as null."""

    def text(value: Any) -> str:
        return repr(None if value != value else value)  # noqa: PLR0124  (NaN alone differs from itself)

    columns = [map(text, table[name].to_pylist()) for name in names]
    return Counter(zip(*columns, strict=True))


def by_duckdb(lake: Path, condition: str, more: str = "") -> pa.Table:
    """The rows of the lake that DuckDB keeps, with NaN replaced by NULL."""
    files = f"read_parquet('{lake}/trips/year=*/month=*/*.parquet', hive_partitioning = true)"
    clean = "nullif(trip_miles, 'NaN'::double) as trip_miles"
    lake_sql = f"with lake as (select * replace ({clean}) from {files})"
    return duckdb.connect().sql(f"{lake_sql} select *{more} from lake where {condition}").to_arrow_table()


CONDITIONS = [
    "trip_start >= '2013-06-01' and fare > 0 and company is not null",
    "trip_miles > 8",  # a NaN is no large number
    "month in (2, 11) and (trip_seconds is null or tolls > 1.5)",
    "payment_type like 'C%' and not shared and tips between 1 and 2",
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_path_with_a_condition_gives_the_rows_of_duckdb(lake: Path, condition: str) -> None:
    frame = dtap_dask.read(lake / "trips", where=condition)
    assert isinstance(frame, dd.DataFrame)
    expected = by_duckdb(lake, condition)
    found = computed(frame)
    assert sorted(found.schema.names) == sorted(expected.schema.names)
    assert 0 < found.num_rows < 20_000
    assert multiset(found, expected.schema.names) == multiset(expected, expected.schema.names)


@pytest.mark.parametrize("form", ["path", "Path", "dict", "Job"])
def test_a_job_gives_its_filtered_rows_with_derived_columns(
    job: Document, lake: Path, tmp_path: Path, form: str
) -> None:
    job["derive"]["pace"] = "trip_miles / trip_seconds"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    forms = {
        "path": str(tmp_path / "job.yaml"),
        "Path": tmp_path / "job.yaml",
        "dict": job,
        "Job": dtap_dask.Job.load(job),
    }
    frame = dtap_dask.read(forms[form])
    derived = ", tips > 0.2 * fare as big_tipper, trip_miles / trip_seconds as pace"
    expected = by_duckdb(lake, CONDITIONS[0], derived)
    found = computed(frame)
    assert set(found.schema.names) == {*expected.schema.names}
    assert found.schema.field("year").type == found.schema.field("month").type == pa.int32()
    assert multiset(found, expected.schema.names) == multiset(expected, expected.schema.names)


def test_a_job_gives_the_rows_that_its_dataset_keeps(job: Document, client: Client) -> None:
    """With `sample`, and a fitted split; the order of the source is that of the records without a shuffle."""
    job["source"]["sample"] = 0.25
    job["output"]["shuffle"] = "none"
    manifest = run_in_process(job)
    store = open_store(job["output"]["path"])
    frame = dtap_dask.read(job, columns=["trip_id"])
    found = computed(frame)["trip_id"].to_pylist()
    position = {trip: number for number, trip in enumerate(found)}
    for name, part in read_manifest(store).splits.items():
        held = first_rows(store, manifest, name, part.rows)["trip_id"].tolist()
        assert sorted(held, key=position.__getitem__) == held
    rows = sum(part.rows for part in manifest.splits.values())
    assert client.compute(frame["trip_id"].count()).result() == len(found) == rows


def test_it_runs_on_a_cluster_and_in_dask_s_own_ways(lake: Path, client: Client) -> None:
    frame = dtap_dask.read(lake / "trips", columns=["company", "fare"])
    sums = client.compute(frame.groupby("company").fare.sum()).result()
    rows = duckdb.sql(f"select company, sum(fare) from '{lake}/trips/year=*/*/*.parquet' group by 1").fetchall()
    expected = {company: total for company, total in rows if company is not None}
    assert sums.to_dict() == pytest.approx(expected, rel=1e-12)
    assert len(expected) == 60


def test_nothing_is_read_before_it_is_computed(lake: Path, tmp_path: Path) -> None:
    shutil.copytree(lake / "trips", tmp_path / "trips")
    frame = dtap_dask.read(tmp_path / "trips", where="fare > 5")
    assert frame.npartitions >= 8
    shutil.rmtree(tmp_path / "trips")
    with pytest.raises(SourceError, match=r"part-00000.parquet is gone from .* since the source was listed"):
        frame.compute(scheduler="sync")


@pytest.mark.parametrize(
    "columns", [["fare", "trip_id"], ["month", "tags", "year"], ["big_tipper"], ["waypoints", "big_tipper", "tolls"]]
)
def test_columns_come_as_chosen_and_in_their_order(job: Document, lake: Path, columns: list[str]) -> None:
    found = computed(dtap_dask.read(job, columns=columns))
    assert found.schema.names == columns
    expected = by_duckdb(lake, CONDITIONS[0], ", tips > 0.2 * fare as big_tipper")
    assert multiset(found, columns) == multiset(expected, columns)


def test_one_name_is_as_good_as_a_list_of_one(lake: Path) -> None:
    frame = dtap_dask.read(lake / "trips", columns="fare")
    assert list(frame.columns) == ["fare"]
    assert len(frame) == 20_000


def test_several_paths_are_one_source(lake: Path) -> None:
    months = [lake / "trips" / "year=2013" / f"month={month}" for month in (1, 2)]
    expected = by_duckdb(lake, "month <= 2")
    found = computed(dtap_dask.read(months, columns=["trip_id"]))
    assert sorted(found["trip_id"].to_pylist()) == sorted(expected["trip_id"].to_pylist())


UTC = dt.UTC
ODD = pa.table(
    {
        "big": pa.array([2**62 + 1, None, -(2**63)], pa.int64()),
        "unsigned": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "small": pa.array([1, None, -128], pa.int8()),
        "price": pa.array([Decimal("123456789012345678901234.56"), None, Decimal("0.01")], pa.decimal128(38, 2)),
        "zoned": pa.array([dt.datetime(2020, 1, 1, tzinfo=UTC), None, dt.datetime(1, 1, 1, tzinfo=UTC)]),
        "micros": pa.array([dt.datetime(2262, 4, 12, 1, 2, 3, 4), None, dt.datetime(9999, 12, 31)]),
        "day": pa.array([dt.date(2020, 2, 29), None, dt.date(1, 1, 1)]),
        "raw": pa.array([b"\xff\x00", None, b""]),
        "numbers": pa.array([[1, None], None, []], pa.list_(pa.int32())),
        "words": pa.array([["a", None], None, [""]], pa.list_(pa.string())),
        "pair": pa.array([{"a": 2**53 + 1, "b": "x"}, None, {"a": None, "b": None}]),
        "nothing": pa.array([None] * 3, pa.int32()),
        "single": pa.array([1.5, None, -0.0], pa.float32()),
        "flag": pa.array([True, None, False]),
        "text": pa.array(["ä", None, ""]),
    }
)


def test_every_type_keeps_its_exact_values_and_its_nulls(tmp_path: Path) -> None:
    """A whole number beside a null stays a whole number, also beyond 2**53; so do dates beyond pandas' own."""
    pq.write_table(ODD, tmp_path / "a.parquet")
    pq.write_table(ODD.slice(0, 0), tmp_path / "b.parquet")  # a file without rows is in nobody's way
    found = computed(dtap_dask.read(tmp_path))
    assert found.schema.types == ODD.schema.types
    assert found.to_pylist() == ODD.to_pylist()
    unzoned = [name for name in ODD.schema.names if name != "zoned"]  # time zones are an extension of DuckDB
    oracle = duckdb.sql(f"select {', '.join(unzoned)} from '{tmp_path}/*.parquet'").to_arrow_table()
    assert multiset(found, unzoned) == multiset(oracle, unzoned)


@pytest.mark.parametrize("what", ["job", "odd"])
def test_the_types_promised_are_the_types_computed_in_every_partition(what: str, job: Document, tmp_path: Path) -> None:
    if what == "odd":
        for number in range(3):
            pq.write_table(ODD.slice(number, 1), tmp_path / f"{number}.parquet")
        frame = dtap_dask.read(tmp_path, where="flag is null or not flag")
    else:
        frame = dtap_dask.read(job)
    parts = [frame.partitions[number].compute(scheduler="sync") for number in range(frame.npartitions)]
    assert len(parts) > 1
    for part in parts:
        pd.testing.assert_series_equal(part.dtypes, frame.dtypes)
    assert all(isinstance(kind, pd.ArrowDtype) for kind in frame.dtypes)


def test_a_partition_in_which_no_row_is_kept_is_empty(lake: Path) -> None:
    """The condition prunes nothing by statistics, and nearly nothing passes it."""
    frame = dtap_dask.read(lake / "trips", where="trip_id % 20000 = 77")
    sizes = [len(frame.partitions[number].compute(scheduler="sync")) for number in range(frame.npartitions)]
    assert sorted(sizes) == [0] * (frame.npartitions - 1) + [1]
    assert computed(frame)["trip_id"].to_pylist() == [77]


ERRORS: list[tuple[Document, type[Exception], str]] = [
    ({"columns": ["fair"]}, JobError, r"There is no column 'fair'\. Did you mean 'fare'\?"),
    ({"columns": []}, JobError, r"`columns` is empty\. Name some, or leave it out for all\."),
    ({"columns": ["fare", "fare"]}, JobError, r"`columns` names 'fare' twice\."),
    ({"where": "fair > 1"}, JobError, r"there is no column 'fair'\. Did you mean 'fare'\?"),
    ({"where": "fare >"}, JobError, r"source\.where"),
    ({"where": "fare + 1"}, JobError, r"'fare \+ 1' gives double, but a condition must be true or false"),
    ({"where": "trip_start > 'yesterday'"}, JobError, r"yesterday"),
    ({"where": "month = 13"}, SourceError, r"No file is left of 12 after pruning by folders"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), ERRORS)
def test_mistakes_are_told_at_once(lake: Path, arguments: Document, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        dtap_dask.read(lake / "trips", **arguments)


@pytest.mark.parametrize("arguments", [{"where": "fare > 1"}, {"storage": {"dtap": {"map": {}}}}])
def test_a_job_takes_no_condition_beside_it(job: Document, arguments: Document) -> None:
    with pytest.raises(JobError, match="`where` and `storage` belong in the job"):
        dtap_dask.read(job, **arguments)


def test_a_missing_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No files at .*nowhere"):
        dtap_dask.read(tmp_path / "nowhere")
    with pytest.raises(JobError, match=r"The job file .*no\.yaml cannot be read"):
        dtap_dask.read(tmp_path / "no.yaml")


def test_a_tap_is_mapped_as_in_a_job(lake: Path) -> None:
    storage = {"dtap": {"map": {"TenantStorage": str(lake)}}}
    frame = dtap_dask.read("dtap://TenantStorage/trips", where="month = 5", columns=["trip_id"], storage=storage)
    assert len(frame) == by_duckdb(lake, "month = 5").num_rows > 0
