"""What the tasks of a run know of it, and the fitted state that they share."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache

from dtap_dask.features import FittedState, Graph, Transform
from dtap_dask.features.steps.transformers import allow_estimators
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.lake.scan import ScanSpec
from dtap_dask.records.example import Layout
from dtap_dask.records.folder import RunPaths
from dtap_dask.records.memory import keep_freed_memory
from dtap_dask.records.shard import Shuffle
from dtap_dask.storage import Store, open_store


@dataclass(frozen=True, repr=False)
class TaskContext:
    """What every task of a run must know; a few KB that travel with each task."""

    source_url: str
    output_url: str
    settings: str  # the job's storage section as JSON
    run_id: str
    token: str  # of this run alone: a process that outlives it must not take its state for that of another
    scan: ScanSpec
    graph: Graph
    layout: Layout
    shuffle: Shuffle
    seed: int
    given: bool = False  # whether the run's folder has the plan's state: with words of files, or taken
    secrets: Secrets = field(default_factory=Secrets)
    estimators: tuple[str, ...] = ()  # modules from which transformers may come

    def __repr__(self) -> str:
        return f"TaskContext({self.run_id!r})"  # Dask logs the arguments of what fails, and the rest may hold secrets

    def source(self) -> Store:
        """The source, with counters of its own."""
        keep_freed_memory()
        return open_store(self.source_url, json.loads(self.settings))

    def output(self) -> Store:
        """The output folder."""
        return open_store(self.output_url, json.loads(self.settings))

    def state(self, levels: int) -> FittedState:
        """The state with that number of levels fitted."""
        allow_estimators(*self.estimators)
        if levels == 0 and not self.given:
            return FittedState.unfitted(self.graph)
        return _load_state(self.output_url, self.settings, RunPaths(self.run_id).fitted(levels), self.token)

    def transform(self, levels: int) -> Transform:
        """The features by that state."""
        allow_estimators(*self.estimators)
        if levels == 0 and not self.given:
            return Transform(self.state(0))
        return _load_transform(self.output_url, self.settings, RunPaths(self.run_id).fitted(levels), self.token)


@lru_cache(maxsize=2)
def _load_state(output_url: str, settings: str, folder: str, token: str) -> FittedState:
    return FittedState.load(open_store(output_url, json.loads(settings)), folder)


@lru_cache(maxsize=1)
def _load_transform(output_url: str, settings: str, folder: str, token: str) -> Transform:
    """Its vocabulary tables are built once in a process, not once a task."""
    state = _load_state(output_url, settings, folder, token)
    return Transform(state)
