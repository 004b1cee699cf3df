"""The passes of a run over the source, in order: one list for the run, its status, its probe, forecast and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tasks = tuple[tuple[int, ...], ...]
"""The positions of the row groups that each task reads."""


@dataclass(frozen=True)
class PlannedStage:
    """One pass: its tasks run side by side, and all of them before the next stage begins. `level` is that of a fit."""

    name: str
    kind: Literal["fit", "count", "write"]
    tasks: Tasks
    level: int = 0


def planned_stages(levels: int, fit_tasks: Tasks, write_tasks: Tasks, *, count: bool) -> Iterator[PlannedStage]:
    """A fit for each level, then the write. The first fit counts rows; without one `count` asks for a pass of its own.

    A single level is named "fit", several "fit 1", "fit 2" and so on.
    """
    for level in range(levels):
        yield PlannedStage("fit" if levels == 1 else f"fit {level + 1}", "fit", fit_tasks, level)
    if count and not levels:
        yield count_stage(fit_tasks)
    yield PlannedStage("write", "write", write_tasks)


def count_stage(tasks: Tasks) -> PlannedStage:
    """The pass that counts the rows of each part, so that shards can be planned."""
    return PlannedStage("count", "count", tasks)
