"""Transformed rows of a small sample, in this process, with nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from dtap_dask.errors import DataError
from dtap_dask.features import FittedState, Rows, Transform, fit_batches
from dtap_dask.job.plan import Plan, make_plan
from dtap_dask.job.spec import Job
from dtap_dask.job.tasks import fit_mask, in_parts
from dtap_dask.lake.scan import ScanBatch, read_task

SAMPLE_ROWS = 20_000
BATCH_ROWS = 4096


def preview(job: str | Path | Mapping[str, Any] | Job, rows: int = 5, *, overrides: Iterable[str] = ()) -> Rows:
    """The first `rows` rows as the records would hold them, with statistics fitted on a sample of the source.

    A sample's means and vocabularies differ from those of a run; names, types and shapes do not. Raises what `run`
    would raise for the job, and DataError where the sample shows a null or an infinity that would stop it.
    """
    plan = make_plan(job, overrides=overrides, limit=SAMPLE_ROWS)
    batches = _sample(plan)
    state = _fit(plan, batches)
    transform = Transform(plan.checked.pipeline, state)
    whole = pa.Table.from_batches([batch.rows for batch in batches]).combine_chunks()
    return transform.apply(whole.slice(0, rows).to_batches()[0])


def _sample(plan: Plan) -> list[ScanBatch]:
    tasks = (plan.task(i, one) for i, one in enumerate(plan.fit_tasks))
    scan = plan.checked.scan
    batches = (batch for task in tasks for batch in read_task(plan.source, scan, task, batch_rows=BATCH_ROWS))
    sample = [batch for batch in islice(batches, SAMPLE_ROWS // BATCH_ROWS) if batch.rows.num_rows]
    if not sample:
        raise DataError(
            f"None of the first {SAMPLE_ROWS:,} rows of {plan.source.url} passes source.where: "
            f"{plan.job.source.where!r}. `dtap-dask run --limit ROWS` looks at more of them."
        )
    return sample


def _fit(plan: Plan, batches: list[ScanBatch]) -> FittedState:
    scan = plan.checked.scan
    parts = [in_parts(batch) for batch in batches]
    masks = [fit_mask(scan, split) for _, split in parts]
    return fit_batches(plan.checked.pipeline, [rows for rows, _ in parts], masks)
