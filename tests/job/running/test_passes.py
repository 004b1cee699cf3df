"""How often a run reads what it needs: column chunks are counted range by range, with a store that writes them down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq
import pytest

from documents import Document
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.storage import Counters, Store
from in_process import run_in_process


class Recorder:
    """A file that writes down which bytes of which path are read, but for footers.

    pyarrow fetches the last 64 KiB of a file to find its footer, which holds whole column chunks of a tiny file.
    """

    def __init__(self, file: BinaryIO, path: str, reads: list[tuple[str, int, int]], counters: Any):
        self._file, self._path, self._reads, self._counters = file, path, reads, counters

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(size)
        if not self._counters.in_footer:
            self._reads.append((self._path, start, start + len(data)))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every read of a Parquet file of the source in this process."""
    found: list[tuple[str, int, int]] = []
    opened = Store.open_input

    def record(self: Store, path: str) -> Any:
        file = opened(self, path)
        return Recorder(file, f"{self.root}/{path}", found, self.counters) if "trips" in path else file

    reading_footer = Counters.reading_footer

    @contextmanager
    def noted(self: Any) -> Iterator[None]:
        self.in_footer = True
        with reading_footer(self):
            yield
        self.in_footer = False

    monkeypatch.setattr(Counters, "in_footer", False, raising=False)
    monkeypatch.setattr(Counters, "reading_footer", noted)
    monkeypatch.setattr(Store, "open_input", record)
    return found


def levels_of(job: Document, levels: int) -> Document:
    """Features that need so many fitting passes."""
    scaled = [{"impute": {"strategy": "mean"}}, "standard_scale"]
    job["features"] = {
        0: [{"columns": ["payment_type"], "steps": [{"hash_encode": 10}]}],
        1: [{"columns": ["trip_miles", "fare"], "steps": scaled}],
        2: [{"columns": ["trip_miles", "trip_seconds"], "steps": [*scaled, {"pca": 1}], "name": "axis"}],
    }[levels]
    return job


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_column_chunk_is_read_at_most_once_a_pass(
    levels: int, job: Document, lake: Path, reads: list[tuple[str, int, int]]
) -> None:
    job = levels_of(job, levels)
    plan = make_plan(job)
    assert plan.checked.graph.passes == levels
    assert len(plan.checked.graph.reasons) == levels
    reads.clear()
    run_in_process(job)
    times = Counter[tuple[str, int, str]]()
    for file in sorted({path for path, _, _ in reads}):
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(place)
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                covered = sum(
                    max(0, min(end, start + chunk.total_compressed_size) - max(begin, start))
                    for path, begin, end in reads
                    if path == file
                )
                times[Path(file).parent.name, group, chunk.path_in_schema] += covered / chunk.total_compressed_size
    needed = set(plan.checked.scan.schema.names)
    planned = {(Path(group.file).parent.name, group.index) for group in plan.groups}
    of_needed = {key: value for key, value in times.items() if key[2] in needed and key[:2] in planned}
    assert len(of_needed) == len(planned) * len(needed)
    assert max(of_needed.values()) <= len(plan.stages) == max(levels + 1, 2)
    assert min(of_needed.values()) >= 1


def test_pruned_files_are_never_opened(job: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_input = Store.open_input
    monkeypatch.setattr(Store, "open_input", lambda self, path: (opened.append(path), open_input(self, path))[1])
    job["source"]["where"] = "month in (2, 3) and fare > 0 or month = 7"
    plan = make_plan(job)
    assert len(plan.files) == 3
    assert {Path(path).parent.name for path in opened} <= {"month=2", "month=3", "month=7", "month=1"}
    opened.clear()
    make_plan({**job, "source": {**job["source"], "where": "month in (2, 3) and fare > 0"}})
    assert {Path(path).parent.name for path in opened} == {"month=2", "month=3"}


def test_a_run_says_how_often_it_read(job: Document, capsys: pytest.CaptureFixture[str]) -> None:
    run_in_process(job, progress="plain")
    told = capsys.readouterr().err
    line = next(line for line in told.splitlines() if line.startswith("Read "))
    times = float(line.split(", ")[1].split(" times")[0])
    assert 1.99 <= times <= 2.2, line  # gaps between chunks are read along, up to a tenth
    assert "(2 passes)" in line
