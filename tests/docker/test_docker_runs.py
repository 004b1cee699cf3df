"""docker/ as it runs, without a container engine: every command as a plain process, every step as a script."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import compose
import warm
from waiting import HANG

DOCKER = Path(__file__).parents[2] / "docker"


# Compose's commands as plain processes.


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("stack")
    words = {"hdfs://namenode:8020": str(folder), "100000": "5000"}
    with compose.Stack(folder, words, [warm.folder("dask")]) as running:
        for service in running.services.values():
            service.get("depends_on", {}).pop("datanode", None)  # a folder stands for HDFS here
        yield running


def test_one_word_starts_the_cluster_makes_the_sample_and_runs_the_job(stack: Any) -> None:
    """What `train` needs; test_images.py trains, test_jobs.py runs the same script."""
    stack.start("job")
    stack.wait("job", "service_completed_successfully")
    assert stack.order.index("certificate") < stack.order.index("scheduler") < stack.order.index("worker-2")
    assert stack.order.index("sample") < stack.order.index("job") == len(stack.order) - 1
    assert (stack.folder / "lake" / "tfrecords" / "trips" / "_SUCCESS").exists()
    assert (stack.folder / "tls" / "key.pem").stat().st_mode & 0o077 == 0
    workers = set(re.findall(r"Starting worker compute stream, (tls://\S+)", stack.log("scheduler").read_text()))
    assert len(workers) == 2, "all speak TLS"


def test_what_is_done_once_may_be_started_again(stack: Any) -> None:
    stack.start("job")
    before = (stack.folder / "tls" / "key.pem").read_bytes()
    for name in ("certificate", "sample", "job"):
        stack.wait(name, "service_completed_successfully")
        del stack.running[name]
        stack.start(name)
        stack.wait(name, "service_completed_successfully")
    assert (stack.folder / "tls" / "key.pem").read_bytes() == before


def test_health_checks_tell_the_living_from_the_dead(stack: Any) -> None:
    stack.start("worker-1")
    stack.start("worker-2")
    for name in ("scheduler", "worker-1", "worker-2"):
        stack.wait(name, "service_healthy")
    stack.kill("worker-2")
    assert not stack.healthy("worker-2")
    assert stack.healthy("worker-1")
    stack.kill("scheduler")
    assert not stack.healthy("scheduler")


# SLURM.

SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
trap 'kill $(jobs -p) 2> /dev/null; wait' TERM
for ((i = 0; i < SLURM_NTASKS; i++)); do "$@" & done
sleep 300 &
wait
"""


@pytest.fixture
def sbatch(tmp_path: Path, lake: Path) -> Callable[..., subprocess.Popen[str]]:
    """What SLURM does with the script, on loopback: variables of the allocation, and an srun that starts the tasks."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    (tmp_path / "lake").symlink_to(lake)
    (tmp_path / "job.yaml").write_text(
        "{version: 1, source: {path: lake/trips}, features: [{columns: [fare], steps: [standard_scale]}],"
        " output: {path: out}}"
    )

    def start(tasks: int) -> subprocess.Popen[str]:
        path = os.pathsep.join((str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
        allocation = {"SLURM_NTASKS": str(tasks), "SLURM_CPUS_PER_TASK": "1", "SLURM_MEM_PER_CPU": "1024"}
        return subprocess.Popen(
            [str(DOCKER / "slurm.sh"), "job.yaml", "--limit", "1000"],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "DTAP_INTERFACE": "lo", "TMPDIR": str(tmp_path), **allocation},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def test_the_slurm_script_runs_a_job_on_its_workers(sbatch: Callable[..., Any], tmp_path: Path) -> None:
    with sbatch(2) as running:
        text, _ = running.communicate(timeout=HANG)
    assert running.returncode == 0, text
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert len(set(re.findall(r"Starting worker compute stream, (tls://127\.0\.0\.1:\d+)", text))) == 2, text
    assert not list(tmp_path.glob(".dtap-dask-*")), "the key is deleted"
    alive = [one for one in psutil.process_iter() if one.status() != psutil.STATUS_ZOMBIE]
    assert not [one for one in alive if os.getpgid(one.pid) == running.pid], "nothing is left behind"


def test_slurms_signal_before_the_end_interrupts_the_run(sbatch: Callable[..., Any], tmp_path: Path) -> None:
    """No worker comes, so that the run is certainly under way: it waits for one."""
    with sbatch(0) as running:
        assert running.stdout is not None
        text = ""
        for line in running.stdout:
            text += line
            if "Receive client connection" in line:
                running.send_signal(signal.SIGTERM)
                break
        text += running.stdout.read()
    assert running.returncode == 4, text
    assert "continue with --resume" in text
    assert not list(tmp_path.glob(".dtap-dask-*"))
