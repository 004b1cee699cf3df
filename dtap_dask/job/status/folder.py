"""A run's state as its output folder keeps it, for those who ask when the run or its scheduler is gone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from dtap_dask.errors import OutputError
from dtap_dask.job.status.snapshot import Note, Snapshot
from dtap_dask.records.folder import STATUS, STATUS_FILE, status_path
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.parse import parse_json

FILES_SECONDS = 5.0  # between two status files: a store may take half a second to write one
RUNS_KEPT = 5


class StatusWriter:
    """Keeps the last state of a run, and its notes, in the output folder.

    The last five runs are kept; with 500 notes each at most that is a few hundred KB.
    """

    def __init__(self, store: Store):
        self._address, self._settings = store.address, store.settings
        self._noted = -1
        self._store: Store | None = None

    def __call__(self, snapshot: Snapshot, notes: Sequence[Note]) -> None:
        """Write what is new. Runs in a thread of its own, so with a store of its own."""
        first = self._store is None
        store = self._store = self._store or open_store(self._address, self._settings)
        files = {status_path(snapshot.id, "json"): json.dumps(snapshot.to_json()).encode()}
        if notes and notes[-1].number != self._noted:
            lines = [json.dumps({"number": one.number, "time": one.time, "text": one.text}) for one in notes]
            files[status_path(snapshot.id, "log")] = "".join(f"{line}\n" for line in lines).encode()
            self._noted = notes[-1].number
        store.write_all(files)
        if first:
            _sweep(store, snapshot.id)


def _sweep(store: Store, run: str) -> None:
    """Remove what is left of all but the last runs; files of other names are somebody else's."""
    told = [one for one in read_runs(store) if one.id != run]
    kept = {run, *(one.id for one in sorted(told, key=lambda one: one.started)[-(RUNS_KEPT - 1) :])}
    for file in store.list_files(STATUS, follow=False):
        own = STATUS_FILE.fullmatch(file.path)
        if own and (own["run"] not in kept or own["draft"]):
            store.delete(file.path)


def read_runs(store: Store) -> list[Snapshot]:
    """The last state of every run that the folder knows, in the order in which they were begun."""
    found = list[Snapshot]()
    for file in store.list_files(STATUS, follow=False):
        own = STATUS_FILE.fullmatch(file.path)
        if own and own["kind"] == "json" and not own["draft"]:
            with contextlib.suppress(OutputError):  # damaged: `read_run` says so to whoever asks for it
                found.extend(filter(None, [read_run(store, own["run"])]))
    return sorted(found, key=lambda one: (one.started, one.id))


def read_run(store: Store, run: str) -> Snapshot | None:
    """The last state of one run; None where the folder does not know it. OutputError where the file was damaged."""
    path = status_path(run, "json")
    try:
        return Snapshot.from_json(parse_json(store.read_bytes(path)))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(store, path) from error


def read_notes(store: Store, run: str) -> list[Note]:
    """What a run has said, in order, as far as the folder keeps it. OutputError where the file was damaged."""
    path = status_path(run, "log")
    try:
        lines = store.read_bytes(path).decode().splitlines()
        return [Note(**parse_json(line.encode())) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise _damaged(store, path) from error


def _damaged(store: Store, path: str) -> OutputError:
    return OutputError(
        f"{store.url}/{path} was damaged. It only says how a run went, and no other file depends on it: delete it."
    )
