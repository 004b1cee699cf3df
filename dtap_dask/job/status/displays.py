"""Displays of a run's progress: bars in a terminal or a notebook, plain lines for logs, JSON lines for programs.

A display is given snapshots, one after another, and shows how each differs from the one before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO, cast

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from dtap_dask.job.console import BestEffortStream
from dtap_dask.job.status.notebook import NotebookBars, in_notebook
from dtap_dask.job.status.snapshot import Snapshot, Stage
from dtap_dask.job.status.text import counts, run_line
from dtap_dask.words import count, duration, human, visible

PLAIN_SECONDS = 10.0


class Display(Protocol):
    """Shows a run, given one snapshot of it after another."""

    def show(self, snapshot: Snapshot, notes: Sequence[str] = (), result: Mapping[str, Any] | None = None) -> None:
        """Show what the run has said since the last call, then its state; `result` is given once it has succeeded."""


class Silent:
    """Shows nothing."""

    def show(self, snapshot: Snapshot, notes: Sequence[str] = (), result: Mapping[str, Any] | None = None) -> None:
        """Nothing."""


def changes(before: Sequence[Stage], now: Sequence[Stage]) -> Iterator[tuple[str, Stage]]:
    """How stages have changed since they were as `before`: 'begin', 'progress' and 'end', each with its stage.

    A stage with fewer tasks done than before has restarted, in another attempt of the run.
    """
    shown = {stage.name: stage for stage in before}
    for stage in now:
        known = shown.get(stage.name)
        if known is None or stage.tasks_done < known.tasks_done:
            known = None
            yield "begin", stage
        if stage.tasks_done > (known.tasks_done if known else 0):
            yield "progress", stage
        if stage.ended and not (known and known.ended):
            yield "end", stage


class Plain:
    """A line at the start and end of each stage and every ten seconds between, for logs."""

    def __init__(self, out: TextIO):
        self._out = out
        self._stages: Sequence[Stage] = ()
        self._printed = 0.0  # when the last line of a stage was, by time.monotonic()

    def show(self, snapshot: Snapshot, notes: Sequence[str] = (), result: Mapping[str, Any] | None = None) -> None:
        """Print the notes and a line for each change."""
        for text in notes:
            self._print(visible(text))
        for change, stage in changes(self._stages, snapshot.begun):
            if change != "progress" or time.monotonic() - self._printed >= PLAIN_SECONDS:
                self._print(f"{stage.name}: {self._line(change, stage)}")
                self._printed = time.monotonic()
        self._stages = snapshot.begun

    @staticmethod
    def _line(change: str, stage: Stage) -> str:
        if change == "begin":
            return f"{count(stage.tasks, 'task')}, {count(stage.rows, 'row')}, {human(stage.bytes)}"
        if change == "end":
            return f"done in {stage.seconds:.1f} s, {counts(stage)}"
        left = duration(stage.seconds_left or 0.0)
        return f"{stage.tasks_done:,} of {count(stage.tasks, 'task')}, {counts(stage)}, {left} left"

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class JsonLines:
    """One JSON object a line: `{"event": "progress", "stage": ..., "tasks_done": ..., ...}`; the last is `done`."""

    def __init__(self, out: TextIO):
        self._out = out
        self._stages: Sequence[Stage] = ()

    def show(self, snapshot: Snapshot, notes: Sequence[str] = (), result: Mapping[str, Any] | None = None) -> None:
        """Print events: `note`, `begin`, `progress`, `end` and `done`."""
        for text in notes:
            self._emit("note", text=text)
        for change, stage in changes(self._stages, snapshot.begun):
            self._emit(change, stage=stage.name, **self._values(change, stage))
        self._stages = snapshot.begun
        if result is not None:
            self._emit("done", **result)

    @staticmethod
    def _values(change: str, stage: Stage) -> dict[str, float]:
        if change == "begin":
            return {"tasks": stage.tasks, "rows": stage.rows, "bytes": stage.bytes}
        done = {"rows": stage.rows_done, "bytes": stage.bytes_done}
        if change == "end":
            return {"seconds": stage.seconds, **done}
        return {"tasks_done": stage.tasks_done, "tasks": stage.tasks, **done}

    def _emit(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), file=self._out, flush=True)


class _Screen(Progress):
    """Bars, and a line below them."""

    line = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """What is drawn, from the top."""
        yield from super().get_renderables()
        if self.line:
            yield Text(self.line, style="dim")


class Bars:
    """One bar a stage, with rows, bytes and the time left; notes above them, what concerns the whole run below."""

    def __init__(self, screen: _Screen):
        self._screen = screen
        self._bars: dict[str, TaskID] = {}  # by the stage's name

    def show(self, snapshot: Snapshot, notes: Sequence[str] = (), result: Mapping[str, Any] | None = None) -> None:
        """Print the notes, move the bars, change the line."""
        for text in notes:
            self._screen.console.print(visible(text), highlight=False, soft_wrap=True, markup=False, emoji=False)
        for stage in snapshot.begun:
            if stage.name not in self._bars:
                self._bars[stage.name] = self._screen.add_task(stage.name, total=stage.tasks, counts="")
            done = stage.tasks if stage.ended else stage.tasks_done
            shown = counts(stage, "  ") if stage.tasks_done else ""
            self._screen.update(self._bars[stage.name], total=stage.tasks, completed=done, counts=shown)
        self._screen.line = run_line(snapshot)


@contextmanager
def open_display(kind: str, out: TextIO | None = None) -> Iterator[Display]:
    """A display: 'bars', 'plain', 'json', 'silent', 'notebook' or 'auto'.

    'auto' is bars in a terminal and in a notebook, and plain lines elsewhere. Without `out` it writes to standard
    error, JSON to standard output; what cannot be written there is lost.
    """
    if kind == "notebook" or (kind == "auto" and out is None and in_notebook()):
        with NotebookBars() as display:
            yield display
        return
    out = out or cast("TextIO", BestEffortStream(sys.stdout if kind == "json" else sys.stderr))
    if kind == "bars" or (kind == "auto" and out.isatty()):
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(),
        )
        with _Screen(*columns, console=Console(file=out)) as screen:
            yield Bars(screen)
    elif kind == "silent":
        yield Silent()
    else:
        yield JsonLines(out) if kind == "json" else Plain(out)
