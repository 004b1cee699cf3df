"""Who shows how a run goes: chosen by what is asked for, or by what is looked at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from dtap_dask.job.console import BestEffortStream
from dtap_dask.job.status.displays import Bars, JsonLines, Plain, Redact, Screen, Shown, Silent, as_it_is
from dtap_dask.job.status.notebook import Notebook, in_notebook


@contextmanager
def reporter(kind: str, out: TextIO | None = None, redact: Redact = as_it_is) -> Iterator[Shown]:
    """A reporter: 'bars', 'plain', 'json', 'silent', 'notebook' or 'auto'.

    'auto' is bars in a terminal and in a notebook, and plain lines elsewhere.

    Notes and the result go through `redact`; the rest is counts. Without `out` they go to standard error, JSON to
    standard output, and are lost where that cannot be written.
    """
    if kind == "auto" and out is None and in_notebook():
        kind = "notebook"
    if kind == "notebook":
        notebook = Notebook(redact)
        try:
            yield notebook
        finally:
            notebook.draw()
        return
    out = out or cast("TextIO", BestEffortStream(sys.stdout if kind == "json" else sys.stderr))
    if kind == "auto":
        kind = "bars" if out.isatty() else "plain"
    if kind == "bars":
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
        )
        with Screen(*columns, console=Console(file=out)) as progress:
            yield Bars(progress, redact)
    else:
        reporters: dict[str, Shown] = {
            "plain": Plain(out, redact),
            "json": JsonLines(out, redact),
            "silent": Silent(),
        }
        yield reporters[kind]
