"""The commands about runs that go on elsewhere: `jobs`, `status`, `logs`, `wait`, `cancel`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dtap_dask.job import taps
from dtap_dask.job.cluster.client import ClusterOptions
from dtap_dask.job.running.submit import asking, cancel
from dtap_dask.job.telling.follow import follow as follow_run
from dtap_dask.job.telling.follow import in_words, print_runs, stamped
from dtap_dask.job.telling.noticeboard import Noticeboard
from dtap_dask.job.telling.status import InFolder, OnScheduler, Place, is_path
from dtap_dask.storage import open_store
from dtap_dask.words import visible

Where = Mapping[str, Any]  # the fields of ClusterOptions that say which scheduler


@contextmanager
def _place(target: str, where: Where) -> Iterator[Place]:
    if is_path(target):
        yield InFolder(open_store(target, taps.settings()))
        return
    with asking(ClusterOptions(**where)) as client:
        yield OnScheduler(Noticeboard(client), target)


def print_jobs(where: Where, *, as_json: bool) -> None:
    """Print the runs that a scheduler knows, the last first."""
    with asking(ClusterOptions(**where)) as client:
        board = Noticeboard(client)
        looks = [OnScheduler(board, run).look() for run in board.snapshots()]
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
    with _place(target, where) as place:
        if follow:
            error = follow_run(place, "json" if as_json else "auto", whole=True, out=sys.stdout).error
            if error is not None:
                print(json.dumps({"event": "ended", "text": str(error)}) if as_json else str(error))
            return
        place.look()  # says so if there is no such run
        notes = place.notes()
    for note in notes:
        print(json.dumps({"time": note.time, "text": note.text}) if as_json else visible(stamped(note)))


def wait_for(target: str, where: Where, *, as_json: bool) -> None:
    """Show how a run goes until it has ended; raises what it ended by."""
    with _place(target, where) as place:
        error = follow_run(place, "json" if as_json else "auto").error
    if error is not None:
        raise error


def cancel_run(run: str, where: Where, *, as_json: bool) -> None:
    """Have a run stop."""
    with asking(ClusterOptions(**where)) as client:
        cancel(client, run)
    told = f"{run} will stop: `dtap-dask wait {run}` says when it has ended. Go on with `--resume`."
    print(json.dumps({"id": run, "cancelled": True}) if as_json else told)
