"""How a run goes, read where it tells of itself: on the scheduler, or in its output folder."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from distributed import KilledWorker

from dtap_dask.errors import DtapError, InterruptedRun, JobError, OutputError, did_you_mean
from dtap_dask.job.status.comparison import Comparison, read_comparison
from dtap_dask.job.status.folder import read_notes, read_run, read_runs
from dtap_dask.job.status.hints import quoted
from dtap_dask.job.status.reporter import Cancelled
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import ENDED, Note, Snapshot
from dtap_dask.records.folder import MANIFEST, RUNS
from dtap_dask.records.lock import left_behind
from dtap_dask.storage import Store

# A run speaks every second or two to the scheduler, every five to its folder; a store may be slow.
SILENT_SECONDS = 20.0


@dataclass(frozen=True)
class RunStatus:
    """A run as it is now. `remark` says what it cannot say itself, such as that its process is gone.

    `gone` is True where nothing more will come of it. `compared` is its forecast against what came of it, where it has
    ended and its folder is at hand.
    """

    snapshot: Snapshot
    remark: str = ""
    gone: bool = False
    compared: Sequence[Comparison] = ()

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.gone or self.snapshot.state in ENDED

    @property
    def error(self) -> DtapError | None:
        """What `run` would have raised where the run has not ended well; None where it has, or goes on."""
        state, note = self.snapshot.state, self.snapshot.note
        if self.gone and state not in ENDED:
            return InterruptedRun(self.remark)
        if state not in ENDED or state == "done":
            return None
        kinds: dict[str, type[DtapError]] = {"cancelled": Cancelled, "interrupted": InterruptedRun}
        return kinds.get(state, JobError if self.snapshot.exit_code == JobError.exit_code else DtapError)(note)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        compared = [asdict(one) for one in self.compared]
        return {**self.snapshot.to_json(), "remark": self.remark, "gone": self.gone, "forecast": compared}


class StatusSource(Protocol):
    """Where a run tells of itself. `seconds` is a good pause between two looks."""

    seconds: float

    def look(self) -> RunStatus:
        """The run as it is now."""

    def notes(self) -> list[Note]:
        """What the run has said so far."""


class SchedulerSource:
    """A run as the scheduler knows it."""

    seconds = 0.5

    def __init__(self, board: SchedulerStore, run: str):
        self._board, self._run = board, run

    def look(self) -> RunStatus:
        """The run as it is now. JobError where the scheduler knows no such run."""
        snapshot = self._board.snapshot(self._run)
        if snapshot is None:
            known = sorted(self._board.snapshots())
            raise JobError(
                f"The scheduler {self._board.address} knows no run {self._run}.{did_you_mean(self._run, known)} It "
                "forgets them when it is started again; the output folder does not: ask by that path, instead of the "
                "id."
            )
        if snapshot.state in ENDED:
            return RunStatus(snapshot)
        driver = self._board.orders(self._run).get("driver")
        return self._driven(snapshot, driver) if driver else RunStatus(snapshot, _silence(snapshot))

    def _driven(self, snapshot: Snapshot, driver: str) -> RunStatus:
        """A run whose driver is a task: the scheduler knows whether it lives."""
        state = self._board.task_state(driver)
        if state in ("no-worker", "queued", "waiting", "released"):
            return RunStatus(replace(snapshot, state="waiting", note="Its driver waits for a worker."))
        if state == "processing":
            return RunStatus(snapshot, _silence(snapshot))
        again = self._board.snapshot(self._run)
        if again is not None and again.state in ENDED:  # it has ended between two questions
            return RunStatus(again)
        ended = replace(snapshot, state="interrupted", exit_code=4, note=self._why(driver, state))
        return RunStatus(ended, gone=True)

    def _why(self, driver: str, state: str | None) -> str:
        goes_on = "What is written stays: go on with --resume (in Python resume=True)."
        if state != "erred":
            return f"The scheduler has lost its driver. {goes_on}"
        error = self._board.task_error(driver)
        if isinstance(error, KilledWorker):
            times = error.allowed_failures + 1
            return f"The worker that carried its driver died {times} times, which Dask takes for its fault. {goes_on}"
        return f"Its driver failed: {type(error).__name__}: {error}. Do the workers run the same software as you?"

    def notes(self) -> list[Note]:
        """What the run has said so far."""
        return self._board.notes(self._run)


class FolderSource:
    """A run as its output folder knows it; `run` None is the last that was begun."""

    seconds = 2.0

    def __init__(self, store: Store, run: str | None = None):
        self._store = store
        self._run = run or self._last()

    def _last(self) -> str:
        told = read_runs(self._store)
        if told:
            return told[-1].id
        if self._store.is_file(MANIFEST):
            why = f"It holds a dataset all the same: `dtap-dask show {quoted(self._store.url)}` shows it"
        else:
            why = (
                "A run does so once it has workers; one that failed before that said why where it was started. Or the "
                "path is another"
            )
        raise OutputError(f"No run has told of itself in {self._store.url}. {why}.")

    def look(self) -> RunStatus:
        """The run as it is now, or was when last heard of."""
        snapshot = read_run(self._store, self._run)
        if snapshot is None:
            raise OutputError(f"{self._store.url} knows no run {self._run} any more: it keeps the last ones only.")
        if snapshot.state in ENDED:
            return RunStatus(snapshot, compared=read_comparison(self._store, self._run))
        if not left_behind(self._store, self._run):
            return RunStatus(snapshot, _silence(snapshot))
        again = read_run(self._store, self._run)  # it may have ended between the two
        if again is not None and again.state in ENDED:
            return RunStatus(again)
        goes_on = "What is written stays: go on with --resume (in Python resume=True)."
        return RunStatus(snapshot, f"{_heard(snapshot)}; its process is gone. {goes_on}", gone=True)

    def notes(self) -> list[Note]:
        """What the run has said so far."""
        return read_notes(self._store, self._run)


def _heard(snapshot: Snapshot) -> str:
    return f"{snapshot.state.capitalize()} when last heard of, {max(0, time.time() - snapshot.told):,.0f} s ago"


def _silence(snapshot: Snapshot) -> str:
    return f"{_heard(snapshot)}." if time.time() - snapshot.told > SILENT_SECONDS else ""


def is_path(target: str) -> bool:
    """Whether a command's argument is an output's path or URL, not an id."""
    return not re.fullmatch(r"[a-z0-9-]+-[0-9a-f]{6}", target) or Path(target, RUNS).is_dir()
