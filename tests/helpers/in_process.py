"""A whole job in this process: planned, fitted, written and committed by a plain loop, without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dtap_dask
from dtap_dask.errors import STOPPED, InterruptedRun
from dtap_dask.job.execution.executor import LoopExecutor
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.running.options import RunOptions
from dtap_dask.job.running.run import carry_out, first_snapshot
from dtap_dask.job.status.displays import open_display
from dtap_dask.job.status.reporter import RunReporter

Hooks = Mapping[str, Callable[[], None]]  # by step: start, scan, fit, count, shuffle, write, commit


def run_in_process(
    job: Any,
    *,
    before: Hooks | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    probe: bool = False,
    progress: str = "silent",
) -> dtap_dask.Manifest:
    """`dtap_dask.run` without a cluster; `before` has what is to happen before some steps, such as an interrupt."""
    loaded, hooks = Job.load_leniently(job), before or {}

    @contextmanager
    def loop(*_: object) -> Iterator[LoopExecutor]:
        _act(hooks, "start")
        yield _HookedLoop(hooks)

    with loaded.redacting(), open_display(progress) as display:
        report = RunReporter(first_snapshot(loaded), display, loaded.secrets)
        options = RunOptions.of(overwrite=overwrite, resume=resume, limit=limit, probe=probe)
        try:
            return carry_out(loaded, report, loop, options)
        except KeyboardInterrupt as error:
            raise InterruptedRun(STOPPED) from error


class _HookedLoop(LoopExecutor):
    def __init__(self, hooks: Hooks):
        self._hooks = hooks

    def each(self, name: str, *arguments: Any, **options: Any) -> list[Any]:
        _act(self._hooks, name)
        results = super().each(name, *arguments, **options)
        if name == "write":
            _act(self._hooks, "commit")
        return results


def _act(hooks: Hooks, step: str) -> None:
    hooks.get(step, lambda: None)()


def interrupt() -> None:
    """A hook: Ctrl-C."""
    raise KeyboardInterrupt
