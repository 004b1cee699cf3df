"""The dataset that a job with `fit: {from: PATH}` takes its fitted state from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dtap_dask.errors import DtapError, Problem
from dtap_dask.features import FittedState
from dtap_dask.job import taps
from dtap_dask.job.jobfile.spec import FitFrom, Job
from dtap_dask.lake.derived import RawColumns
from dtap_dask.records.fitted import read_fitted
from dtap_dask.records.manifest import FittedFrom, Manifest, RawEntry
from dtap_dask.storage import open_store


@dataclass(frozen=True)
class Origin:
    """An earlier dataset, whose state encodes other rows; `path` as the job names it, without secrets."""

    path: str
    manifest: Manifest
    state: FittedState
    entry: RawEntry

    @cached_property
    def raw(self) -> RawColumns:
        """What rows must have."""
        return self.entry.raw

    @property
    def noted(self) -> FittedFrom:
        """What a manifest says of it."""
        return FittedFrom(path=self.path, fingerprint=self.manifest.fingerprint, rows=self.state.rows)


def open_origin(job: Job) -> Origin | None:
    """The dataset that a job takes its state from; None for a job that fits.

    Raises JobError, with all pending mistakes, where there is none that can be used.
    """
    if not isinstance(job.fit, FitFrom):
        return None
    try:
        store = open_store(job.fit.from_, taps.settings(job.storage))
        manifest, state = read_fitted(store)
        origin = Origin(job.document["fit"]["from"], manifest, state, manifest.source_columns)
        assert origin.raw  # whose expressions need the environment
        return origin
    except (DtapError, OSError) as error:
        problem = str(error)
    job.raise_pending([Problem(job.place("fit", "from"), problem)])
    raise AssertionError("a problem was not raised")
