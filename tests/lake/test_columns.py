"""Files of one source that differ in their columns: read in the common type of all, exactly, or refused by name."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import dtap_dask
from dtap_dask.errors import DataError, JobError, SourceError
from dtap_dask.job.init import starter
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.lake.columns import FileColumns, merge_file_columns, source_columns
from dtap_dask.lake.common_type import common_type
from dtap_dask.lake.parquet.conversion import to_delivered_type
from in_process import run_in_process

NOON = dt.datetime(2020, 1, 1, 12)
US, NS, UTC = pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC")


def put(root: Path, *tables: pa.Table, **options: Any) -> Path:
    root.mkdir(parents=True)
    for number, table in enumerate(tables):
        pq.write_table(table, root / f"{number:03}.parquet", **options)
    return root


def column(values: list[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"x": pa.array(values, kind)})


def rows(path: Path, **arguments: Any) -> list[Any]:
    """The column x as plain Python values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tested below
        frame = dtap_dask.read(str(path), **arguments).compute(scheduler="synchronous")
    found: list[Any] = pa.Array.from_pandas(frame["x"]).to_pylist()
    return found


def job_on(path: Path, *columns: str, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "source": {"path": str(path)},
        "features": [{"columns": list(columns)}],
        "output": {"path": str(path.parent / "out")},
        **more,
    }


# Types

WIDENED = {
    "int32, int64": (column([1, None], pa.int32()), column([2**40], pa.int64())),
    "int8, uint8": (column([-1], pa.int8()), column([255], pa.uint8())),
    "uint32, int64": (column([2**32 - 1], pa.uint32()), column([-5], pa.int64())),
    "int64, double": (column([3], pa.int64()), column([2.5, None], pa.float64())),
    "float, double": (column([0.1], pa.float32()), column([0.1], pa.float64())),
    "timestamps": (column([NOON], US), column([NOON], pa.timestamp("ms"))),
    "date, timestamp": (column([NOON.date()], pa.date32()), column([NOON], US)),
    "with and without zone": (column([NOON], UTC), column([NOON], US)),
    "decimals": (column([Decimal("1.25")], pa.decimal128(5, 2)), column([Decimal("1234.5")], pa.decimal128(5, 1))),
    "int32, decimal": (column([7], pa.int32()), column([Decimal("1.25")], pa.decimal128(5, 2))),
    "null": (column([None], pa.null()), column(["a"], pa.string())),
    "layouts of text": (column(["a", None], pa.large_string()), column(["b"], pa.dictionary(pa.int8(), pa.string()))),
    "structs": (column([{"a": 1, "b": 2}, None], None), column([{"b": 2.5, "c": "d"}], None)),
    "lists": (column([[1, None], None], pa.list_(pa.int32())), column([[2**40]], pa.list_(pa.int64()))),
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", WIDENED)
def test_types_that_differ_become_one_that_holds_all_values(name: str, order: int, tmp_path: Path) -> None:
    tables = WIDENED[name][::order]
    root = put(tmp_path / "t", *tables)
    # duckdb 1.5 refuses lists of structs that differ, and nothing of what is here
    theirs = duckdb.connect()
    theirs.sql("SET TimeZone = 'UTC'")
    sql = f"select x from read_parquet('{root}/*.parquet', union_by_name=true)"
    expected = [row[0] for row in theirs.sql(sql).fetchall()]
    if "structs" in name or "decimals" in name:  # whose order of fields, or number of digits, is DuckDB's own
        assert [_plain(value) for value in rows(root)] == [_plain(value) for value in expected]
    else:
        assert rows(root) == expected


def _plain(value: Any) -> Any:
    return sorted(value.items()) if isinstance(value, dict) else value


CONDITIONS = ["x = {}", "x <> {}", "x > {}", "x <= {}", "x is null", "x in ({})"]
LITERALS = {
    "int32, int64": ["1", "1099511627776", "2"],
    "int64, double": ["3", "2.5"],
    "uint32, int64": ["4294967295", "-5"],
    "date, timestamp": ["'2020-01-01 00:00:00'", "'2020-01-01 12:00:00'"],
    "with and without zone": ["'2020-01-01 12:00:00'", "'2020-01-01 12:00:01'"],
    "decimals": ["1.25", "1234.5"],
    "layouts of text": ["'a'", "'b'"],
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", LITERALS)
def test_conditions_mean_the_same_whatever_a_file_holds(name: str, order: int, tmp_path: Path) -> None:
    """With statistics to prune by, and without."""
    tables = WIDENED[name][::order]
    pruned, whole = put(tmp_path / "a", *tables), put(tmp_path / "b", *tables, write_statistics=False)
    theirs = duckdb.connect()
    theirs.sql("SET TimeZone = 'UTC'")
    for literal, condition in itertools.product(LITERALS[name], CONDITIONS):
        where = condition.format(literal)
        sql = f"select x from read_parquet('{whole}/*.parquet', union_by_name=true) where {where}"
        expected = [row[0] for row in theirs.sql(sql).fetchall()]
        assert rows(pruned, where=where) == rows(whole, where=where) == expected, where


REFUSED = [
    (pa.int64(), pa.string()),
    (pa.int64(), pa.uint64()),
    (pa.bool_(), pa.int8()),
    (pa.decimal128(10, 2), pa.float64()),
    (pa.decimal128(38, 0), pa.decimal128(38, 10)),
    (pa.date32(), pa.int32()),
    (pa.list_(pa.int32()), pa.int32()),
    (pa.list_(pa.int32()), pa.list_(pa.string())),
    (pa.struct([("a", pa.int32())]), pa.struct([("a", pa.string())])),
]


@pytest.mark.parametrize(("one", "other"), REFUSED)
def test_types_without_a_common_one_are_refused(one: pa.DataType, other: pa.DataType, tmp_path: Path) -> None:
    assert common_type(one, other) is None
    assert common_type(other, one) is None
    root = put(tmp_path / "t", column([None], one), column([None], other))
    with pytest.raises(SourceError) as caught:
        dtap_dask.read(str(root))
    message = str(caught.value)
    assert f"Column 'x' is {one} in t/000.parquet, but {other} in t/001.parquet" in message
    assert "Leave the column out of the job" in message


SIMPLE = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64(), pa.decimal128(3, 1), pa.decimal128(38, 2), pa.decimal256(60, 5)),
    *(pa.date32(), pa.timestamp("s"), US, NS, UTC, pa.string(), pa.binary(), pa.bool_(), pa.null()),
]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(SIMPLE, SIMPLE)), ids=str)
def test_a_common_type_holds_what_both_hold(one: pa.DataType, other: pa.DataType) -> None:
    common = common_type(one, other)
    assert common == common_type(other, one)
    if common is None:
        return
    assert common_type(common, one) == common_type(common, other) == common
    for kind in {one, other}:
        values = _extremes(kind)
        try:
            read = to_delivered_type(values, common)
        except pa.ArrowException:  # not every value fits, and that is said
            assert (kind, common) in _CHECKED or pa.types.is_timestamp(common)
            continue
        assert read.cast(values.type).equals(values) if not pa.types.is_null(kind) else read.null_count == len(read)


_CHECKED = {(pa.int64(), pa.float64()), (pa.uint64(), pa.float64()), (pa.binary(), pa.string())}


def _extremes(kind: pa.DataType) -> pa.Array:
    if pa.types.is_integer(kind):
        bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
        return pa.array([0, None, 2 ** (bits - signed) - 1, -(2 ** (bits - 1)) if signed else 1], kind)
    if pa.types.is_decimal(kind):
        return pa.array([Decimal((0, (9,) * kind.precision, -kind.scale)), None], kind)
    values: list[Any] = {
        pa.string(): ["", "é", None],
        pa.binary(): [b"a", b"\xff"],
        pa.bool_(): [True, None],
        pa.date32(): [dt.date(1, 1, 1), dt.date(2020, 2, 3)],
    }.get(kind, [0, 1, None])
    if pa.types.is_floating(kind):
        return pa.array([0.5, -1024.0, None], pa.float64()).cast(kind)
    return pa.array([None] if pa.types.is_null(kind) else values, kind)


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [(pa.int64(), pa.float64(), 2**53 + 1), (pa.binary(), pa.string(), b"\xff"), (US, NS, dt.datetime(9999, 1, 1))],
)
def test_a_value_that_does_not_fit_is_refused_when_it_is_read(
    one: pa.DataType, other: pa.DataType, value: Any, tmp_path: Path
) -> None:
    root = put(tmp_path / "t", column([None], other), column([value], one))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = dtap_dask.read(str(root))
    says = rf"t/001.parquet: column 'x' is .* read as {re.escape(str(other))}, .* not every value can be"
    with pytest.raises(SourceError, match=says):
        frame.compute(scheduler="synchronous")


def test_integers_are_exact_beside_floats_of_32_bits(tmp_path: Path) -> None:
    """DuckDB takes float for both, which rounds."""
    root = put(tmp_path / "t", column([2**24 + 1], pa.int32()), column([2.5], pa.float32()))
    assert rows(root) == [16777217.0, 2.5]
    assert rows(root, where="x = 16777217") == [16777217.0]


def test_a_change_of_kind_is_warned_of(tmp_path: Path) -> None:
    root = put(tmp_path / "t", *WIDENED["int64, double"], *WIDENED["null"][:1])
    assert make_plan(job_on(root, "x", source={"path": str(root), "where": "x > 0"})).warnings[0] == (
        "Column 'x' is int64 in t/000.parquet, and read as double, as it is double in other files."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dtap_dask.read(str(put(tmp_path / "u", *WIDENED["int32, int64"])))


# Names


def test_a_column_that_files_lack_is_null_there_with_a_warning(tmp_path: Path) -> None:
    root = put(tmp_path / "t", pa.table({"i": [1]}), pa.table({"i": [2], "x": ["a"]}), pa.table({"i": [3]}))
    assert rows(root) == [None, "a", None]
    assert rows(root, where="x is null and i > 1") == [None]
    assert rows(root, where="x = 'a'") == ["a"]
    plan = make_plan(job_on(root, "i", source={"path": str(root), "where": "x is null"}))
    assert plan.totals.row_groups.read == 2
    assert plan.warnings[0].startswith(
        "Some files lack columns, which are null there: 'x' (2 of 3 files, such as t/000.parquet)."
    )
    assert not any("lack" in text for text in make_plan(job_on(root, "i")).warnings)
    with pytest.raises(DataError, match=r"column 'x' \(2\) among 3 rows would reach the output"):
        make_plan(job_on(root, "x", features=[{"columns": "x", "steps": [{"cast": "int64"}]}], derive={}))


def test_a_column_is_found_whichever_files_have_it(tmp_path: Path) -> None:
    root = put(tmp_path / "t", *[pa.table({"i": [1]})] * 3, pa.table({"i": [2], "x": [5]}))
    assert rows(root, columns=["x"], where="x = 5") == [5]
    with pytest.raises(JobError, match="There is no column 'y'"):
        dtap_dask.read(str(root), columns=["y"])
    with pytest.raises(JobError, match="there is no column 'y'"):
        make_plan(job_on(root, "y"))


def test_columns_that_nobody_asked_for_do_no_harm(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["d", "i", "d"])
    root = put(tmp_path / "t", pa.table({"i": [1], "x": [1]}), pa.table({"i": [2], "x": ["a"]}), twice)
    frame = dtap_dask.read(str(root), columns=["i"]).compute(scheduler="synchronous")
    assert frame["i"].tolist() == [1, 2, 2]
    assert make_plan(job_on(root, "i")).totals.rows.read == 3
    with pytest.raises(SourceError, match="Column 'x' is int64 in t/000.parquet, but string in t/001.parquet"):
        make_plan(job_on(root, "x", "i"))
    with pytest.raises(SourceError, match="t/002.parquet has several columns of the name 'd'"):
        dtap_dask.read(str(root), columns=["d"])
    starting = yaml.safe_load(starter(str(put(tmp_path / "u", twice))))
    assert [block["columns"] for block in starting["features"]] == [["i"]]


def test_names_that_differ_by_case_only_are_refused_where_they_are_needed(tmp_path: Path) -> None:
    root = put(tmp_path / "t", pa.table({"i": [1], "x": [1]}), pa.table({"i": [1], "X": [1]}))
    with pytest.raises(SourceError, match="Column 'x' is called 'X' in t/001.parquet"):
        dtap_dask.read(str(root))
    assert len(dtap_dask.read(str(root), columns="i").compute(scheduler="synchronous")) == 2


# Rows


def test_a_file_without_rows_says_nothing_of_the_schema(tmp_path: Path) -> None:
    empty = pa.table({"x": pa.array([], pa.float64()), "y": pa.array([], pa.string())})
    for order in (1, -1):
        root = put(tmp_path / f"t{order}", *[empty, pa.table({"x": ["a"]})][::order])
        frame = dtap_dask.read(str(root)).compute(scheduler="synchronous")
        assert frame.columns.tolist() == ["x"]
        assert frame["x"].tolist() == ["a"]
        assert make_plan(job_on(root, "x")).warnings == ()


def test_a_source_without_rows_is_an_empty_frame_and_no_dataset(tmp_path: Path) -> None:
    empty = pa.table({"x": pa.array([], pa.float64()), "y": pa.array([], pa.string())})
    root = put(tmp_path / "t", empty, empty)
    frame = dtap_dask.read(str(root))
    assert frame.compute(scheduler="synchronous").shape == (0, 2)
    assert frame.compute(scheduler="synchronous").dtypes.tolist() == frame.dtypes.tolist()
    with pytest.raises(SourceError) as caught:
        make_plan(job_on(root, "x"))
    assert f"There are no rows in {root}: 2 of 2 files were opened, and none holds a row." in str(caught.value)
    assert "where" not in str(caught.value)


def test_a_condition_that_rules_out_every_row_group_gives_an_empty_frame(tmp_path: Path) -> None:
    root = put(tmp_path / "t", pa.table({"x": [1, 2]}))
    assert rows(root, where="x > 5") == []


def test_any_number_of_files_may_have_no_value_of_a_column(tmp_path: Path) -> None:
    root = put(tmp_path / "t", *[pa.table({"x": pa.nulls(1)})] * 70, pa.table({"x": ["v"]}))
    assert rows(root) == [None] * 70 + ["v"]
    assert make_plan(job_on(root, "x", derive={"y": "x = 'v'"})).totals.rows.read == 71


# The whole way


def test_a_job_runs_on_files_that_differ(tmp_path: Path) -> None:
    root = put(
        tmp_path / "t",
        pa.table({"id": pa.array([1, 2], pa.int32()), "x": pa.array([1.5, 2.5], pa.float32())}),
        pa.table({"x": [4, 5], "id": [3, 2**40], "word": ["a", "b"]}),
    )
    steps = [{"columns": "x", "steps": ["standard_scale"]}, {"columns": "word", "steps": ["ordinal_encode"]}]
    job = job_on(root, keep=["id"], features=steps, output={"path": str(tmp_path / "out"), "shuffle": "none"})
    manifest = run_in_process(job)
    assert sum(split.rows for split in manifest.splits.values()) == 4
    ids = {int(row["id"]) for row in _batches(tmp_path / "out")}
    assert ids == {1, 2, 3, 2**40}


def _batches(path: Path) -> list[dict[str, Any]]:
    from dtap_dask.records.manifest_read import read_manifest
    from dtap_dask.records.verify import first_rows
    from dtap_dask.storage import open_store

    store = open_store(str(path))
    shown = first_rows(store, read_manifest(store), "train", 10)
    return [{"id": one} for one in shown["id"]]


# How it is put together


def test_schemas_are_counted_once_each() -> None:
    one, other = pa.schema([("x", pa.int32())]), pa.schema([("x", pa.int64())])
    parts = [FileColumns(one, True, "a"), FileColumns(other, True, "b"), FileColumns(pa.schema(list(one)), True, "c")]
    found = merge_file_columns([*parts, FileColumns(one, False, "d")])
    assert [(part.example, part.filled, part.files) for part in found] == [
        ("a", True, 2),
        ("b", True, 1),
        ("d", False, 1),
    ]
    assert merge_file_columns(found) == found
    assert source_columns(found).files == 3
