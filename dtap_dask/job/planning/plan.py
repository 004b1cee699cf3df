"""What a job will read, fit and write: decided before anything runs, and independent of the cluster."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.engine.checks import ColumnCheck, Findings, column_checks, merged_by_column
from dtap_dask.job import taps
from dtap_dask.job.jobfile.check import CheckedJob, check, check_expressions
from dtap_dask.job.jobfile.spec import FitFrom, Job
from dtap_dask.job.jobfile.word_files import WordFiles
from dtap_dask.job.planning.check_reuse import check_reuse
from dtap_dask.job.planning.footers import ReadFooters
from dtap_dask.job.planning.grouping import group_tasks, group_write_tasks, limited, task_order
from dtap_dask.job.planning.keras_names import keras_name_warnings
from dtap_dask.job.planning.leaks import leak_warnings
from dtap_dask.job.planning.origin import Origin, open_origin
from dtap_dask.job.planning.output import output_problems
from dtap_dask.job.planning.source import CheckedSource, SourceListing, check_source, list_job_source, nothing_left
from dtap_dask.job.planning.stages import PlannedStage, planned_stages
from dtap_dask.job.planning.warnings import SourceNotes, sample_warnings, source_warnings
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary
from dtap_dask.lake.listing.discover import SourceFile
from dtap_dask.lake.parquet.row_group import RowGroups
from dtap_dask.lake.scan import ScanSpec, ScanTask
from dtap_dask.records.manifest import FORMAT_VERSION, Amounts, SourceTotals
from dtap_dask.storage import Store


@dataclass(frozen=True)
class Plan:
    """A job, checked against the lake, as tasks.

    `origin` is the dataset whose state it takes; None if it fits.
    `files` are those that pruning by folders has left, `listed_bytes` is the size of all files found. `groups` is
    every row group to be read, in the source's order.
    """

    job: Job
    origin: Origin | None
    checked: CheckedJob
    source: Store
    files: tuple[SourceFile, ...]
    groups: RowGroups
    totals: SourceTotals
    listed_bytes: int
    fit_tasks: tuple[tuple[int, ...], ...]
    write_tasks: tuple[tuple[int, ...], ...]
    fingerprint: str
    limit: int | None
    source_notes: SourceNotes
    warnings: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """The name of the run's folder and part of its shards' names: the first eight characters of the fingerprint."""
        return self.fingerprint[:8]

    def task(self, index: int, positions: Sequence[int]) -> ScanTask:
        """The task that reads the row groups at these positions of `groups`."""
        return ScanTask(index, tuple(self.groups.take(positions)))

    def amounts(self, tasks: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
        """Source rows and bytes to read of each task, given by its positions in `groups`; shape [tasks, 2]."""
        positions = np.fromiter(chain.from_iterable(tasks), np.int64)
        first = np.cumsum([0, *map(len, tasks)])[:-1]
        found = np.stack([self.groups.rows[positions], self.groups.bytes[positions]], axis=1)
        return np.add.reduceat(found, first) if len(first) else found

    @property
    def stages(self) -> tuple[PlannedStage, ...]:
        """The stages, in order."""
        levels = 0 if self.origin else self.checked.graph.passes
        shuffle = self.job.output.shuffle == "global"
        return tuple(
            planned_stages(levels, self.fit_tasks, self.write_tasks, count=self.needs_counting, shuffle=shuffle)
        )

    @property
    def passes(self) -> int:
        """How often the source is read."""
        return sum(stage.reads_source for stage in self.stages)

    @property
    def derive(self) -> dict[str, str]:
        """The derived columns as they are written in the job, or in the manifest whose state it takes."""
        return {**(self.origin.entry.derive if self.origin else {}), **(self.job.document.get("derive") or {})}

    @property
    def needs_counting(self) -> bool:
        """Whether rows must be counted before shards can be planned: footers do not reflect filter, sample or split."""
        scan = self.checked.scan
        return not (scan.where is None and scan.sample is None and scan.split is None)


def make_plan(
    job: str | Path | Mapping[str, Any] | Job,
    *,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    read_footers: ReadFooters | None = None,
) -> Plan:
    """Plan a job (a path, a dict or a Job): list, prune by folders, read footers, prune by statistics, make tasks.

    `overrides` are changes such as 'output.path=out'. `limit` stops after the row group in which that many source
    rows are reached. `read_footers` reads many footers elsewhere, on a cluster. Raises JobError with every mistake
    in the job, SourceError if the lake cannot be read.
    """
    loaded = Job.load_leniently(job, overrides)
    with loaded.redacting():
        return plan_of(loaded, limit, read_footers)


def plan_of(job: Job, limit: int | None, read_footers: ReadFooters | None) -> Plan:
    """`make_plan` of a loaded job."""
    listing = list_job_source(job)
    origin = open_origin(job)
    source = _checked_source(job, origin, listing, limit, read_footers)
    checked, summary = source.checked, source.summary
    groups = limited(summary.groups, limit)
    if not len(groups):
        raise nothing_left(job, listing, summary)
    totals, source_notes = _totals(listing, summary, groups), _source_notes(job, listing, summary)
    Findings(totals.rows.read, Counter(source_notes.nulls)).refuse(null_checks(checked, limit))
    output, order = job.output, task_order(len(groups), job)
    shuffle = output.shuffle == "global"
    write_tasks = group_write_tasks(groups.raw_bytes, order, output.shard_size, shuffle=shuffle)
    names = [output.name for output in checked.graph.outputs if output.role == "feature"]
    return Plan(
        job=job,
        origin=origin,
        checked=checked,
        source=listing.store,
        files=tuple(listing.kept),
        groups=groups,
        totals=totals,
        listed_bytes=sum(file.size for file in listing.files),
        fit_tasks=group_tasks(groups.raw_bytes, range(len(groups)), groups.file_count),
        write_tasks=write_tasks,
        fingerprint=_fingerprint(job, checked, listing, groups, limit),
        limit=limit,
        source_notes=source_notes,
        warnings=(
            *source.warnings,
            *source_warnings(job, totals.files.read, groups, write_tasks, source_notes),
            *sample_warnings(checked.graph, totals.rows.read),
            *keras_name_warnings(names),
            *leak_warnings(job, checked),
        ),
    )


def _checked_source(
    job: Job, origin: Origin | None, listing: SourceListing, limit: int | None, read_footers: ReadFooters | None
) -> CheckedSource[CheckedJob]:
    """The job checked against all files, whose footers also count the nulls of columns that must have none."""
    problems = [*listing.problems, *output_problems(job, listing.store)]
    files = WordFiles(taps.settings(job.storage))

    def checking(schema: pa.Schema) -> CheckedJob:
        if origin is not None:
            return check_reuse(job, schema, listing.partitions, files, problems, origin=origin)
        return check(job, schema, listing.partitions, files, problems)

    def query_for(checked: CheckedJob) -> FooterQuery:
        watched = merged_by_column(null_checks(checked, limit))
        return _footer_query(job, listing, checked.scan, tuple(check.column for check in watched))

    return check_source(listing, checking, query_for, read_footers)


def null_checks(checked: CheckedJob, limit: int | None) -> tuple[ColumnCheck, ...]:
    """The steps that no null may reach, of columns whose nulls footers count; none if rows may be left out."""
    scan = checked.scan
    if limit is not None or scan.where is not None or scan.sample is not None or (scan.split and scan.split.where):
        return ()
    return tuple(check for check in column_checks(checked.graph) if check.nulls and check.column in scan.schema.names)


def plan_source(
    job: Job, choose: Callable[[Sequence[str]], tuple[str, ...]], warn: Callable[[str], None]
) -> tuple[Store, ScanSpec, list[ScanTask]]:
    """The source of a job without its features: its store, the scan of its rows, and the tasks (at least one).

    `choose` picks the columns to read out of all names, or raises JobError.
    """
    listing = list_job_source(job)

    def checking(schema: pa.Schema) -> ScanSpec:
        return check_expressions(job, schema, listing.partitions, listing.problems, choose)

    source = check_source(listing, checking, lambda scan: _footer_query(job, listing, scan))
    groups = source.summary.groups
    for warning in source.warnings:
        warn(warning)
    cut = group_tasks(groups.raw_bytes, range(len(groups)), groups.file_count)
    tasks = [tuple(groups.take(one)) for one in cut] or [()]
    return listing.store, source.checked, [ScanTask(index, task) for index, task in enumerate(tasks)]


def _footer_query(job: Job, listing: SourceListing, scan: ScanSpec, nulls: tuple[str, ...] = ()) -> FooterQuery:
    return FooterQuery(scan.schema, listing.partitions, job.source.where or None, nulls)


def _totals(listing: SourceListing, summary: FooterSummary, groups: RowGroups) -> SourceTotals:
    return SourceTotals(
        files=Amounts.of(len(listing.files), groups.file_count),
        row_groups=Amounts.of(summary.row_groups, len(groups)),
        rows=Amounts.of(summary.rows, int(groups.rows.sum())),
        bytes=Amounts.of(summary.bytes, int(groups.bytes.sum())),
    )


def _source_notes(job: Job, listing: SourceListing, summary: FooterSummary) -> SourceNotes:
    pruned = len(summary.groups) < summary.row_groups or len(listing.kept) < len(listing.files)
    idle = bool(job.source.where) and not pruned
    return SourceNotes(summary.row_groups, idle, summary.lacking, summary.plain_text, summary.nulls)


def _fingerprint(job: Job, checked: CheckedJob, listing: SourceListing, groups: RowGroups, limit: int | None) -> str:
    """SHA-256 of all that decides the bytes: the job, the state or the files of words that it names, the source files
    (path, size, footer), the format version."""
    shape = job.as_document()
    if isinstance(job.fit, FitFrom):
        shape["fit"] = {"from": checked.state.digest}
    shape.pop("name")
    shape.pop("storage")
    shape["source"].pop("path")
    shape["source"].pop("verify_checksums")
    shape["output"].pop("path")
    deciding = {
        "job": shape,
        "place": listing.store.address,
        "files": [[file.path, file.key, file.size, file.partition] for file in listing.kept],
        "footers": _footer_crcs(groups),
        "limit": limit,
        "format": FORMAT_VERSION,
        **({"words": list(checked.digests)} if checked.digests else {}),
    }
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()  # unsorted: the order of parts matters


def _footer_crcs(groups: RowGroups) -> list[int]:
    """The CRC32C of the footer of each file that is read."""
    _, first = np.unique(groups.column("file"), return_index=True)
    crcs: list[int] = groups.column("footer_crc")[first].tolist()
    return crcs
