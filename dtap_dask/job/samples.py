"""A few rows of a job's source as they are in the lake, for a check of what was made from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.plan import plan_source
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task, scan_schema
from dtap_dask.storage import Store

PLACES = 4  # row groups, spread over the source, from which the rows are taken


def source_rows(job: Mapping[str, Any], columns: Sequence[str], count: int) -> pa.Table:
    """At most `count` rows that pass `source.where`, with these columns of the source: the same rows every time.

    `job` is a job's document, as a manifest has it. Raises what planning and reading raise where the source cannot be
    read (JobError, SourceError, StorageError).
    """
    loaded = Job.load(job)
    with loaded.redacting():
        store, scan, tasks = plan_source(loaded, lambda _: tuple(columns), lambda _: None)
        scan = replace(scan, sample=None, split=None)
        schema = scan_schema(scan)
        wanted = pa.schema([schema.field(name) for name in columns])
        groups = [group for task in tasks for group in task.groups]
        chosen = [groups[place] for place in evenly_spaced(len(groups), PLACES)]
        each = -(-count // max(1, len(chosen)))
        pieces = [piece for group in chosen for piece in _rows(store, scan, ScanTask(0, (group,)), each)]
        return pa.concat_tables([wanted.empty_table(), *(piece.cast(wanted) for piece in pieces)]).slice(0, count)


def _rows(store: Store, scan: ScanSpec, task: ScanTask, count: int) -> Iterator[pa.Table]:
    """Rows of the first batch of a task that has any, spread over that batch."""
    batches = cast("Any", read_task(store, scan, task))
    with contextlib.closing(batches):
        for batch in batches:
            if batch.rows.num_rows:
                yield pa.Table.from_batches([batch.rows]).take(list(evenly_spaced(batch.rows.num_rows, count)))
                return


def evenly_spaced(size: int, count: int) -> Iterator[int]:
    """At most `count` of `size` places, evenly spaced."""
    yield from np.unique(np.linspace(0, size - 1, min(size, count)).astype(int)).tolist() if size else ()
