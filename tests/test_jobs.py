"""The jobs in jobs/ run as they stand on the sample lake, and the training script learns from what they leave."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

import dtap_dask
from dtap_dask.lake.sample import write_sample
from dtap_dask.storage import open_store

JOBS = Path(__file__).parents[1] / "jobs"


def test_every_job_runs_and_the_script_trains(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(open_store(str(tmp_path / "lake")), 20_000)
    monkeypatch.chdir(tmp_path)
    jobs = sorted(JOBS.glob("*.yaml"))
    assert {"local.yaml", "taxi.yaml"} <= {job.name for job in jobs}
    for job in jobs:
        manifest = dtap_dask.run(job, client=client, progress="silent")
        assert all(split.rows > 0 for split in manifest.splits.values()), job.name

    command = [sys.executable, str(JOBS / "train.py")]
    trained = subprocess.run(command, capture_output=True, text=True, check=False)

    assert trained.returncode == 0, trained.stderr
    found = re.search(r"AUC on eval: ([0-9.]+)", trained.stdout)
    assert found, trained.stdout
    assert float(found[1]) > 0.7
