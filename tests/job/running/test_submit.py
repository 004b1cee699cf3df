"""Jobs that are left behind: the client dies, the driver's worker dies, somebody cancels; the bytes stay the same."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import Client, LocalCluster

import dtap_dask
import warm
from commands import typed
from dask_processes import DaskProcesses, dask_processes
from digests import digests
from dtap_dask.job.cluster import client as cluster_module
from dtap_dask.job.cluster.client import ClusterOptions
from dtap_dask.job.running.submit import Submitted
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import ENDED, TOPIC
from dtap_dask.records.lock import lock
from dtap_dask.storage import open_store
from held_runs import TASKS, Gate, eight_tasks, finished_tasks, working_in
from in_process import run_in_process
from waiting import HANG, until

SECRET = "Tr0ub4dor-and-3"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """Three workers, whose write tasks the gate can hold back."""
    folder = tmp_path_factory.mktemp("cluster")
    with dask_processes(folder, 3, "--nthreads", "1", "--preload", Gate(folder).preload) as started:
        yield started


@pytest.fixture
def gate(cluster: DaskProcesses) -> Gate:
    """The gate of the cluster's workers, open."""
    found = Gate(cluster.folder)
    found.open()
    return found


@pytest.fixture
def client(cluster: DaskProcesses) -> Iterator[Client]:
    with cluster.client() as client:
        yield client


@pytest.fixture(scope="module")
def undisturbed(lake: Path, tmp_path_factory: pytest.TempPathFactory, cluster: DaskProcesses) -> dict[str, str]:
    """The bytes of a `run` in which nothing happens; all jobs write to a folder of the same name."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with working_in(folder):
        dtap_dask.run(eight_tasks(lake), cluster=ClusterOptions(scheduler_file=cluster.file), progress="silent")
    return digests(folder / "out")


@pytest.fixture
def place(lake: Path, tmp_path: Path, gate: Gate) -> Iterator[Path]:
    """A current folder with the job as a file; the gate is open."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(eight_tasks(lake), sort_keys=False))
    with working_in(tmp_path):
        yield tmp_path


def worker_of_the_driver(client: Client, run: str) -> int:
    """The process that carries the driver."""
    [address] = [worker for worker, keys in client.processing().items() if f"driver-{run}" in keys]
    found: int = client.run(os.getpid, workers=[address])[address]
    return found


def test_neither_the_client_nor_the_driver_s_worker_is_needed(
    place: Path, cluster: DaskProcesses, gate: Gate, client: Client, undisturbed: dict[str, str]
) -> None:
    """The client is killed as soon as it has printed the id, the worker that carries the driver in the middle."""
    gate.close(after=1)
    command = [warm.python(), "-m", "dtap_dask", "submit", "job.yaml", *cluster.where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        process.kill()
    assert re.fullmatch(r"small-trips-[0-9a-f]{6}", run)
    until(lambda: finished_tasks(place / "out") >= 1)
    during = json.loads(typed("status", "out", "--json").stdout)
    assert (during["id"], during["state"], during["gone"]) == (run, "running", False)
    os.kill(worker_of_the_driver(client, run), signal.SIGKILL)
    before = finished_tasks(place / "out")
    gate.open()

    waited = typed("wait", run, *cluster.where)
    assert waited.exit_code == 0, waited.stderr
    assert 1 <= before < TASKS
    assert "The worker that ran the driver is gone: the driver was restarted here, and continues." in waited.stderr
    assert digests(place / "out") == undisturbed
    assert not list((place / "out").glob("_run/lock*"))
    assert not list((place / "out").glob("_run/*/plan.json"))
    ended = json.loads(typed("status", run, *cluster.where, "--json").stdout)
    assert (ended["state"], ended["exit_code"], ended["output"]) == ("done", 0, str(place / "out"))
    assert ended["lost_workers"] >= 1
    assert ended["retries"] >= 1
    assert ended["shards_committed"] == ended["shards_planned"] == len([one for one in undisturbed if "part-" in one])
    in_folder = json.loads(typed("status", "out", "--json").stdout)
    same = ended.keys() - {"updated", "forecast"}  # the folder knows more of the plan
    assert {name: in_folder[name] for name in same} == {name: ended[name] for name in same}


def test_a_cancelled_job_can_be_resumed(
    place: Path, cluster: DaskProcesses, gate: Gate, client: Client, undisturbed: dict[str, str]
) -> None:
    gate.close(after=1)
    run = typed("submit", "job.yaml", *cluster.where).stdout.strip()
    until(lambda: finished_tasks(place / "out") >= 1)
    told = typed("cancel", run, *cluster.where)
    assert (told.exit_code, told.stderr) == (0, "")
    again = typed("cancel", run, *cluster.where)
    assert again.exit_code == 2
    assert re.match(rf"Error: {run} (is being cancelled|has ended) already", again.stderr)

    until(lambda: client.run_on_scheduler(write_tasks) <= 3, "only what runs is left")
    gate.open()
    waited = typed("wait", run, *cluster.where)
    assert waited.exit_code == 4
    assert waited.stderr.splitlines()[-1].startswith("Error: Cancelled. Finished work is kept: continue with --resume")
    third = typed("cancel", run, *cluster.where)
    assert third.exit_code == 2
    assert third.stderr == f"Error: {run} has ended already (cancelled): there is nothing to cancel.\n"
    assert json.loads(typed("status", "out", "--json").stdout)["state"] == "cancelled"
    assert not (place / "out" / "manifest.json").exists()
    kept = finished_tasks(place / "out")
    assert 1 <= kept < TASKS
    until(lambda: not any(key for keys in client.processing().values() for key in keys))
    assert finished_tasks(place / "out") == kept, "what was running has ended before the run did"

    resumed = typed("run", "job.yaml", "--resume", *cluster.where)
    assert resumed.exit_code == 0, resumed.stderr
    assert "what was fitted is kept" in resumed.stderr
    assert digests(place / "out") == undisturbed


def write_tasks(dask_scheduler: Any) -> int:
    """The write tasks that the scheduler has not forgotten."""
    return sum(key.startswith("write-") for key in dask_scheduler.tasks)


def test_two_jobs_with_one_output(place: Path, cluster: DaskProcesses, gate: Gate) -> None:
    gate.close(after=0)
    first = dtap_dask.submit("job.yaml", cluster=ClusterOptions(scheduler_file=cluster.file))
    until((place / "out" / "_run" / "status" / f"{first.id}.json").exists)
    second = typed("submit", "job.yaml", *cluster.where).stdout.strip()
    waited = typed("wait", second, *cluster.where)
    assert waited.exit_code == 1
    assert f"Another run ({first.id}) is writing {place}/out: process " in waited.stderr
    assert first.status().state == "running"
    command = [warm.python(), "-m", "dtap_dask", "wait", first.id, *cluster.where]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=HANG)
    assert process.returncode == 130
    command = shlex.join(["dtap-dask", "wait", first.id, *cluster.where])
    assert f"The run continues without you. Come back with `{command}`." in told
    assert json.loads(typed("status", "out", "--json").stdout)["id"] == first.id
    gate.open()
    assert first.wait("silent").exit_code == 0
    listed = json.loads(typed("jobs", *cluster.where, "--json").stdout)
    assert {one["id"]: one["state"] for one in listed}.items() >= {first.id: "done", second: "failed"}.items()
    table = typed("jobs", *cluster.where).stdout
    assert re.search(rf"^{second} +failed ", table, re.MULTILINE)
    third = dtap_dask.submit("job.yaml", cluster=ClusterOptions(scheduler_file=cluster.file))
    with pytest.raises(dtap_dask.DtapError, match=r"holds a dataset already.*overwrite=True") as caught:
        third.wait("silent")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("fails", [False, True])
def test_secrets_travel_and_are_seen_nowhere(
    fails: bool, place: Path, cluster: DaskProcesses, client: Client, monkeypatch: pytest.MonkeyPatch, lake: Path
) -> None:
    """In the output's path, a condition, a storage setting; of a job that ends well, and of one whose tasks fail."""
    monkeypatch.setenv("PASSWORD", SECRET)
    job = eight_tasks(lake)
    job["source"]["where"] = "company <> '${PASSWORD}'" + (
        " and cast(company || '${PASSWORD}' as int) > 0" if fails else ""
    )
    job["output"]["path"] = "${PASSWORD}/out"
    job["storage"] = {"memory": {"password": "${PASSWORD}"}}
    job["name"] = "with ${PASSWORD}"
    (place / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    submitted = typed("submit", "job.yaml", *cluster.where)
    run = submitted.stdout.strip()
    waited = typed("wait", run, *cluster.where)
    assert waited.exit_code == (1 if fails else 0), waited.stderr
    status, logs = typed("status", run, *cluster.where), typed("logs", run, *cluster.where)
    assert "${PASSWORD}" in status.stdout
    [output] = [path.parent for path in place.glob("*/out/_run")]
    assert output.parent.name == SECRET
    kept = "".join(path.read_text(errors="replace") for path in output.glob("_run/status/*"))
    assert run in kept
    seen = client.run_on_scheduler(everything)
    assert f"driver-{run}" in seen
    told = [one for result in (submitted, waited, status, logs) for one in (result.stdout, result.stderr)]
    for text in (
        seen,
        kept,
        cluster.logs(),
        *told,
        *((output / "manifest.json").read_text() for _ in range(not fails)),
    ):
        assert SECRET not in text


def everything(dask_scheduler: Any) -> str:
    """What the scheduler shows to whoever looks: keys, prefixes, events, metadata, names, and its log of tasks."""
    dask = dask_scheduler
    names = [*dask.tasks, *dask.task_prefixes, *dask.extensions["publish"].datasets]
    return repr([names, dask.get_events(), dask.task_metadata, list(dask.transition_log), dask.get_logs()])


def test_events_are_whole_snapshots(place: Path, cluster: DaskProcesses, client: Client) -> None:
    run = typed("submit", "job.yaml", *cluster.where, "--limit", "2000", "--set", "name=eventful").stdout.strip()
    assert typed("logs", "-f", run, *cluster.where).exit_code == 0
    told = [(when, one) for when, one in client.get_events(TOPIC) if one["id"] == run]
    assert [one["state"] for _, one in (told[0], told[-1])] == ["waiting", "done"]
    assert [stage["name"] for stage in told[-1][1]["stages"]] == ["fit", "write"]
    assert all(stage["ended"] and stage["tasks_done"] == stage["tasks"] for stage in told[-1][1]["stages"])
    said = typed("logs", run, *cluster.where, "--json").stdout.splitlines()
    assert any("Dask dashboard" in json.loads(line)["text"] for line in said)
    assert typed("logs", "out", "--json").stdout.splitlines() == said


def test_what_cannot_be_found_is_told(place: Path, cluster: DaskProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "WAIT_SECONDS", 0.5)
    for command in ("status", "wait", "logs", "cancel"):
        unknown = typed(command, "small-trips-000000", *cluster.where)
        assert unknown.exit_code == 2, command
        assert "has no run small-trips-000000" in unknown.stderr
        nowhere = typed(command, "small-trips-000000")
        assert nowhere.exit_code == 2
        assert "Which scheduler? Give its address: --scheduler" in nowhere.stderr
    assert typed("submit", "job.yaml").exit_code == 2
    wrong = typed("submit", "job.yaml", *cluster.where, "--set", "output.layuot=rows")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "unknown key 'layuot'" in wrong.stderr
    gone = typed("jobs", "--scheduler", "tcp://127.0.0.1:9")
    assert gone.exit_code == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in gone.stderr


def pasted(text: str) -> list[subprocess.CompletedProcess[str]]:
    """What the commands do that a text shows between backticks, in a shell in the current folder."""
    environment = {**os.environ, "PATH": warm.path()}
    run: dict[str, Any] = {"capture_output": True, "text": True, "timeout": HANG, "env": environment}
    commands = [command for command in re.findall("`([^`]+)`", text) if "dtap-dask" in command]
    return [subprocess.run(["bash", "-c", command], check=False, **run) for command in commands]


def test_what_is_printed_to_be_typed_works_when_pasted(place: Path, cluster: DaskProcesses) -> None:
    submitted = typed("submit", "job.yaml", *cluster.where, "--set", "output.path=out of 'this'")
    run = submitted.stdout.strip()
    [waited] = pasted(submitted.stderr)
    assert waited.returncode == 0, waited.stderr
    [shown] = pasted(waited.stderr.splitlines()[-1])
    assert shown.stdout.startswith(f"{place}/out of 'this': ")
    logs = typed("logs", run, *cluster.where).stdout
    [status] = pasted(next(line for line in logs.splitlines() if "shows its progress" in line))
    assert status.stdout.startswith(f"{run}  done")
    again = typed("wait", "out of 'this'")
    assert f"{run} had ended already, at " in again.stderr


def test_a_submitted_job_that_fails_at_once_is_told_everywhere(place: Path, cluster: DaskProcesses) -> None:
    """By its id and, where no other run is known there, by its folder, for which `wait` may come too early."""
    output = str(place / "early")
    command = [warm.python(), "-m", "dtap_dask", "wait", output]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "Waiting for one" in process.stderr.readline()
        run = typed("submit", "job.yaml", *cluster.where, "--set", f"output.path={output}", "--set", "source.path=gone")
        why = f"No files at {place}/gone: the place is missing or empty"
        assert why in process.stderr.read()
    assert process.returncode == 1
    where = [run.stdout.strip(), *cluster.where]
    assert why in typed("wait", *where).stderr
    for told in (typed("status", *where), typed("logs", *where), typed("status", output), typed("logs", output)):
        assert why in told.stdout
        assert "0 workers" not in told.stdout


def test_a_fresh_scheduler_knows_no_runs(place: Path) -> None:
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local:
        address = local.scheduler_address
        told = typed("jobs", "--scheduler", address)
        assert (told.exit_code, told.stdout) == (0, f"The scheduler {address} knows no runs.\n")
        assert typed("jobs", "--scheduler", address, "--json").stdout == "[]\n"


def test_one_thread_is_enough_and_none_is_waited_for(place: Path, lake: Path) -> None:
    """A driver must not take the thread that its own tasks need. A job that waits can be cancelled, too."""
    job = {**eight_tasks(lake), "name": "patient"}
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local,
        Client(local, set_as_default=False) as client,
    ):
        waiting = dtap_dask.submit(job, client=client)
        assert "has no workers yet: the job waits for some." in waiting.note
        assert waiting.status().state == "waiting"
        other = dtap_dask.submit(job, client=client)
        other.cancel()
        with pytest.raises(dtap_dask.DtapError, match="Cancelled before it began") as caught:
            other.wait("silent")
        assert caught.value.exit_code == 4
        local.scale(1)
        assert waiting.wait("silent").state == "done"
        assert other.status().state == "cancelled"
    assert (place / "out" / "_SUCCESS").exists()


def test_workers_that_all_go_are_waited_for(place: Path, undisturbed: dict[str, str]) -> None:
    gate = Gate(place)
    gate.close(after=1)
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, preload=[gate.preload], **here) as local,
        Client(local, set_as_default=False) as client,
    ):
        seen: list[str] = []
        command = [warm.python(), "-m", "dtap_dask", "run", "job.yaml", "--scheduler", local.scheduler_address]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: finished_tasks(place / "out") >= 1)
            local.scale(0)
            assert process.stderr is not None
            for line in process.stderr:
                seen.append(line)
                if line.startswith("Waiting for workers"):
                    [snapshot] = SchedulerStore(client).snapshots().values()
                    assert snapshot.state not in ENDED
                    local.scale(1)
                if line.startswith("Continuing with 1 worker."):
                    gate.open()
        assert process.returncode == 0, seen
    assert any(line.startswith("Waiting for workers: all are gone.") for line in seen)
    assert "Continuing with 1 worker.\n" in seen
    assert digests(place / "out") == undisturbed


def test_the_folder_knows_what_a_lost_scheduler_has_left(
    place: Path, cluster: DaskProcesses, gate: Gate, undisturbed: dict[str, str]
) -> None:
    """The last test of the cluster: it kills the scheduler. Waiting ends, the folder tells, and the job can go on."""
    gate.close(after=1)
    run = typed("submit", "job.yaml", *cluster.where).stdout.strip()
    until(lambda: finished_tasks(place / "out") >= 1)
    command = [warm.python(), "-m", "dtap_dask", "wait", run, *cluster.where]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline()
        cluster.scheduler.kill()
        gate.open()
        _, told = process.communicate(timeout=HANG)
    assert process.returncode == 4, told
    assert "no longer answers" in told
    until(lambda: json.loads(typed("status", "out", "--json").stdout)["state"] != "running" or gone_in("out"))
    shown = typed("status", "out")
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"{run}  ")
    assert "--resume" in shown.stdout
    waited = typed("wait", "out")
    assert waited.exit_code == 4
    resumed = run_in_process("job.yaml", resume=True)
    assert resumed.splits["train"].rows > 0
    assert digests(place / "out") == undisturbed


def gone_in(path: str) -> bool:
    found: bool = json.loads(typed("status", path, "--json").stdout)["gone"]
    return found


def test_a_lock_is_taken_over_by_the_same_run_only(tmp_path: Path) -> None:
    """From another process, of which nobody here knows whether it lives; it notices that before it commits."""
    store = open_store(str(tmp_path))
    with lock(store, run="trips-000001") as first:
        with pytest.raises(dtap_dask.DtapError, match=r"Another run \(trips-000001\) is writing"), lock(store, run="b"):
            pass
        assert first.is_mine()
        with lock(store, run="trips-000001") as second:
            assert second.is_mine()
            assert not first.is_mine()
    assert Submitted("trips-000001").note == ""
