"""The one bookkeeping of a run's progress: a snapshot that follows its events, shown here and published elsewhere.

Publishing never delays or fails a run: each destination has a thread of its own, which skips all but the last state.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dtap_dask.errors import STOPPED, Cancelled, DtapError, InterruptedRun, Superseded
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.status.displays import Display
from dtap_dask.job.status.snapshot import ENDED, WARNINGS, Note, Snapshot, Stage, State

EVENTS_SECONDS = 0.5  # between two events on the scheduler: what a person can follow
NOTES_KEPT = 500
_LOG = logging.getLogger("dtap_dask.job")

Publish = Callable[[Snapshot, Sequence[Note]], None]


def run_name(name: str) -> str:
    """A unique id for a run of the job `name`: letters, digits and hyphens."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return f"{safe or 'job'}-{uuid.uuid4().hex[:6]}"


class RunReporter:
    """Takes the events of a run, keeps its snapshot, and gives it to a display and to everything that publishes it.

    Calls may come from several threads. `notes` are what earlier attempts of the run said.
    """

    def __init__(self, snapshot: Snapshot, display: Display, secrets: Secrets, notes: Sequence[Note] = ()):
        self.snapshot = snapshot
        self._display, self._secrets = display, secrets
        self._lock = threading.RLock()
        self._publishers: list[_Publisher] = []
        self._notes: deque[Note] = deque(notes, maxlen=NOTES_KEPT)
        self._next_note = notes[-1].number + 1 if notes else 0
        self._stage, self._stage_start = "", 0.0
        self._muted = False

    def note(self, text: str) -> None:
        """Report one fact, such as the dashboard's address."""
        safe = self._secrets.redact(text)
        with self._lock:
            self._notes.append(Note(self._next_note, time.time(), safe))
            self._next_note += 1
            self._change({"note": safe}, urgent=True, notes=[safe])

    def warn(self, text: str) -> None:
        """Report one fact that somebody should look at."""
        with self._lock:
            self.note(f"Note: {text}")
            self.update(warnings=(*self.snapshot.warnings, self._secrets.redact(text))[:WARNINGS])

    def expect(self, stages: Sequence[Stage]) -> None:
        """Announce the stages to come, as far as the plan knows them: the time left can be estimated from the start."""
        self.update(stages=tuple(stages))

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """A stage begins: its tasks, the source rows and bytes to read. It replaces an expected one of its name."""
        with self._lock:
            self._stage, self._stage_start = stage, time.monotonic()
            stages = {known.name: known for known in self.snapshot.stages}
            stages[stage] = Stage(stage, tasks, 0, rows, 0, size, 0, 0.0, False)
            self._change({"stages": tuple(stages.values())}, urgent=True)

    def advance(self, rows: int, size: int) -> None:
        """One task of the stage has ended; it read `rows` source rows and `size` bytes."""

        def counted(stage: Stage) -> Stage:
            done = stage.tasks_done + 1, stage.rows_done + rows, stage.bytes_done + size
            return replace(stage, tasks_done=done[0], rows_done=done[1], bytes_done=done[2])

        self._change_stage(counted)

    def end(self) -> None:
        """The stage has ended."""
        self._change_stage(lambda stage: replace(self._timed(stage), ended=True), urgent=True)

    def _change_stage(self, change: Callable[[Stage], Stage], urgent: bool = False) -> None:
        with self._lock:
            stages = (change(stage) if stage.name == self._stage else stage for stage in self.snapshot.stages)
            self._change({"stages": tuple(stages)}, urgent)

    def add(self, **counts: int) -> None:
        """Add to counts of the snapshot, such as `bytes_read`."""
        with self._lock:
            self.update(**{name: getattr(self.snapshot, name) + count for name, count in counts.items()})

    def update(self, **changes: Any) -> None:
        """Change fields of the snapshot."""
        self._change(changes)

    def _change(self, changes: Mapping[str, Any], urgent: bool = False, notes: Sequence[str] = ()) -> None:
        """Change the snapshot, unless the run has ended, and show and publish it: soon, or at once where `urgent`."""
        with self._lock:
            if self.snapshot.state not in ENDED:
                stages = tuple(map(self._timed, changes.get("stages", self.snapshot.stages)))
                self.snapshot = replace(self.snapshot, **{**changes, "stages": stages, "updated": time.time()})
                for publisher in self._publishers:
                    publisher.put(self.snapshot, tuple(self._notes), urgent)
            self._display.show(self.snapshot, notes)

    def _timed(self, stage: Stage) -> Stage:
        """A stage with the seconds that it has taken so far, if it is the current one."""
        if stage.name != self._stage or stage.ended:
            return stage
        return replace(stage, seconds=max(0.001, round(time.monotonic() - self._stage_start, 3)))

    def succeed(self, result: Mapping[str, Any]) -> None:
        """The run has succeeded; `result` is its outcome for programs."""
        self.finish("done", self.snapshot.note, 0)
        self._display.show(self.snapshot, result=self._secrets.redact(result))

    def finish(self, state: State, note: str, exit_code: int) -> None:
        """The run has ended; nothing changes its snapshot from now on."""
        self._change({"state": state, "note": self._secrets.redact(note), "exit_code": exit_code}, urgent=True)

    def fail(self, error: BaseException) -> None:
        """The run has ended by an error."""
        if isinstance(error, Superseded):
            self._muted = True
        elif isinstance(error, Cancelled):
            self.finish("cancelled", str(error), error.exit_code)
        elif isinstance(error, InterruptedRun | KeyboardInterrupt | SystemExit):
            self.finish("interrupted", str(error) or STOPPED, 4)
        elif isinstance(error, DtapError):
            self.finish("failed", str(error), error.exit_code)
        else:
            self.finish("failed", f"{type(error).__name__}: {error}", 1)

    @contextmanager
    def publishing(self, publish: Publish, pause: float) -> Iterator[None]:
        """Call `publish` with new states for the length of a block, at most every `pause` seconds unless one is urgent.

        An error that leaves the block ends the run.
        """
        publisher = _Publisher(publish, pause)
        with self._lock:
            self._publishers.append(publisher)
            publisher.put(self.snapshot, tuple(self._notes), True)
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self._publishers.remove(publisher)
            publisher.close(discard=self._muted)

    def flush(self) -> None:
        """Wait until the last state is published, or that takes too long."""
        for publisher in self._publishers:
            publisher.flush()


class _Publisher:
    """A thread that publishes the last state: after a pause, or at once."""

    def __init__(self, publish: Publish, pause: float, patience: float = 10.0):
        self._publish, self._pause, self._patience = publish, pause, patience
        self._changed = threading.Condition()
        self._last: tuple[Snapshot, Sequence[Note]] | None = None
        self._urgent = self._busy = self._closing = False
        self._thread = threading.Thread(target=self._work, name="dtap_dask-publisher", daemon=True)
        self._thread.start()

    def put(self, snapshot: Snapshot, notes: Sequence[Note], urgent: bool) -> None:
        """Publish this state next, in place of one that still waits."""
        with self._changed:
            self._last = snapshot, notes
            self._urgent |= urgent
            self._changed.notify_all()

    def flush(self) -> None:
        """Publish the state that waits, and wait for that at most `patience` seconds."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._last is None and not self._busy, self._patience)

    def close(self, discard: bool) -> None:
        """Publish the state that waits, or `discard` it, and end."""
        with self._changed:
            if discard:
                self._last = None
            self._closing = True
            self._changed.notify_all()
        self._thread.join(self._patience)

    def _work(self) -> None:
        sent = float("-inf")
        while True:
            with self._changed:
                while not self._closing and (wait := self._wait(sent)) != 0:
                    self._changed.wait(wait)
                state, self._last, self._urgent = self._last, None, False
                closing, self._busy = self._closing, True
            if state is not None:
                try:
                    self._publish(*state)
                except Exception as error:  # of any kind: no reader is worth a run
                    _LOG.debug("The state of a run could not be published: %s", error)
                sent = time.monotonic()
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            if closing:
                return

    def _wait(self, sent: float) -> float | None:
        """Seconds until the next state is due; None where none waits."""
        if self._last is None:
            return None
        return 0.0 if self._urgent else max(0.0, sent + self._pause - time.monotonic())
