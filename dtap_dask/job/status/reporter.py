"""A run's state, kept whole while it goes on and told to whoever may ask: the terminal, the scheduler, the folder.

Telling never delays or fails a run: each listener has a thread of its own, which drops all but the last state.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dtap_dask.errors import DtapError, InterruptedRun
from dtap_dask.job.status.displays import Redact, Reporter
from dtap_dask.job.status.snapshot import ENDED, WARNINGS, Note, Snapshot, Stage, State

EVENTS_SECONDS = 0.5  # between two events: what a person can follow
NOTES_KEPT = 500
_LOG = logging.getLogger("dtap_dask.job")

Deliver = Callable[[Snapshot, Sequence[Note]], None]


class Cancelled(InterruptedRun):
    """Somebody cancelled the run."""


class Superseded(InterruptedRun):
    """The scheduler has begun this driver again elsewhere: this one must leave everything to the other."""


def run_name(name: str) -> str:
    """An id for a run of the job of this name, unlike all others: letters, digits and hyphens."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return f"{safe or 'job'}-{uuid.uuid4().hex[:6]}"


class RunReporter:
    """The Reporter of a run: shows what it is told, and tells the whole state to every listener."""

    def __init__(self, snapshot: Snapshot, show: Reporter, redact: Redact, said: Sequence[Note] = ()):
        self.snapshot = snapshot
        self._show, self._redact = show, redact
        self._lock = threading.RLock()
        self._posts: list[_Post] = []
        self._notes: deque[Note] = deque(said, maxlen=NOTES_KEPT)
        self._noted = said[-1].number + 1 if said else 0
        self._begun = time.monotonic()
        self._muted = False

    def note(self, text: str) -> None:
        """Tell one fact."""
        self._show.note(text)
        with self._lock:
            self._notes.append(Note(self._noted, time.time(), self._redact(text)))
            self._noted += 1
            self.update(urgent=True, note=self._notes[-1].text)

    def warn(self, text: str) -> None:
        """Tell one fact that somebody should look at."""
        self.note(f"Note: {text}")
        with self._lock:
            self.update(warnings=(*self.snapshot.warnings, self._redact(text))[:WARNINGS])

    def expect(self, stages: Sequence[Stage]) -> None:
        """The stages to come, as far as the plan knows them: what is left can be reckoned from the start."""
        self.update(stages=tuple(stages))

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """A stage begins; one that was expected takes its place."""
        self._show.begin(stage, tasks, rows, size)
        with self._lock:
            self._begun = time.monotonic()
            fresh = Stage(stage, tasks, 0, rows, 0, size, 0, 0.0, False)
            known = [one.name for one in self.snapshot.stages]
            stages = [fresh if one.name == stage else one for one in self.snapshot.stages]
            self._stage = stage
            self.update(urgent=True, stages=tuple(stages if stage in known else [*stages, fresh]))

    def advance(self, rows: int, size: int) -> None:
        """One task of the stage has ended."""
        self._show.advance(rows, size)
        self._move(
            lambda one: replace(
                one, tasks_done=one.tasks_done + 1, rows_done=one.rows_done + rows, bytes_done=one.bytes_done + size
            )
        )

    def end(self) -> None:
        """The stage has ended."""
        self._show.end()
        self._move(lambda one: replace(one, ended=True, seconds=round(time.monotonic() - self._begun, 3)), urgent=True)

    def _move(self, change: Callable[[Stage], Stage], urgent: bool = False) -> None:
        with self._lock:
            stages = [change(one) if one.name == self._stage else one for one in self.snapshot.stages]
            self.update(urgent=urgent, stages=tuple(stages))

    def result(self, values: dict[str, Any]) -> None:
        """The run has ended well."""
        self._show.result(values)
        self.finish("done", self.snapshot.note, 0)

    def state(self, snapshot: Snapshot) -> None:
        """Nothing: the state is kept here."""

    def add(self, **counts: int) -> None:
        """Add to counts of the snapshot, such as `bytes_read`."""
        with self._lock:
            self.update(**{name: getattr(self.snapshot, name) + count for name, count in counts.items()})

    def update(self, *, urgent: bool = False, **changes: Any) -> None:
        """Change the snapshot, and let everybody know: soon, or at once where it is `urgent`."""
        with self._lock:
            if self.snapshot.state in ENDED:
                return
            stages = changes.pop("stages", self.snapshot.stages)
            self.snapshot = replace(self.snapshot, stages=self._timed(stages), told=time.time(), **changes)
            self._show.state(self.snapshot)
            for post in self._posts:
                post.put(self.snapshot, tuple(self._notes), urgent)

    def _timed(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        """The stages with the seconds of the one under way."""
        under_way, seconds = getattr(self, "_stage", None), round(time.monotonic() - self._begun, 3)
        return tuple(
            replace(one, seconds=seconds) if one.name == under_way and not one.ended else one for one in stages
        )

    def finish(self, state: State, note: str, exit_code: int) -> None:
        """The run has ended; what is said afterwards changes nothing of that."""
        with self._lock:
            self.update(urgent=True, state=state, note=self._redact(note), exit_code=exit_code)

    def failed(self, error: BaseException) -> None:
        """The run has ended by an error."""
        if isinstance(error, Superseded):
            self._muted = True
        elif isinstance(error, Cancelled):
            self.finish("cancelled", str(error), error.exit_code)
        elif isinstance(error, InterruptedRun | KeyboardInterrupt | SystemExit):
            self.finish("interrupted", str(error) or "Stopped. Go on with --resume (in Python resume=True).", 4)
        elif isinstance(error, DtapError):
            self.finish("failed", str(error), error.exit_code)
        else:
            self.finish("failed", f"{type(error).__name__}: {error}", 1)

    @contextmanager
    def publishing(self, deliver: Deliver, pause: float) -> Iterator[None]:
        """Tell another listener for the length of a block; an error that leaves the block ends the run."""
        post = _Post(deliver, pause)
        with self._lock:
            self._posts.append(post)
            post.put(self.snapshot, tuple(self._notes), True)
        try:
            yield
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            self._posts.remove(post)
            post.close(told=not self._muted)

    def flush(self) -> None:
        """Wait until everybody has the last state, or takes too long."""
        for post in self._posts:
            post.flush()


class _Post:
    """A thread that hands on the last state: after a pause, or at once."""

    def __init__(self, deliver: Deliver, pause: float, patience: float = 10.0):
        self._deliver, self._pause, self._patience = deliver, pause, patience
        self._changed = threading.Condition()
        self._last: tuple[Snapshot, Sequence[Note]] | None = None
        self._urgent = self._busy = self._closing = False
        self._thread = threading.Thread(target=self._work, name="dtap_dask-telling", daemon=True)
        self._thread.start()

    def put(self, snapshot: Snapshot, notes: Sequence[Note], urgent: bool) -> None:
        """What to hand on next, in place of what waits."""
        with self._changed:
            self._last = snapshot, notes
            self._urgent |= urgent
            self._changed.notify_all()

    def flush(self) -> None:
        """Hand on what waits, and wait for that; not for ever."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._last is None and not self._busy, self._patience)

    def close(self, told: bool) -> None:
        """Hand on what waits, if it is to be told, and end."""
        with self._changed:
            if not told:
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
                    self._deliver(*state)
                except Exception as error:  # of any kind: whoever listens is not worth a run
                    _LOG.debug("The state of a run could not be told: %s", error)
                sent = time.monotonic()
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            if closing:
                return

    def _wait(self, sent: float) -> float | None:
        """Seconds until something is to be handed on; None where nothing waits."""
        if self._last is None:
            return None
        return 0.0 if self._urgent else max(0.0, sent + self._pause - time.monotonic())
