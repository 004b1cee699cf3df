"""Transforms a small sample of a job's rows, in this process and without writing anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import DataError
from dtap_dask.features import Accumulator, FittedState, Partial, Rows, Transform, finish, merge
from dtap_dask.job.execution.executor import LoopExecutor
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.plan import Plan, make_plan
from dtap_dask.job.planning.sampling import first_batches

# The source rows that a preview reads, and the most if these hold too few to fit or to show.
SAMPLE_ROWS = 20_000
MOST_ROWS = 200_000
FITTED_ROWS = 1000
BATCH_ROWS = 4096


def preview(job: str | Path | Mapping[str, Any] | Job, rows: int = 5, *, overrides: Iterable[str] = ()) -> Rows:
    """The first `rows` rows as the records would hold them, with statistics fitted on a sample of the source.

    With `fit: {from: ...}` nothing is fitted. Means and vocabularies of a sample differ from those of a run; names,
    types and shapes do not. Raises what `run` would raise for the job, and DataError if the sample has a null or an
    infinity that would stop a run, or no row of the part that is fitted.
    """
    loaded = Job.load_leniently(job, overrides)
    with loaded.redacting():
        plan = make_plan(loaded, limit=MOST_ROWS)
        sample = _sample(plan, rows)
        state = _fit(plan, sample)
        shown = pa.Table.from_batches(sample.batches).slice(0, rows).combine_chunks()
        return Transform(state).apply(shown.to_batches()[0])


@dataclass
class _Sample:
    """Batches of rows that are in a part; `fitted` masks the rows of each batch in the part that is fitted."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    fitted: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    read: int = 0  # source rows
    unmatched: int = 0  # pass source.where, but are in no part

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    @property
    def fitted_rows(self) -> int:
        return sum(int(mask.sum()) for mask in self.fitted)


def _sample(plan: Plan, rows: int) -> _Sample:
    """The first rows of the source, and further ones if these are too few."""
    scan, sample = plan.checked.scan, _Sample()
    batches = (first_batches(plan, scan, position, batch_rows=BATCH_ROWS) for position in range(len(plan.groups)))
    for batch, read in chain.from_iterable(batches):
        matched, split = batch.in_parts()
        sample.read += read
        sample.unmatched += len(batch.split) - len(split)
        if matched.num_rows:
            sample.batches.append(matched)
            sample.fitted.append(scan.fit_mask(split))
        fitted = plan.origin is not None or (sample.read >= SAMPLE_ROWS and sample.fitted_rows >= FITTED_ROWS)
        enough = fitted and sample.rows >= rows
        if enough or sample.read >= MOST_ROWS:
            break
    if not (sample.rows if plan.origin else sample.fitted_rows):
        raise DataError(_nothing_fitted(plan, sample))
    return sample


def _fit(plan: Plan, sample: _Sample) -> FittedState:
    """Every pass of a run over the sample, each batch as a task."""
    state = plan.checked.state
    while not state.is_complete:
        tasks = [(state, rows, fitted) for rows, fitted in zip(sample.batches, sample.fitted, strict=True)]
        last, names = partial(finish, state=state), ("fit", "merge", "finish")
        state = LoopExecutor().tree(names, _learn, tasks, merge=merge, last=last, on_end=lambda _: None)
    return state


def _learn(state: FittedState, rows: pa.RecordBatch, fitted: npt.NDArray[np.bool_]) -> Partial:
    accumulator = Accumulator(state)
    accumulator.add(rows, fitted)
    return accumulator.partial()


def _nothing_fitted(plan: Plan, sample: _Sample) -> str:
    read = f"{sample.read:,} rows of {plan.source.url}, which a preview reads,"
    further = "`dtap-dask run` reads all rows."
    if not sample.rows and not sample.unmatched:
        where = plan.job.source.where
        return f"None of the first {read} passes source.where: {where!r}. Start elsewhere, or run: {further}"
    if plan.origin:
        return f"None of the first {read} is in a part: no condition of split.where holds. {further}"
    split = plan.checked.scan.split
    part = split.fit if split else "train"
    return (
        f"None of the first {read} is in the part {part!r}, which is fitted: {sample.rows:,} are in other parts, "
        f"{sample.unmatched:,} in none. Start where that part is, with --set source.where=... or source.path=...; "
        f"{further}"
    )
