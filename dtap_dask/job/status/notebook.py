"""Progress in a notebook: one output with a bar a stage, drawn again and again; standard error is red there."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from html import escape
from typing import Any

from dtap_dask.job.status.displays import Counting, Redact, as_it_is, told
from dtap_dask.job.status.snapshot import Snapshot
from dtap_dask.words import duration, visible

# Between two drawings: what a person can follow, and few enough messages for a notebook far away.
_PAUSE_SECONDS = 0.25


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


class _Row:
    """One stage as it is drawn."""

    def __init__(self, name: str, tasks: int):
        self.name, self.tasks, self.done, self.told = name, tasks, 0, ""


class Notebook(Counting):
    """Notes, a bar a stage, and a line that concerns the whole run; calls may come from several threads."""

    def __init__(self, redact: Redact = as_it_is):
        self._redact = redact
        self._lock = threading.Lock()
        self._notes: list[str] = []
        self._rows: list[_Row] = []
        self._line = ""
        self._handle: Any = None
        self._drawn = float("-inf")

    def note(self, text: str) -> None:
        """One more line above the bars."""
        self._notes.append(visible(self._redact(text)))
        self.draw()

    def begin(self, stage: str, tasks: int, rows: int, size: int) -> None:
        """A new bar."""
        super().begin(stage, tasks, rows, size)
        self._rows.append(_Row(stage, tasks))
        self.draw()

    def moved(self) -> None:
        """Move the bar."""
        row = self._rows[-1]
        left = self.seconds() * (self.tasks - self.done) / max(1, self.done)
        row.done, row.told = self.done, f"{self.counts()}, {duration(left)} left"
        self._now_and_then()

    def end(self) -> None:
        """The bar stays, with the time that the stage took."""
        row = self._rows[-1]
        row.done, row.told = row.tasks, f"{self.counts()} in {self.seconds():.1f} s"
        self.draw()

    def state(self, snapshot: Snapshot) -> None:
        """Change the line below the bars."""
        self._line = told(snapshot)
        self._now_and_then()

    def _now_and_then(self) -> None:
        if time.monotonic() - self._drawn >= _PAUSE_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Show everything as it is now; that a notebook cannot be reached does not concern the run."""
        from IPython.display import display

        with self._lock, suppress(Exception):
            self._drawn = time.monotonic()
            shown = {"text/html": self._html(), "text/plain": self._text()}
            if self._handle is None:
                self._handle = display(shown, raw=True, display_id=True)
            else:
                self._handle.update(shown, raw=True)

    def _html(self) -> str:
        """Without colours of its own: it must suit notebooks that are light and dark."""
        cell = "padding:2px 10px 2px 0;text-align:left;white-space:nowrap"
        rows = "".join(
            f"<tr style='background:none'><td style='{cell}'>{escape(row.name)}</td>"
            f"<td style='{cell}'><progress style='width:16em' max='{max(1, row.tasks)}' value='{row.done}'></progress>"
            f"</td><td style='{cell}'>{row.done:,}/{row.tasks:,}</td><td style='{cell}'>{escape(row.told)}</td></tr>"
            for row in self._rows
        )
        said = escape("\n".join(self._notes))
        notes = f"<pre style='white-space:pre-wrap'>{said}</pre>" if said else ""
        line = f"<div style='opacity:.75'>{escape(self._line)}</div>" if self._line else ""
        return f"<div>{notes}<table>{rows}</table>{line}</div>"

    def _text(self) -> str:
        """For what shows no HTML, such as a notebook that was converted to text."""
        rows = [f"{row.name}: {row.done:,} of {row.tasks:,} tasks, {row.told}" for row in self._rows]
        return "\n".join([*self._notes, *rows, self._line])
