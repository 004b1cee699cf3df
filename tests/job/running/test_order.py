"""The order of a run: what needs no cluster comes before one starts, and every check before the first task."""

from __future__ import annotations

import copy
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, Event

import dtap_dask
from documents import Document
from dtap_dask.errors import Cancelled, ClusterError, DtapError, JobError, OutputError
from dtap_dask.job.planning.footers import FOOTERS_ON_CLIENT
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.records.lock import lock
from dtap_dask.storage import open_store
from in_process import run_in_process

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/cwd is Linux's")
STEPS = ("start", "scan", "fit", "write", "commit")


@pytest.fixture(scope="module")
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file more than are read on the client, of a row group each."""
    folder = tmp_path_factory.mktemp("many") / "lake"
    folder.mkdir()
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0]}), folder / "0000.parquet")
    for number in range(1, FOOTERS_ON_CLIENT + 1):
        shutil.copy(folder / "0000.parquet", folder / f"{number:04d}.parquet")
    return folder


@pytest.fixture
def many(many_files: Path, tmp_path: Path) -> Document:
    """A job on so many files that their footers are read in tasks."""
    return {
        "version": 1,
        "source": {"path": str(many_files)},
        "features": [{"columns": ["x"], "steps": ["standard_scale"]}],
        "output": {"path": str(tmp_path / "many-out")},
    }


def scans(client: Client) -> int:
    """How many tasks that read footers the scheduler has seen."""

    def seen(dask_scheduler: object) -> int:
        return sum(str(key).startswith("scan-") for key, *_ in dask_scheduler.transition_log)  # type: ignore[attr-defined]

    found: int = client.run_on_scheduler(seen)
    return found


def refuse() -> None:
    raise AssertionError("nothing may start here")


def test_workers_of_another_version_stop_the_run_before_any_reads_a_footer(
    client: Client, many: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of one worker is made up: two versions of pyarrow cannot be installed in one test environment."""
    answer = copy.deepcopy(client.get_versions(packages=["dtap_dask", "pyarrow", "numpy"]))
    answer["workers"][sorted(answer["workers"])[1]]["packages"]["pyarrow"] = "1.0"
    monkeypatch.setattr(Client, "get_versions", lambda self, check=False, packages=None: answer)
    before = scans(client)
    with pytest.raises(ClusterError, match=r"different software: \S+ has pyarrow 1\.0"):
        dtap_dask.run(many, client=client, progress="silent")
    assert scans(client) == before
    assert not (tmp_path / "many-out").exists()
    monkeypatch.undo()
    assert dtap_dask.run(many, client=client, progress="silent").splits["train"].rows == 3 * (FOOTERS_ON_CLIENT + 1)
    assert scans(client) > before


@needs_proc
def test_workers_without_the_source_stop_the_run_before_any_reads_a_footer(
    client: Client, many: Document, many_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DataTap is mapped to a path below the working directory, which is the client's own."""
    monkeypatch.chdir(many_files.parents[1])
    many["storage"] = {"dtap": {"map": {"T": f"/proc/self/cwd/{many_files.parent.name}"}}}
    many["source"]["path"] = "dtap://T/lake"
    before = scans(client)
    with pytest.raises(ClusterError, match="2 of 2 workers cannot do the job"):
        dtap_dask.run(many, client=client, progress="silent")
    assert scans(client) == before


@pytest.fixture
def busy(client: Client) -> Iterator[None]:
    """Every thread of the workers waits, so that tasks sent meanwhile are queued."""
    release = Event("release", client=client)
    waiting = [client.submit(_wait_for, "release", pure=False, workers=[worker]) for worker in client.nthreads()]
    yield
    assert not any(future.done() for future in waiting)
    release.set()
    client.gather(waiting)


def _wait_for(event: str) -> None:
    Event(event).wait()


def test_cancel_is_obeyed_while_footers_are_read(client: Client, many: Document, busy: None) -> None:
    ended: list[BaseException] = []

    def run() -> None:
        try:
            dtap_dask.run(many, client=client, progress="silent")
        except DtapError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    runs = SchedulerStore(client)
    scanning: list[str] = []
    while not scanning and thread.is_alive():
        scanning = [
            run
            for run, snapshot in runs.snapshots().items()
            if snapshot.state == "running" and [stage.name for stage in snapshot.stages] == ["scan"]
        ]
        time.sleep(0.05)
    [run_id] = scanning
    runs.instruct(run_id, cancel=True)
    thread.join()
    assert [type(error) for error in ended] == [Cancelled]
    snapshot = runs.snapshot(run_id)
    assert snapshot is not None
    assert (snapshot.state, snapshot.stages[0].tasks_done) == ("cancelled", 0)
    assert not (Path(many["output"]["path"]) / "_run" / "lock").exists()


def test_steps_come_in_order(many: Document) -> None:
    steps: list[str] = []
    manifest = run_in_process(many, before={step: lambda step=step: steps.append(step) for step in STEPS})
    assert steps == list(STEPS)
    assert manifest.fingerprint == make_plan(many).fingerprint


def test_what_needs_no_cluster_is_refused_before_one_starts(many: Document, job: Document) -> None:
    """Many files or few: a dataset that is there, a run that holds the folder, a mistake in the job."""
    for document in (many, job):
        run_in_process(document)
        with pytest.raises(JobError, match="holds a dataset already"):
            run_in_process(document, before={"start": refuse})
        with lock(open_store(document["output"]["path"])), pytest.raises(OutputError, match="Another run is writing"):
            run_in_process(document, overwrite=True, before={"start": refuse})
        wrong = {**document, "features": [{"columns": ["nonsense"]}]}
        with pytest.raises(JobError, match="nonsense"):
            run_in_process(wrong, overwrite=True, before={"start": refuse})
    assert run_in_process(job, resume=True, before={"start": refuse}).fingerprint == make_plan(job).fingerprint
