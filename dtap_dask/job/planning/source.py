"""The source of a plan: its files, its columns, and the row groups left after pruning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow as pa

from dtap_dask.errors import DtapError, ExpressionError, JobError, Problem, SourceError, did_you_mean
from dtap_dask.job import taps
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.footers import ReadFooters, summarize
from dtap_dask.lake.columns import SourceColumns, source_columns
from dtap_dask.lake.footer_summary import FooterQuery, FooterSummary, summarize_footers
from dtap_dask.lake.listing.discover import SourceFile, list_source
from dtap_dask.lake.listing.partitions import parse_type, partition_schema, without_partition_columns
from dtap_dask.lake.parquet.footers import read_schema
from dtap_dask.lake.pruning import prune_files
from dtap_dask.lake.sql.expression import compile_sql, parse_sql
from dtap_dask.storage import Store

# Footers read to find columns that the first file does not have as the job needs them.
SAMPLED_FOOTERS = 64

T = TypeVar("T")


@dataclass(frozen=True)
class SourceListing:
    """The listed source: all files, those `kept` after pruning by folders, and the columns of the first kept file."""

    store: Store
    files: list[SourceFile]
    kept: list[SourceFile]
    partitions: pa.Schema
    schema: pa.Schema
    problems: list[Problem]
    warnings: list[str]


@dataclass(frozen=True)
class CheckedSource(Generic[T]):
    """A job `checked` against the columns of all files together, the summary of their footers, and warnings."""

    checked: T
    summary: FooterSummary
    warnings: tuple[str, ...]


def list_job_source(job: Job) -> SourceListing:
    """List the source, prune files by their folders, and read the columns of the first file that is left."""
    try:
        warnings: list[str] = []
        store, files = list_source(job.source.path, taps.settings(job.storage), warnings.append)
    except DtapError:
        job.raise_pending(())  # mistakes in the job explain more than a missing folder
        raise
    declared, problems = _declared(job, files)
    partitions = partition_schema(files, declared, warnings.append)
    kept = _prune_by_folders(job, files, partitions)
    schema = without_partition_columns(read_schema(store, kept), partitions)
    if job.source.where is not None:
        with contextlib.suppress(ExpressionError):  # reported later, with all other mistakes
            every = pa.schema([*schema, *partitions])
            kept = prune_files(kept, partitions, compile_sql(job.source.where, every))
    _refuse_none(job, files, kept, partitions)
    return SourceListing(store, files, kept, partitions, schema, problems, warnings)


def check_source(
    listing: SourceListing,
    checking: Callable[[pa.Schema], T],
    query_for: Callable[[T], FooterQuery],
    read_footers: ReadFooters | None = None,
) -> CheckedSource[T]:
    """Check a job against the columns of the first file, read all footers, and check it again if they show others.

    `checking` returns the checked job or raises JobError; `query_for` returns what its footers are searched for.
    SourceError if no type can hold the values of a needed column in all files.
    """
    schema, checked = _first_check(listing, checking)
    summary = summarize(listing.store, listing.kept, query_for(checked), read_footers)
    warnings: list[str] = []
    columns = source_columns(summary.columns)
    whole = without_partition_columns(columns.schema, listing.partitions, warnings.append)
    if whole != schema:
        query, checked = query_for(checked), checking(whole)
        if query_for(checked) != query:
            summary = summarize(listing.store, listing.kept, query_for(checked), read_footers)
    needed = query_for(checked).schema.names
    columns.refuse(needed)
    return CheckedSource(checked, summary, (*listing.warnings, *warnings, *columns.warnings(needed)))


def _first_check(listing: SourceListing, checking: Callable[[pa.Schema], T]) -> tuple[pa.Schema, T]:
    """Check against the columns of the first file; if the job does not fit them, against those of a sample of files."""
    try:
        return listing.schema, checking(listing.schema)
    except JobError:
        schema = without_partition_columns(_sampled(listing).schema, listing.partitions)
        if schema == listing.schema:
            raise
    return schema, checking(schema)


def _sampled(listing: SourceListing) -> SourceColumns:
    """The columns of files from all over the source, the last one included."""
    files = listing.kept[:: max(1, -(-len(listing.kept) // SAMPLED_FOOTERS))]
    nothing = FooterQuery(pa.schema([]), listing.partitions, None)
    return source_columns(summarize_footers(listing.store, [*files, listing.kept[-1]], nothing).columns)


def nothing_left(job: Job, listing: SourceListing, summary: FooterSummary) -> SourceError:
    """The error for a source without a row group left."""
    place, files = ", ".join(job.source.path), len(listing.files)
    if not summary.rows:
        return SourceError(
            f"There are no rows in {place}: {len(listing.kept):,} of {files:,} files were opened, and none holds a "
            "row. Check the path, and that the job that writes it has finished."
        )
    return SourceError(
        f"No rows of {place} are left: {files:,} files were found, {len(listing.kept):,} with {summary.rows:,} rows "
        "are left after pruning by folders, and none of their row groups can hold a row that source.where keeps: "
        f"{job.source.where!r}."
    )


def _declared(job: Job, files: Sequence[SourceFile]) -> tuple[dict[str, str], list[Problem]]:
    """The declared partition types that are valid, and the problems of the others."""
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


def _prune_by_folders(job: Job, files: list[SourceFile], partitions: pa.Schema) -> list[SourceFile]:
    """Prune files by the conditions that need only folder names, before any footer is read."""
    kept = files
    if job.source.where is not None and len(partitions):
        for part in parse_sql(job.source.where).conjuncts():
            with contextlib.suppress(ExpressionError):  # reported later, with all other mistakes
                kept = prune_files(kept, partitions, part.bind(partitions))
    _refuse_none(job, files, kept, partitions)
    return kept


def _refuse_none(job: Job, files: Sequence[SourceFile], kept: Sequence[SourceFile], partitions: pa.Schema) -> None:
    if not kept:
        raise SourceError(
            f"No file is left of {len(files):,} after pruning by folders ({', '.join(partitions.names)}). "
            f"Check source.where: {job.source.where!r}."
        )
