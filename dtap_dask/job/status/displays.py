"""What a run tells while it goes on: bars in a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Protocol, TextIO, TypeVar

from rich.console import RenderableType
from rich.progress import Progress, TaskID
from rich.text import Text

from dtap_dask.job.status.snapshot import Snapshot, Stage
from dtap_dask.words import count, human, visible

PLAIN_SECONDS = 10.0
T = TypeVar("T")


class Redact(Protocol):
    """Takes secrets out of a text, or out of the texts in a list or mapping."""

    def __call__(self, told: T, /) -> T:
        """The same without secrets."""


def as_it_is(told: T) -> T:
    """For what holds no secrets."""
    return told


class Reporter(Protocol):
    """Takes the events of a run. `advance` counts source rows and bytes of one finished task."""

    def note(self, text: str) -> None:
        """Tell one fact, such as the dashboard's address."""

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """A stage of so many tasks, source rows and bytes to read begins."""

    def advance(self, rows: int, size: int) -> None:
        """One task of the stage has ended."""

    def end(self) -> None:
        """The stage has ended."""

    def state(self, snapshot: Snapshot) -> None:
        """Everything that is known of the run, whenever something of it has changed."""

    def result(self, values: dict[str, Any]) -> None:
        """The run has ended; what came of it, for programs."""


class Shown(Reporter, Protocol):
    """A reporter that can also be told of a run that goes on elsewhere."""

    def catch_up(self, stage: Stage) -> None:
        """The stage under way is as far as this."""


class Silent:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """Nothing."""

    def advance(self, rows: int, size: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def catch_up(self, stage: Stage) -> None:
        """Nothing."""

    def state(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def result(self, values: dict[str, Any]) -> None:
        """Nothing."""


class Counting:
    """What all that say something have in common: the counts of the stage under way."""

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        self.stage, self.tasks, self.rows, self.size = stage, tasks, rows, size
        self.done = self.done_rows = self.done_bytes = 0
        self.start = self.told = time.monotonic()

    def advance(self, rows: int, size: int) -> None:
        """Count the task, and show it."""
        self.done += 1
        self.done_rows += rows
        self.done_bytes += size
        self.moved()

    def catch_up(self, stage: Stage) -> None:
        """Count what has ended elsewhere, and show it."""
        before, self.done = self.done, stage.tasks_done
        self.done_rows, self.done_bytes = stage.rows_done, stage.bytes_done
        self.start = time.monotonic() - stage.seconds
        if self.done != before:
            self.moved()

    def moved(self) -> None:
        """Show the counts as they are now."""

    def state(self, snapshot: Snapshot) -> None:
        """Nothing: the stages say enough."""

    def result(self, values: dict[str, Any]) -> None:
        """Nothing: a person has been told in words."""

    def counts(self, between: str = ", ") -> str:
        """Rows, bytes and rows a second so far, in words."""
        rate = self.done_rows / max(self.seconds(), 1e-9)
        return between.join([count(self.done_rows, "row"), human(self.done_bytes), f"{rate:,.0f} rows/s"])

    def seconds(self) -> float:
        """How long the stage has taken so far."""
        return time.monotonic() - self.start


class Plain(Counting):
    """A line at the start and end of each stage and every ten seconds between, for logs."""

    def __init__(self, out: TextIO, redact: Redact = as_it_is):
        self._out, self._redact = out, redact

    def note(self, text: str) -> None:
        """Print the text."""
        self._print(visible(self._redact(text)))

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """Print what the stage has before it."""
        super().begin(stage, tasks, rows, size)
        self._print(f"{stage}: {count(tasks, 'task')}, {count(rows, 'row')}, {human(size)}")

    def moved(self) -> None:
        """Print a line when the last is old."""
        if time.monotonic() - self.told >= PLAIN_SECONDS:
            self.told = time.monotonic()
            left = self.seconds() * (self.tasks - self.done) / self.done
            self._print(
                f"{self.stage}: {self.done:,} of {count(self.tasks, 'task')}, {self.counts()}, {left:,.0f} s left"
            )

    def end(self) -> None:
        """Print what the stage did."""
        self._print(f"{self.stage}: done in {self.seconds():.1f} s, {self.counts()}")


class JsonLines(Counting):
    """One JSON object a line: `{"event": "progress", "stage": ..., "tasks_done": ..., ...}`."""

    def __init__(self, out: TextIO, redact: Redact = as_it_is):
        self._out, self._redact = out, redact

    def emit(self, event: str, **values: Any) -> None:
        """Write one event."""
        print(json.dumps({"event": event, **values}), file=self._out, flush=True)

    def note(self, text: str) -> None:
        """An event `note`."""
        self.emit("note", text=self._redact(text))

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """An event `begin`."""
        super().begin(stage, tasks, rows, size)
        self.emit("begin", stage=stage, tasks=tasks, rows=rows, bytes=size)

    def moved(self) -> None:
        """An event `progress`."""
        counts = {"tasks_done": self.done, "tasks": self.tasks, "rows": self.done_rows, "bytes": self.done_bytes}
        self.emit("progress", stage=self.stage, **counts)

    def end(self) -> None:
        """An event `end`."""
        self.emit("end", stage=self.stage, seconds=round(self.seconds(), 3), rows=self.done_rows, bytes=self.done_bytes)

    def result(self, values: dict[str, Any]) -> None:
        """The last event, `done`."""
        self.emit("done", **self._redact(values))


class Screen(Progress):
    """Bars, and a line below them."""

    line = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """What is drawn, from the top."""
        yield from super().get_renderables()
        if self.line:
            yield Text(self.line, style="dim")


class Bars(Counting):
    """One bar a stage, with rows, bytes and the time left; below them what concerns the whole run."""

    def __init__(self, progress: Screen, redact: Redact = as_it_is):
        self._progress, self._redact = progress, redact
        self._bar = TaskID(0)

    def note(self, text: str) -> None:
        """Print the text above the bars."""
        safe = visible(self._redact(text))
        self._progress.console.print(safe, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """A new bar."""
        super().begin(stage, tasks, rows, size)
        self._bar = self._progress.add_task(stage, total=tasks, told="")

    def moved(self) -> None:
        """Move the bar."""
        self._progress.update(self._bar, completed=self.done, told=self.counts("  "))

    def end(self) -> None:
        """The bar stays as it is."""
        self._progress.update(self._bar, completed=self.tasks)

    def state(self, snapshot: Snapshot) -> None:
        """Change the line below the bars."""
        self._progress.line = told(snapshot)


def told(snapshot: Snapshot) -> str:
    """What concerns a whole run, in a line: its workers, shards and bytes."""
    lost, again = snapshot.lost_workers, snapshot.retries
    words = ["waiting for workers"] if snapshot.state == "waiting" else []
    if snapshot.state == "running" and snapshot.starting and not snapshot.workers:
        words.append(f"starting {count(snapshot.starting, 'worker')}")
    words += [count(snapshot.workers, "worker")] if snapshot.workers and not words else []
    words += [f"{lost:,} lost"] if lost else []
    words += [f"{count(again, 'task')} begun again"] if again else []
    if snapshot.shards_planned is not None:
        words.append(f"{snapshot.shards_committed:,} of {count(snapshot.shards_planned, 'shard')}")
    words += [f"{human(snapshot.bytes_read)} read"] if snapshot.bytes_read else []
    words += [f"{human(snapshot.bytes_written)} written"] if snapshot.bytes_written else []
    return "  ".join(words)
