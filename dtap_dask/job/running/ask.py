"""The commands about runs of other processes: `jobs`, `status`, `logs`, `wait`, `cancel`."""

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
from dtap_dask.job.running.submit import cancel, running_client
from dtap_dask.job.status.follow import follow as follow_run
from dtap_dask.job.status.hints import run_command
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.job.status.snapshot import Note
from dtap_dask.job.status.sources import FolderSource, SchedulerSource, StatusSource, is_path
from dtap_dask.job.status.text import print_runs, stamped, status_lines
from dtap_dask.storage import Store, open_store
from dtap_dask.words import visible

SchedulerFields = Mapping[str, Any]  # the fields of ClusterOptions that name a scheduler

PATIENCE_SECONDS = 30.0  # until a run that was just started or submitted has workers, and writes to its folder


@contextmanager
def _source(target: str, where: SchedulerFields, *, wait: bool = False) -> Iterator[StatusSource]:
    """Where the status of a run is read; with `wait` the run may be about to start."""
    if is_path(target):
        yield _folder(open_store(target, taps.settings()), PATIENCE_SECONDS if wait else 0.0)
        return
    with running_client(ClusterOptions(**where)) as client:
        yield SchedulerSource(SchedulerStore(client), target)


def _folder(store: Store, patience: float) -> FolderSource:
    end, announced = time.monotonic() + patience, False
    while True:
        try:
            return FolderSource(store)
        except OutputError:
            if time.monotonic() >= end:
                raise
        if not announced:
            say(f"There is no status of a run in {visible(store.url)} yet. Waiting for one for {patience:.0f} s.")
            announced = True
        time.sleep(0.5)


def print_jobs(where: SchedulerFields, *, as_json: bool) -> None:
    """Print the runs that a scheduler knows, the latest first."""
    with running_client(ClusterOptions(**where)) as client:
        scheduler = SchedulerStore(client)
        runs = [SchedulerSource(scheduler, run).read() for run in scheduler.snapshots()]
    runs.sort(key=lambda run: -run.snapshot.started)
    if as_json:
        print(json.dumps([run.to_json() for run in runs]))
    elif runs:
        print_runs([run.snapshot for run in runs])
    else:
        print(f"The scheduler {scheduler.address} knows no runs.")


def print_status(target: str, where: SchedulerFields, *, as_json: bool) -> None:
    """Print the status of a run."""
    with _source(target, where) as source:
        status = source.read()
    if as_json:
        print(json.dumps(status.to_json()))
        return
    for line in status_lines(status):
        print(visible(line))


def print_logs(target: str, where: SchedulerFields, *, follow: bool, as_json: bool) -> None:
    """Print what a run has said; with `follow`, until it has ended in whatever way."""
    with _source(target, where, wait=follow) as source:
        if follow:
            error = follow_run(source, "json" if as_json else "auto", whole=True, out=sys.stdout).error
            if error is not None:
                print(json.dumps({"event": "ended", "text": str(error)}) if as_json else str(error))
            return
        status = source.read()  # first, as it raises where there is no such run
        notes = source.notes()
    if status.error is not None:
        notes.append(Note(len(notes), status.snapshot.updated, str(status.error)))
    for note in notes:
        print(json.dumps({"time": note.time, "text": note.text}) if as_json else visible(stamped(note)))


def wait_for(target: str, where: SchedulerFields, *, as_json: bool) -> None:
    """Show a run until it has ended; raises the error by which it ended."""
    with _source(target, where, wait=True) as source:
        error = follow_run(source, "json" if as_json else "auto").error
    if error is not None:
        raise error


def cancel_run(run: str, where: SchedulerFields, *, as_json: bool) -> None:
    """Have a run stop."""
    with running_client(ClusterOptions(**where)) as client:
        cancel(client, run, where)
    text = f"{run} will stop: `{run_command('wait', run, where)}` waits for that. `--resume` continues it."
    print(json.dumps({"id": run, "cancelled": True}) if as_json else text)
