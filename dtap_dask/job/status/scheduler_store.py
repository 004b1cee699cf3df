"""What the scheduler keeps of runs, in its metadata: their last snapshots and notes, and the orders given to them.

Everybody who reaches the scheduler reads it. It goes when the scheduler does; what must outlive that lies in the
output folder (see `telling`).
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
_ORDERS = f"{TOPIC}-orders"  # id -> {"driver": the driver's key, "attempt": its last attempt, "cancel": true}


class SchedulerStore:
    """The scheduler of a client, as runs and those who ask for them use it."""

    def __init__(self, client: Client):
        self._client = client
        self.address = str(client.scheduler.address) if client.scheduler else ""  # for messages, when it is closed too
        self._noted: dict[str, int] = {}

    def publish(self, snapshot: Snapshot, notes: Sequence[Note]) -> None:
        """Keep a run's state and what it has said since the last call; those who listen to events get it too."""
        self._client.log_event(TOPIC, snapshot.to_json())
        self._client.set_metadata([_RUNS, snapshot.id], snapshot.to_json())
        fresh = [note for note in notes if note.number >= self._noted.get(snapshot.id, 0)]
        for note in fresh:
            self._client.set_metadata([_NOTES, snapshot.id, str(note.number)], [note.time, note.text])
            self._noted[snapshot.id] = note.number + 1

    def snapshots(self) -> dict[str, Snapshot]:
        """The last snapshot of every run, by its id."""
        return {run: Snapshot.from_json(one) for run, one in self._get(_RUNS).items()}

    def snapshot(self, run: str) -> Snapshot | None:
        """The last snapshot of one run; None where the scheduler knows no such run."""
        found = self._get(_RUNS, run)
        return Snapshot.from_json(found) if found else None

    def notes(self, run: str) -> list[Note]:
        """What a run has said, in order."""
        return sorted(Note(int(number), *said) for number, said in self._get(_NOTES, run).items())

    def order(self, run: str, **orders: Any) -> None:
        """Give a run orders, beside those that it has."""
        with _reaching(self._client):
            for name, value in orders.items():
                self._client.set_metadata([_ORDERS, run, name], value)

    def orders(self, run: str) -> Mapping[str, Any]:
        """The orders that a run has been given."""
        return self._get(_ORDERS, run)

    def task_state(self, key: str) -> str | None:
        """The state of a task on the scheduler; None where it knows none of that key."""
        with _reaching(self._client):
            found = self._client.sync(self._client.scheduler.get_task_status, keys=[key])
        return found.get(key) and str(found[key])

    def task_error(self, key: str) -> BaseException | None:
        """What a task that failed died of."""
        with _reaching(self._client):
            error: BaseException | None = Future(key, client=self._client).exception(timeout=10)
        return error

    def _get(self, *keys: str) -> Mapping[str, Any]:
        with _reaching(self._client):
            found: Mapping[str, Any] | None = self._client.get_metadata(list(keys), None)
        return found or {}


@contextmanager
def _reaching(client: Client) -> Iterator[None]:
    try:
        yield
    except (OSError, TimeoutError, RuntimeError) as error:
        raise InterruptedRun(
            f"The Dask scheduler {client.scheduler.address if client.scheduler else ''} answers no more "
            f"({type(error).__name__}: {error}). What the run had told before lies in its output folder: ask by that "
            "path, instead of the id."
        ) from error
