"""The status of a run, read where the run publishes it: from the scheduler, or from its output folder."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from distributed import KilledWorker

from dtap_dask.errors import RESUMABLE, Cancelled, DtapError, InterruptedRun, JobError, OutputError, did_you_mean
from dtap_dask.job.status.comparison import ForecastComparison, read_comparisons
from dtap_dask.job.status.folder import read_notes, read_run, read_runs
from dtap_dask.job.status.hints import quoted
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import ENDED, SILENT_SECONDS, Note, Snapshot
from dtap_dask.records.folder import MANIFEST, RUNS
from dtap_dask.records.lock import has_ended
from dtap_dask.storage import Store


@dataclass(frozen=True)
class RunStatus:
    """A run as it is now. `remark` says what the run itself cannot, such as that its process is gone.

    `gone` is True where the run ended without a last snapshot. `comparisons` of a finished run's forecast with its
    outcome are there where its folder was read.
    """

    snapshot: Snapshot
    remark: str = ""
    gone: bool = False
    comparisons: Sequence[ForecastComparison] = ()

    @property
    def over(self) -> bool:
        """Whether nothing more will come of the run."""
        return self.gone or self.snapshot.state in ENDED

    @property
    def error(self) -> DtapError | None:
        """What `run` would have raised; None where the run has succeeded or is not over."""
        state, note = self.snapshot.state, self.snapshot.note
        if self.gone and state not in ENDED:
            return InterruptedRun(self.remark)
        if state not in ENDED or state == "done":
            return None
        kinds: dict[str, type[DtapError]] = {"cancelled": Cancelled, "interrupted": InterruptedRun}
        return kinds.get(state, JobError if self.snapshot.exit_code == JobError.exit_code else DtapError)(note)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        forecast = [asdict(comparison) for comparison in self.comparisons]
        return {**self.snapshot.to_json(), "remark": self.remark, "gone": self.gone, "forecast": forecast}


class StatusSource(Protocol):
    """Where the status of one run is read. `seconds` is a good pause between two reads."""

    seconds: float

    def read(self) -> RunStatus:
        """The run as it is now."""

    def notes(self) -> list[Note]:
        """What the run has said so far."""


class SchedulerSource:
    """Reads from the scheduler."""

    seconds = 0.5

    def __init__(self, scheduler: SchedulerStore, run: str):
        self._scheduler, self._run = scheduler, run

    def read(self) -> RunStatus:
        """The run as it is now. JobError where the scheduler has no such run."""
        snapshot = self._scheduler.snapshot(self._run)
        if snapshot is None:
            known = sorted(self._scheduler.snapshots())
            raise JobError(
                f"The scheduler {self._scheduler.address} has no run {self._run}.{did_you_mean(self._run, known)} A "
                "restarted scheduler has forgotten its runs; their output folders have not: give such a path instead "
                "of the id."
            )
        if snapshot.state in ENDED:
            return RunStatus(snapshot)
        driver = self._scheduler.instructions(self._run).get("driver")
        return self._driven(snapshot, driver) if driver else RunStatus(snapshot, _silence(snapshot))

    def _driven(self, snapshot: Snapshot, driver: str) -> RunStatus:
        """The status of a run whose driver is a task: the scheduler knows whether it lives."""
        state = self._scheduler.task_state(driver)
        if state in ("no-worker", "queued", "waiting", "released"):
            return RunStatus(replace(snapshot, state="waiting", note="Its driver waits for a worker."))
        if state == "processing":
            return RunStatus(snapshot, _silence(snapshot))
        later = self._scheduler.snapshot(self._run)
        if later is not None and later.state in ENDED:  # it has ended between the two reads
            return RunStatus(later)
        ended = replace(snapshot, state="interrupted", exit_code=4, note=self._cause(driver, state))
        return RunStatus(ended, gone=True)

    def _cause(self, driver: str, state: str | None) -> str:
        if state != "erred":
            return f"The scheduler has lost its driver. {RESUMABLE}"
        error = self._scheduler.task_error(driver)
        if isinstance(error, KilledWorker):
            times = error.allowed_failures + 1
            return f"{times} workers died while they ran its driver, and Dask blames the driver for it. {RESUMABLE}"
        return f"Its driver failed: {type(error).__name__}: {error}. Do the workers have the same software as you?"

    def notes(self) -> list[Note]:
        """What the run has said so far."""
        return self._scheduler.notes(self._run)


class FolderSource:
    """Reads from an output folder; without `run`, the run that was started last. OutputError where there is none."""

    seconds = 2.0

    def __init__(self, store: Store, run: str | None = None):
        self._store = store
        self._run = run or self._last()

    def _last(self) -> str:
        runs = read_runs(self._store)
        if runs:
            return runs[-1].id
        if self._store.is_file(MANIFEST):
            why = f"It holds a dataset all the same: `dtap-dask show {quoted(self._store.url)}` shows it"
        else:
            why = (
                "A run writes its status once it has workers; one that failed before gave its reason where it was "
                "started. Or the path is wrong"
            )
        raise OutputError(f"There is no status of a run in {self._store.url}. {why}.")

    def read(self) -> RunStatus:
        """The run as it is now, or as it was last published. OutputError where its status has been deleted."""
        snapshot = read_run(self._store, self._run)
        if snapshot is None:
            raise OutputError(
                f"{self._store.url} has no status of run {self._run} any more: only the last few are kept."
            )
        if snapshot.state in ENDED:
            return RunStatus(snapshot, comparisons=read_comparisons(self._store, self._run))
        if not has_ended(self._store, self._run):
            return RunStatus(snapshot, _silence(snapshot))
        later = read_run(self._store, self._run)
        if later is not None and later.state in ENDED:  # it has ended between the two reads
            return RunStatus(later)
        return RunStatus(snapshot, f"{_age(snapshot)}; its process is gone. {RESUMABLE}", gone=True)

    def notes(self) -> list[Note]:
        """The last notes of the run."""
        return read_notes(self._store, self._run)


def _age(snapshot: Snapshot) -> str:
    return f"{snapshot.state.capitalize()} when last heard from, {max(0, time.time() - snapshot.updated):,.0f} s ago"


def _silence(snapshot: Snapshot) -> str:
    return f"{_age(snapshot)}." if time.time() - snapshot.updated > SILENT_SECONDS else ""


def is_path(target: str) -> bool:
    """Whether a command's argument is an output's path or URL, not an id."""
    return not re.fullmatch(r"[a-z0-9-]+-[0-9a-f]{6}", target) or Path(target, RUNS).is_dir()
