"""The last task of a run: a few rows of the source through the fitted features, compared with their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa

from dtap_dask.apply.parity import RecordComparison
from dtap_dask.features import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.job.execution.context import TaskContext
from dtap_dask.job.execution.tasks import with_retries
from dtap_dask.lake.scan import raw_columns
from dtap_dask.records import columns
from dtap_dask.records.commit import noted_rows
from dtap_dask.records.example import Layout
from dtap_dask.records.first_rows import NotedRows, rows_at
from dtap_dask.storage import Store

EXAMPLES = 3  # differences that are described


@dataclass(frozen=True)
class Compared:
    """How many rows were compared and how many of them differ, in which features; some differences in words."""

    rows: int
    differing: int
    features: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class NotedTask:
    """A finished task that may have noted some of its first rows: the path of its record, and its shards by split."""

    record: str
    shards: tuple[tuple[str, ...], ...]


def compare(context: TaskContext, levels: int, tasks: Sequence[NotedTask]) -> Compared:
    """Compare the rows that these tasks have noted with their records."""
    output = context.output()

    def attempt() -> Compared:
        state = context.state(levels)
        noted = [(task.shards, noted_rows(output, task.record)) for task in tasks]
        pairs = [
            _by_shard(output, state.infos, context.layout, shards, one) for shards, one in noted if one is not None
        ]
        if not pairs:
            return Compared(0, 0, (), ())
        rows = pa.concat_tables([one.rows for one, _ in pairs])
        fitted = context.scan.fit_mask(np.array([place.split for one, _ in pairs for place in one.places], np.int16))
        comparison = RecordComparison(state, raw_columns(context.scan), context.transform(levels))
        found = comparison.differences(rows, columns.join([recorded for _, recorded in pairs]), fitted)
        names = tuple(dict.fromkeys(each.feature for each in found if each.feature is not None))
        return Compared(rows.num_rows, len({each.row for each in found}), names, tuple(map(str, found[:EXAMPLES])))

    return with_retries(attempt)


def _by_shard(
    output: Store,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    shards: tuple[tuple[str, ...], ...],
    noted: NotedRows,
) -> tuple[NotedRows, Rows]:
    """The noted rows in the order of the shards, and what the records hold of them."""

    def key(at: int) -> tuple[int, int, int]:
        place = noted.places[at]
        return place.split, place.shard, place.position

    order = sorted(range(len(noted.places)), key=key)
    places = [noted.places[at] for at in order]
    parts = []
    for (split, shard), group in groupby(places, lambda place: (place.split, place.shard)):
        positions = np.array([place.position for place in group])
        parts.append(rows_at(output, shards[split][shard], infos, layout, positions))
    return NotedRows(noted.rows.take(order), tuple(places)), columns.join(parts)
