"""Processes that die in the middle of a run: the bytes are those of an undisturbed run, or the run can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from distributed import Client

import dtap_dask
import warm
from digests import digests
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.planning.plan import make_plan
from held_runs import TASKS, Gate, eight_tasks, finished_tasks, working_in
from waiting import HANG, until


@pytest.fixture(scope="module")
def undisturbed(lake: Path, tmp_path_factory: pytest.TempPathFactory, client: Client) -> dict[str, str]:
    """The bytes of a run in which nothing happens; all jobs write to a folder of the same name."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with working_in(folder):
        dtap_dask.run(eight_tasks(lake), client=client, progress="silent")
    return digests(folder / "out")


@pytest.fixture
def place(lake: Path, tmp_path: Path) -> Path:
    """A folder with the job as a file."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(eight_tasks(lake), sort_keys=False))
    return tmp_path


def command(workers: int) -> list[str]:
    return [warm.python(), "-m", "dtap_dask", "run", "job.yaml", "--workers", str(workers)]


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a command, and wait until all its processes are gone: its standard error ends then."""
    process.kill()
    process.communicate()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_worker_changes_no_byte(workers: int, place: Path, undisturbed: dict[str, str]) -> None:
    at_the_kill: list[int] = []
    gate = Gate(place)
    gate.close(after=1)

    def kill_one(client: Client) -> None:
        until(lambda: finished_tasks(place / "out") >= 1)
        victim = sorted(client.run(os.getpid).items())[0][1]
        at_the_kill.append(finished_tasks(place / "out"))
        os.kill(victim, signal.SIGKILL)
        gate.open()

    preloaded = dask.config.set({"distributed.worker.preload": [gate.preload]})
    with working_in(place), preloaded, open_client(ClusterOptions(workers=workers)) as client:
        killer = threading.Thread(target=kill_one, args=(client,))
        killer.start()
        dtap_dask.run("job.yaml", client=client, progress="silent")
        killer.join()
    assert 1 <= at_the_kill[0] < TASKS
    assert digests(place / "out") == undisturbed
    assert list((place / "out").glob("_run/*/attempts/*")) == []


def test_a_client_killed_while_fitting_leaves_nothing_in_the_way(place: Path, undisturbed: dict[str, str]) -> None:
    gate = Gate(place)
    gate.close(after=0)
    output = place / "out"
    with subprocess.Popen(command(1), cwd=place, stderr=subprocess.PIPE, text=True, env=gate.environment) as process:
        assert process.stderr is not None
        assert any(line.startswith("fit: ") for line in process.stderr)  # reads as far as that
        kill(process)
    assert not (output / "manifest.json").exists()
    assert finished_tasks(output) == 0

    gate.open()
    again = subprocess.run(command(1), cwd=place, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert digests(output) == undisturbed


def test_a_client_killed_while_writing_can_be_resumed(place: Path, undisturbed: dict[str, str]) -> None:
    gate = Gate(place)
    gate.close(after=2)
    output = place / "out"
    with subprocess.Popen(command(2), cwd=place, stderr=subprocess.PIPE, env=gate.environment) as process:
        until(lambda: finished_tasks(output) >= 2)
        kill(process)
    assert not (output / "manifest.json").exists()
    assert finished_tasks(output) < TASKS

    unasked = subprocess.run(command(1), cwd=place, capture_output=True, text=True, check=False)
    assert unasked.returncode == 2
    assert "holds an unfinished run of this job. Continue it with --resume" in unasked.stderr
    gate.open()
    again = [*command(1), "--resume"]
    resumed = subprocess.run(again, cwd=place, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert "what was fitted is kept" in resumed.stderr
    assert "\nfit" not in resumed.stderr
    with working_in(place):
        assert digests(output) == undisturbed
        plan = make_plan("job.yaml")
        assert len(plan.write_tasks) == TASKS
        assert plan.run_id in next(output.glob("train/*")).name


def test_a_client_killed_in_a_global_shuffle_can_be_resumed(place: Path, client: Client) -> None:
    gate, output = Gate(place), place / "out"
    settings = [*command(2), "--set", "output.shuffle=global"]
    gate.close(after=3)
    with subprocess.Popen(settings, cwd=place, stderr=subprocess.PIPE, env=gate.environment) as process:
        until(lambda: finished_tasks(output, "pieces") >= 3)
        kill(process)
    assert list(output.glob("*/part-*")) == []
    assert 3 <= finished_tasks(output, "pieces") < TASKS
    gate.open()
    job = {"overrides": ["output.shuffle=global"], "client": client, "progress": "silent"}
    with working_in(place):
        resumed = dtap_dask.run("job.yaml", resume=True, **job)
        after = digests(output)
        assert dtap_dask.run("job.yaml", overwrite=True, **job) == resumed
        assert digests(output) == after


def test_ctrl_c_ends_with_its_own_exit_code(place: Path) -> None:
    gate = Gate(place)
    gate.close(after=1)
    with subprocess.Popen(command(2), cwd=place, stderr=subprocess.PIPE, text=True, env=gate.environment) as process:
        until(lambda: finished_tasks(place / "out") >= 1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=HANG)
    assert process.returncode == 4, told
    assert "Stopped. Finished work is kept: continue with --resume (in Python resume=True)." in told
    assert "Traceback" not in told
    assert not (place / "out" / "_run" / "lock").exists()
