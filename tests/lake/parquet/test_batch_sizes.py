"""Batches are sized by what they take decoded, however little of it the file holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.lake.parquet.batch_sizes import BatchSizer, longest_entry, split_by_bytes
from property_tests import examples

WORDS = st.lists(st.none() | st.integers(0, 40).map(lambda size: "é" * (size // 2) + "x" * (size % 2)), max_size=40)


def bytes_of(word: str | None) -> int:
    return len((word or "").encode())


@given(first=WORDS, second=WORDS, start=st.integers(0, 5), most=st.integers(1, 200), binary=st.booleans())
@examples(1.5)
def test_cuts_are_as_long_as_they_may_be(first, second, start, most, binary):
    rows = min(len(first), len(second)) - start
    if rows < 1:
        return
    kind = pa.binary() if binary else pa.string()
    columns = [pa.array(words, pa.string()).cast(kind).dictionary_encode()[start:][:rows] for words in (first, second)]
    sizes = [bytes_of(a) + bytes_of(b) for a, b in zip(first[start:], second[start:], strict=False)]
    found = list(split_by_bytes([*columns, pa.array(range(rows))], rows, most))
    assert [place for part in found for place in range(*part)] == list(range(rows))
    for begin, end in found:
        assert sum(sizes[begin:end]) <= most or end == begin + 1
        assert end == rows or sum(sizes[begin : end + 1]) > most


@pytest.mark.parametrize("words", [[], [None], [None, None, "ab"], ["", "abc", None]])
def test_the_longest_word(words):
    column = pa.array(words, pa.string()).dictionary_encode()
    assert longest_entry(column) == max(map(bytes_of, words), default=0)
    outside = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["abcdef", "a", "bc"])[1:])
    assert longest_entry(outside) == 2


def test_a_pace_follows_what_values_take():
    def batch(rows: int, size: int) -> pa.RecordBatch:
        return pa.record_batch({"x": pa.array([b"x" * size] * rows, pa.binary(size))})

    known = BatchSizer(5000, 1000, known=True)
    known.observe(batch(10, 100))
    assert known.rows == 5000
    sizer = BatchSizer(5000, 20_000, known=False)
    seen = []
    for size in (1, 1, 1, 100, 1, 40_000, 1):
        seen.append(sizer.rows)
        sizer.observe(batch(sizer.rows, size))
    assert seen == [512, 4096, 5000, 5000, 200, 1600, 1]
    assert sizer.rows == 8
    assert BatchSizer(100, 1000, known=False).rows == 100


def repeated(path: Path, rows: int) -> None:
    """A text of 100 kB in every other row, kept once in the file."""
    body = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows) % 2, pa.int32()), pa.array(["x" * 100_000, "short"]))
    title = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows) % 3, pa.int32()), pa.array(["short", "a", "b"]))
    pq.write_table(pa.table({"i": range(rows), "body": body, "title": title}), path)


def with_fallback(path: Path, rows: int) -> None:
    """The same, but followed by so many distinct titles that the dictionary is given up, in a chunk of some MiB."""
    body = ["x" * 100_000 if i % 2 else f"{i:060}" for i in range(rows)] + [f"{i:060}" for i in range(rows * 10)]
    table = pa.table({"i": range(len(body)), "body": body, "title": ["short"] * len(body)})
    pq.write_table(table, path, dictionary_pagesize_limit=rows * 50, compression="zstd")


def prefixes(path: Path, rows: int) -> None:
    """Texts that share their beginning with the one before."""
    body = ["x" * 100_000 + str(i // 100) for i in range(rows // 2)]
    columns = {"i": range(len(body)), "body": body, "title": ["short"] * len(body)}
    encodings = {"i": "PLAIN", "body": "DELTA_BYTE_ARRAY", "title": "PLAIN"}
    pq.write_table(pa.table(columns), path, use_dictionary=False, column_encoding=encodings)


def in_lists(path: Path, rows: int) -> None:
    """Lists of a long text, kept once, and lists of very many numbers that take next to nothing."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * (rows // 2), pa.int32()), pa.array(["z" * 100_000]))
    body = pa.ListArray.from_arrays(pa.array(np.arange(rows // 2 + 1)), words)
    numbers = pa.array(np.zeros(rows // 2 * 10_000, np.int64))
    title = pa.ListArray.from_arrays(pa.array(np.arange(rows // 2 + 1) * 10_000), numbers)
    pq.write_table(pa.table({"i": range(rows // 2), "body": body, "title": title}), path)


MEASURE = """
import sys
from pathlib import Path
from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.parquet.footers import read_footer
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task
import pyarrow as pa
store, files = list_source([sys.argv[1]], {})
footer = read_footer(store, files[0])
where, outputs = sys.argv[2] or None, tuple(footer.schema.names) if not sys.argv[2] else ("i",)
spec = ScanSpec(footer.schema, pa.schema([]), where, (), None, None, outputs)
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
batches = read_task(store, spec, ScanTask(0, tuple(footer.groups)), mixed=sys.argv[3] == "mixed")
print(sum(batch.rows.num_rows for batch in batches), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize(
    ("write", "where", "way"),
    [
        (repeated, "body <> title", "in order"),
        (repeated, "coalesce(body, title) <> title", "mixed"),
        (with_fallback, "body <> title", "in order"),
        (prefixes, "body <> title", "mixed"),
        (in_lists, "", "mixed"),
    ],
)
def test_a_batch_takes_little_memory(tmp_path, write, where, way):
    """500 MB and more decoded, of less than 2 MB on disk."""
    write(tmp_path / "a.parquet", 10_000)
    assert (tmp_path / "a.parquet").stat().st_size < 2_000_000
    command = [sys.executable, "-c", MEASURE, str(tmp_path), where, way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    expected = duckdb.sql(f"select count(*) from '{tmp_path}/a.parquet' where {where or 'true'}").fetchall()[0][0]
    assert rows == expected
    assert peak < 300e6
