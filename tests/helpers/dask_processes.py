"""A Dask cluster of processes of their own, as an administrator would start it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

import warm
from waiting import HANG, until


@dataclass(frozen=True)
class DaskProcesses:
    """A scheduler and its workers, without nannies; `folder` has their logs and the scheduler file."""

    folder: Path
    scheduler: subprocess.Popen[bytes]

    @property
    def file(self) -> str:
        """The scheduler file."""
        return str(self.folder / "scheduler.json")

    @property
    def where(self) -> list[str]:
        """The options by which commands find the cluster."""
        return ["--scheduler-file", self.file]

    def client(self) -> Client:
        """A new client, to be closed."""
        return Client(scheduler_file=self.file, set_as_default=False, timeout=HANG)

    def logs(self) -> str:
        """What all processes have printed."""
        return "".join(path.read_text() for path in self.folder.glob("*.log"))


@contextmanager
def dask_processes(folder: Path, workers: int, *of_workers: str, dashboard: bool = False) -> Iterator[DaskProcesses]:
    """Start them, with further options `of_workers`; they are there when the block begins."""
    file = folder / "scheduler.json"
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1"]
    common += ["--dashboard-address", "127.0.0.1:0"] if dashboard else ["--no-dashboard"]
    # What tests run on the scheduler comes by the name of its module, which may import what lies beside this one.
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DASK_TEMPORARY_DIRECTORY": str(folder)}
    dask = [warm.python(), "-m", "dask"]

    def begin(name: str, *words: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen([*dask, *words, *common], stdout=log, stderr=log, cwd=folder, env=environment)

    cluster = DaskProcesses(folder, begin("scheduler", "scheduler", "--port", "0"))
    started = [cluster.scheduler]
    try:
        until(lambda: file.exists() and file.read_text().endswith("\n}"))  # it is written in two steps
        started += [begin(f"worker-{i}", "worker", "--no-nanny", *of_workers) for i in range(workers)]
        with cluster.client() as client:
            client.wait_for_workers(workers, timeout=HANG)
        yield cluster
    finally:
        for process in started:  # nobody looks at an orderly end, in which a worker without a nanny may hang
            process.kill()
        for process in started:
            process.wait(HANG)
