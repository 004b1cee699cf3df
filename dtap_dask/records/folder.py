"""Every path in an output folder, relative to it.

    manifest.json                                    the dataset: written last, by one atomic rename
    _SUCCESS                                         empty, for programs that wait for it
    <split>/part-00003-of-00120-<run>.tfrecord[.gz]  shards
    transform.json                                   fitted state (features/graph/state.py)
    transform/<number>.parquet                       its vocabularies
    sources.parquet                                  the source files and row groups that were read
    _run/lock                                        which process may write here; held by one at a time
    _run/status/<id>.json                            last state of a run
    _run/status/<id>.log                             its notes
    _run/status/<id>.forecast                        its forecast against the result
    _run/<run>/plan.json                             the planned shards; while it is there the run is unfinished
    _run/<run>/overwrite.json                        marks a run that is to replace the present dataset
    _run/<run>/sources.parquet                       the source files as they were when the shards were planned
    _run/<run>/fitted-<levels>/                      fitted state after that number of levels
    _run/<run>/attempts/task-00012-<unique>/         files being written, shards under their final paths
    _run/<run>/tasks/00012.json                      a finished task's shards, where its first rows are in them
    _run/<run>/pieces/00012.arrow                    rows that a task of a global shuffle has dealt to the shards
    _run/<run>/pieces/00012.json                     its size and checksum, where its first rows will be
    _run/<run>/commit/                               files of the dataset that wait for the commit
    _run/<run>/commit/commit.json                    the steps that remain once the manifest is in place

<run> is the first eight letters of the plan's fingerprint: the same job over the same files has the same. <id> is the
name that a user gives to `status` and `cancel`, such as trips-3f09ab. Besides these, `_run/` briefly holds drafts of
the lock and files by which workers prove that they can write.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Literal

from dtap_dask.features.graph import state
from dtap_dask.records.tfrecord import Compression, extension

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
SOURCES = "sources.parquet"
TRANSFORM = state.FILE
VOCABULARIES = state.FOLDER
RUNS = "_run"
LOCK = f"{RUNS}/lock"
STATUS = f"{RUNS}/status"

# Left beside the lock by processes that died or came too late: drafts of it, and proofs that a worker can write.
LOCK_LEFTOVER = re.compile(rf"{RUNS}/(lock\.[0-9a-f]{{32}}|\.{{1,2}}probe-[0-9a-f]{{32}}(\.[0-9a-f]{{32}})?)")
STATUS_FILE = re.compile(
    rf"{STATUS}/(?P<draft>\.)?(?P<run>[a-z0-9-]+-[0-9a-f]{{6}})\.(?P<kind>json|log|forecast)(?(draft)\.[0-9a-f]{{32}})"
)
_SIDECAR = re.compile(rf"{re.escape(TRANSFORM)}|{re.escape(SOURCES)}|{VOCABULARIES}/[^/]+\.parquet")
_RUN = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class RunPaths:
    """The paths of one run; `run` is the fingerprint's first eight letters."""

    run: str

    @property
    def folder(self) -> str:
        """Everything that the run keeps until its commit."""
        return f"{RUNS}/{self.run}"

    @property
    def plan(self) -> str:
        """The planned shards."""
        return f"{self.folder}/plan.json"

    @property
    def overwrite(self) -> str:
        """The mark of a run that is to replace the present dataset."""
        return f"{self.folder}/overwrite.json"

    @property
    def sources(self) -> str:
        """The source files as they were when the shards were planned."""
        return f"{self.folder}/{SOURCES}"

    def fitted(self, levels: int) -> str:
        """The folder of the state with that number of levels fitted."""
        return f"{self.folder}/fitted-{levels}"

    @property
    def attempts(self) -> str:
        """The folder of all attempts at tasks."""
        return f"{self.folder}/attempts"

    def new_attempt(self, task: int) -> str:
        """A folder of its own for an attempt at a task."""
        return f"{self.attempts}/task-{task:05d}-{uuid.uuid4().hex}"

    @property
    def tasks(self) -> str:
        """The folder of the records of finished write tasks."""
        return f"{self.folder}/tasks"

    def task(self, task: int) -> str:
        """The record of a finished write task."""
        return f"{self.tasks}/{task:05d}.json"

    def pieces(self, task: int) -> str:
        """The rows that a finished shuffle task has dealt."""
        return f"{self.folder}/pieces/{task:05d}.arrow"

    def dealt(self, task: int) -> str:
        """The record of a finished shuffle task."""
        return f"{self.folder}/pieces/{task:05d}.json"

    @property
    def commit(self) -> str:
        """The folder of files that wait for the commit."""
        return f"{self.folder}/commit"

    def staged(self, path: str) -> str:
        """Where a file of the dataset waits for the commit."""
        return f"{self.commit}/{path}"

    @property
    def commit_steps(self) -> str:
        """The steps that remain once the manifest is in place."""
        return f"{self.commit}/commit.json"

    def child(self, path: str) -> str:
        """The entry of the run's folder that is, or contains, `path`."""
        return "/".join(path.split("/")[:3])

    def is_shard(self, path: str) -> bool:
        """Whether a path is that of a shard of this run."""
        return re.fullmatch(rf"[^/]+/part-\d+-of-\d+-{self.run}\.tfrecord(\.gz)?", path) is not None


def shard_path(split: str, number: int, total: int, run: str, compression: Compression) -> str:
    """The path of shard `number` of `total` of a split; total and run keep generations of a dataset apart."""
    return f"{split}/part-{number:05d}-of-{total:05d}-{run}{extension(compression)}"


def status_path(run_id: str, kind: Literal["json", "log", "forecast"]) -> str:
    """Where a run's last state (json), its notes (log) or its forecast is kept."""
    return f"{STATUS}/{run_id}.{kind}"


def run_of(path: str) -> str | None:
    """The run whose folder a path is in; None for other paths."""
    first, *others = path.split("/")
    return others[0] if first == RUNS and len(others) > 1 else None


def is_run(name: str) -> bool:
    """Whether a folder below `_run/` has the name of a run."""
    return _RUN.fullmatch(name) is not None


def is_sidecar(path: str) -> bool:
    """Whether a path is one that a job's dataset may have beside its manifest, besides shards."""
    return _SIDECAR.fullmatch(path) is not None


def may_be_of_dataset(path: str) -> bool:
    """Whether a path can be that of a shard or sidecar: relative, below the dataset's folder, and not of a run."""
    parts = path.split("/")
    return (
        path not in (MANIFEST, SUCCESS) and parts[0] != RUNS and "\0" not in path and not {"", ".", ".."} & set(parts)
    )
