"""The commands about runs that go on elsewhere: `jobs`, `status`, `logs`, `wait`, `cancel`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dtap_dask.errors import OutputError
from dtap_dask.job import taps
from dtap_dask.job.cluster.client import ClusterOptions
from dtap_dask.job.console import say
from dtap_dask.job.running.submit import asking, cancel
from dtap_dask.job.status.follow import follow as follow_run
from dtap_dask.job.status.follow import in_words, print_runs, stamped
from dtap_dask.job.status.hints import of_run
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import Note
from dtap_dask.job.status.sources import FolderSource, SchedulerSource, StatusSource, is_path
from dtap_dask.storage import Store, open_store
from dtap_dask.words import visible

Where = Mapping[str, Any]  # the fields of ClusterOptions that say which scheduler


PATIENCE_SECONDS = 30.0  # in which a run that was just started or submitted gets workers, and writes to its folder


@contextmanager
def _place(target: str, where: Where, *, patient: bool = False) -> Iterator[StatusSource]:
    """Where a run tells of itself; one who is `patient` may come a little before the run."""
    if is_path(target):
        yield _folder(open_store(target, taps.settings()), PATIENCE_SECONDS if patient else 0.0)
        return
    with asking(ClusterOptions(**where)) as client:
        yield SchedulerSource(SchedulerStore(client), target)


def _folder(store: Store, patience: float) -> FolderSource:
    end, told = time.monotonic() + patience, False
    while True:
        try:
            return FolderSource(store)
        except OutputError:
            if time.monotonic() >= end:
                raise
        if not told:
            say(f"No run has told of itself in {visible(store.url)} yet. Waiting for one for {patience:.0f} s.")
            told = True
        time.sleep(0.5)


def print_jobs(where: Where, *, as_json: bool) -> None:
    """Print the runs that a scheduler knows, the last first."""
    with asking(ClusterOptions(**where)) as client:
        board = SchedulerStore(client)
        looks = [SchedulerSource(board, run).look() for run in board.snapshots()]
    looks.sort(key=lambda look: -look.snapshot.started)
    if as_json:
        print(json.dumps([look.to_json() for look in looks]))
    elif looks:
        print_runs([look.snapshot for look in looks])
    else:
        print(f"The scheduler {board.address} knows no runs.")


def print_status(target: str, where: Where, *, as_json: bool) -> None:
    """Print how a run goes."""
    with _place(target, where) as place:
        look = place.look()
    if as_json:
        print(json.dumps(look.to_json()))
        return
    for line in in_words(look):
        print(visible(line))


def print_logs(target: str, where: Where, *, follow: bool, as_json: bool) -> None:
    """Print what a run has said; with `follow`, until it has ended, however that is."""
    with _place(target, where, patient=follow) as place:
        if follow:
            error = follow_run(place, "json" if as_json else "auto", whole=True, out=sys.stdout).error
            if error is not None:
                print(json.dumps({"event": "ended", "text": str(error)}) if as_json else str(error))
            return
        look = place.look()  # says so if there is no such run
        notes = place.notes()
    if look.error is not None:
        notes.append(Note(len(notes), look.snapshot.told, str(look.error)))
    for note in notes:
        print(json.dumps({"time": note.time, "text": note.text}) if as_json else visible(stamped(note)))


def wait_for(target: str, where: Where, *, as_json: bool) -> None:
    """Show how a run goes until it has ended; raises what it ended by."""
    with _place(target, where, patient=True) as place:
        error = follow_run(place, "json" if as_json else "auto").error
    if error is not None:
        raise error


def cancel_run(run: str, where: Where, *, as_json: bool) -> None:
    """Have a run stop."""
    with asking(ClusterOptions(**where)) as client:
        cancel(client, run, where)
    told = f"{run} will stop: `{of_run('wait', run, where)}` says when it has ended. `--resume` goes on with it."
    print(json.dumps({"id": run, "cancelled": True}) if as_json else told)
