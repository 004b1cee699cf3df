"""The YAML and Python blocks of README and pages work as they are, in a folder with the sample lake and its dataset."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import dtap_dask
import markdown_blocks
import warm
from dtap_dask.job.cluster.file import read_cluster_file
from dtap_dask.lake.sample.sample_lake import write_sample
from dtap_dask.storage import open_store
from in_process import run_in_process
from markdown_blocks import blocks

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "dtap_dask/docs").glob("*.md"))]
SOURCE = {"path": "lake/trips", "where": "fare is not null and payment_type is not null and company is not null"}
FEATURES = [{"columns": ["fare"]}]


def of(language: str) -> list[Any]:
    """Every block of a language, as a parameter."""
    return [pytest.param(code, id=f"{page.stem}:{line}") for page in PAGES for line, code in blocks(page, language)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `lake`, `jobs` and the datasets that pages name."""
    folder = tmp_path_factory.mktemp("place")
    write_sample(open_store(str(folder / "lake")), 2000)
    shutil.copytree(TOP / "jobs", folder / "jobs")
    trips = f"storage.dtap.map.TenantStorage={folder / 'lake'}"
    for name, layout in {"trips": "blocks", "rows": "rows"}.items():
        changes = [trips, f"output.layout={layout}", f"output.path=dtap://TenantStorage/tfrecords/{name}"]
        run_in_process(dtap_dask.Job.load(folder / "jobs/taxi.yaml", changes))
    with contextlib.chdir(folder):
        for _, text in blocks(TOP / "dtap_dask/docs/loading.md", "yaml"):
            run_in_process(yaml.safe_load(text))
    return folder


@pytest.mark.parametrize("text", of("yaml"))
def test_a_job_can_be_loaded_and_planned(text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block may be a part of a job: what it lacks is filled in. What leads to other hosts is not planned."""
    found = yaml.safe_load(text)
    monkeypatch.chdir(place)
    if "module" in found:
        (place / "cluster.yaml").write_text(text)
        assert read_cluster_file("cluster.yaml").name == found["class"]
        return
    part = {"version": 1, "source": SOURCE, "output": {"path": "out"}, **found}
    if "fit" not in found:
        part.setdefault("features", FEATURES)
    job = dtap_dask.Job.load(part)
    if not any(re.match(r"(hdfs|s3)://", path) for path in job.source.path):
        assert dtap_dask.plan(job).write_tasks


@pytest.mark.timeout(3600)
def test_python_blocks_run(place: Path) -> None:
    assert len([page for page in PAGES if blocks(page, "python")]) >= 6
    _run(warm.python("tensorflow"), "plain", place)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_blocks_for_pytorch_run(place: Path) -> None:
    _run(sys.executable, "torch", place)


def _run(python: str, flavor: str, place: Path) -> None:
    pages = [str(page) for page in PAGES if blocks(page, "python", flavor)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DTAP_")}
    command, environment = [python, markdown_blocks.__file__, flavor, *pages], {**kept, "HOME": str(place)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
