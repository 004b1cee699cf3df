"""What is odd about a plan, each with what would mend it: nothing is told that does no harm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dtap_dask.features import Pipeline
from dtap_dask.features.counts import Counts
from dtap_dask.features.step import Step
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning import grouping
from dtap_dask.job.planning.grouping import MIXED_FROM, OWN_TASK_BYTES
from dtap_dask.lake.parquet.footers import RowGroups
from dtap_dask.words import count, human

# More files than this, each with fewer bytes of the needed columns than that, are many small ones.
MANY_FILES = 1000
SMALL_FILE = 1 << 20
# load(shuffle=True) mixes so many rows at a time: a source that is no larger needs no mixed shards.
LOADED_ROWS = 65_536
# Dask takes about a millisecond for a task: more tasks than this, of fewer bytes than that, cost more than they read.
MANY_TASKS = 20_000
SMALL_TASK = 4 << 20
# Less is read in seconds, however few threads do it.
WORTH_SHARING = 64 << 20
# Exact counts of distinct values take this many times their bytes at their peak, when tasks' counts are merged, and so
# much a value: measured with 2.4 million words of 8 to 200 letters (within 15 %).
COPIES = 5
WORD_BYTES = 100
# Of a worker's memory vocabularies may take so much: Dask pauses a worker at 80 %.
ROOM = 0.6


@dataclass(frozen=True)
class SourceNotes:
    """What the footers show beside the row groups that are to be read: of all row groups in the files that are opened.

    `idle`: a filter left out neither a file nor a row group. `lacking`: in how many row groups columns of the filter
    have no statistics. `plain_text`: bytes of text columns in row groups that hold more words than a dictionary.
    `nulls`: known nulls in columns that must not hold any, where every row is written.
    """

    row_groups: int
    idle: bool
    lacking: Mapping[str, int]
    plain_text: Mapping[str, int]
    nulls: Mapping[str, int]


def of_source(
    job: Job, files: int, groups: RowGroups, tasks: Sequence[tuple[int, ...]], notes: SourceNotes
) -> Iterator[str]:
    """What is odd about the source, by its listing and footers alone. `files` is the number of files read."""
    size, rows = int(groups.bytes.sum()), int(groups.rows.sum())
    if files > MANY_FILES and size / files < SMALL_FILE:
        yield (
            f"{files:,} files hold {size / files / 1024:.0f} KiB of the needed columns each: reading many small files "
            "is slow. Compact the lake to files of 128 MiB and more."
        )
    smallest = min(len(task) for task in tasks)
    if job.output.shuffle == "mixed" and len(tasks) > 1 and smallest < MIXED_FROM and rows > LOADED_ROWS:
        yield (
            f"The rows of a shard come from only {count(smallest, 'row group')} ({MIXED_FROM} or more mix well): the "
            f"source has {len(groups):,}. Write it with smaller ones; load(shuffle=True) mixes shards further."
        )
    largest = int(groups.raw_bytes.max())
    if largest > OWN_TASK_BYTES:
        yield (
            f"The largest row group holds {largest / 2**20:,.0f} MiB of the needed columns: it is streamed, and its "
            "rows are mixed only among themselves. Row groups of 16 to 128 MiB serve better."
        )
    yield from _of_pruning(job, notes)


def _of_pruning(job: Job, notes: SourceNotes) -> Iterator[str]:
    if notes.lacking:
        most, every = max(notes.lacking.values()), notes.row_groups
        names, them = ", ".join(notes.lacking), "it" if len(notes.lacking) == 1 else "them"
        yield (
            f"Statistics of {names} are missing in {most:,} of {every:,} row groups ({most / every:.0%}), so that "
            f"source.where can leave nothing out there by {them}. Write the lake with statistics, as Spark and pyarrow "
            "do unless they are told not to, and timestamps not as INT96."
        )
    elif notes.idle:
        yield (
            "source.where prunes nothing: every row group is read and filtered row by row. That is fine where most "
            "rows pass; else sort the lake by a column of the filter, or lay it out in folders by one."
        )


def of_tasks(tasks: int, size: int, threads: int, *, asked: bool) -> Iterator[str]:
    """Too few or too many write tasks of `size` bytes together, on so many threads. `asked`: someone named them."""
    possible = min(threads, size // grouping.TASK_BYTES)  # by other row groups; few bytes make few tasks in any case
    if tasks < possible and (asked or size > WORTH_SHARING):
        yield (
            f"There {'is' if tasks == 1 else 'are'} {count(tasks, 'task')} to write for {threads:,} threads: "
            f"{threads - tasks:,} will stand idle. Use fewer workers, or write the lake with more, smaller row groups."
        )
    if tasks > MANY_TASKS and size / tasks < SMALL_TASK:
        yield (
            f"{tasks:,} tasks read {size / tasks / 1024:,.0f} KiB each: Dask's scheduler alone takes about "
            f"{tasks / 1000:,.0f} s for them. Write the lake with larger row groups, 16 to 128 MiB each."
        )


def of_vocabularies(
    pipeline: Pipeline, notes: SourceNotes, measured: Mapping[str, int] | None, memory: int
) -> Iterator[str]:
    """Columns whose distinct values may not fit into a worker's memory: all are counted before any is left out.

    `measured` is the memory that a probe expects for each column. Without one, text that lies in the files as it is
    might be of words that never repeat: no more can be known of it by footers.
    """
    counted = {lane.column for one in pipeline.features for lane in one.lanes for step in lane.steps if _counts(step)}
    plain = {name: COPIES * size for name, size in notes.plain_text.items()}
    needs = {name: size for name, size in (plain if measured is None else measured).items() if name in counted}
    if sum(needs.values()) > ROOM * memory:
        largest = sorted(needs, key=lambda name: (-needs[name], name))[:3]
        may = "would take" if measured is not None else "may take up to"
        check = "" if measured is not None else " `plan --probe` estimates it;"
        yield (
            f"The distinct values of {', '.join(largest)} {may} {human(sum(needs.values()))} to count, and a worker "
            f"has {human(memory)}:{check} use `hash_encode`, which learns nothing, or fewer workers with more memory "
            "each."
        )


def _counts(step: Step) -> bool:
    return step.statistic is Counts
