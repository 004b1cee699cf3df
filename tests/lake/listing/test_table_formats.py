"""Folders of table formats are refused wherever the source touches them; what else lies in lakes is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import dtap_dask
from dtap_dask.errors import SourceError
from dtap_dask.job.init import starter
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.lake.listing.discover import is_beside, list_source
from dtap_dask.lake.listing.globs import expand_braces
from dtap_dask.lake.listing.table_formats import tables_in

ONE = pa.table({"x": [1, 2, 3]})
MARKERS = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Apache Hudi": ".hoodie/hoodie.properties",
    "Apache Iceberg": "metadata/00000-0b8f.metadata.json",
}
DATA = ("p=1/a.parquet", "p=1/b.parquet", "p=2/c.parquet")


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".parquet"):
            pq.write_table(ONE, root / path)
        else:
            (root / path).write_text("{}")


def keys(*paths: object) -> list[str]:
    return [file.key for file in list_source([str(path) for path in paths], {})[1]]


# Table formats

INTO = {  # items of `source.path` that lead into the table at `lake/t`
    "its root": ["lake/t"],
    "a folder around it": ["lake"],
    "a partition": ["lake/t/p=1"],
    "a glob of folders": ["lake/t/p=*"],
    "a glob of files": ["lake/t/*/*.parquet"],
    "a glob above it": ["lake/*/p=1/*.parquet"],
    "a glob within a partition": ["lake/t/p=1/*.parquet"],
    "braces": ["lake/t/p={1,2}"],
    "one of several": ["other/p=3", "lake/t"],
    "a link to a partition": ["link"],
}


@pytest.mark.parametrize("kind", MARKERS)
@pytest.mark.parametrize("into", INTO)
def test_a_table_is_refused_wherever_the_source_enters_it(
    kind: str, into: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "lake/t", MARKERS[kind], *DATA)
    put(tmp_path / "other/p=3", "d.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "lake/t/p=1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=rf"lake/t is a table of {kind} .*full path, as the list source.path"):
        keys(*INTO[into])


@pytest.mark.parametrize("kind", MARKERS)
def test_files_of_a_table_that_are_named_one_by_one_are_read(kind: str, tmp_path: Path) -> None:
    put(tmp_path / "t", MARKERS[kind], *DATA)
    named = [str(tmp_path / "t" / path) for path in DATA[:2]]
    assert keys(*named) == ["a.parquet", "b.parquet"]
    assert dtap_dask.read(named).compute(scheduler="synchronous")["p"].tolist() == [1] * 6


def test_every_way_to_a_lake_refuses_a_table(tmp_path: Path) -> None:
    put(tmp_path / "t", MARKERS["Delta Lake"], *DATA)
    job = {
        "version": 1,
        "source": {"path": str(tmp_path / "t")},
        "features": [{"columns": "x"}],
        "output": {"path": str(tmp_path / "out")},
    }
    for way in (make_plan, dtap_dask.read, lambda job: starter(job["source"]["path"])):
        with pytest.raises(SourceError, match="is a table of Delta Lake"):
            way(job)


def test_tables_that_nothing_is_read_of_do_no_harm(tmp_path: Path) -> None:
    put(tmp_path, "t/a.parquet", "t/_old/_delta_log/0.json", "t/_old/b.parquet", "u/_delta_log/0.json", "u/c.parquet")
    put(tmp_path, "t/metadata/notes.json", "t/.hoodie", "t/_delta_log")  # a file is no log
    assert keys(tmp_path / "t") == ["a.parquet"]
    assert keys(tmp_path / "t*") == ["t/a.parquet"]


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    yield files
    files.rm("/tables-of-test", recursive=True)


@pytest.mark.parametrize("kind", MARKERS)
@pytest.mark.parametrize("item", ["", "/t", "/t/p=1", "/t/*/*.parquet", "/t/p=1/*"])
def test_tables_on_other_filesystems(kind: str, item: str, memory: MemoryFileSystem) -> None:
    memory.pipe(f"/tables-of-test/t/{MARKERS[kind]}", b"{}")
    memory.pipe("/tables-of-test/t/p=1/a.parquet", b"data")
    with pytest.raises(SourceError, match=f"memory://tables-of-test/t is a table of {kind}"):
        keys(f"memory://tables-of-test{item}")


def test_roots_of_tables() -> None:
    found = tables_in(
        ["a/_delta_log/0.json", "b/c/.hoodie/x", "metadata/v1.metadata.json", "d/metadata/v.metadata.json.gz"]
    )
    assert found == {"a": "Delta Lake", "b/c": "Apache Hudi", "": "Apache Iceberg", "d": "Apache Iceberg"}
    assert tables_in(["x_delta_log/a", "_delta_log", "m/metadata.json", "d/x.metadata.json"]) == {}


def test_a_folder_of_spark_s_streams_is_warned_of(tmp_path: Path) -> None:
    put(tmp_path, "_spark_metadata/0", "a.parquet")
    said: list[str] = []
    list_source(str(tmp_path), None, said.append)
    assert [text.split(":")[0] for text in said] == ["The source was written by Spark's structured streaming"]


# What else lies in lakes


def test_what_lies_beside_the_data_is_skipped_with_one_warning(tmp_path: Path) -> None:
    root = tmp_path / "t"
    put(root, "year=2019/a.parquet", "year=2019/m=1_$folder$", "year=2019_$folder$", "README.md", "x.CSV", "a.crc")
    (root / "year=2019" / "000001_0").touch()
    said: list[str] = []
    _, files = list_source(str(root), None, said.append)
    assert [file.key for file in files] == ["year=2019/a.parquet"]
    assert said == [
        "6 files beside the data are skipped, as they are empty, or not Parquet by name: "
        "t/README.md, t/a.crc, t/x.CSV and 3 more."
    ]
    job = {
        "version": 1,
        "source": {"path": str(root)},
        "features": [{"columns": "x"}],
        "output": {"path": str(tmp_path / "out")},
    }
    assert make_plan(job).warnings[0] == said[0]
    with pytest.warns(UserWarning, match="6 files beside the data are skipped"):
        assert len(dtap_dask.read(str(root)).compute(scheduler="synchronous")) == 3


def test_what_is_asked_for_by_name_is_not_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", "README.md", "empty_$folder$")
    assert keys(tmp_path / "README.md") == ["README.md"]
    with pytest.raises(SourceError, match=r"README.md .* is not a Parquet file"):
        dtap_dask.read(str(tmp_path / "README.md"))
    with pytest.raises(SourceError, match=r"No Parquet files .*all 1 files there are empty, or not .* \(README.md\)"):
        keys(tmp_path / "*.md")


@pytest.mark.parametrize(
    ("key", "size", "expected"),
    [
        ("a/b_$folder$", 0, True),
        ("a/notes.txt", 5, True),
        ("part-0.csv", 100, True),
        ("000000_0", 0, True),
        ("000000_0", 9, False),
        ("part-0.parquet", 0, False),  # it was to hold rows: refused when it is read
        ("part.avro", 9, False),  # rows of another kind: refused when it is read
        ("a.csv/part-0", 9, False),
    ],
)
def test_what_lies_beside(key: str, size: int, expected: bool) -> None:
    assert is_beside(key, size) is expected


# Braces


def test_braces_are_alternatives_as_in_bash(tmp_path: Path) -> None:
    put(tmp_path, "y=1/a.parquet", "y=2/b.parquet", "y=3/c.parquet", "u/v/d.parquet")
    assert keys(tmp_path / "y={1,3}") == ["y=1/a.parquet", "y=3/c.parquet"]
    assert keys(tmp_path / "y={1,9}" / "*.parquet") == ["y=1/a.parquet"]
    assert keys(tmp_path / "{y={1,2},u/v}" / "[ab]*") == ["y=1/a.parquet", "y=2/b.parquet"]
    assert keys(tmp_path / "{u,w}/v/*") == ["u/v/d.parquet"]
    with pytest.raises(SourceError, match=r"No files match .*\{8,9\}"):
        keys(tmp_path / "y={8,9}")
    put(tmp_path, "{1,2}/e.parquet")
    assert keys(tmp_path / "{1,2}") == ["e.parquet"]


@pytest.mark.parametrize(
    "pattern", ["a{b,c}d", "{a,b}{c,d}", "x{a,{b,c}y}z", "a{b}c", "{}", "a{,b}", "a}b{c", "{a/b,c}/d"]
)
def test_braces_are_expanded_as_by_bash(pattern: str) -> None:
    with os.popen(f"bash -c 'printf %s\\\\n {pattern}'") as out:
        assert expand_braces(pattern) == out.read().split()
