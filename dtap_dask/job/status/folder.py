"""Status files in the output folder: they outlive the run and its scheduler."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from dtap_dask.errors import OutputError
from dtap_dask.job.status.snapshot import Note, Snapshot
from dtap_dask.records.folder import STATUS, STATUS_FILE, status_path
from dtap_dask.storage import Store, open_store
from dtap_dask.storage.safe_json import parse_json

FILES_SECONDS = 5.0  # between two status files: a store may take half a second to write one
RUNS_KEPT = 5


class StatusWriter:
    """Writes the last state of a run, and its notes, to the output folder.

    The last five runs are kept; with 500 notes each at most that is a few hundred KB.
    """

    def __init__(self, store: Store):
        self._address, self._settings = store.address, store.settings
        self._last_note = -1
        self._store: Store | None = None

    def publish(self, snapshot: Snapshot, notes: Sequence[Note]) -> None:
        """Write what is new. Runs in a thread of its own, so with a store of its own."""
        first = self._store is None
        store = self._store = self._store or open_store(self._address, self._settings)
        files = {status_path(snapshot.id, "json"): json.dumps(snapshot.to_json()).encode()}
        if notes and notes[-1].number != self._last_note:
            lines = [json.dumps({"number": note.number, "time": note.time, "text": note.text}) for note in notes]
            files[status_path(snapshot.id, "log")] = "".join(f"{line}\n" for line in lines).encode()
            self._last_note = notes[-1].number
        store.write_all(files)
        if first:
            _sweep(store, snapshot.id)


def _sweep(store: Store, run: str) -> None:
    """Delete the files of all but the last runs; files with other names are not ours."""
    others = [other.id for other in read_runs(store) if other.id != run]
    kept = {run, *others[-(RUNS_KEPT - 1) :]}
    for file in store.list_files(STATUS, follow=False):
        own = STATUS_FILE.fullmatch(file.path)
        if own and (own["run"] not in kept or own["draft"]):
            store.delete(file.path)


def read_runs(store: Store) -> list[Snapshot]:
    """The last state of every run in the folder, by their start."""
    found = list[Snapshot]()
    for file in store.list_files(STATUS, follow=False):
        own = STATUS_FILE.fullmatch(file.path)
        if own and own["kind"] == "json" and not own["draft"]:
            with contextlib.suppress(OutputError):  # damaged: reading that run itself says so
                found.extend(filter(None, [read_run(store, own["run"])]))
    return sorted(found, key=lambda run: (run.started, run.id))


def read_run(store: Store, run: str) -> Snapshot | None:
    """The last state of one run; None where the folder has none. OutputError where the file is damaged."""
    path = status_path(run, "json")
    try:
        return Snapshot.from_json(parse_json(store.read_bytes(path)))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(store, path) from error


def read_notes(store: Store, run: str) -> list[Note]:
    """The last notes of a run, in order. OutputError where the file is damaged."""
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
        f"{store.url}/{path} is damaged. It only reports on a run, and no other file depends on it: delete it."
    )
