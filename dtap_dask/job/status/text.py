"""Runs as text for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from dtap_dask.job.status.comparison import comparison_lines
from dtap_dask.job.status.snapshot import Note, Snapshot, Stage
from dtap_dask.job.status.sources import RunStatus
from dtap_dask.words import count, duration, human, visible


def status_lines(status: RunStatus) -> Iterator[str]:
    """The state of a run, its stages, warnings and last note."""
    run = status.snapshot
    until = time.time() if not status.over else run.updated
    yield f"{run.id}  {run.state}  {duration(until - run.started)}"
    yield f"  output   {run.output}"
    for stage in run.stages:
        yield f"  {stage.name:<8} {_progress(stage)}"
    if run_line(run):
        yield f"  run      {run_line(run)}"
    for line in comparison_lines(status.comparisons):
        yield f"           {line}"
    for warning in run.warnings:
        yield f"  warning  {warning}"
    if run.note:
        yield f"  last     {run.note}"
    if status.remark:
        yield f"  note     {status.remark}"


def _progress(stage: Stage) -> str:
    if not stage.begun:
        return f"{count(stage.tasks, 'task')}, {count(stage.rows, 'row')}, {human(stage.bytes)} to come"
    done = f"{stage.tasks_done:,} of {count(stage.tasks, 'task')}, {counts(stage)}"
    if stage.ended:
        return f"{done}, took {stage.seconds:,.1f} s"
    return done if stage.seconds_left is None else f"{done}, {duration(stage.seconds_left)} left"


def counts(stage: Stage, between: str = ", ") -> str:
    """Rows, bytes and rows a second of a stage so far."""
    rate = f"{stage.rows_per_second:,.0f} rows/s"
    return between.join([count(stage.rows_done, "row"), human(stage.bytes_done), rate])


def run_line(snapshot: Snapshot) -> str:
    """What concerns a whole run, in a line: its workers, shards and bytes."""
    lost, retries = snapshot.lost_workers, snapshot.retries
    words = ["waiting for workers"] if snapshot.state == "waiting" else []
    if snapshot.state == "running" and snapshot.starting and not snapshot.workers:
        words.append(f"starting {count(snapshot.starting, 'worker')}")
    words += [count(snapshot.workers, "worker")] if snapshot.workers and not words else []
    words += [f"{lost:,} lost"] if lost else []
    words += [f"{count(retries, 'task')} restarted"] if retries else []
    if snapshot.shards_planned is not None:
        words.append(f"{snapshot.shards_committed:,} of {count(snapshot.shards_planned, 'shard')}")
    words += [f"{human(snapshot.bytes_read)} read"] if snapshot.bytes_read else []
    words += [f"{human(snapshot.bytes_written)} written"] if snapshot.bytes_written else []
    return "  ".join(words)


def print_runs(runs: Sequence[Snapshot]) -> None:
    """A table of runs."""
    table = Table("id", "state", "started", "stage", "shards", "output", box=None, header_style="bold", pad_edge=False)
    for run in runs:
        stage = f"{run.begun[-1].name} {run.begun[-1].tasks_done}/{run.begun[-1].tasks}" if run.begun else ""
        shards = f"{run.shards_committed}/{run.shards_planned}" if run.shards_planned is not None else ""
        cells = (run.id, run.state, moment(run.started), stage, shards, run.output)
        table.add_row(*(visible(cell, keep="") for cell in cells))
    console = Console(width=10_000, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(table)


def stamped(note: Note) -> str:
    """A note with its date and time."""
    return f"{moment(note.time)}  {note.text}"


def moment(seconds: float) -> str:
    """A time as seconds since 1970: 2026-11-28 01:58:31, local."""
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
