"""The page /tfrecords on the scheduler's dashboard: what runs do now, and how earlier ones ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from bokeh.models import InlineStyleSheet
from bokeh.models.widgets import Div
from bokeh.server.tornado import BokehTornado
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from distributed.diagnostics.progress_stream import color_of
from tornado.ioloop import IOLoop

from dtap_dask.job.cluster.security import is_safe
from dtap_dask.job.dashboard.board import Board, ObservedRun
from dtap_dask.job.status.snapshot import Snapshot, Stage
from dtap_dask.words import duration, human

REFRESH_MS = 500
# The history of rows/s: its number of points, and its height in units that the page stretches.
CHART_PARTS, CHART_HEIGHT = 120, 40
_CSS = Path(__file__).with_name("page.css").read_text()
# Dask's bar of links, with one more link, takes two lines in a narrow window and would cover the head of the page.
_TEMPLATE = """{% extends "simple.html" %}{% block extra_resources %}
<style>
  /* Dask's bar floats above the page, and covers it where it takes two lines: here it has space of its own. */
  body { padding-top: 0; } .navbar { position: sticky; margin: 0 -10px; }
  @media (prefers-color-scheme: dark) {
    html { background: #16181b; color-scheme: dark; }
    .navbar ul, .dropdown-content { background-color: #2a2d31; } .navbar li a { color: #e4e6e8; }
  }
  @media (max-width: 1060px) { .navbar li a { font-size: 15px; padding: 12px 8px; } }
</style>{% endblock %}"""


def add_page(scheduler: Any, board: Board, path: str) -> None:
    """Serve the page of a board at /`path` of the scheduler's dashboard, and link it from every page there.

    LookupError where there is no dashboard; any error where Dask's inside differs from that of 2026.8.
    """
    application = scheduler.http_application
    prefix = next((one.prefix for one in application.applications if isinstance(one, BokehTornado)), None)
    if prefix is None:
        raise LookupError("the scheduler runs without its dashboard")
    variables = template_variables(scheduler)
    pages = variables["pages"]  # the list that all of Dask's pages share

    def show(_scheduler: Any, extra: dict[str, Any], document: Any) -> None:
        page = Div(
            text=render(board, scheduler.address, color_of),
            stylesheets=[InlineStyleSheet(css=_CSS)],
            sizing_mode="stretch_width",
            disable_math=True,  # else Bokeh takes text between dollar signs for a formula
        )
        document.add_root(page)
        document.add_periodic_callback(lambda: page.update(text=render(board, scheduler.address, color_of)), REFRESH_MS)
        document.title = "Dask: TFRecords"
        document.template = env.from_string(_TEMPLATE)
        document.template_variables.update(extra)
        document.theme = BOKEH_THEME

    served = BokehApplication({f"/{path}": show}, scheduler, prefix=prefix, template_variables=variables)
    served.initialize(IOLoop.current())
    application.add_application(served)
    served.start()
    if path not in pages:
        pages.append(path)


def render(board: Iterable[ObservedRun], address: str, colour: Callable[[str], str]) -> str:
    """The page as HTML: unfinished runs as cards, ended ones as lines below. All texts are escaped."""
    now = time.time()
    runs = list(board)
    going = [_card(run, now, colour) for run in runs if not run.ended]
    ended = [_line(run, now) for run in runs if run.ended]
    before = f"<h3>Ended</h3><div class='ended'>{''.join(ended)}</div>" if ended else ""
    return f"<main>{''.join(going) or _nothing(address)}{before}</main>"


def _nothing(address: str) -> str:
    where = f"{address} --insecure" if not is_safe(address) else address
    return (
        "<section class='nothing'><h2>No job is running</h2><p>Submit one from any machine that reaches this "
        f"scheduler, and watch it here:</p><code>dtap-dask submit JOB --scheduler {escape(where)}</code></section>"
    )


def _card(run: ObservedRun, now: float, colour: Callable[[str], str]) -> str:
    snapshot, silent = run.snapshot, run.silent(now)
    left = snapshot.seconds_left
    clock = [f"{duration(run.seconds(now))} so far", f"about {duration(left)} left" if left is not None else ""]
    warning = f"<p class='silent'>No word from its driver for {duration(silent)}.</p>" if silent else ""
    return (
        f"<section class='run'><header><h2>{escape(snapshot.name)}</h2>{_state(snapshot)}"
        f"<span class='clock'>{' &middot; '.join(filter(None, clock))}</span></header>{_where(snapshot)}{warning}"
        f"<div class='stages'>{''.join(_stage(stage, colour) for stage in snapshot.stages)}</div>"
        f"{_chart(run)}<dl>{_facts(snapshot)}</dl>{_warnings(snapshot)}{_note(snapshot)}</section>"
    )


def _line(run: ObservedRun, now: float) -> str:
    snapshot = run.snapshot
    when = datetime.fromtimestamp(snapshot.updated, UTC).strftime("%Y-%m-%d %H:%M UTC")
    took = f"took {duration(run.seconds(now))}, until {when}"
    return (
        f"<section class='run'><header><h2>{escape(snapshot.name)}</h2>{_state(snapshot)}"
        f"<span class='clock'>{took}</span></header>{_where(snapshot)}"
        f"<p class='counts'>{_shards(snapshot)} shards &middot; {human(snapshot.bytes_read)} read &middot; "
        f"{human(snapshot.bytes_written)} written &middot; retries: {snapshot.retries:,} &middot; "
        f"lost workers: {snapshot.lost_workers:,}</p>{_warnings(snapshot)}{_note(snapshot)}</section>"
    )


def _state(snapshot: Snapshot) -> str:
    return f"<span class='state {escape(snapshot.state)}'>{escape(snapshot.state)}</span>"


def _where(snapshot: Snapshot) -> str:
    return f"<p class='where'>{escape(snapshot.id)} &rarr; {escape(snapshot.output)}</p>"


def _note(snapshot: Snapshot) -> str:
    return f"<p class='note'>{escape(snapshot.note)}</p>" if snapshot.note else ""


def _warnings(snapshot: Snapshot) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in snapshot.warnings)
    return f"<ul class='warnings'>{items}</ul>" if items else ""


def _chart(run: ObservedRun) -> str:
    """Rows a second since the first task ended, as an area; nothing until there are two moments to draw."""
    seconds, rates = run.history.rates(CHART_PARTS)
    top = max(rates, default=0.0)
    if not top:
        return ""
    points = " ".join(f"{i + 0.5:g},{CHART_HEIGHT * (1 - rate / top):.1f}" for i, rate in enumerate(rates))
    area = f"0.5,{CHART_HEIGHT} {points} {CHART_PARTS - 0.5:g},{CHART_HEIGHT}"
    caption = f"rows/s over {duration(seconds)}, at most {short(top)}"
    return (
        f"<figure><svg viewBox='0 0 {CHART_PARTS} {CHART_HEIGHT}' preserveAspectRatio='none' role='img' "
        f"aria-label='{caption}'><polygon points='{area}'/><polyline points='{points}'/></svg>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _stage(stage: Stage, colour: Callable[[str], str]) -> str:
    """One bar, in the colour of the stage's tasks in Dask's own panels."""
    done = min(1.0, stage.tasks_done / stage.tasks) if stage.tasks else float(stage.ended)
    rate = f"{short(stage.rows_per_second)} rows/s" if stage.rows_done else ""
    left = stage.seconds_left
    clock = f"took {duration(stage.seconds)}" if stage.ended else f"{duration(left)} left" if left is not None else ""
    cells = (
        ("tasks", f"{stage.tasks_done:,} of {stage.tasks:,} tasks"),
        ("rows", f"{short(stage.rows_done)} of {short(stage.rows)} rows" if stage.rows else ""),
        ("rate", rate),
        ("bytes", human(stage.bytes_done) if stage.bytes else ""),
        ("left", clock),
    )
    shown = ((name, text if stage.begun or name == "tasks" else "") for name, text in cells)
    spans = "".join(f"<span class='{name}'>{text}</span>" for name, text in shown)
    return (
        f"<div class='stage{'' if stage.begun else ' later'}'><span class='name'>{escape(stage.name)}</span>"
        f"<span class='bar'><span style='width:{done:.2%};background:{colour(stage.name.split(' ')[0])}'></span></span>"
        f"{spans}</div>"
    )


def _facts(snapshot: Snapshot) -> str:
    current = next((stage for stage in reversed(snapshot.stages) if stage.rows_done), None)
    facts = (
        ("rows/s", short(current.rows_per_second) if current else "&ndash;", ""),
        ("read", human(snapshot.bytes_read), ""),
        ("written", human(snapshot.bytes_written), ""),
        ("shards", _shards(snapshot), ""),
        ("workers", f"{snapshot.workers:,}", "bad" if snapshot.state == "waiting" and not snapshot.workers else ""),
        ("lost workers", f"{snapshot.lost_workers:,}", "bad" if snapshot.lost_workers else ""),
        ("retries", f"{snapshot.retries:,}", "bad" if snapshot.retries else ""),
    )
    return "".join(f"<div class='{kind}'><dt>{name}</dt><dd>{value}</dd></div>" for name, value, kind in facts)


def _shards(snapshot: Snapshot) -> str:
    planned = snapshot.shards_planned
    return f"{snapshot.shards_committed:,}" + (f" of {planned:,}" if planned is not None else "")


def short(count: float) -> str:
    """A count for a person: 950, 12.3 k, 4.56 M."""
    for unit in ("", " k", " M", " G"):
        if count < 1000 or unit == " G":
            return f"{count:.0f}{unit}" if not unit or count >= 100 else f"{count:.3g}{unit}"
        count /= 1000
    raise AssertionError("unreachable")
