"""Warnings about a plan, each with a remedy; harmless oddities are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dtap_dask.features import Graph
from dtap_dask.features.statistics.counts import Counts
from dtap_dask.features.steps.estimator import Estimator
from dtap_dask.features.steps.operation import StatisticSpec
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning import grouping
from dtap_dask.job.planning.grouping import MIXED_FROM, OWN_TASK_BYTES
from dtap_dask.lake.parquet.row_group import RowGroups
from dtap_dask.loading.order.epoch_order import WINDOW_ROWS
from dtap_dask.words import count, human

# More files than this, each with fewer bytes of the needed columns than that, are many small ones.
MANY_FILES = 1000
SMALL_FILE = 1 << 20
# Dask spends about a millisecond on a task: more tasks than this, each of fewer bytes than that, cost more to schedule
# than to run.
MANY_TASKS = 20_000
SMALL_TASK = 4 << 20
# Less than this is read in seconds, however few threads there are.
WORTH_SHARING = 64 << 20
# Exact counts of distinct values peak, when tasks' counts are merged, at this many times the bytes of the values plus
# this many bytes per value: measured with 2.4 million words of 8 to 200 letters (within 15 %).
COPIES = 5
WORD_BYTES = 100
# The share of a worker's memory that vocabularies may take: Dask pauses a worker at 80 %.
MEMORY_SHARE = 0.6


@dataclass(frozen=True)
class SourceNotes:
    """What the footers of all opened files show that matters to warnings; `row_groups` is how many these files hold.

    - `idle`: there is a filter, and it pruned neither a file nor a row group.
    - `lacking`: by column of the filter, the row groups without its statistics.
    - `plain_text`: by text column, the bytes of row groups whose words did not fit into a dictionary.
    - `nulls`: by column that must not hold nulls, the known nulls.
    """

    row_groups: int
    idle: bool
    lacking: Mapping[str, int]
    plain_text: Mapping[str, int]
    nulls: Mapping[str, int]


def source_warnings(
    job: Job, files: int, groups: RowGroups, tasks: Sequence[tuple[int, ...]], notes: SourceNotes
) -> Iterator[str]:
    """Warnings from listing and footers alone. `files` is the number of files read."""
    size, rows = int(groups.bytes.sum()), int(groups.rows.sum())
    if files > MANY_FILES and size / files < SMALL_FILE:
        yield (
            f"{files:,} files hold {size / files / 1024:.0f} KiB of the needed columns each: reading many small files "
            "is slow. Compact the lake to files of 128 MiB or more."
        )
    smallest = min(len(task) for task in tasks)
    # Of a source of one window or less, load(shuffle=True) mixes all rows.
    if job.output.shuffle == "mixed" and len(tasks) > 1 and smallest < MIXED_FROM and rows > WINDOW_ROWS:
        yield (
            f"The rows of a shard come from only {count(smallest, 'row group')} ({MIXED_FROM} or more mix well): the "
            f"source has {len(groups):,}. Write it with smaller row groups, or use `output.shuffle: global`; "
            "load(shuffle=True) mixes shards further."
        )
    largest = int(groups.raw_bytes.max())
    if largest > OWN_TASK_BYTES:
        alone = "" if job.output.shuffle == "global" else ", and its rows are mixed only among themselves"
        yield (
            f"The largest row group holds {largest / 2**20:,.0f} MiB of the needed columns: it is streamed{alone}. Row "
            "groups of 16 to 128 MiB work better."
        )
    yield from _pruning_warnings(notes)


def _pruning_warnings(notes: SourceNotes) -> Iterator[str]:
    if notes.lacking:
        most, every = max(notes.lacking.values()), notes.row_groups
        names, them = ", ".join(notes.lacking), "it" if len(notes.lacking) == 1 else "them"
        yield (
            f"Statistics of {names} are missing in {most:,} of {every:,} row groups ({most / every:.0%}), so that "
            f"source.where cannot prune those by {them}. Write the lake with statistics, as Spark and pyarrow do by "
            "default, and timestamps in another type than INT96."
        )
    elif notes.idle:
        yield (
            "source.where prunes nothing: every row group is read and filtered row by row. That is fine if most "
            "rows pass; otherwise sort the lake by a column of the filter, or partition it into folders by one."
        )


def task_warnings(tasks: int, size: int, threads: int, *, requested: bool) -> Iterator[str]:
    """Too few or too many write tasks, which read `size` bytes in all; `requested`: the user chose the threads."""
    possible = min(threads, size // grouping.TASK_BYTES)  # with smaller row groups; few bytes make few tasks anyway
    if tasks < possible and (requested or size > WORTH_SHARING):
        yield (
            f"Only {count(tasks, 'write task')} for {threads:,} threads: {threads - tasks:,} will be idle. Use fewer "
            "workers, or write the lake with more, smaller row groups."
        )
    if tasks > MANY_TASKS and size / tasks < SMALL_TASK:
        yield (
            f"{tasks:,} tasks read {size / tasks / 1024:,.0f} KiB each: Dask's scheduler alone takes about "
            f"{tasks / 1000:,.0f} s for them. Write the lake with larger row groups, 16 to 128 MiB each."
        )


def _counts(learns: StatisticSpec) -> bool:
    """Whether all distinct values are held, perhaps for each key."""
    return Counts in (learns.kind, *learns.options)


def sample_warnings(graph: Graph, rows: int) -> Iterator[str]:
    """Transformers that are fitted on fewer rows than the `rows` of the source."""
    for value in graph.values:
        step = value.operation
        if isinstance(step, Estimator) and not step.by_dask and rows > step.rows:
            yield (
                f"{step.path} (feature {graph.context(value).feature!r}) is fitted on a sample: {step.rows:,} of the "
                f"fitted rows at most, the same in every run; the source has {rows:,}. `rows` in the step changes that."
            )


def vocabulary_warnings(
    graph: Graph, notes: SourceNotes, measured: Mapping[str, int] | None, memory: int
) -> Iterator[str]:
    """Columns whose distinct values may not fit into a worker's memory: all are counted before `top_k` drops any.

    `measured` is the memory that a probe expects for each column, in bytes. Without one, the words of text that is not
    dictionary-encoded are assumed never to repeat: footers tell no more.
    """
    counted = {value.columns[0] for value in graph.values if value.learns and _counts(value.learns)}
    plain = {name: COPIES * size for name, size in notes.plain_text.items()}
    needs = {name: size for name, size in (plain if measured is None else measured).items() if name in counted}
    if sum(needs.values()) > MEMORY_SHARE * memory:
        largest = sorted(needs, key=lambda name: (-needs[name], name))[:3]
        may = "would take" if measured is not None else "may take up to"
        check = "" if measured is not None else " `plan --probe` estimates it;"
        yield (
            f"The distinct values of {', '.join(largest)} {may} {human(sum(needs.values()))} to count, and a worker "
            f"has {human(memory)}:{check} use `hash_encode`, which learns nothing, or fewer workers with more memory "
            "each."
        )
