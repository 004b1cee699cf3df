"""A source file that is replaced is noticed: while it is planned, fitted, written or read, on resuming, and later.

The files here have the same size, and the same footer where nothing else is said: no statistics, no compression.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import dtap_dask
from documents import Document
from dtap_dask.errors import InterruptedRun, JobError, SourceError
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.lake.listing.discover import list_source
from dtap_dask.lake.parquet.footers import read_footer
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import first_rows
from dtap_dask.storage import open_store, replaced
from dtap_dask.storage.remote import _version
from in_process import interrupt
from in_process import run_in_process as run

CHANGED = r"a.parquet has changed since the source was listed"


def put(path: Path, mean: float, *, statistics: bool = False, written: int | None = None) -> None:
    """A file of 1,000 rows about a mean; `written` is its time in nanoseconds, by default later than any before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else None
    rng = np.random.default_rng(0)
    table = pa.table({"id": np.arange(1000), "x": rng.normal(size=1000) + mean})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=statistics)
    if written is None and before is not None:
        written = before + 10**9
    if written is not None:
        os.utime(path, ns=(written, written))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    put(tmp_path / "source" / "a.parquet", 0)
    return tmp_path / "source" / "a.parquet"


@pytest.fixture
def job(file: Path, tmp_path: Path) -> Document:
    return {
        "version": 1,
        "source": {"path": str(file.parent)},
        "features": [{"columns": "x", "steps": ["standard_scale"]}],
        "output": {"path": str(tmp_path / "out")},
    }


def mean_of(job: Document) -> float:
    store = open_store(job["output"]["path"])
    manifest = read_manifest(store)
    return float(first_rows(store, manifest, "train", 1000)["x"].mean())


def test_files_that_only_time_tells_apart_are_tested_here(file: Path) -> None:
    one = file.read_bytes()
    put(file, 100)
    other = file.read_bytes()
    size = int.from_bytes(one[-8:-4], "little") + 8
    assert one != other
    assert len(one) == len(other)
    assert one[-size:] == other[-size:]


@pytest.mark.parametrize("stage", ["fit", "write"])
def test_replaced_before_it_is_fitted_or_written(stage: str, job: Document, file: Path) -> None:
    with pytest.raises(SourceError, match=CHANGED):
        run(job, before={stage: lambda: put(file, 100)})
    assert not (Path(job["output"]["path"]) / "manifest.json").exists()


def test_another_footer_tells_although_size_and_time_are_the_same(job: Document, file: Path) -> None:
    put(file, 0, statistics=True)
    written, size = file.stat().st_mtime_ns, file.stat().st_size
    with pytest.raises(SourceError, match=rf"{CHANGED}: its footer is different"):
        run(job, before={"write": lambda: put(file, 100, statistics=True, written=written)})
    assert (file.stat().st_mtime_ns, file.stat().st_size) == (written, size)


def test_replaced_after_the_commit(job: Document, file: Path) -> None:
    run(job)
    assert run(job, resume=True).fingerprint == make_plan(job).fingerprint  # finished already
    put(file, 100)
    with pytest.raises(JobError, match=r"a.parquet in .* changed since this job read it .*--overwrite"):
        run(job, resume=True)
    run(job, overwrite=True)
    assert abs(mean_of(job)) < 1e-6
    assert run(job, resume=True).fingerprint == make_plan(job).fingerprint


def test_replaced_between_an_interruption_and_its_resumption(job: Document, file: Path) -> None:
    with pytest.raises(InterruptedRun):
        run(job, before={"write": interrupt})
    written = file.stat().st_mtime_ns
    put(file, 100)
    with pytest.raises(JobError, match=r"a.parquet in .* changed since this job read it .*--overwrite"):
        run(job, resume=True)
    put(file, 0, written=written)
    run(job, resume=True)
    assert abs(mean_of(job)) < 1e-6


def test_another_place_is_another_source(job: Document, file: Path, tmp_path: Path) -> None:
    run(job)
    shutil.copytree(file.parent, tmp_path / "other")  # with the same times
    with pytest.raises(JobError, match="holds a dataset already"):
        run({**job, "source": {"path": str(tmp_path / "other")}}, resume=True)


def test_the_same_data_written_again_give_the_same_shards(job: Document, file: Path) -> None:
    first = run(job)
    put(file, 0)
    assert run(job, overwrite=True).shards == first.shards


def test_replaced_while_it_is_planned_or_before_it_is_read(job: Document, file: Path) -> None:
    store, files = list_source(str(file.parent))
    frame = dtap_dask.read(job)
    put(file, 100)
    with pytest.raises(SourceError, match=CHANGED):
        read_footer(store, files[0])
    with pytest.raises(SourceError, match=CHANGED):
        frame.compute(scheduler="synchronous")


@pytest.mark.parametrize("mixed", [False, True])
def test_replaced_while_it_is_read(mixed: bool, file: Path) -> None:
    store, files = list_source(str(file.parent))
    footer = read_footer(store, files[0])
    spec = ScanSpec(footer.schema, pa.schema([]), None, (), None, None, ("x",))
    batches = read_task(store, spec, ScanTask(0, tuple(footer.groups)), batch_rows=100, mixed=mixed)
    next(batches)
    put(file, 100)
    with pytest.raises(SourceError, match=CHANGED):
        list(batches)


# Other stores


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    yield files
    files.rm("/replaced-of-test", recursive=True)


def test_replaced_on_another_filesystem(memory: MemoryFileSystem, file: Path) -> None:
    memory.pipe("/replaced-of-test/a.parquet", file.read_bytes())
    frame = dtap_dask.read("memory://replaced-of-test")
    assert len(frame.compute(scheduler="synchronous")) == 1000
    put(file, 100)
    memory.pipe("/replaced-of-test/a.parquet", file.read_bytes())
    with pytest.raises(SourceError, match=CHANGED):
        frame.compute(scheduler="synchronous")


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"abc-2"', "LastModified": "today", "size": 1}, 'ETag="abc-2"'),
        ({"etag": "0x8D", "last_modified": "today"}, "etag=0x8D"),
        ({"mtime": 1.5, "created": 1}, "mtime=1.5"),
        ({"modificationTime": 17, "size": 3}, "modificationTime=17"),
        ({"size": 3, "created": None}, None),
    ],
)
def test_what_filesystems_say_of_a_file_s_content(info: Document, version: str | None) -> None:
    assert _version(info) == version


def test_versions_of_different_kinds_tell_nothing() -> None:
    assert replaced("mtime=1", "mtime=2")
    assert not replaced("mtime=1", "mtime=1")
    assert not any(replaced(*pair) for pair in [("mtime=1", "ETag=2"), (None, "mtime=2"), ("mtime=1", None)])
