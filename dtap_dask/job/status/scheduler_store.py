"""What the scheduler's metadata holds about runs: last snapshots, notes, and instructions to their drivers.

Everybody who reaches the scheduler can read it. It is lost with the scheduler; status files in the output folder are
not (see `folder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from distributed import Client, Future

from dtap_dask.errors import InterruptedRun
from dtap_dask.job.status.snapshot import TOPIC, Note, Snapshot

_RUNS = f"{TOPIC}-runs"  # id -> snapshot
_NOTES = f"{TOPIC}-notes"  # id -> {number: [time, text]}
_INSTRUCTIONS = f"{TOPIC}-instructions"  # id -> {"driver": its key, "attempt": its last attempt, "cancel": true}


class SchedulerStore:
    """Reads and writes what a client's scheduler holds about runs. InterruptedRun where it does not answer."""

    def __init__(self, client: Client):
        self._client = client
        self.address = str(client.scheduler.address) if client.scheduler else ""  # for messages, also once it is closed
        self._next_note: dict[str, int] = {}

    def publish(self, snapshot: Snapshot, notes: Sequence[Note]) -> None:
        """Keep a run's state and the notes since the last call; subscribers to Dask's events get the state, too."""
        self._client.log_event(TOPIC, snapshot.to_json())
        self._client.set_metadata([_RUNS, snapshot.id], snapshot.to_json())
        for note in notes:
            if note.number >= self._next_note.get(snapshot.id, 0):
                self._client.set_metadata([_NOTES, snapshot.id, str(note.number)], [note.time, note.text])
                self._next_note[snapshot.id] = note.number + 1

    def snapshots(self) -> dict[str, Snapshot]:
        """The last snapshot of every run, by its id."""
        return {run: Snapshot.from_json(values) for run, values in self._get(_RUNS).items()}

    def snapshot(self, run: str) -> Snapshot | None:
        """The last snapshot of one run; None where the scheduler has none."""
        values = self._get(_RUNS, run)
        return Snapshot.from_json(values) if values else None

    def notes(self, run: str) -> list[Note]:
        """The notes of a run, in order."""
        return sorted(Note(int(number), *values) for number, values in self._get(_NOTES, run).items())

    def instruct(self, run: str, **instructions: Any) -> None:
        """Add instructions to those that a run has."""
        with _reaching(self._client):
            for name, value in instructions.items():
                self._client.set_metadata([_INSTRUCTIONS, run, name], value)

    def instructions(self, run: str) -> Mapping[str, Any]:
        """The instructions to a run."""
        return self._get(_INSTRUCTIONS, run)

    def task_state(self, key: str) -> str | None:
        """The state of a task; None where the scheduler has none of that key."""
        with _reaching(self._client):
            found = self._client.sync(self._client.scheduler.get_task_status, keys=[key])
        return found.get(key) and str(found[key])

    def task_error(self, key: str) -> BaseException | None:
        """The error of a failed task."""
        with _reaching(self._client):
            error: BaseException | None = Future(key, client=self._client).exception(timeout=10)
        return error

    def _get(self, *keys: str) -> Mapping[str, Any]:
        with _reaching(self._client):
            found: Mapping[str, Any] | None = self._client.get_metadata(list(keys), None)
        return found or {}


def losses(event: Any, run: str) -> dict[str, int]:
    """What an event of the scheduler's topic "all" adds to a run's `lost_workers` and `retries`; mostly nothing.

    When a worker goes, Dask lists once the tasks and the only copies of results that it takes along: they run again. A
    worker that was asked to close is not lost. A task's key holds the id of its run.
    """
    if not isinstance(event, Mapping) or event.get("action") != "remove-worker":
        return {}
    again = [str(key) for name in ("processing-tasks", "lost-computed-tasks") for key in event.get(name, ())]
    return {"lost_workers": int(not event.get("expected")), "retries": sum(run in key for key in again)}


@contextmanager
def _reaching(client: Client) -> Iterator[None]:
    try:
        yield
    except (OSError, TimeoutError, RuntimeError) as error:
        raise InterruptedRun(
            f"The Dask scheduler {client.scheduler.address if client.scheduler else ''} no longer answers "
            f"({type(error).__name__}: {error}). The output folder holds the run's last status: give that path instead "
            "of the id."
        ) from error
