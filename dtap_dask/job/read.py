"""The filtered source as a lazy Dask DataFrame: the rows that a job's tasks read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

from dtap_dask.errors import JobError, did_you_mean
from dtap_dask.job.execution.tasks import with_retries
from dtap_dask.job.jobfile.secrets import Secrets
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.plan import plan_source
from dtap_dask.lake.scan import ScanSpec, ScanTask, read_task, scan_schema
from dtap_dask.storage import Store


def read(
    source: str | Path | Sequence[str | Path] | Mapping[str, Any] | Job,
    *,
    where: str | None = None,
    columns: str | Sequence[str] | None = None,
    storage: dict[str, Any] | None = None,
) -> dd.DataFrame:
    """The rows of a job, or of Parquet files, as a Dask DataFrame of Arrow-backed columns; nothing is read yet.

    `source` is a job (a file that ends in .yaml or .yml, a dict, a Job): its filter and sample are applied and its
    derived columns added. Or it is the path of a file, folder or glob (or a list of them), with `where` as a SQL
    condition and `storage` as in a job file. `columns` chooses columns, derived ones too (all by default), in that
    order. One partition is one task of the plan; text, integers with nulls and decimals keep their exact values. A
    source without rows, or none of which can pass the filter, gives one empty partition. JobError for a mistake in the
    arguments, SourceError for files that cannot be read.
    """
    job = _as_job(source, where, storage)
    with job.redacting():
        store, scan, tasks = plan_source(
            job, partial(_chosen, columns), lambda text: warnings.warn(job.redact(text), stacklevel=4)
        )
    meta = _frame(_schema(scan).empty_table())
    with_rows = {"store": store, "scan": scan, "secrets": job.secrets}
    return dd.from_map(_read_frame, tasks, **with_rows, meta=meta, label="scan", enforce_metadata=False)


def _chosen(columns: str | Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    if columns is None:
        return tuple(known)
    columns = [columns] if isinstance(columns, str) else columns
    if not columns:
        raise JobError("`columns` is empty. Name some, or leave it out for all.")
    for position, name in enumerate(columns):
        if name not in known:
            raise JobError(f"There is no column {name!r}.{did_you_mean(name, known)}")
        if name in columns[:position]:
            raise JobError(f"`columns` names {name!r} twice.")
    return tuple(columns)


def _as_job(
    source: str | Path | Sequence[str | Path] | Mapping[str, Any] | Job,
    where: str | None,
    storage: dict[str, Any] | None,
) -> Job:
    if isinstance(source, Mapping | Job) or (
        isinstance(source, str | Path) and str(source).endswith((".yaml", ".yml"))
    ):
        if where is not None or storage is not None:
            raise JobError("`where` and `storage` belong in the job; give them only with the path of Parquet files.")
        return Job.load(source)
    paths = [source] if isinstance(source, str | Path) else source
    return Job.load(
        {
            "version": 1,
            "storage": storage or {},
            "source": {"path": [str(path) for path in paths], "where": where},
            "features": [{"columns": ["*"]}],
            "output": {"path": "unused"},
        }
    )


def _schema(scan: ScanSpec) -> pa.Schema:
    known = scan_schema(scan)
    return pa.schema([known.field(name) for name in scan.outputs])


def _read_frame(task: ScanTask, store: Store, scan: ScanSpec, secrets: Secrets) -> pd.DataFrame:
    schema = _schema(scan)

    def tables() -> pa.Table:
        # Kept in batches, so that the words of each stay below the limit of an Arrow array.
        batches = [batch.rows for batch in read_task(store, scan, task)]
        return pa.Table.from_batches(batches).cast(schema) if batches else schema.empty_table()

    with secrets.redacting():
        return _frame(with_retries(tables))


def _frame(table: pa.Table) -> pd.DataFrame:
    """A frame of Arrow-backed columns, so that integers with nulls do not become floats."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame
