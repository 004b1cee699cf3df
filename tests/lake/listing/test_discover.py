"""Listing, hidden files, globs, hive partitions, their types, and footers of good and bad files."""

from __future__ import annotations

import os
import pickle
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import SourceError
from dtap_dask.lake.listing.discover import SourceFile, contains, is_hidden, lies_within, list_source
from dtap_dask.lake.listing.partitions import partition_scalar, partition_schema
from dtap_dask.lake.parquet.footers import read_footer
from dtap_dask.lake.pruning import prune_files, prune_groups
from dtap_dask.lake.schema import canonical_type
from dtap_dask.lake.sql.expression import compile_sql
from dtap_dask.storage import open_store
from property_tests import examples

ONE = pa.table({"x": [1, 2, 3]})


def put(root: Path, *paths: str, table: pa.Table = ONE) -> None:
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, place)


def keys(*paths: Path | str) -> list[str]:
    return [file.key for file in list_source([str(path) for path in paths], {})[1]]


def files_with(*partitions: dict[str, str | None]) -> list[SourceFile]:
    return [SourceFile(f"f{i}", f"f{i}", 1, tuple(p.items())) for i, p in enumerate(partitions)]


# Listing


HIDDEN = (
    "_SUCCESS",
    "_temporary/0/p.parquet",
    "a/.p.crc",
    ".staging/x",
    "a/_metadata",
    "b/4.parquet._COPYING_",
    ".h=1/x",
)


def test_folder_is_listed_in_order_without_hidden_files(tmp_path):
    put(tmp_path / "t", "b/2.parquet", "a/1", "top.snappy.parquet")
    for path in HIDDEN:
        (tmp_path / "t" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / path).write_bytes(b"junk")
    store, files = list_source(str(tmp_path / "t"))
    assert [file.key for file in files] == ["a/1", "b/2.parquet", "top.snappy.parquet"]
    assert [store.size(file.path) for file in files] == [file.size for file in files]
    assert all(map(is_hidden, HIDDEN))
    assert not is_hidden("_x=1/part-0")


def test_underscore_partition_is_no_hidden_folder(tmp_path):
    put(tmp_path / "t", "_x=1/a.parquet", "_x=2/a.parquet")
    _, files = list_source([str(tmp_path / "t")], {})
    assert [file.partition for file in files] == [(("_x", "1"),), (("_x", "2"),)]


def test_single_file_may_have_any_name(tmp_path):
    put(tmp_path, "_odd=1/_file")
    store, files = list_source([str(tmp_path / "_odd=1" / "_file")], {})
    assert files == [SourceFile(files[0].path, "_file", store.size(files[0].path), (("_odd", "1"),))]


def test_relative_path_and_trailing_slash(tmp_path, monkeypatch):
    put(tmp_path, "t/a.parquet")
    monkeypatch.chdir(tmp_path)
    assert keys("t") == keys("t/") == keys("./t") == keys(f"file://{tmp_path}/t") == ["a.parquet"]


GLOBS = {
    "*.parquet": ["c.parquet"],
    "y1/*.parquet": ["y1/a.parquet"],
    "y*": ["y1/a.parquet", "y1/m2/b.parquet", "y2/m1/d.parquet"],
    "y[2-9]": ["y2/m1/d.parquet"],
    "y?/m*/*.parquet": ["y1/m2/b.parquet", "y2/m1/d.parquet"],
    "**/b.parquet": ["y1/m2/b.parquet"],
    "**/*.parquet": ["c.parquet", "y1/a.parquet", "y1/m2/b.parquet", "y2/m1/d.parquet"],
    "y1/**/*.parquet": ["y1/a.parquet", "y1/m2/b.parquet"],
}


@pytest.mark.parametrize("glob", GLOBS)
def test_globs(tmp_path, glob):
    put(tmp_path / "t", "c.parquet", "y1/a.parquet", "y1/m2/b.parquet", "y2/m1/d.parquet", "_tmp/c.parquet")
    store, files = list_source([str(tmp_path / "t" / glob)], {})
    assert [store.local_path(file.path) for file in files] == [str(tmp_path / "t" / path) for path in GLOBS[glob]]


def test_keys_of_a_glob_and_of_a_list(tmp_path):
    put(tmp_path, "t/y=1/a.parquet", "t/y=2/a.parquet", "u/y=3/b.parquet")
    assert keys(tmp_path / "t" / "y=*") == ["y=1/a.parquet", "y=2/a.parquet"]
    store, files = list_source([str(tmp_path / "u"), str(tmp_path / "t")], {})
    assert [file.path.rpartition("t/")[2] for file in files][:2] == ["y=1/a.parquet", "y=2/a.parquet"]
    assert [file.key for file in files] == ["y=1/a.parquet", "y=2/a.parquet", "y=3/b.parquet"]
    assert store.exists(files[2].path)


def test_a_file_named_twice_counts_once(tmp_path):
    put(tmp_path, "t/y=1/a.parquet", "t/y=2/b.parquet")
    assert keys(tmp_path / "t", tmp_path / "t" / "y=1") == ["y=1/a.parquet", "y=2/b.parquet"]


def test_items_inside_a_partition_keep_its_column(tmp_path):
    put(tmp_path, "run=7/t/y=1/a.parquet", "run=7/t/y=2/b.parquet")
    _, files = list_source([str(tmp_path / "run=7/t/y=1"), str(tmp_path / "run=7/t/y=2/b.parquet")], {})
    assert [file.partition for file in files] == [(("y", "1"),), (("y", "2"),)]  # but not `run`, above the table


def test_nothing_to_read(tmp_path):
    with pytest.raises(SourceError, match=r"No files at .*nowhere: the place is missing or empty"):
        keys(tmp_path / "nowhere")
    put(tmp_path, "t/_temporary/0/a.parquet", "t/_SUCCESS")
    with pytest.raises(SourceError, match=r"all 2 files there are hidden \(_SUCCESS, _temporary/0/a.parquet\)"):
        keys(tmp_path / "t")
    put(tmp_path, "t/a.parquet")
    with pytest.raises(SourceError, match=r"No files match .*/t/\*.csv: 3 files lie below"):
        keys(tmp_path / "t" / "*.csv")
    with pytest.raises(SourceError, match=r"nowhere"):
        keys(tmp_path / "t", tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"source.path. is empty"):
        keys()


def test_several_filesystems_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"several filesystems: memory://x, the local filesystem"):
        keys("memory://x/y", tmp_path)


def test_other_filesystems_by_url():
    store = open_store("memory://lake-of-test")
    with store.create("t/y=1/a.parquet") as out, pa.BufferOutputStream() as sink:
        pq.write_table(ONE, sink)
        out.write(sink.getvalue())
    found, files = list_source(["memory://lake-of-test/t"], {})
    assert [(file.key, file.partition) for file in files] == [("y=1/a.parquet", (("y", "1"),))]
    assert read_footer(found, files[0]).groups[0].rows == 3


def test_home_is_expanded_and_file_urls_are_local(tmp_path, monkeypatch):
    put(tmp_path, "lake/a.parquet", "lake/y=1/b.parquet")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lake/y=1/b.parquet").rename(tmp_path / "b.parquet")
    assert keys("~/lake") == keys("~/lake/*") == ["a.parquet"]
    assert keys("~/lake", f"file://{tmp_path}/b.parquet") == ["b.parquet", "a.parquet"]


def test_brackets_of_a_name_that_exists_are_taken_literally(tmp_path):
    put(tmp_path, "br[1]/a.parquet", "br[1]/b[0].parquet", "br2/c.parquet")
    assert keys(tmp_path / "br[1]") == ["a.parquet", "b[0].parquet"]
    assert keys(tmp_path / "br[1]" / "a*") == keys(tmp_path / "br[1]" / "a.parquet") == ["a.parquet"]
    assert keys(tmp_path / "br[1]" / "b[0].parquet") == ["b[0].parquet"]
    assert keys(tmp_path / "br[2]") == ["br2/c.parquet"]


def test_broken_links_are_named_but_for_hidden_ones(tmp_path):
    put(tmp_path, "t/a.parquet")
    (tmp_path / "t" / ".#a.parquet").symlink_to("nobody@nowhere")
    (tmp_path / "t" / "_old").symlink_to(tmp_path)
    assert keys(tmp_path / "t") == ["a.parquet"]
    (tmp_path / "t" / "b.parquet").symlink_to("gone.parquet")
    assert keys(tmp_path / "t" / "a*") == ["a.parquet"]
    with pytest.raises(SourceError, match=r"t/b.parquet is a symbolic link that leads nowhere"):
        keys(tmp_path / "t")
    (tmp_path / "t" / "b.parquet").unlink()
    (tmp_path / "t" / "again").symlink_to(tmp_path / "t")
    with pytest.raises(SourceError, match=r"t/again is a symbolic link that leads .* back to a folder around it"):
        keys(tmp_path / "t")


INSIDE = {  # of an item: folders inside, and outside
    "lake": (("lake", "lake/out", "./lake/../lake/x/"), ("out", "lakes", "", "lak")),
    "lake/": (("lake/out",), ("lakes",)),
    "lake/t*": (("lake/trips", "lake/trips/out", "lake"), ("lake/out", "out")),
    "lake/trip?": (("lake/trips/out/deep",), ("lake/trip", "lake/trips2")),
    "lake/trip[a-z]/*.parquet": (("lake/trips", "lake/trips/a.parquet"), ("lake/trips/out", "lake/trip1")),
    "lake/**/*.parquet": (("lake/out", "lake/a/b/c"), ("out",)),
    "lake/br[1]": (("lake/br[1]/out", "lake/br[1]"), ("lake/br1", "lake/br1/out")),
    "lake/trips/a.parquet": (("lake/trips/a.parquet",), ("lake/trips", "lake/trips/out", "lake")),
}


@pytest.mark.parametrize("item", INSIDE)
def test_what_lies_inside_an_item(item, tmp_path, monkeypatch):
    put(tmp_path, "lake/trips/a.parquet", "lake/br[1]/a.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path, expected in [(path, True) for path in INSIDE[item][0]] + [(path, False) for path in INSIDE[item][1]]:
        ways = [(item, f"{tmp_path}/{path}"), (f"~/{item}", f"file://{tmp_path}/{path}"), (f"{tmp_path}/{item}", path)]
        for source, place in ways:
            assert contains(source, place or ".") is expected, (source, place)


def test_what_an_item_lies_within(tmp_path):
    put(tmp_path, "lake/trips/a.parquet")
    for item in ("lake/trips", "lake/trips/a.parquet", "lake/trips/*.parquet", "lake/trips/**"):
        assert lies_within(f"{tmp_path}/{item}", f"{tmp_path}/lake")
        assert lies_within(f"{tmp_path}/{item}", f"file://{tmp_path}")
        assert not lies_within(f"{tmp_path}/{item}", f"{tmp_path}/lake/trips/out")
        assert not lies_within(f"{tmp_path}/{item}", f"{tmp_path}/lak")
        assert not lies_within(f"{tmp_path}/{item}", "memory://lake")


def test_links_and_other_filesystems_are_seen_through(tmp_path):
    put(tmp_path, "lake/a.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    assert contains(f"{tmp_path}/link", f"{tmp_path}/lake/out")
    assert contains(f"{tmp_path}/lake", f"{tmp_path}/link/out")
    taps = {"dtap": {"map": {"T": str(tmp_path)}}}
    assert contains("dtap://T/l*", f"{tmp_path}/lake/out", taps)
    assert lies_within(f"{tmp_path}/lake/*", "dtap://T/lake", taps)
    assert contains("memory://lake/t*", "memory://lake/trips/out")
    assert not contains("memory://lake/t*", "memory://lake/out")
    assert not contains("memory://lake", f"{tmp_path}/lake")


# Hive partitions


def test_partition_values_are_decoded(tmp_path):
    put(tmp_path, "t/c=a%2Fb%20c/d=__HIVE_DEFAULT_PARTITION__/x", "t/d=%E2%82%AC/c=/x")
    _, files = list_source([str(tmp_path / "t")], {})
    assert [file.partition for file in files] == [(("c", "a/b c"), ("d", None)), (("c", ""), ("d", "€"))]


def test_partition_folders_must_agree(tmp_path):
    put(tmp_path, "t/a=1/b=2/y.parquet", "t/a=1/x.parquet")
    with pytest.raises(SourceError, match=r"t/a=1/b=2/y.parquet has a, b, t/a=1/x.parquet has a\."):
        keys(tmp_path / "t")


def test_partition_types_are_inferred():
    schema = partition_schema(
        files_with({"a": "1", "b": "01", "c": "x", "d": None}, {"a": "-5", "b": None, "c": "2", "d": None})
    )
    assert schema == pa.schema([("a", pa.int64()), ("b", pa.int64()), ("c", pa.string()), ("d", pa.string())])
    assert partition_schema(files_with({"a": str(2**63)})).field("a").type == pa.string()
    assert partition_schema(files_with({})) == pa.schema([])


def test_partition_types_as_declared():
    files = files_with({"year": "2013", "month": "01", "day": "2013-01-31", "hot": "true"})
    schema = partition_schema(files, {"year": "int32", "month": "string", "day": "date32", "hot": "bool"})
    values = [partition_scalar(v, schema.field(k).type).as_py() for k, v in files[0].partition]
    assert values == [2013, "01", date(2013, 1, 31), True]


@pytest.mark.parametrize(
    ("value", "kind"),
    [("x", "int32"), ("300", "int8"), ("0x10", "int32"), ("2013-13-01", "date"), ("2", "bool"), ("", "int64")],
)
def test_partition_value_of_another_type(value, kind):
    with pytest.raises(SourceError, match=f"f1: the partition value p={value} does not parse"):
        partition_schema(files_with({"p": None}, {"p": value}), {"p": kind})


def test_declared_partitions_that_are_wrong():
    with pytest.raises(SourceError, match=r"source.partitions.yaer.*Did you mean 'year'"):
        partition_schema(files_with({"year": "1"}), {"yaer": "int32"})
    with pytest.raises(SourceError, match=r"source.partitions.year: 'int23'.*Did you mean 'int32'"):
        partition_schema(files_with({"year": "1"}), {"year": "int23"})


def test_files_are_pruned_by_partition_values():
    files = files_with(*({"y": str(y), "m": m} for y in (2012, 2013) for m in ("01", "02", None)))
    partitions = partition_schema(files, {"y": "int32", "m": "string"})
    schema = pa.schema([("x", pa.int64()), *partitions])

    def kept(sql: str) -> list[str]:
        return [file.path for file in prune_files(files, partitions, compile_sql(sql, schema))]

    assert kept("y = 2013 and m = '01' and x > 5") == ["f3"]
    assert kept("m is null") == ["f2", "f5"]
    assert kept("y = 2013 or x = 1") == [f"f{i}" for i in range(6)]
    assert kept("m <> '01'") == ["f1", "f4"]
    assert prune_files(files, partitions, None) == files


# Footers and schemas


def footer_of(path: Path, table: pa.Table | None = None, *, columns=None, stats=(), **options):
    if table is not None:
        pq.write_table(table, path, **options)
    store, files = list_source([str(path)], {})
    return read_footer(store, files[0], columns, stats)


MANY = pa.table(
    {
        "i8": pa.array([3, None, 1], pa.int8()),
        "u64": pa.array([2**63 + 1, 5, None], pa.uint64()),
        "f": pa.array([1.5, float("nan"), -2.0]),
        "s": pa.array(["b", None, "añ"]),
        "z": pa.array([b"\xff", b"", None]),
        "b": pa.array([True, None, True]),
        "d": pa.array([date(2013, 1, 1), date(1960, 1, 1), None]),
        "t": pa.array([datetime(2013, 1, 1), datetime(1960, 1, 1), None], pa.timestamp("us", "UTC")),
        "n": pa.array([1, 2, -7], pa.timestamp("ns")),
        "dec": pa.array([Decimal("1.50"), Decimal("-2.25"), None]),
        "time": pa.array([5, 1, 2], pa.time64("us")),
    }
)


def test_statistics_are_what_the_data_holds(tmp_path):
    footer = footer_of(tmp_path / "a", MANY, stats=MANY.column_names)
    assert footer.schema == MANY.schema
    for name, stats in footer.stats[0].items():
        values = [v for v in MANY[name].combine_chunks() if v.is_valid and v.as_py() == v.as_py()]
        ordered = sorted(values, key=lambda v: v.value if hasattr(v, "value") else v.as_py())
        assert (stats.min, stats.max) == (ordered[0], ordered[-1]), name
        assert stats.null_count == (None if name == "f" else MANY[name].null_count), name
    assert pickle.loads(pickle.dumps(footer)) == footer


def test_statistics_that_are_missing(tmp_path):
    table = pa.table({"x": [1.0, 2.0], "nan": [float("nan")] * 2, "none": pa.nulls(2, pa.float64()), "l": [[1], [2]]})
    names = table.column_names
    with_stats = footer_of(tmp_path / "a", table, stats=names).stats[0]
    assert with_stats["nan"].min is None
    assert with_stats["none"].null_count == 2
    assert set(with_stats) == {"x", "nan", "none"}
    without = footer_of(tmp_path / "b", table, stats=names, write_statistics=False).stats[0]
    assert (without["x"].min, without["x"].max, without["x"].null_count) == (None, None, None)


def test_groups_count_the_needed_columns_only(tmp_path):
    rows = 1000
    table = pa.table({"a": np.arange(rows), "s": [{"x": i, "y": [i, i]} for i in range(rows)], "t.u": np.arange(rows)})
    footer = footer_of(tmp_path / "a", table, columns=["t.u", "s"], row_group_size=300, compression="none")
    metadata = pq.read_metadata(tmp_path / "a")
    assert footer.schema.names == ["t.u", "s"]
    assert [(group.rows, group.first_row) for group in footer.groups] == [(300, 0), (300, 300), (300, 600), (100, 900)]
    for group in footer.groups:
        chunks = [metadata.row_group(group.index).column(i) for i in (1, 2, 3)]
        assert group.bytes == sum(chunk.total_compressed_size for chunk in chunks)
        assert group.raw_bytes == sum(chunk.total_uncompressed_size for chunk in chunks)


def test_row_groups_are_pruned(tmp_path):
    (tmp_path / "p=5").mkdir()
    footer = footer_of(tmp_path / "p=5" / "a", pa.table({"x": range(40)}), stats=["x"], row_group_size=10)
    partitions = pa.schema([("p", pa.int64())])
    schema = pa.schema([*footer.schema, *partitions])

    def kept(sql: str) -> list[int]:
        return [group.index for group in prune_groups(footer, partitions, compile_sql(sql, schema))]

    assert kept("x >= 25") == [2, 3]
    assert kept("x >= 25 and p = 5") == [2, 3]
    assert kept("x >= 25 and p = 6") == []
    assert [group.index for group in prune_groups(footer, partitions, None)] == [0, 1, 2, 3]


SAME = [
    (pa.string(), pa.large_string()),
    (pa.string(), pa.dictionary(pa.int8(), pa.string())),
    (pa.string(), pa.string_view()),
    (pa.list_(pa.int32()), pa.large_list(pa.int32())),
    (pa.timestamp("us", "UTC"), pa.timestamp("us", "America/Chicago")),
]


@pytest.mark.parametrize(("expected", "found"), SAME)
def test_types_that_hold_the_same(tmp_path, expected, found):
    table = pa.table({"other": [1], "x": pa.nulls(1, found)})
    assert footer_of(tmp_path / "a", table, columns=["x"]).schema == pa.schema([("x", expected)])
    assert canonical_type(found) == expected


def test_columns_that_are_not_there_or_there_twice(tmp_path):
    found = footer_of(tmp_path / "a", pa.table({"fare": [1, 2]}), columns=["fair", "fare"], stats=["fair"])
    assert found.schema.names == ["fare"]
    assert (found.stats[0]["fair"].null_count, found.stats[0]["fair"].min) == (2, None)
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "y", "x"])
    found = footer_of(tmp_path / "b", twice)
    assert (found.schema.names, found.every.names) == (["y"], ["x", "y", "x"])


GOOD = pa.BufferOutputStream()
pq.write_table(pa.table({"x": range(1000)}), GOOD)
WHOLE = GOOD.getvalue().to_pybytes()
BROKEN = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "cut": (WHOLE[: len(WHOLE) // 2], r"begins as Parquet but has no footer: it is cut off"),
    "csv": (b"a,b,c\n1,2,3\n", r"is not a Parquet file: it begins with b'a,b,'"),
    "tiny": (b"PAR", r"is not a Parquet file"),
    "encrypted": (WHOLE[:-4] + b"PARE", r"is an encrypted Parquet file"),
    "damaged": (WHOLE[:-60] + b"\xff" * 52 + WHOLE[-8:], r"has a Parquet footer that cannot be read"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(tmp_path, kind):
    data, message = BROKEN[kind]
    (tmp_path / "part-0").write_bytes(data)
    with pytest.raises(SourceError, match=rf"part-0.*{message}.*folder whose name begins with `_`"):
        footer_of(tmp_path / "part-0")


def test_files_that_change_after_the_listing(tmp_path):
    put(tmp_path, "a", "b")
    store, files = list_source([str(tmp_path)], {})
    (tmp_path / "a").unlink()
    put(tmp_path, "b", table=pa.table({"x": range(1000)}))
    with pytest.raises(SourceError, match=r"a is gone from .* since the source was listed"):
        read_footer(store, files[0])
    with pytest.raises(SourceError, match=r"b has changed .* bytes then"):
        read_footer(store, files[1])


def test_hive_columns_are_not_columns_of_the_files(tmp_path):
    put(tmp_path, "p=1/a", table=pa.table({"x": [1], "p": [9]}))
    store, files = list_source([str(tmp_path)], {})
    assert read_footer(store, files[0]).schema.names == ["x"]


@given(st.binary(max_size=200))
@examples(0.3)
def test_any_junk_is_a_source_error(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "f"
    path.write_bytes(junk + b"PAR1" if len(junk) % 2 else junk)
    with pytest.raises(SourceError):
        footer_of(path)
    os.unlink(path)
