"""Row groups of a plan read in part, for what is measured or shown before a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from dtap_dask.job.planning.plan import Plan
from dtap_dask.lake.parquet.reading import planned_rows
from dtap_dask.lake.scan import ScanBatch, ScanSpec, ScanTask, read_task


def first_batches(
    plan: Plan, scan: ScanSpec, position: int, rows: int | None = None, *, batch_rows: int
) -> Iterator[tuple[ScanBatch, int]]:
    """Batches of the first rows of a row group (of all by default), and the number of source rows behind each."""
    group = plan.groups[position]
    size = planned_rows(scan.schema, group, batch_rows)
    batches = read_task(plan.source, scan, ScanTask(position, (group,)), batch_rows=size)
    count = None if rows is None else -(-rows // size)
    with contextlib.closing(cast("Any", batches)):
        for number, batch in enumerate(islice(batches, count)):
            yield batch, min(size, group.rows - number * size)
