"""The stages of a run, in order: one list for the run, its status, its probe, forecast and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tasks = tuple[tuple[int, ...], ...]
"""The positions of the row groups that each task reads."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage: its tasks run side by side, and all of them before the next stage begins. `level` is that of a fit.

    A global shuffle is a "shuffle" of the source's rows, then a "gather" of each shard's. That is named "write", and
    has a task for each shard; `tasks` are those of the shuffle, as nothing else is planned before rows are counted.
    """

    name: str
    kind: Literal["fit", "count", "write", "shuffle", "gather"]
    tasks: Tasks
    level: int = 0

    @property
    def reads_source(self) -> bool:
        """Whether it is a pass over the source."""
        return self.kind != "gather"


def planned_stages(
    levels: int, fit_tasks: Tasks, write_tasks: Tasks, *, count: bool, shuffle: bool
) -> Iterator[PlannedStage]:
    """A fit for each level, then the write. The first fit counts rows; without one `count` asks for a pass of its own.

    `shuffle` asks for a global shuffle.

    A single level is named "fit", several "fit 1", "fit 2" and so on.
    """
    for level in range(levels):
        yield PlannedStage("fit" if levels == 1 else f"fit {level + 1}", "fit", fit_tasks, level)
    if count and not levels:
        yield count_stage(fit_tasks)
    if shuffle:
        yield PlannedStage("shuffle", "shuffle", write_tasks)
    yield PlannedStage("write", "gather" if shuffle else "write", write_tasks)


def count_stage(tasks: Tasks) -> PlannedStage:
    """The pass that counts the rows of each part, so that shards can be planned."""
    return PlannedStage("count", "count", tasks)
