"""Where a job runs: what is refused before it starts, which scheduler is taken, and what is closed afterwards."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from distributed import Client, LocalCluster, default_client

import dtap_dask
from dtap_dask.errors import ClusterError, JobError
from dtap_dask.job import cluster as module
from dtap_dask.job.cluster import ClusterOptions, open_client, preflight
from dtap_dask.storage import open_store

Document = dict[str, Any]


def small(job: Document, client: Client | None = None, **options: Any) -> dtap_dask.Manifest:
    return dtap_dask.run(job, client=client, limit=500, progress="silent", **options)


def test_a_scheduler_without_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.2)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterError, match=r"The scheduler tcp://127\.0\.0\.1:\d+ has no workers .* `dask worker"),
    ):
        preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))


@pytest.mark.parametrize(("package", "theirs"), [("pyarrow", "1.0"), ("dtap_dask", None), ("python", "3.4.1.final.0")])
def test_workers_with_other_software_are_refused(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, theirs: str | None
) -> None:
    """The answer of one worker is made up: two versions of pyarrow cannot be installed in one test environment."""
    answer = copy.deepcopy(client.get_versions(packages=["dtap_dask", "pyarrow", "numpy"]))
    worker = sorted(answer["workers"])[1]
    answer["workers"][worker]["packages"][package] = theirs
    monkeypatch.setattr(Client, "get_versions", lambda self, check=False, packages=None: answer)
    shown = "3.4" if package == "python" else theirs
    with pytest.raises(
        ClusterError, match=rf"different software: {worker} has {package} {shown}, the client \S+\. Inst"
    ):
        preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))


def test_the_same_software_everywhere_is_fine_and_nothing_is_left_behind(client: Client, tmp_path: Path) -> None:
    preflight(client, open_store(str(tmp_path)), open_store(str(tmp_path / "out")))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_worker_that_cannot_see_the_source_is_named(client: Client, tmp_path: Path) -> None:
    source = open_store(str(tmp_path / "gone"))
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot do the job\. Worker tcp://\S+: the source .*gone"):
        preflight(client, source, open_store(str(tmp_path / "out")))


def test_a_worker_that_cannot_write_the_output_is_named(client: Client, tmp_path: Path) -> None:
    """Below a plain file no folder can be made, not even by root."""
    (tmp_path / "file").write_bytes(b"")
    output = open_store(str(tmp_path / "file" / "out"))
    with pytest.raises(ClusterError, match=r"2 of 2 workers cannot do the job\. Worker tcp://127\.0\.0\.1:\d+: .*file"):
        preflight(client, open_store(str(tmp_path)), output)


@pytest.fixture(scope="module")
def scheduler_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A scheduler and a worker as processes of their own, on loopback, as an administrator would start them."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    dask = str(Path(sys.executable).with_name("dask"))
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    head = [dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"]
    hand = [dask, "worker", "--scheduler-file", str(file), "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"]
    with subprocess.Popen(head, **quiet) as scheduler:
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        with subprocess.Popen(hand, **quiet) as worker:
            yield file
            worker.terminate()
        scheduler.terminate()


@pytest.mark.parametrize("by", ["scheduler", "scheduler_file"])
def test_a_cluster_that_runs_already_does_the_job_and_lives_on(by: str, job: Document, scheduler_file: Path) -> None:
    address = json.loads(scheduler_file.read_text())["address"]
    options = ClusterOptions(**{by: address if by == "scheduler" else str(scheduler_file)})
    manifest = small(job, cluster=options)
    assert sum(part.rows for part in manifest.splits.values()) > 0
    with Client(address, timeout=10, set_as_default=False) as client:
        assert len(client.nthreads()) == 1


def test_the_command_takes_the_address_of_a_scheduler(job: Document, scheduler_file: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(job))  # JSON is YAML
    address = json.loads(scheduler_file.read_text())["address"]
    command = [sys.executable, "-m", "dtap_dask", "run", str(tmp_path / "job.yaml"), "--limit", "500"]
    ran = subprocess.run([*command, "--scheduler", address], capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_a_scheduler_file_that_never_comes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.3)
    for text in (None, "{", "[]", "{}"):
        if text is not None:
            (tmp_path / "scheduler.json").write_text(text)
        options = ClusterOptions(scheduler_file=str(tmp_path / "scheduler.json"))
        with pytest.raises(ClusterError, match=r"The scheduler file .* names no scheduler"), open_client(options):
            pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nonsense://here"])
def test_an_address_where_nothing_answers_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.5)
    options = ClusterOptions(scheduler=address)
    with pytest.raises(ClusterError, match=f"No Dask scheduler answers at {address}"), open_client(options):
        pass
    with pytest.raises(ValueError, match="No client"):  # nothing dead is left behind for the next run to take
        default_client()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ClusterOptions(scheduler="tcp://a:1", scheduler_file="f"), "Give one of the two"),
        (ClusterOptions(scheduler="tcp://a:1", workers=2), "--workers are for a cluster on this machine"),
        (ClusterOptions(scheduler_file="f", threads=1, memory="1GiB"), "--threads, --memory are for a cluster on this"),
        (ClusterOptions(memory="much"), "--memory 'much' is not a size such as 4GiB"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: ClusterOptions, message: str) -> None:
    with pytest.raises(JobError, match=message), open_client(options):
        pass


def test_the_current_client_is_taken(job: Document, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_cluster(options: ClusterOptions) -> LocalCluster:
        raise AssertionError("a cluster was started although a client was there")

    monkeypatch.setattr(module, "_local", no_cluster)
    with client.as_current():
        small(job)
    assert client.status == "running"
    assert len(client.nthreads()) == 2


def test_a_cluster_of_our_own_is_on_loopback_and_closed_afterwards() -> None:
    options = ClusterOptions(workers=1, threads=2, memory="1GiB")
    with open_client(options) as client:
        cluster = client.cluster
        assert urlparse(client.dashboard_link).hostname == "127.0.0.1"
        assert urlparse(client.scheduler.address).hostname == "127.0.0.1"
        sockets = [one.getsockname() for one in cluster.scheduler.http_server._sockets.values()]
        assert {host for host, _ in sockets} == {"127.0.0.1"}
        assert list(client.nthreads().values()) == [2]
        [worker] = client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["memory_limit"] == 1 << 30
        assert urlparse(f"http://{worker['host']}").hostname == "127.0.0.1"
    assert cluster.status.name == "closed"
    assert client.status == "closed"


def test_a_cluster_of_our_own_is_closed_after_a_failure() -> None:
    opened = []

    def fail() -> None:
        with open_client(ClusterOptions(workers=1)) as client:
            opened.append(client.cluster)
            raise KeyError("failed")

    with pytest.raises(KeyError, match="failed"):
        fail()
    assert opened[0].status.name == "closed"


def test_a_script_without_a_guard_is_told_what_it_lacks(job: Document, tmp_path: Path) -> None:
    """Worker processes import the script that starts them; without the guard they would start workers themselves."""
    (tmp_path / "script.py").write_text(f"import dtap_dask\ndtap_dask.run({job!r}, progress='silent')\n")
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode != 0
    assert "must do so below `if __name__ == '__main__':`" in done.stderr


def test_a_worker_needs_more_than_a_few_bytes() -> None:
    with (
        pytest.raises(JobError, match=r"--memory '4' is 4 bytes a worker.*Did you mean 4GiB\?"),
        open_client(ClusterOptions(memory="4")),
    ):
        pass
