"""Progress in a notebook: one output with a bar a stage, updated in place; standard error would be shown in red."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import Any

from dtap_dask.job.status.snapshot import Snapshot, Stage
from dtap_dask.job.status.text import counts, run_line
from dtap_dask.words import duration, visible

# Between two updates: what a person can follow, and few enough messages for a distant notebook.
_PAUSE_SECONDS = 0.25


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBars:
    """Notes, a bar a stage, and a line that concerns the whole run; the end of a `with` block draws the last state."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._stages: Sequence[Stage] = ()
        self._line = ""
        self._handle: Any = None
        self._drawn = float("-inf")

    def __enter__(self) -> NotebookBars:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def show(self, snapshot: Snapshot, notes: Sequence[str] = (), result: Mapping[str, Any] | None = None) -> None:
        """Draw notes, new stages and ended ones at once, anything else now and then."""
        before, self._stages = self._stages, snapshot.begun
        self._notes += map(visible, notes)
        self._line = run_line(snapshot)
        moved = [(stage.name, stage.ended) for stage in before] != [(stage.name, stage.ended) for stage in self._stages]
        if notes or moved or time.monotonic() - self._drawn >= _PAUSE_SECONDS:
            self._draw()

    def _draw(self) -> None:
        """Draw the current state; a notebook that cannot be reached does not fail the run."""
        from IPython.display import display

        with suppress(Exception):
            self._drawn = time.monotonic()
            shown = {"text/html": self._html(), "text/plain": self._text()}
            if self._handle is None:
                self._handle = display(shown, raw=True, display_id=True)
            else:
                self._handle.update(shown, raw=True)

    def _rows(self) -> Iterator[tuple[Stage, int, str]]:
        """Each stage, its tasks done, and its counts and time in words."""
        for stage in self._stages:
            if stage.ended:
                yield stage, stage.tasks, f"{counts(stage)} in {stage.seconds:.1f} s"
            elif stage.seconds_left is None:
                yield stage, 0, ""
            else:
                yield stage, stage.tasks_done, f"{counts(stage)}, {duration(stage.seconds_left)} left"

    def _html(self) -> str:
        """Without colours of its own: it must suit light and dark notebooks."""
        cell = "padding:2px 10px 2px 0;text-align:left;white-space:nowrap"
        rows = "".join(
            f"<tr style='background:none'><td style='{cell}'>{escape(stage.name)}</td>"
            f"<td style='{cell}'><progress style='width:16em' max='{max(1, stage.tasks)}' value='{done}'></progress>"
            f"</td><td style='{cell}'>{done:,}/{stage.tasks:,}</td><td style='{cell}'>{escape(words)}</td></tr>"
            for stage, done, words in self._rows()
        )
        text = escape("\n".join(self._notes))
        notes = f"<pre style='white-space:pre-wrap'>{text}</pre>" if text else ""
        line = f"<div style='opacity:.75'>{escape(self._line)}</div>" if self._line else ""
        return f"<div>{notes}<table>{rows}</table>{line}</div>"

    def _text(self) -> str:
        """For viewers that show no HTML, such as a notebook converted to text."""
        rows = [f"{stage.name}: {done:,} of {stage.tasks:,} tasks, {words}" for stage, done, words in self._rows()]
        return "\n".join([*self._notes, *rows, self._line])
