"""What a job will read, fit and write, decided before anything runs and without looking at the cluster."""

from __future__ import annotations

import contextlib
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

from dtap_dask.errors import DtapError, ExpressionError, Problem, SourceError, StorageError, did_you_mean
from dtap_dask.features.checks import Findings, Watch, by_column, watches
from dtap_dask.job import taps
from dtap_dask.job.jobfile.check import CheckedJob, check, check_expressions
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.grouping import group_tasks, group_write_tasks, limited, task_order
from dtap_dask.job.planning.leaks import of_labels
from dtap_dask.job.planning.names import of_names
from dtap_dask.job.planning.warnings import Looked, of_source
from dtap_dask.lake import predicate
from dtap_dask.lake.discover import SourceFile, contains, lies_within, list_source
from dtap_dask.lake.footers import RowGroups, read_schema
from dtap_dask.lake.partitions import below_folders, parse_type, partition_schema
from dtap_dask.lake.pruning import Asked, Seen, look, prune_files
from dtap_dask.lake.scan import ScanSpec, ScanTask
from dtap_dask.records.manifest import FORMAT_VERSION
from dtap_dask.storage import Store, open_store

# More footers than this are read elsewhere: in tasks on the workers, or by all cores (half a millisecond each here).
FOOTERS_ON_CLIENT = 1000
FOOTERS_A_TASK = 256

ReadFooters = Callable[[Store, Sequence[SourceFile], Asked], Seen]


def footer_parts(files: Sequence[SourceFile]) -> list[Sequence[SourceFile]]:
    """Files in parts whose footers are read together."""
    return [files[start : start + FOOTERS_A_TASK] for start in range(0, len(files), FOOTERS_A_TASK)]


@dataclass(frozen=True)
class Amount:
    """So many files, row groups, rows and bytes (of whole files, or of the columns needed: as `SourceTotals` says)."""

    files: int
    row_groups: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class SourceTotals:
    """`found` by listing (bytes of whole files; row groups and rows only of files whose footer was read),
    `partitions` what is left after pruning by folders, `read` what is left after pruning by statistics (both in
    compressed bytes of the needed columns)."""

    found: Amount
    partitions: Amount
    read: Amount


@dataclass(frozen=True)
class Plan:
    """A job, checked against the lake, as tasks. `groups` is every row group to be read, in the source's order."""

    job: Job
    checked: CheckedJob
    source: Store
    files: tuple[SourceFile, ...]
    groups: RowGroups
    totals: SourceTotals
    fit_tasks: tuple[tuple[int, ...], ...]
    write_tasks: tuple[tuple[int, ...], ...]
    fingerprint: str
    limit: int | None
    looked: Looked
    warnings: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """The name of the run's folder under `_run/`, and of its shards: the fingerprint's first eight letters."""
        return self.fingerprint[:8]

    def task(self, index: int, positions: Sequence[int]) -> ScanTask:
        """The task that reads the row groups at these positions of `groups`."""
        return ScanTask(index, tuple(self.groups.take(positions)))

    def amounts(self, tasks: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
        """The source rows and the bytes to read of each task (given by its positions in `groups`), shape [tasks, 2]."""
        positions = np.fromiter(chain.from_iterable(tasks), np.int64)
        first = np.cumsum([0, *map(len, tasks)])[:-1]
        found = np.stack([self.groups.rows[positions], self.groups.bytes[positions]], axis=1)
        return np.add.reduceat(found, first) if len(first) else found

    @property
    def needs_counting(self) -> bool:
        """Whether rows must be counted before shards can be planned: footers know no filter, sample or split."""
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
    in the job, SourceError where the lake is not fit to be read.
    """
    loaded = Job.load_leniently(job, overrides)
    with loaded.redacting():
        return plan_of(loaded, limit, read_footers)


def plan_of(loaded: Job, limit: int | None, read_footers: ReadFooters | None) -> Plan:
    """`make_plan` of a job that is loaded: its paths and settings count as they are, its document as it was written."""
    lake = _look(loaded)
    checked = check(loaded, lake.schema, lake.partitions, [*lake.problems, *_output_problems(loaded, lake.store)])
    watched = foreseeable(checked, limit)
    nulls = tuple(watch.column for watch in by_column(watched))
    groups, totals, looked = _row_groups(loaded, lake, checked.scan, limit, read_footers, nulls=nulls)
    Findings(totals.read.rows, Counter(looked.nulls)).refuse(watched)
    write_tasks = group_write_tasks(groups.raw_bytes, task_order(len(groups), loaded))
    names = [one.spec.name for one in checked.pipeline.features if one.spec.role == "feature"]
    return Plan(
        job=loaded,
        checked=checked,
        source=lake.store,
        files=tuple(lake.kept),
        groups=groups,
        totals=totals,
        fit_tasks=group_tasks(groups.raw_bytes, range(len(groups))),
        write_tasks=write_tasks,
        fingerprint=_fingerprint(loaded, lake, groups, limit),
        limit=limit,
        looked=looked,
        warnings=(
            *lake.warnings,
            *of_source(loaded, totals.read.files, groups, write_tasks, looked),
            *of_names(names),
            *of_labels(loaded, checked),
        ),
    )


def foreseeable(checked: CheckedJob, limit: int | None) -> tuple[Watch, ...]:
    """What columns of files must not hold nulls for: nothing where a row may be left out that has one."""
    scan = checked.scan
    if limit is not None or scan.where is not None or scan.sample is not None or (scan.split and scan.split.where):
        return ()
    return tuple(watch for watch in watches(checked.pipeline) if watch.nulls and watch.column in scan.schema.names)


def plan_source(job: Job, warn: Callable[[str], None]) -> tuple[Store, ScanSpec, list[ScanTask]]:
    """The store, what to do with the rows, and the tasks that read them, of the source alone."""
    lake = _look(job)
    scan = check_expressions(job, lake.schema, lake.partitions, lake.problems)
    groups, _, _ = _row_groups(job, lake, scan, None, None)
    positions = group_tasks(groups.raw_bytes, range(len(groups)))
    for warning in lake.warnings:
        warn(warning)
    return lake.store, scan, [ScanTask(i, tuple(groups.take(one))) for i, one in enumerate(positions)]


@dataclass(frozen=True)
class _Lake:
    """What listing and one footer say: every file, those that folders do not prune, and the columns."""

    store: Store
    files: list[SourceFile]
    kept: list[SourceFile]
    partitions: pa.Schema
    schema: pa.Schema
    problems: list[Problem]
    warnings: list[str]


def _look(job: Job) -> _Lake:
    try:
        warnings: list[str] = []
        store, files = list_source(job.source.path, taps.settings(job.storage), warnings.append)
    except DtapError:
        job.raise_pending(())  # mistakes in the job explain more than a folder that is not there
        raise
    declared, problems = _declared(job, files)
    partitions = partition_schema(files, declared, warnings.append)
    kept = _prune_by_folders(job, files, partitions)
    schema = below_folders(read_schema(store, kept), partitions, warnings.append)
    if job.source.where is not None:
        with contextlib.suppress(ExpressionError):  # said with all other mistakes, later
            kept = prune_files(kept, partitions, predicate.compile(job.source.where, _all(schema, partitions)))
    _refuse_none(job, files, kept, partitions)
    return _Lake(store, files, kept, partitions, schema, problems, warnings)


def _declared(job: Job, files: Sequence[SourceFile]) -> tuple[dict[str, str], list[Problem]]:
    """The declared partition types that make sense, and what is wrong with the others."""
    names = [name for name, _ in files[0].partition]
    good, problems = {}, []
    for name, kind in (job.source.partitions or {}).items():
        place = job.place("source", "partitions", name)
        if name not in names:
            message = f"the source has no folders {name}=..., only {', '.join(names) or 'plain ones'}."
            problems.append(Problem(place, message + did_you_mean(name, names)))
            continue
        try:
            parse_type(name, kind)
        except SourceError as error:
            problems.append(Problem(place, str(error)))
        else:
            good[name] = kind
    return good, problems


def _row_groups(
    job: Job,
    lake: _Lake,
    scan: ScanSpec,
    limit: int | None,
    read_footers: ReadFooters | None,
    *,
    nulls: tuple[str, ...] = (),
) -> tuple[RowGroups, SourceTotals, Looked]:
    """The row groups to read, how much that is of the source, and what else the footers show."""
    asked = Asked(scan.schema, lake.partitions, job.source.where or None, nulls)
    elsewhere = read_footers is not None and len(lake.kept) > FOOTERS_ON_CLIENT
    seen = (read_footers if read_footers and elsewhere else look)(lake.store, lake.kept, asked)
    groups = limited(seen.groups, limit)
    rows = int(groups.rows.sum())
    if not rows:
        raise SourceError(
            f"No rows are left of {', '.join(job.source.path)}: {len(lake.files):,} files were found, "
            f"{len(lake.kept):,} are left after pruning by folders, with {seen.rows:,} rows, and none "
            f"of their row groups can hold a row that source.where keeps: {job.source.where!r}."
        )
    found = Amount(len(lake.files), seen.row_groups, seen.rows, sum(f.size for f in lake.files))
    folders = Amount(len(lake.kept), seen.row_groups, seen.rows, seen.bytes)
    read = Amount(len(np.unique(groups.column("file"))), len(groups), rows, int(groups.bytes.sum()))
    idle = bool(asked.where) and len(seen.groups) == seen.row_groups and len(lake.kept) == len(lake.files)
    looked = Looked(seen.row_groups, idle, seen.lacking, seen.plain_text, seen.nulls)
    return groups, SourceTotals(found, folders, read), looked


def _all(schema: pa.Schema, partitions: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *partitions])


def _prune_by_folders(job: Job, files: list[SourceFile], partitions: pa.Schema) -> list[SourceFile]:
    """Drop files by the conditions that need nothing but folder names, before any footer is read."""
    kept = files
    if job.source.where is not None and len(partitions):
        for part in predicate.parse(job.source.where).conjuncts():
            with contextlib.suppress(ExpressionError):  # said with all other mistakes, later
                kept = prune_files(kept, partitions, part.bind(partitions))
    _refuse_none(job, files, kept, partitions)
    return kept


def _refuse_none(job: Job, files: Sequence[SourceFile], kept: Sequence[SourceFile], partitions: pa.Schema) -> None:
    if not kept:
        raise SourceError(
            f"No file is left of {len(files):,} after pruning by folders ({', '.join(partitions.names)}). "
            f"Check source.where: {job.source.where!r}."
        )


def _fingerprint(job: Job, lake: _Lake, groups: RowGroups, limit: int | None) -> str:
    """SHA-256 over what decides the bytes: the job, the source files (place, size, footer), the format's version."""
    shape = job.as_document()
    shape.pop("name")
    shape.pop("storage")
    shape["source"].pop("path")
    shape["source"].pop("verify_checksums")
    shape["output"].pop("path")
    told = {
        "job": shape,
        "place": lake.store.address,
        "files": [[file.path, file.key, file.size, file.partition] for file in lake.kept],
        "footers": _footer_crcs(groups),
        "limit": limit,
        "format": FORMAT_VERSION,
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()  # keys stay as written: the order of parts counts


def _footer_crcs(groups: RowGroups) -> list[int]:
    """The CRC32C of the footer of each file that something is read of."""
    _, first = np.unique(groups.column("file"), return_index=True)
    crcs: list[int] = groups.column("footer_crc")[first].tolist()
    return crcs


def _output_problems(job: Job, source: Store) -> list[Problem]:
    """An output inside the source would be read as source the next time, one around it would mix both."""
    place = job.place("output", "path")
    output = job.output.path
    try:
        settings = taps.settings(job.storage)
        if not open_store(output, settings).same_filesystem(source):
            return []
        for path in job.source.path:
            if contains(path, output, settings):
                what = f"{output!r} lies inside the source {path!r}, and would be read as source next time."
                return [Problem(place, f"{what} Choose a folder outside of it.")]
            if lies_within(path, output, settings):
                what = f"the source {path!r} lies inside {output!r}, among what will be written."
                return [Problem(place, f"{what} Choose a folder of its own.")]
    except StorageError as error:
        return [Problem(place, str(error))]
    return []
