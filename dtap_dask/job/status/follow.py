"""Runs for a person who was not there: shown as `run` shows its own, listed, and told in words."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TextIO

from rich.console import Console
from rich.table import Table

from dtap_dask.job.status.comparison import comparison_lines
from dtap_dask.job.status.displays import Shown, told
from dtap_dask.job.status.reporters import reporter
from dtap_dask.job.status.snapshot import Note, Snapshot, Stage
from dtap_dask.job.status.sources import RunStatus, StatusSource
from dtap_dask.words import count, duration, human, visible


def follow(place: StatusSource, progress: str = "auto", *, whole: bool = False, out: TextIO | None = None) -> RunStatus:
    """Show how a run goes until it has ended; the last look at it.

    Of what was said before, the last is shown, or the `whole` of it. KeyboardInterrupt leaves the run alone.
    """
    with reporter(progress, out) as show:
        replay = _Replay(show, 0 if whole else max(0, len(place.notes()) - 1))
        while True:
            look = place.look()  # before the notes: so none is missed at the end
            if look.over and replay.fresh and not whole:
                show.note(f"{look.snapshot.id} had ended already, at {_moment(look.snapshot.told)}.")
            replay.show(look, place.notes())
            if look.over:
                break
            time.sleep(place.seconds)
        if look.error is None:
            show.result(look.snapshot.to_json())
    return look


class _Replay:
    """Tells a reporter what is new in each snapshot."""

    def __init__(self, show: Shown, noted: int):
        self._show, self._noted = show, noted
        self._begun: list[str] = []
        self._ended: set[str] = set()
        self._remark = ""
        self.fresh = True

    def show(self, look: RunStatus, notes: Sequence[Note]) -> None:
        """One look at the run. What is said before a stage comes before it, what is said at the end after all."""
        self.fresh = False
        if not look.over:
            self._say(notes)
        for stage in look.snapshot.stages:
            if stage.seconds and stage.name not in self._ended:
                self._stage(stage)
        self._say(notes)
        if look.remark and not self._remark and not look.gone:
            self._show.note(look.remark)
        self._remark = look.remark
        self._show.state(look.snapshot)

    def _say(self, notes: Sequence[Note]) -> None:
        for note in notes[self._noted :]:
            self._show.note(note.text)
        self._noted = max(self._noted, len(notes))

    def _stage(self, stage: Stage) -> None:
        if stage.name not in self._begun:
            self._begun.append(stage.name)
            self._show.begin(stage.name, stage.tasks, stage.rows, stage.bytes)
        self._show.catch_up(stage)
        if stage.ended:
            self._ended.add(stage.name)
            self._show.end()


def in_words(look: RunStatus) -> Iterator[str]:
    """A run as lines for a person."""
    run = look.snapshot
    until = time.time() if not look.over else run.told
    yield f"{run.id}  {run.state}  {duration(until - run.started)}"
    yield f"  output   {run.output}"
    for stage in run.stages:
        yield f"  {stage.name:<8} {_progress(stage)}"
    if told(run):
        yield f"  run      {told(run)}"
    for line in comparison_lines(look.compared) if look.compared else ():
        yield f"           {line}"
    for warning in run.warnings:
        yield f"  warning  {warning}"
    if run.note:
        yield f"  last     {run.note}"
    if look.remark:
        yield f"  note     {look.remark}"


def _progress(stage: Stage) -> str:
    done = f"{stage.tasks_done:,} of {count(stage.tasks, 'task')}"
    counted = f"{done}, {count(stage.rows_done, 'row')}, {human(stage.bytes_done)}"
    if not stage.seconds:
        return f"{count(stage.tasks, 'task')}, {count(stage.rows, 'row')}, {human(stage.bytes)} to come"
    if stage.ended:
        return f"{counted} in {stage.seconds:,.1f} s, {stage.rows_per_second:,.0f} rows/s"
    left = f", {duration(stage.seconds_left)} left" if stage.seconds_left is not None else ""
    return f"{counted}, {stage.rows_per_second:,.0f} rows/s{left}"


def print_runs(runs: Sequence[Snapshot]) -> None:
    """A table of runs."""
    table = Table("id", "state", "started", "stage", "shards", "output", box=None, header_style="bold", pad_edge=False)
    for run in runs:
        begun = [stage for stage in run.stages if stage.seconds]
        stage = f"{begun[-1].name} {begun[-1].tasks_done}/{begun[-1].tasks}" if begun else ""
        shards = f"{run.shards_committed}/{run.shards_planned}" if run.shards_planned is not None else ""
        started = _moment(run.started)
        cells = (run.id, run.state, started, stage, shards, run.output)
        table.add_row(*(visible(cell, keep="") for cell in cells))
    console = Console(width=10_000, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(table)


def stamped(note: Note) -> str:
    """A note with its time of day."""
    return f"{_moment(note.time)}  {note.text}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
