"""What a worker holds at most: a row group of a gigabyte, and many small ones in turns, stay well below one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client

import dtap_dask
from documents import Document
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.planning.plan import make_plan

MOST = 768 << 20
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
WORDS = [f"word-{i:04d}" for i in range(1000)]
COLUMNS = [f"x{i:02d}" for i in range(15)]
SCHEMA = pa.schema([*((name, pa.float64()) for name in COLUMNS), ("word", pa.string())])


def piece(rows: int) -> pa.RecordBatch:
    """15 float64 columns with nulls here and there, and one of text; they compress well."""
    number = np.arange(rows)
    gone = number % 97 == 0
    floats = [pa.array(number % (64 + i) * 0.25, mask=gone) for i in range(len(COLUMNS))]
    return pa.RecordBatch.from_arrays([*floats, pa.array(WORDS).take(number % len(WORDS))], schema=SCHEMA)


def write_file(path: Path, rows: int, group_rows: int) -> None:
    """A file of one piece over and over, so that no more than it and compressed pages are held while writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    one = piece(min(rows, 1 << 18))
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=["word"]) as writer:
        writer.write_table(pa.Table.from_batches([one] * (rows // one.num_rows)), row_group_size=group_rows)


def job_on(source: Path, output: Path) -> Document:
    return {
        "version": 1,
        "source": {"path": str(source), "where": "x00 > 0.5 or x01 > 1"},
        "split": {"parts": {"train": 0.9, "eval": 0.1}},
        "features": [
            {"columns": ["x*"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
            {"columns": ["word"], "steps": [{"ordinal_encode": {"top_k": 500}}]},
        ],
        "output": {"path": str(output), "shard_size": "256MiB"},
    }


@pytest.fixture
def worker() -> Iterator[Client]:
    """One worker process, with nothing of ours imported yet."""
    spawned = dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
    with spawned, open_client(ClusterOptions(workers=1, memory="8GiB")) as client:
        yield client


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Bytes of this process that were in memory at most: VmHWM of proc(5).

    Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def grown(client: Client, job: Document) -> tuple[dtap_dask.Manifest, int]:
    """Run a job; by how much its one worker grew at most, libraries included."""
    [before] = client.run(resident).values()
    manifest = dtap_dask.run(job, client=client, progress="silent")
    [after] = client.run(peak).values()
    print(f"before {before / 2**20:.0f} MiB, peak {after / 2**20:.0f} MiB, grown {(after - before) / 2**20:.0f} MiB")
    return manifest, after - before


@pytest.mark.slow
def test_a_row_group_of_a_gigabyte_is_streamed(tmp_path: Path, worker: Client) -> None:
    rows = 8 << 20
    write_file(tmp_path / "lake" / "giant.parquet", rows, rows)
    job = job_on(tmp_path / "lake", tmp_path / "out")
    plan = make_plan(job)
    assert [group.rows for group in plan.groups] == [rows]
    assert plan.groups[0].raw_bytes > 0.95e9
    assert any("row group" in warning and "streamed" in warning for warning in plan.warnings)
    manifest, growth = grown(worker, job)
    assert manifest.source.rows.read == rows
    assert sum(part.rows for part in manifest.splits.values()) > 0.9 * rows
    assert growth < MOST


@pytest.mark.slow
def test_a_row_group_of_a_gigabyte_of_text_is_streamed(tmp_path: Path, worker: Client) -> None:
    """Texts of 512 bytes, each another: their pages are plain, and a batch of the usual rows would hold 32 MiB."""
    rows, one = 2 << 20, 1 << 16
    texts = pa.array([f"{i:08d}" * 64 for i in range(one)])
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays([texts], names=["text"])] * (rows // one))
    pq.write_table(table, tmp_path / "giant.parquet", row_group_size=rows, compression="zstd", use_dictionary=False)
    job = {
        "version": 1,
        "source": {"path": str(tmp_path / "giant.parquet"), "where": "text > '0'"},
        "split": {"parts": {"train": 0.99, "eval": 0.01}, "key": "text"},
        "features": [{"columns": "text", "steps": [{"hash_encode": {"buckets": 1000}}]}],
        "output": {"path": str(tmp_path / "out")},
    }
    plan = make_plan(job)
    assert [group.raw_bytes > 1e9 for group in plan.groups] == [True]
    manifest, growth = grown(worker, job)
    assert sum(part.rows for part in manifest.splits.values()) == rows
    assert growth < MOST


@pytest.mark.slow
@pytest.mark.parametrize(("files", "group_rows"), [(4, 1 << 18), (64, 1 << 14)])
def test_many_row_groups_in_turns_take_no_more(tmp_path: Path, worker: Client, files: int, group_rows: int) -> None:
    """Of 32 MiB and of 2 MiB decoded; a write task mixes up to eight of them."""
    rows = (1 << 21) // files
    for number in range(files):
        write_file(tmp_path / "lake" / f"{number:02d}.parquet", rows, group_rows)
    job = job_on(tmp_path / "lake", tmp_path / "out")
    plan = make_plan(job)
    assert {group.rows for group in plan.groups} == {min(group_rows, rows)}
    assert plan.job.output.shuffle == "mixed"
    manifest, growth = grown(worker, job)
    assert manifest.source.rows.read == 1 << 21
    assert growth < MOST
