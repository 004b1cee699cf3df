"""How a job is to be run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtap_dask.errors import JobError

# What a run is to do with what its output folder holds: refuse to touch it, replace it, or continue an unfinished run.
Intent = Literal["new", "overwrite", "resume"]


@dataclass(frozen=True)
class RunOptions:
    """Options of a run: `limit` stops after the row group in which that many source rows are reached; `probe` measures
    on a few row groups first, so that the time is forecast, too."""

    intent: Intent = "new"
    limit: int | None = None
    probe: bool = False

    @classmethod
    def of(cls, *, overwrite: bool, resume: bool, limit: int | None, probe: bool = False) -> RunOptions:
        """The options as a user gives them. JobError where they contradict each other."""
        if overwrite and resume:
            raise JobError(
                "--overwrite (in Python overwrite=True) starts over, --resume (resume=True) continues: give one of "
                "the two."
            )
        return cls("overwrite" if overwrite else "resume" if resume else "new", limit, probe)
