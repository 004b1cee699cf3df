"""Runs on the scheduler's own dashboard: a page beside Dask's, and metrics for Prometheus.

`install` registers a plugin on the scheduler, once for all runs. It keeps the snapshots that drivers publish as Dask
events, shows them at /tfrecords, and serves their numbers at Dask's /metrics (see `metrics`). A run only pays for the
events: the page is made while somebody looks at it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

from dtap_dask.job.dashboard.board import Board
from dtap_dask.job.dashboard.metrics import METRICS

NAME = "dtap_dask"
PATH = "tfrecords"


def install(client: Client) -> str | None:
    """Add the page and the metrics to the client's scheduler, unless it has them.

    Returns None, or a line that says why there is no page: a run does not need it.
    """
    try:
        client.register_plugin(RunsPlugin(), name=NAME)
        problem = client.get_metadata([NAME, "page"])
    except Exception as error:  # of any kind: a scheduler of another version, without this package, or that refuses
        problem = _line(error)
    return problem and f"Dask's dashboard shows no page of this run ({problem}). The run continues without one."


def page_link(client: Client) -> str | None:
    """The address of the page; None where the scheduler has no dashboard."""
    link = client.dashboard_link
    return urljoin(link, PATH) if link else None


class RunsPlugin(SchedulerPlugin):  # type: ignore[misc]  # distributed has no types
    """Collects runs on the scheduler and shows them. Registering another one keeps the first."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.board = Board()

    async def start(self, scheduler: Any) -> None:
        """Add the metrics and, if possible, the page; the client finds in the metadata why that failed."""
        problem = None
        METRICS.follow(self.board)
        try:
            from dtap_dask.job.dashboard.page import add_page  # needs Bokeh, which a scheduler may lack

            add_page(scheduler, self.board, PATH)
        except Exception as error:  # of any kind: these are internals of Dask, and a run needs no page
            problem = _line(error)
        scheduler.set_metadata([NAME, "page"], problem)

    def log_event(self, topic: str, msg: Any) -> None:
        """Dask's hook: every event of the scheduler, a few a second."""
        self.board.take(topic, msg)

    async def close(self) -> None:
        """Dask's hook: the scheduler closes; in tests, another may follow in this process."""
        METRICS.leave(self.board)


def _line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
