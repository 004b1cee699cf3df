"""Reading a task: the right rows in a fixed order, no byte too many, bounded memory, clear errors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.parquet import footers as footers_module
from dtap_dask.lake.parquet import reading
from dtap_dask.lake.parquet.footers import FooterReader, read_footer, read_schema
from dtap_dask.lake.parquet.row_group import RowGroups
from dtap_dask.lake.scan import ScanBatch, ScanSpec, ScanTask, read_task, scan_schema
from dtap_dask.lake.split import SplitSpec
from planned_lake import THIRDS, Lake, write
from property_tests import examples


def numbered(first: int, rows: int) -> pa.Table:
    ids = np.arange(first, first + rows)
    names = pa.array([None if i % 7 == 0 else f"word{i % 5}" for i in ids.tolist()], pa.string())
    return pa.table({"id": ids, "value": ids / 4, "name": names})


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    for part in range(4):
        write(tmp_path / f"p={part % 2}" / f"{part}.parquet", numbered(part * 1000, 1000), row_group_size=300)
    return tmp_path


def collect(batches: Iterator[ScanBatch]) -> tuple[pa.Table, list[int]]:
    found = list(batches)
    return pa.Table.from_batches([batch.rows for batch in found]), [part for b in found for part in b.split.tolist()]


def read(root: Path, where: str | None = None, columns: Sequence[str] | None = None, **changes: Any) -> pa.Table:
    whole = Lake(root, where, columns)
    return collect(read_task(whole.store, whole.spec(**changes), whole.task()))[0]


# Rows


def test_all_rows_in_order(lake):
    table = read(lake)
    assert table.schema.field("name").type == pa.dictionary(pa.int32(), pa.string())
    expected = pa.concat_tables([numbered(first, 1000) for first in (0, 2000, 1000, 3000)])
    assert table.select(["id", "value"]).equals(expected.select(["id", "value"]))
    assert table["name"].cast(pa.string()).to_pylist() == expected["name"].to_pylist()
    assert table["p"].to_pylist() == [0] * 2000 + [1] * 2000


def test_batches_say_where_they_come_from(lake):
    whole = Lake(lake, "id % 2 = 0")
    task = whole.task()
    batches = list(read_task(whole.store, whole.spec(), task, batch_rows=128))
    assert max(batch.rows.num_rows for batch in batches) == 64  # half of what is read at once
    for position, group in enumerate(task.groups):
        own = [batch for batch in batches if batch.group == position]
        assert sum(batch.rows.num_rows for batch in own) == group.rows // 2
    assert all(len(batch.split) == batch.rows.num_rows and batch.split.dtype == np.int16 for batch in batches)


def test_mixed_reads_the_same_rows_in_turns(lake):
    whole = Lake(lake)
    batches = list(read_task(whole.store, whole.spec(), whole.task(), batch_rows=1600, mixed=True))
    again = list(read_task(whole.store, whole.spec(), whole.task(), batch_rows=1600, mixed=True))
    assert [batch.group for batch in batches[:16]] == list(range(16))  # 16 groups open, 100 rows each a turn
    assert {batch.rows.num_rows for batch in batches} == {100}
    assert [batch.rows for batch in batches] == [batch.rows for batch in again]
    ids = pa.Table.from_batches([batch.rows for batch in batches])["id"].to_pylist()
    assert sorted(ids) == list(range(4000))
    assert ids != sorted(ids)


def test_mixed_opens_only_what_the_budget_allows(lake, monkeypatch):
    whole = Lake(lake)
    task = whole.task()
    monkeypatch.setattr(reading, "OPEN_BYTES", 2 * reading._cost(whole.schema, task.groups[0], 1000))
    batches = list(read_task(whole.store, whole.spec(), task, batch_rows=200, mixed=True))
    order = [batch.group for batch in batches]
    assert sorted(pa.Table.from_batches([b.rows for b in batches])["id"].to_pylist()) == list(range(4000))
    spans = {group: (order.index(group), len(order) - order[::-1].index(group)) for group in set(order)}
    most = max(sum(low <= place < high for low, high in spans.values()) for place in range(len(order)))
    assert 2 <= most < 16
    assert order[0] == 0


def test_batches_shrink_to_the_memory_they_may_take(tmp_path):
    table = pa.table({"blob": [np.random.default_rng(i).bytes(1 << 20) for i in range(40)]})
    write(tmp_path / "a", table, use_dictionary=False, compression="none")
    sizes = [batch.rows.num_rows for batch in _batches(tmp_path)]
    assert sum(sizes) == 40
    assert max(sizes) <= 32


def _batches(root: Path, **options: Any) -> list[ScanBatch]:
    whole = Lake(root)
    return list(read_task(whole.store, whole.spec(), whole.task(), **options))


def test_derived_columns_see_earlier_ones(lake):
    derive = (("double", "value * 2"), ("big", "double > 1000 and p = 1"))
    table = read(lake, "id >= 1500 and id < 3500", derive=derive, outputs=("big", "id", "double"))
    assert table.schema.names == ["big", "id", "double"]
    assert table.num_rows == 2000
    for row in table.to_pylist():
        assert row["double"] == row["id"] / 2
        assert row["big"] == (row["id"] / 2 > 1000 and row["id"] // 1000 % 2 == 1)
    whole = Lake(lake)
    assert scan_schema(whole.spec(derive=derive)).names == ["id", "value", "name", "p", "double", "big"]


def test_only_partition_columns(lake):
    table = read(lake, columns=[])
    assert table.schema.names == ["p"]
    assert table["p"].to_pylist() == [0] * 2000 + [1] * 2000


def test_values_come_through_unchanged(tmp_path):
    big = 2**53 + 1
    table = pa.table({"i": [big, None], "f": [float("nan"), None], "u": pa.array([2**64 - 1, None], pa.uint64())})
    write(tmp_path / "a", table)
    found = read(tmp_path)
    assert found.schema.equals(table.schema)
    assert found["i"].to_pylist() == [big, None]
    assert found["u"].to_pylist() == [2**64 - 1, None]
    assert np.isnan(found["f"][0].as_py())
    assert found["f"].null_count == 1


LAYOUTS = [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.null()]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_files_that_store_text_in_another_way(tmp_path, layout):
    write(tmp_path / "a", pa.table({"x": ["u", None], "l": [["a"], None], "n": [1, 2]}))
    values = pa.nulls(2) if pa.types.is_null(layout) else pa.array(["u", None]).cast(layout)
    other = pa.table({"n": pa.array([3, 4]), "l": pa.array([["b"], []], pa.large_list(pa.large_string())), "x": values})
    write(tmp_path / "b", other)
    table = read(tmp_path)
    assert table.schema.field("x").type == pa.dictionary(pa.int32(), pa.string())
    assert table["x"].to_pylist() == ["u", None, *values.to_pylist()]
    assert table["l"].to_pylist() == [["a"], None, ["b"], []]
    assert table["n"].to_pylist() == [1, 2, 3, 4]


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_text_comes_alike_whether_the_file_has_a_dictionary(tmp_path, use_dictionary, monkeypatch):
    words = [None if i % 11 == 0 else f"w{i % 50}" for i in range(5000)]
    write(tmp_path / "a", pa.table({"x": words}), use_dictionary=use_dictionary, row_group_size=2000)
    direct = read(tmp_path)
    monkeypatch.setattr(footers_module, "DICTIONARY_BYTES", 0)
    monkeypatch.setattr(footers_module, "CODE_BYTES", 0)
    decoded = read(tmp_path)
    assert direct.schema == decoded.schema
    assert direct["x"].to_pylist() == decoded["x"].to_pylist() == words


def test_partition_columns_of_every_type(tmp_path):
    write(tmp_path / "a=x/b=1/c=__HIVE_DEFAULT_PARTITION__/f", pa.table({"n": [1, 2], "b": ["inside", "inside"]}))
    table = read(tmp_path)
    assert table.to_pylist() == [{"n": n, "a": "x", "b": 1, "c": None} for n in (1, 2)]  # the path's `b` wins
    assert table.schema.field("a").type == table.schema.field("c").type == pa.dictionary(pa.int32(), pa.string())


# Split and sample


def test_split_by_row_number_does_not_depend_on_filters_or_batches(lake):
    whole = Lake(lake)
    spec = whole.spec(split=THIRDS)
    table, parts = collect(read_task(whole.store, spec, whole.task()))
    expected = dict(zip(table["id"].to_pylist(), parts, strict=True))
    assert len(set(parts)) == 3
    for where, batch_rows, mixed in (("id % 3 = 1", 64, False), (None, 700, True), ("name is null", 65536, True)):
        other = Lake(lake, where)
        spec = other.spec(split=THIRDS)
        table, parts = collect(read_task(other.store, spec, other.task(), batch_rows=batch_rows, mixed=mixed))
        assert {i: expected[i] for i in table["id"].to_pylist()} == dict(
            zip(table["id"].to_pylist(), parts, strict=True)
        )


def test_split_by_key_does_not_depend_on_the_files(lake, tmp_path_factory):
    keyed = SplitSpec(THIRDS.names, THIRDS.fractions, ("id", "name"), None, "train")
    compacted = tmp_path_factory.mktemp("compacted")
    write(compacted / "p=0" / "all", pa.concat_tables([numbered(3000, 1000), numbered(0, 3000)]))
    found = []
    for root in (lake, compacted):
        whole = Lake(root)
        table, parts = collect(read_task(whole.store, whole.spec(split=keyed), whole.task()))
        found.append(dict(zip(table["id"].to_pylist(), parts, strict=True)))
    assert found[0] == found[1]
    assert len(found[0]) == 4000


def test_split_by_predicates_over_derived_and_partition_columns(lake):
    rules = SplitSpec(("train", "eval"), None, (), ("p = 0", "half > 1000"), "train")
    whole = Lake(lake)
    spec = whole.spec(split=rules, derive=(("half", "id / 2"),), outputs=("id", "p"))
    table, parts = collect(read_task(whole.store, spec, whole.task()))
    for row, part in zip(table.to_pylist(), parts, strict=True):
        assert part == (0 if row["p"] == 0 else 1 if row["id"] > 2000 else -1)


def test_sample_is_a_share_of_every_part(lake):
    whole = Lake(lake)
    everything, _ = collect(read_task(whole.store, whole.spec(split=THIRDS), whole.task()))
    table, parts = collect(read_task(whole.store, whole.spec(split=THIRDS, sample=0.3), whole.task()))
    assert table.num_rows == pytest.approx(1200, abs=150)
    assert np.bincount(parts, minlength=3) / len(parts) == pytest.approx([0.8, 0.1, 0.1], abs=0.05)
    assert set(table["id"].to_pylist()) < set(everything["id"].to_pylist())
    without_split, zeros = collect(read_task(whole.store, whole.spec(sample=0.3), whole.task()))
    assert without_split["id"].to_pylist() == table["id"].to_pylist()
    assert set(zeros) == {0}


def test_a_column_that_the_first_files_have_no_value_of(tmp_path):
    """As pandas writes one: of Arrow's null type."""
    nothing = pa.nulls(2)
    write(tmp_path / "0.parquet", pa.table({"x": nothing, "s": nothing, "none": nothing, "i": [1, 2]}))
    write(tmp_path / "1.parquet", pa.table({"x": nothing, "s": ["a", None], "none": nothing, "i": [3, 4]}))
    write(
        tmp_path / "2.parquet", pa.table({"x": [0.5, None], "s": nothing, "none": nothing, "i": [5, 6], "new": [0, 0]})
    )
    write(tmp_path / "3.parquet", pa.table({"x": [1.5, 2.5], "s": ["b", "c"], "none": nothing, "i": [7, 8]}))
    store, files = list_source(str(tmp_path))
    assert read_schema(store, files).types == [pa.null(), pa.null(), pa.null(), pa.int64()]
    known = pa.schema([("x", pa.float64()), ("s", pa.string()), ("i", pa.int64())])
    groups = [read_footer(store, file, known.names).groups for file in files]
    spec = ScanSpec(known, pa.schema([]), "i <> 8", (), None, None, tuple(known.names))
    task = ScanTask(0, tuple(group for found in groups for group in found))
    rows = pa.Table.from_batches([batch.rows for batch in read_task(store, spec, task)])
    assert rows["x"].to_pylist() == [None, None, None, None, 0.5, None, 1.5]
    assert rows["s"].to_pylist() == [None, None, "a", None, None, None, "b"]


def test_one_footer_sets_the_schema_where_it_says_all(lake):
    store, files = list_source(str(lake))
    assert read_schema(store, files) == read_footer(store, files[0]).schema
    assert store.counters.opens == 2


# Products


def test_tasks_and_specs_survive_pickle(lake):
    whole = Lake(lake)
    task, spec = whole.task(), whole.spec(split=THIRDS, derive=(("d", "id + 1"),), sample=0.5)
    assert pickle.loads(pickle.dumps((task, spec))) == (task, spec)
    assert task.rows == 4000
    assert task.bytes == sum(group.bytes for group in task.groups)


# Pruning and SQL, against DuckDB

VALUES = st.one_of(st.none(), st.integers(-3, 12))
WORDS = st.one_of(st.none(), st.sampled_from(["", "a", "ab", "b", "ü"]))
FLOATS = st.one_of(st.none(), st.floats(-2, 2, width=32), st.just(float("nan")))
ROWS = st.lists(st.tuples(VALUES, WORDS, FLOATS), min_size=1, max_size=40)
CONDITIONS = (
    "i > 5", "i = 3 and p = 1", "s < 'b'", "s is null", "f is null", "f > 0.5 or i < 0", "not (i <= 2)", "p <> 0",
    "s in ('a', 'ü') and i between 2 and 8", "i is not null and f <= 0", "s like 'a%'", "i % 2 = 0 or p = 2",
)  # fmt: skip


@given(
    files=st.lists(st.tuples(st.integers(0, 2), ROWS, st.integers(1, 9)), min_size=1, max_size=4),
    where=st.sampled_from(CONDITIONS),
)
@examples(0.4)
def test_pruned_unpruned_and_duckdb_agree(tmp_path_factory, files, where):
    root = tmp_path_factory.mktemp("lake")
    tables = []
    for number, (partition, rows, group_rows) in enumerate(files):
        i, s, f = (list(column) for column in zip(*rows, strict=True))
        table = pa.table({"i": pa.array(i, pa.int32()), "s": pa.array(s, pa.string()), "f": pa.array(f, pa.float64())})
        write(root / f"p={partition}" / f"{number}", table, row_group_size=group_rows)
        tables.append(table.append_column("p", pa.array([partition] * len(rows), pa.int64())))
    whole = Lake(root, where)
    pruned, every = whole.task(prune=True), whole.task()
    assert set(pruned.groups) <= set(every.groups)
    kept = [collect(read_task(whole.store, whole.spec(), task))[0] for task in (every, pruned) if task.groups]
    lines = [sorted(map(str, table.to_pylist())) for table in kept] + [[]] * (not pruned.groups)
    assert lines[0] == lines[1]
    source = pa.concat_tables(tables)
    assert source.num_rows == every.rows
    cleaned = "select i, s, case when isnan(f) then null else f end as f, p from source"
    expected = duckdb.sql(f"select count(*), count(i), sum(i), count(s) from ({cleaned}) where {where}").fetchall()[0]
    found = kept[0]
    numbers = [value for value in found["i"].to_pylist() if value is not None]
    texts = [value for value in found["s"].to_pylist() if value is not None]
    assert expected == (found.num_rows, len(numbers), sum(numbers) if numbers else None, len(texts))


def test_a_reader_of_many_footers_says_of_each_what_a_fresh_one_says(tmp_path: Path) -> None:
    """It works out once what follows from a schema: files whose schemas differ must not be taken for the same."""
    x, y = pa.array([3, 1, None, 2]), pa.array(["b", "a", "c", None])
    nested = pa.array([{"y": 1}, {"y": 5}, None, {"y": 2}])
    tables = [
        {"x": x, "y": y, "z": nested},
        {"y": y, "x": x, "z": nested},
        {"z": nested, "w": x, "y": y.cast(pa.large_string()), "x": x},
        {"x": x, "y": y.dictionary_encode(), "z": nested},
        {"x": x.cast(pa.timestamp("us")), "y": y, "z": nested},
        {"x": x, "y": y, "z": nested},
    ]
    for number, columns in enumerate(tables):
        write(tmp_path / f"{number}.parquet", pa.table(columns), row_group_size=3)
    store, files = list_source([str(tmp_path)], {})
    reader = FooterReader(store, ["x", "y", "z"], stat_columns=["x", "y", "z"])
    for file in files:
        assert reader.read(file) == read_footer(store, file, ["x", "y", "z"], stat_columns=["x", "y", "z"])


def test_row_groups_are_the_same_as_objects_and_as_numbers(tmp_path: Path) -> None:
    for folder in ("a=1", "a=2"):
        write(tmp_path / folder / "part.parquet", pa.table({"x": range(1000)}), row_group_size=300)
    store, files = list_source([str(tmp_path)], {})
    parts = [read_footer(store, file).groups for file in files]
    every = RowGroups.concat(parts)
    assert list(every) == [group for part in parts for group in part]
    assert [(group.file, group.partition, group.first_row) for group in every] == [
        (file.path, (value,), first) for file, value in zip(files, "12", strict=True) for first in (0, 300, 600, 900)
    ]
    assert every.rows.tolist() == [group.rows for group in every] == 2 * [300, 300, 300, 100]
    assert every[2:4] == every.take([2, 3]) == every.take(np.arange(8) // 2 == 1)
    assert every[-1] == list(every)[-1]
    assert every != every[1:]
    with pytest.raises(IndexError):
        every[8]
    assert len(RowGroups.concat([])) == 0
