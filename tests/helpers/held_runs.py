"""A job of eight write tasks, and a gate that holds its tasks back, so that runs can be hurt in the middle of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from documents import Document

TASKS = 8
PRELOAD = """
import sys, time
from pathlib import Path
from distributed import Status, get_worker
from dtap_dask.job.execution import tasks

GATE = Path({gate!r})

def most():
    try:
        return int(GATE.read_text())
    except FileNotFoundError:
        return sys.maxsize

def held_back(task, folder):
    def run(store, *args, **options):
        while finished(store, folder) >= most():
            if {lets_go} and get_worker().status != Status.running:
                raise RuntimeError("a worker that is asked to close waits for its tasks, for seconds")
            time.sleep(0.02)
        return task(store, *args, **options)
    return run

def finished(store, folder):
    files = [file.path for file in store.list_files("_run")]
    return sum(f"/{{folder}}/" in path and path.endswith(".json") for path in files)

tasks.run_write_task = held_back(tasks.run_write_task, "tasks")
tasks.run_shuffle_task = held_back(tasks.run_shuffle_task, "pieces")
"""


@dataclass(frozen=True)
class Gate:
    """Holds back the tasks that write or shuffle of workers that were started with `preload`.

    `lets_go`: a worker that is asked to close need not wait for them.
    """

    folder: Path
    lets_go: bool = True

    @property
    def preload(self) -> str:
        """A module for Dask workers to load."""
        path = self.folder / "held_back.py"
        path.write_text(PRELOAD.format(gate=str(self._file), lets_go=self.lets_go))
        return str(path)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command whose workers load it."""
        return {**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": f"['{self.preload}']"}

    def close(self, after: int) -> None:
        """Let no such task begin in a run that has finished this number of its kind, or more."""
        beside = self.folder / "gate.new"
        beside.write_text(str(after))
        beside.replace(self._file)

    def open(self) -> None:
        """Let all go."""
        self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self.folder / "gate"


def eight_tasks(lake: Path) -> Document:
    """Eight tasks of each kind; every run of it in a folder of its own writes the same bytes, manifest included."""
    return {
        "version": 1,
        "name": "Small trips",
        "source": {"path": str(lake / "trips")},
        "split": {"parts": {"train": 0.9, "eval": 0.1}},
        "keep": ["trip_id"],
        "features": [
            {"columns": ["trip_miles", "trip_seconds"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
            {"columns": ["fare"], "steps": [{"impute": {"strategy": "median"}}, "standard_scale"]},
            {"columns": ["company", "payment_type"], "steps": ["ordinal_encode"]},
            {"columns": ["payment_type"], "steps": ["one_hot_encode"], "as": "payment"},
        ],
        "output": {"path": "out", "layout": "rows", "compression": "gzip", "shard_size": "40KiB"},
    }


def finished_tasks(output: Path, folder: str = "tasks") -> int:
    """The write tasks that have ended in an output folder; in `pieces` those that shuffle."""
    return len(list(output.glob(f"_run/*/{folder}/*.json")))


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder the current one for the length of a block."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
