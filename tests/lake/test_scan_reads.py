"""What a scan reads and what it holds: no byte too many, bounded memory, clear errors."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtap_dask
from dtap_dask.errors import SourceError
from dtap_dask.lake.parquet import decoding, opening
from dtap_dask.lake.parquet.column_chunks import ChunkFile, merge_ranges
from dtap_dask.lake.parquet.row_group import RowGroup
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task
from dtap_dask.lake.split import SplitSpec
from dtap_dask.storage import Store
from planned_lake import THIRDS, Lake, write


def numbered(first: int, rows: int) -> pa.Table:
    ids = np.arange(first, first + rows)
    return pa.table({"id": ids, "value": ids / 4, "name": [f"word{i % 5}" for i in ids.tolist()]})


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    for part in range(4):
        write(tmp_path / f"p={part % 2}" / f"{part}.parquet", numbered(part * 1000, 1000), row_group_size=300)
    return tmp_path


# What is read


class Watch:
    """A store that notes every (path, position, size) read."""

    def __init__(self, store: Store):
        self._store, self.reads, self.opened = store, [], []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open_input(self, path: str) -> Any:
        self.opened.append(path)
        return _Watched(self._store.open_input(path), path, self.reads)


class _Watched:
    def __init__(self, file: Any, path: str, reads: list[tuple[str, int, int]]):
        self._file, self._path, self._reads = file, path, reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        place = self._file.tell()
        data = self._file.read(size)
        self._reads.append((self._path, place, len(data)))
        return data


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for part in range(3):
        columns = {f"c{i}": draw.random(20_000) for i in range(8)}
        write(tmp_path / f"p={part}" / "f.parquet", pa.table(columns), row_group_size=10_000)
    return tmp_path


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("limit", [decoding.COALESCE_BYTES, 0], ids=["coalesced", "streamed"])
def test_no_other_column_is_read(wide, mixed, limit, monkeypatch):
    monkeypatch.setattr(decoding, "COALESCE_BYTES", limit)
    whole = Lake(wide, "p <> 1", columns=["c2", "c6"])
    watch = Watch(whole.store)
    whole.store = watch
    task = whole.task(prune=True)
    footer_bytes = sum(size for _, _, size in watch.reads)
    assert {group.file for group in task.groups} == {file.path for file in whole.files if "p=1" not in file.path}
    watch.reads.clear()
    rows = sum(batch.rows.num_rows for batch in read_task(watch, whole.spec(), task, mixed=mixed))
    assert rows == 40_000
    assert sum(size for _, _, size in watch.reads) <= 1.1 * task.bytes + footer_bytes
    assert not any("p=1" in path for path in watch.opened)
    for file in {group.file for group in task.groups}:
        metadata = pq.read_metadata(whole.store.local_path(file))
        for row_group in range(metadata.num_row_groups):
            for column in (0, 1, 3, 4, 5, 7):
                chunk = metadata.row_group(row_group).column(column)
                low = chunk.dictionary_page_offset or chunk.data_page_offset
                middle = low + chunk.total_compressed_size // 2
                inside = [read for read in watch.reads if read[0] == file and read[1] <= middle < read[1] + read[2]]
                assert inside == [] or row_group == metadata.num_row_groups - 1  # the footer's read-ahead


def test_only_columns_that_something_needs_are_read(wide):
    whole = Lake(wide, "c1 >= 0.5")
    watch = Watch(whole.store)
    task = whole.task(prune=True)
    derive = (("used", "c2 + c3"), ("unused", "c4"), ("key", "used > 1"))
    split = SplitSpec(("train", "eval"), (0.6, 0.4), ("key",), None, "train")
    batches = list(read_task(watch, whole.spec(derive=derive, split=split, outputs=()), task))
    assert sum(size for _, _, size in watch.reads) < 0.45 * task.bytes  # 3 of 8 columns, and footers
    kept = sum((pq.read_table(wide / f"p={i}" / "f.parquet")["c1"].to_numpy() >= 0.5).sum() for i in range(3))
    assert sum(batch.rows.num_rows for batch in batches) == sum(len(batch.split) for batch in batches) == kept
    assert {part for batch in batches for part in batch.split.tolist()} == {0, 1}


def test_counting_reads_nothing_when_nothing_filters(wide):
    whole = Lake(wide)
    watch = Watch(whole.store)
    batches = list(read_task(watch, whole.spec(split=THIRDS, outputs=()), whole.task(prune=True)))
    assert sum(batch.rows.num_rows for batch in batches) == sum(len(batch.split) for batch in batches) == 60_000
    footer_only = len({file.path for file in whole.files})
    assert len(watch.opened) == footer_only
    assert sum(size for _, _, size in watch.reads) < 3 * 70_000
    sampled = list(read_task(watch, whole.spec(split=THIRDS, sample=0.5, outputs=()), whole.task(prune=True)))
    assert sum(batch.rows.num_rows for batch in sampled) == pytest.approx(30_000, abs=700)
    assert all(len(batch.split) == batch.rows.num_rows for batch in sampled)


@pytest.mark.parametrize("mixed", [False, True])
def test_small_chunks_are_read_without_the_gaps_between_them(tmp_path, mixed):
    """Chunks of 4 KB, every other one needed: pyarrow's own pre-buffering reads the gaps along, twice the bytes."""
    draw = np.random.default_rng(0)
    columns = {f"c{i}": draw.random(500) for i in range(30)}
    write(tmp_path / "a.parquet", pa.table(columns), row_group_size=500, use_dictionary=False, compression="none")
    whole = Lake(tmp_path, columns=["c2", "c4", "c6", "c8", "c9"])
    task, watch = whole.task(prune=True), Watch(whole.store)
    batches = list(read_task(watch, whole.spec(), task, mixed=mixed))
    assert pa.Table.from_batches([batch.rows for batch in batches]).equals(pa.table(columns).select(whole.schema.names))
    chunks = [(place, size) for _, place, size in watch.reads if place + size < 125_000]
    assert len(chunks) == 4  # c8 and c9 are neighbours
    assert task.bytes == sum(size for _, size in chunks) == pytest.approx(5 * 4000, rel=0.02)


RANGES = st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 50_000)), min_size=1, max_size=20)


@given(RANGES)
def test_neighbouring_ranges_are_read_together(steps):
    place, ranges = 4, []
    for gap, size in steps:
        ranges.append((place + gap, place + gap + size))
        place += gap + size
    found, needed = merge_ranges(ranges[::-1]), sum(size for _, size in steps)
    assert sum(end - start for start, end in found) <= 1.1 * needed
    assert all(sum(low <= start and end <= high for low, high in found) == 1 for start, end in ranges)
    adjoining = sum(gap == 0 for gap, _ in steps[1:])
    assert len(found) <= len(ranges) - adjoining
    data = np.random.default_rng(place).bytes(place)
    file = ChunkFile(io.BytesIO(data))
    file.expect(ranges)
    for start, end in [*ranges, (0, place), (ranges[0][0], place)]:
        file.seek(start)
        assert bytes(file.read(end - start)) == data[start:end]
        assert file.tell() == end
    assert file.seek(-1, 2) == place - 1
    assert file.read() == data[-1:]


def test_consecutive_groups_share_one_open_file(lake):
    whole = Lake(lake)
    task = whole.task(prune=True)
    watch = Watch(whole.store)
    assert len(task.groups) == 16
    assert sum(batch.rows.num_rows for batch in read_task(watch, whole.spec(), task)) == 4000
    assert len(watch.opened) == 4


def test_files_are_closed_when_reading_stops_early(lake):
    whole = Lake(lake)
    for mixed in (False, True):
        opened: list[Any] = []

        class Keeping(Watch):
            def open_input(self, path: str, kept: list[Any] = opened) -> Any:
                kept.append(super().open_input(path))
                return kept[-1]

        batches = read_task(Keeping(whole.store), whole.spec(), whole.task(prune=True), mixed=mixed)
        assert next(batches).rows.num_rows > 0
        batches.close()
        assert opened
        assert all(file.closed for file in opened)


# Errors


def put_back(path: Path, group: RowGroup) -> None:
    """Give a file the time at which it was written when the plan was made."""
    assert group.version is not None
    written = int(group.version.removeprefix("mtime="))
    os.utime(path, ns=(written, written))


def test_changed_files(lake):
    whole = Lake(lake)
    task = whole.task(prune=True)
    path = lake / "p=0" / "0.parquet"
    before = path.read_bytes()
    path.unlink()
    with pytest.raises(SourceError, match=r"p=0/0.parquet is gone"):
        list(read_task(whole.store, whole.spec(), task))
    write(path, numbered(0, 10))
    with pytest.raises(SourceError, match=r"has changed since the source was listed: it had [\d,]+ bytes then"):
        list(read_task(whole.store, whole.spec(), task, mixed=True))
    path.write_bytes(before)
    with pytest.raises(SourceError, match=r"0.parquet has changed .*: it was rewritten \(mtime="):
        list(read_task(whole.store, whole.spec(), task))
    put_back(path, task.groups[0])
    other = replace(task.groups[0], rows=299)
    with pytest.raises(SourceError, match=r"row group 0 had 299 rows then, 300 now"):
        list(read_task(whole.store, whole.spec(), ScanTask(0, (other,))))


def test_a_footer_is_read_once_a_task_and_no_byte_more(lake):
    whole = Lake(lake)
    task = whole.task(prune=True)
    files = {group.file: group.footer_bytes for group in task.groups}
    for path, size in files.items():
        assert int.from_bytes((lake.parent / path).read_bytes()[-8:-4], "little") == size - 8
    for mixed in (True, False):
        before = whole.store.counters.footer_bytes
        list(read_task(whole.store, whole.spec(), task, mixed=mixed))
        assert whole.store.counters.footer_bytes - before == sum(files.values())


def test_a_footer_is_parsed_once_for_all_tasks(tmp_path, monkeypatch):
    """One file of 600 row groups, read by many tasks in one process, in threads or one after the other."""
    table = numbered(0, 600)
    write(tmp_path / "a.parquet", table, row_group_size=1)
    parses, parsed = list[int](), opening.parse_footer
    monkeypatch.setattr(opening, "parse_footer", lambda tail: parses.append(len(tail)) or parsed(tail))
    frame = dtap_dask.read(str(tmp_path))
    assert frame.npartitions == 64
    for scheduler in ("synchronous", "threads"):
        assert frame.compute(scheduler=scheduler)["id"].tolist() == table["id"].to_pylist()
    assert len(parses) == 1


def test_little_is_remembered_of_footers(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "FOOTER_CACHE_BYTES", 5000)
    remembered = opening._FooterCache()
    tails = []
    for columns in (5, 10, 20, 40):
        write(tmp_path / "a", pa.table({f"c{i}": [i] for i in range(columns)}))
        size = (tmp_path / "a").stat().st_size
        with (tmp_path / "a").open("rb") as file:
            tails.append(opening.read_tail(file, "a", size))
        assert remembered.footer(tails[-1]).metadata.num_columns == columns
        assert remembered.footer(tails[-1]) is remembered.footer(tails[-1])
        assert len(remembered._known) == 1 or sum(map(len, tails[-len(remembered._known) :])) <= 5000


def test_a_footer_that_was_damaged_since(lake):
    whole = Lake(lake)
    task = whole.task(prune=True)
    path, size = lake.parent / task.groups[0].file, task.groups[0].footer_bytes
    data = bytearray(path.read_bytes())
    data[-size:-8] = b"\xff" * (size - 8)
    path.write_bytes(data)
    put_back(path, task.groups[0])
    with pytest.raises(SourceError, match=r"has a Parquet footer that cannot be read"):
        list(read_task(whole.store, whole.spec(), task))


def test_a_column_that_a_file_lacks_is_null_there(lake):
    whole = Lake(lake)
    schema = pa.schema([*whole.schema, ("text", pa.string()), ("number", pa.int32())])
    for names in (schema.names, ["text", "number"], ["number"]):
        asked = pa.schema([schema.field(name) for name in names])
        spec = ScanSpec(asked, whole.partitions, None, (), None, None, tuple(names))
        for batch in read_task(whole.store, spec, whole.task(prune=True)):
            assert batch.rows.schema.names == list(names)
            assert all(
                batch.rows[name].null_count == batch.rows.num_rows for name in names if name in ("text", "number")
            )


def test_damaged_pages(tmp_path):
    write(tmp_path / "a", pa.table({"x": np.random.default_rng(0).random(50_000)}), compression="snappy")
    data = bytearray((tmp_path / "a").read_bytes())
    data[1000:200_000] = b"\xff" * 199_000
    (tmp_path / "a").write_bytes(data)
    whole = Lake(tmp_path)
    with pytest.raises(SourceError, match=r"a cannot be read in row group 0, column 'x': .* is damaged"):
        list(read_task(whole.store, whole.spec(), whole.task(prune=True)))


def test_failures_of_the_filesystem_are_not_blamed_on_the_file(lake):
    whole = Lake(lake)
    task = whole.task(prune=True)

    class Failing(Watch):
        def open_input(self, path: str) -> Any:
            file = super().open_input(path)
            file.read = lambda size=-1: (_ for _ in ()).throw(OSError(5, "Input/output error"))
            return file

    with pytest.raises(OSError, match="Input/output error"):
        list(read_task(Failing(whole.store), whole.spec(), task))


# Memory

WRITE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
draw, rows = np.random.default_rng(0), int(sys.argv[2])
columns = {f"c{i}": draw.random(rows) for i in range(5)}
columns["s"] = pa.array(draw.integers(10**7, 10**8, rows)).cast(pa.string())
pq.write_table(pa.table(columns), sys.argv[1], compression="none", use_dictionary=False, row_group_size=rows)
"""
MEASURE = """
import sys
from pathlib import Path
from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.parquet.footers import read_footer
from dtap_dask.lake.parquet.row_group import RowGroup
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task
import pyarrow as pa
store, files = list_source([sys.argv[1]], {})
footer = read_footer(store, files[0])
spec = ScanSpec(footer.schema, pa.schema([]), None, (), None, None, tuple(footer.schema.names))
task = ScanTask(0, footer.groups)
def peak():  # not ru_maxrss, which a process inherits from the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
rows = sum(batch.rows.num_rows for batch in read_task(store, spec, task, mixed=len(sys.argv) > 2))
print(rows, len(task.groups), task.bytes, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
def test_a_huge_row_group_is_streamed(tmp_path):
    rows = 12_500_000
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "a"), str(rows)], check=True)
    for mixed in ([], ["mixed"]):
        arguments = [sys.executable, "-c", MEASURE, str(tmp_path), *mixed]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        found, groups, size, peak = map(int, done.stdout.split())
        assert (found, groups) == (rows, 1)
        assert size > 600e6
        assert peak < 250e6
