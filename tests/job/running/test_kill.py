"""Processes that die in the middle of a run: the bytes are those of an undisturbed run, or the run can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from distributed import Client

import dtap_dask
from digests import digests
from documents import Document
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.lake.sample.sample_lake import write_sample
from dtap_dask.storage import open_store

TASKS = 8


@pytest.fixture(scope="module")
def larger_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("larger")
    write_sample(open_store(str(folder)), 200_000)
    return folder


@pytest.fixture(scope="module")
def undisturbed(larger_lake: Path, tmp_path_factory: pytest.TempPathFactory, client: Client) -> dict[str, str]:
    """The bytes of a run in which nothing happens; all jobs write to a folder of the same name."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with working_in(folder):
        dtap_dask.run(slow_job(larger_lake), client=client, progress="silent")
    return digests(folder / "out")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """With `output.path: out` in every job, even the manifests must be equal to the byte."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def slow_job(lake: Path) -> Document:
    """Gzip at its slowest layout keeps the write tasks busy long enough to be killed."""
    return {
        "version": 1,
        "source": {"path": str(lake / "trips")},
        "split": {"parts": {"train": 0.9, "eval": 0.1}},
        "keep": ["trip_id"],
        "features": [
            {
                "columns": ["trip_miles", "trip_seconds"],
                "steps": [{"impute": {"strategy": "median"}}, "standard_scale"],
            },
            {"columns": ["company", "payment_type"], "steps": ["ordinal_encode"]},
            {"columns": ["payment_type"], "steps": ["one_hot_encode"], "as": "payment"},
        ],
        "output": {"path": "out", "layout": "rows", "compression": "gzip", "shard_size": "100KiB"},
    }


def finished_tasks(output: Path) -> int:
    return len(list(output.glob("_run/*/tasks/*.json")))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_worker_changes_no_byte(
    workers: int, larger_lake: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    at_the_kill: list[int] = []

    def kill_one(client: Client) -> None:
        wait_for(lambda: finished_tasks(tmp_path / "out") >= 1)
        victim = sorted(client.run(os.getpid).items())[0][1]
        at_the_kill.append(finished_tasks(tmp_path / "out"))
        os.kill(victim, signal.SIGKILL)

    with working_in(tmp_path), open_client(ClusterOptions(workers=workers)) as client:
        killer = threading.Thread(target=kill_one, args=(client,))
        killer.start()
        dtap_dask.run(slow_job(larger_lake), client=client, progress="silent")
        killer.join()
    assert 1 <= at_the_kill[0] < TASKS
    assert digests(tmp_path / "out") == undisturbed
    assert list((tmp_path / "out").glob("_run/*/attempts/*")) == []


@pytest.mark.parametrize("moment", ["fit", "write"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_client_goes_on_with_resume(
    moment: str, workers: int, larger_lake: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    job = slow_job(larger_lake)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    command = [sys.executable, "-m", "dtap_dask", "run", "job.yaml", "--workers", str(workers)]
    output = tmp_path / "out"
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        if moment == "fit":
            assert process.stderr is not None
            assert any(line.startswith("fit: ") for line in process.stderr)  # reads as far as that
        else:
            wait_for(lambda: finished_tasks(output) >= 2)
        process.kill()
    assert not (output / "manifest.json").exists()
    assert finished_tasks(output) < TASKS

    unasked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if moment == "write":
        assert unasked.returncode == 2
        assert "holds an unfinished run of this job. Go on with it: --resume" in unasked.stderr
        resumed = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert resumed.returncode == 0, resumed.stderr
        assert "what was fitted is kept" in resumed.stderr
        assert "\nfit" not in resumed.stderr
    else:
        assert unasked.returncode == 0, unasked.stderr
    with working_in(tmp_path):
        assert digests(output) == undisturbed
        assert make_plan(job).run_id in next(output.glob("train/*")).name


def test_ctrl_c_ends_with_its_own_exit_code(larger_lake: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(slow_job(larger_lake), sort_keys=False))
    command = [sys.executable, "-m", "dtap_dask", "run", "job.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: finished_tasks(tmp_path / "out") >= 1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 4, told
    assert "Stopped. What is written stays: go on with --resume (in Python resume=True)." in told
    assert "Traceback" not in told
    assert not (tmp_path / "out" / "_run" / "lock").exists()
