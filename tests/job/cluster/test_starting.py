"""What keeps a job from being started on Dask: the cause is said, with the way to go, and no other."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

import dtap_dask
from documents import Document
from dtap_dask.errors import ClusterError, JobError
from waiting import HANG


def small(job: Document, client: Client | None) -> dtap_dask.Manifest:
    return dtap_dask.run(job, client=client, limit=500, progress="silent")


# A script with a guard that runs a job on workers of its own, and says how that went.
GUARDED = """
import dtap_dask
if __name__ == "__main__":
    try:
        dtap_dask.run({job!r}, cluster=dtap_dask.ClusterOptions(workers=1), progress="silent")
    except dtap_dask.DtapError as error:
        print(type(error).__name__, error)
"""
DAEMONIC = """
import multiprocessing
import dtap_dask
def run():
    try:
        dtap_dask.run({job!r}, progress="silent")
    except dtap_dask.DtapError as error:
        print(type(error).__name__, error, flush=True)
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=run, daemon=True)
    process.start()
    process.join()
"""
KILLED = "import multiprocessing, os, signal\nif __name__ != '__main__': os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        pytest.param(
            GUARDED.replace('if __name__ == "__main__":', "if True:"),
            {},
            "must run a job under `if __name__ == '__main__':`",
            id="unguarded",
        ),
        pytest.param(DAEMONIC, {}, "This process is daemonic, .* such a process start others", id="daemonic"),
        pytest.param(
            GUARDED,
            {"TEMPORARY_DIRECTORY": "/proc/nowhere"},
            "/proc/nowhere: No such file or directory.* temporary-directory",
            id="local directory",
        ),
        pytest.param(
            GUARDED,
            {"DISTRIBUTED__SCHEDULER__PICKLE": "False"},
            r"Pickling can no longer be disabled with the `distributed\.scheduler\.pickle` option",
            id="pickle",
        ),
        pytest.param(
            GUARDED,
            {"DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"},
            "configuration requires encryption .*REQUIRE_ENCRYPTION=false",
            id="encryption",
        ),
        pytest.param(
            GUARDED,
            {"DISTRIBUTED__WORKER__PRELOAD": "no_such_module"},
            "No module named 'no_such_module'",
            id="preload",
        ),
        pytest.param(
            GUARDED + "else:\n    raise ValueError('only once')\n",
            {},
            "importing the script that started it failed for the reason printed above",
            id="script",
        ),
        pytest.param(KILLED + GUARDED, {}, "was killed by signal 9 while it started, as .* memory", id="killed"),
    ],
)
def test_why_workers_do_not_start(
    script: str, settings: dict[str, str], message: str, job: Document, tmp_path: Path
) -> None:
    """The cause, and only the missing guard is told as one."""
    (tmp_path / "script.py").write_text(script.format(job=job))
    environment = {**os.environ, **{f"DASK_{name}": value for name, value in settings.items()}}
    command: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True, "timeout": 100}
    done = subprocess.run([sys.executable, "script.py"], check=False, capture_output=True, **command)
    assert re.search(rf"^ClusterError .*{message}", done.stdout), done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    assert ("if __name__" in done.stdout) == ("if True" in script)
    assert ("Traceback" in done.stderr) == ("only once" in script)


def test_a_script_from_standard_input_is_told(job: Document) -> None:
    """Worker processes import the script that starts them, and there is none to import."""
    done = subprocess.run(
        [sys.executable, "-"], input=GUARDED.format(job=job), capture_output=True, text=True, timeout=HANG, check=True
    )
    assert re.match(r"ClusterError .*there is no file \S+. Save the script to a file", done.stdout)
    assert done.stderr == ""


def test_a_task_starts_no_workers(job: Document, client: Client) -> None:
    def in_a_task() -> str:
        try:
            dtap_dask.run(job, progress="silent")
        except ClusterError as error:
            return str(error)
        return "it ran"

    assert "A Dask task cannot start worker processes" in client.submit(in_a_task, pure=False).result()


def test_a_closed_client_is_refused(job: Document) -> None:
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pass
    for start in (dtap_dask.run, dtap_dask.submit):
        with pytest.raises(JobError, match=r"The Dask client is closed\. Pass an open one"):
            start(job, client=client)


def test_an_asynchronous_client_is_refused_with_the_way_to_go(job: Document, tmp_path: Path) -> None:
    """Given, or the current one; what the refusal advises works."""

    async def service() -> dtap_dask.Manifest:
        here = {"processes": False, "n_workers": 1, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
        async with (
            LocalCluster(asynchronous=True, protocol="tcp", **here) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            for given in (client, None):
                with pytest.raises(JobError, match=r"asynchronous=True.*asyncio\.to_thread\(dtap_dask\.run"):
                    small(job, given)
            with pytest.raises(JobError, match="asynchronous=True"):
                dtap_dask.submit(job, client=client)
            with await asyncio.to_thread(Client, cluster.scheduler_address, set_as_default=False) as synchronous:
                return await asyncio.to_thread(small, job, synchronous)

    manifest = asyncio.run(service())
    assert sum(part.rows for part in manifest.splits.values()) > 0
