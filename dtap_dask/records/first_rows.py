"""Some of the first rows of a write task, and where they are in its shards: noted while they are written.

So a few rows can be compared with their records afterwards, and the source is read only once for that and for writing.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns
from dtap_dask.records.example import Layout, decode_records
from dtap_dask.records.tfrecord import read_records
from dtap_dask.storage import Store

CANDIDATES = 4096  # first rows of a task of which those are noted that come first in the shards
MOST_BYTES = 1 << 20  # of noted rows, unless a single one is larger


@dataclass(frozen=True, order=True)
class RowPlace:
    """A row's place: it is row number `position` of a shard of a split."""

    position: int
    split: int
    shard: int


@dataclass(frozen=True)
class NotedRows:
    """Rows as they were read, and the place of each in the shards of their task."""

    rows: pa.Table
    places: tuple[RowPlace, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON types: the rows are an Arrow IPC stream in base64."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.rows.schema) as stream:
            stream.write_table(self.rows)
        places = [[one.position, one.split, one.shard] for one in self.places]
        return {"rows": base64.b64encode(sink.getvalue()).decode(), "places": places}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NotedRows:
        """From JSON types. ValueError where they are damaged."""
        rows = pa.ipc.open_stream(pa.py_buffer(base64.b64decode(data["rows"]))).read_all()
        return cls(rows, tuple(RowPlace(*map(int, place)) for place in data["places"]))


class RowRecorder:
    """Notes, while a task is written, at most `most` of its first rows and where they go."""

    def __init__(self, most: int):
        self._most = most
        self._first: pa.RecordBatch | None = None
        self._places: list[tuple[RowPlace, int]] = []  # and the row's number in `_first`
        self.noted: NotedRows | None = None

    def came(self, rows: pa.RecordBatch) -> None:
        """Rows as they were read are about to be written."""
        if self._first is None and self.noted is None and rows.num_rows and rows.num_columns:
            self._first = rows.slice(0, CANDIDATES)

    def wants(self, rows: npt.NDArray[np.int64]) -> bool:
        """Whether any of these rows, by their numbers among all that came, may be noted."""
        return self._first is not None and bool((rows < self._first.num_rows).any())

    def went(
        self, split: int, shard: int, rows: npt.NDArray[np.int64], places: npt.NDArray[np.int64] | None = None
    ) -> None:
        """A shard has these rows, by their numbers among all that came, at `places`, or else at its beginning.

        Ignored once `finish` was called.
        """
        if self._first is not None:
            early = np.flatnonzero(rows < self._first.num_rows)
            at = early if places is None else places[early]
            chosen = np.argsort(at, kind="stable")[: self._most]
            self._places += [(RowPlace(int(at[one]), split, shard), int(rows[early[one]])) for one in chosen]

    def finish(self) -> None:
        """Note the rows that come first in the shards, and forget the others: the beginning of each shard is known."""
        if self._first is None:
            return
        found = sorted(self._places)[: self._most]
        rows = _plain(pa.Table.from_batches([self._first]).take([row for _, row in found]))
        size = len(found)
        while size > 1 and rows.slice(0, size).nbytes > MOST_BYTES:
            size //= 2
        self.noted = NotedRows(rows.slice(0, size), tuple(place for place, _ in found[:size]))
        self._first = None


def _plain(rows: pa.Table) -> pa.Table:
    """The rows without dictionaries, which may have many more words."""
    kinds = ((name, rows.schema.field(name).type) for name in rows.column_names)
    fields = [(name, kind.value_type if pa.types.is_dictionary(kind) else kind) for name, kind in kinds]
    return rows.cast(pa.schema(fields))


def rows_at(
    store: Store, path: str, infos: Sequence[FeatureInfo], layout: Layout, positions: npt.NDArray[np.int64]
) -> Rows:
    """The rows of a shard at these ascending positions; no more of the file is read than up to the last one."""
    records = read_records(store, path, layout.compression)
    if layout.kind == "rows":
        wanted = set(positions.tolist())
        found = [one for at, one in enumerate(itertools.islice(records, positions[-1] + 1)) if at in wanted]
        return decode_records(infos, layout, found)
    parts: list[Rows] = []
    start = 0
    for record in records:
        rows = decode_records(infos, layout, [record])
        stop = start + columns.row_count(rows)
        here = positions[(positions >= start) & (positions < stop)]
        parts.append(columns.take(rows, here - start))
        start = stop
        if start > positions[-1]:
            break
    return columns.join(parts)
