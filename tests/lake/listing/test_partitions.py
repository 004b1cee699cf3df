"""Partition folders: no two values become one unseen, NaN is null, and types are inferred only where that is safe."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtap_dask
from dtap_dask.errors import SourceError
from dtap_dask.job.planning.describe import plan_numbers
from dtap_dask.job.planning.forecast import forecast
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.planning.plan_text import format_plan
from dtap_dask.job.preview import preview
from dtap_dask.lake.listing.discover import SourceFile, list_source
from dtap_dask.lake.listing.partitions import partition_scalar, partition_schema
from property_tests import examples


def lake(root: Path, name: str, values: Sequence[str], **columns: Any) -> Path:
    for number, value in enumerate(values):
        folder = root / f"{name}={value}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"i": [number], **columns}), folder / "a.parquet")
    return root


def files_with(values: Sequence[str | None]) -> list[SourceFile]:
    return [SourceFile(f"f{i}", f"f{i}", 1, (("p", value),)) for i, value in enumerate(values)]


def kind_of(*values: str | None) -> pa.DataType:
    return partition_schema(files_with(values)).field("p").type


def job_on(path: Path, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "source": {"path": str(path), **more},
        "features": [{"columns": "i"}],
        "output": {"path": "out"},
    }


# Types


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "2", "10"), "int64"),
        (("0", "-5", None), "int64"),
        (("01", "02", "12"), "int64"),  # months and hours
        (("00501", "01001", "10010"), "int64"),  # all of one width: no two are one number
        (("01001", "1001"), "string"),
        (("01", "1"), "string"),
        (("01", "10", "100"), "string"),
        (("+5", "5"), "string"),
        (("+5",), "string"),
        (("-0", "0"), "string"),
        (("-01", "-02"), "string"),
        (("1e5", "100000"), "string"),
        (("", "5"), "string"),
        (("1", " 1"), "string"),
        (("١", "1"), "string"),  # other digits
        ((str(2**63 - 1), str(-(2**63))), "int64"),
        ((str(2**63), "1"), "string"),
        (("true", "false"), "string"),
        (("2020-01-01",), "string"),
        ((None,), "string"),
    ],
)
def test_types_are_inferred_where_no_two_values_can_become_one(values: Sequence[str | None], kind: str) -> None:
    assert str(kind_of(*values)) == kind


@given(st.lists(st.from_regex(r"[+-]?[0-9]{1,4}|[a-z ]{0,2}", fullmatch=True), min_size=1, unique=True))
def test_values_that_differ_stay_different(values: list[str]) -> None:
    kind = kind_of(*values)
    assert len({partition_scalar(value, kind).as_py() for value in values}) == len(values)


@pytest.mark.parametrize("values", [("01001", "1001", "00501"), ("+5", "5"), ("1e5", "1")])
def test_codes_are_told_apart_as_by_duckdb(values: Sequence[str], tmp_path: Path) -> None:
    root = lake(tmp_path / "t", "p", values)
    for value in values:
        sql = f"select i from read_parquet('{root}/*/*.parquet', hive_partitioning=true) where p = '{value}'"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tested below
            read = dtap_dask.read(str(root), where=f"p = '{value}'").compute(scheduler="synchronous")
        assert read["i"].tolist() == [row[0] for row in duckdb.sql(sql).fetchall()]


def test_numbers_that_are_kept_as_text_are_warned_of(tmp_path: Path) -> None:
    root = lake(tmp_path / "t", "zip", ["01001", "1001"])
    plan = make_plan(job_on(root))
    assert plan.warnings[0].startswith("The folders zip=... are read as text, as '01001' may be a code")
    for declared in ("string", "int64"):
        assert not make_plan(job_on(root, partitions={"zip": declared})).warnings
    assert not any("zip" in text for text in make_plan(job_on(lake(tmp_path / "u", "zip", ["1", "2"]))).warnings)


def test_the_plan_shows_each_type_and_whether_it_was_declared(tmp_path: Path) -> None:
    root = lake(tmp_path / "t" / "year=2013", "zip", ["01001", "10010"])
    plan = make_plan(job_on(root.parent, partitions={"year": "int32"}))
    told = plan_numbers(plan, forecast(plan, None, workers=1, memory=1 << 30))
    assert told["partitions"] == {
        "year": {"type": "int32", "declared": True},
        "zip": {"type": "int64", "declared": False},
    }
    assert "none pruned; year int32; zip int64 (inferred)" in format_plan(told)


# Values


@pytest.mark.parametrize("kind", ["double", "float"])
@pytest.mark.parametrize("written", ["NaN", "nan", "-nan"])
def test_nan_is_null(kind: str, written: str, tmp_path: Path) -> None:
    root = lake(tmp_path / "t", "x", [written, "1.5", "__HIVE_DEFAULT_PARTITION__"])

    def rows(where: str) -> list[int]:
        job = job_on(root, partitions={"x": kind}, where=where)
        return sorted(dtap_dask.read(job).compute(scheduler="synchronous")["i"])

    assert rows("x is null") == rows("x is distinct from 1.5") == rows("coalesce(x, 0) = 0") == [0, 2]
    assert rows("x is not null") == rows("x = 1.5") == rows("not x > 2") == [1]
    steps = [{"impute": {"strategy": "constant", "value": 7}}]
    job = {**job_on(root, partitions={"x": kind}), "keep": ["i"]}
    job["features"] = [{"columns": "x", "steps": steps}, {"columns": "i", "as": "at"}]
    shown = preview(job, rows=3)
    assert {int(at): float(x) for at, x in zip(shown["at"], shown["x"], strict=True)} == {0: 7, 1: 1.5, 2: 7}
    values = dtap_dask.read(job_on(root, partitions={"x": kind})).compute(scheduler="synchronous")["x"]
    assert values.isna().sum() == 2


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("double", str(2**53), str(2**53 + 1)),
        ("float", "16777216", "16777217"),
        ("float", "0.1", "0.10000000149011612"),
    ],
)
def test_values_that_become_one_float_are_refused(kind: str, one: str, other: str) -> None:
    assert Decimal(one) != Decimal(other)
    with pytest.raises(SourceError, match=rf"p={one} and p={other} would become one value .*string"):
        partition_schema(files_with([one, other]), {"p": kind})
    assert partition_schema(files_with(["1", "1.0", "1e0", "NaN", "inf"]), {"p": kind}).types  # one number each


def test_a_folder_stands_above_a_column_whose_name_differs_by_case_only(tmp_path: Path) -> None:
    """As in DuckDB and Spark."""
    root = lake(tmp_path / "t", "Year", ["2019", "2020"], year=[1])
    theirs = duckdb.sql(f"select year, i from read_parquet('{root}/*/*.parquet', hive_partitioning=true) order by i")
    with pytest.warns(UserWarning, match="folders Year=... hide the column 'year' of the files"):
        ours = dtap_dask.read(str(root), where="year > 0").compute(scheduler="synchronous")
    assert list(ours.columns) == ["i", "Year"]
    assert ours[["Year", "i"]].values.tolist() == [list(row) for row in theirs.fetchall()]
    assert "Year" in make_plan(job_on(root)).warnings[0]


def test_values_and_names_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    lake(tmp_path / "t", "x", ["%FF", "%FE"])
    with pytest.raises(SourceError, match=r"'x=%F[EF]' is url-encoded, but not as UTF-8.*Rename it"):
        list_source(str(tmp_path / "t"))


def test_a_column_that_two_folders_of_a_path_give_is_refused(tmp_path: Path) -> None:
    lake(tmp_path / "t" / "x=1", "x", ["2"])
    with pytest.raises(SourceError, match=r"two folders of this path give the partition column 'x'"):
        list_source(str(tmp_path / "t"))


@examples(0.15)
@given(st.lists(st.text(min_size=0, max_size=4), min_size=1, max_size=5, unique=True))
def test_any_text_comes_back_as_it_was_written(values: list[str]) -> None:
    from urllib.parse import quote

    from dtap_dask.lake.listing.hive import partition_values

    pairs = [partition_values("f", [f"k={quote(value, safe='')}"]) for value in values]
    assert [value for ((_, value),) in pairs] == values
