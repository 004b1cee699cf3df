"""Writing a task's rows into its shards: which row goes to which shard, and files with their checksums.

The bytes depend on the plan, the seed and the sequence of rows alone, not on how that sequence is cut into batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt
from pydantic import Field

from dtap_dask.errors import SourceError
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns
from dtap_dask.records.encoder import RecordEncoder
from dtap_dask.records.example import Layout, encoder_of
from dtap_dask.records.first_rows import RowRecorder
from dtap_dask.records.tfrecord import OVERHEAD, Gzip
from dtap_dask.storage import CountingWriter, Store

AssignedRows: TypeAlias = tuple[npt.NDArray[np.int16], Rows]
Shuffle = Literal["none", "mixed", "global"]
CLOSING = 16  # files closed at the same time
ENCODED_ROWS = 4096  # encoded and written together, unless a record holds more: they fit in the processor's cache
WINDOW_ROWS = 65_536  # the most rows of a window that is permuted
WINDOW_BYTES = 64 << 20  # the most bytes of one
ROW_GROUP = "/row_group"  # among rows, the key of the number of each one's row group; no feature has such a name


@dataclass(frozen=True)
class TaskShards:
    """The output of one write task: the exact number of rows of each split, and its shards' paths in the dataset.

    Of n rows in m shards, shard j has n // m, and one more if j < n % m.
    """

    task: int
    splits: tuple[str, ...]
    rows: tuple[int, ...]
    shards: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        lengths = {len(self.splits), len(self.rows), len(self.shards)}
        if len(lengths) > 1 or any(rows and not paths for rows, paths in zip(self.rows, self.shards, strict=True)):
            raise ValueError(f"every split needs a number of rows, and shards for them: {self}")

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskShards:
        """From JSON types."""
        shards = tuple(map(tuple, data["shards"]))
        return cls(data["task"], tuple(data["splits"]), tuple(data["rows"]), shards)

    def rows_per_shard(self, split: int) -> list[int]:
        """The rows of each shard of a split."""
        shards = len(self.shards[split])
        return [self.rows[split] // shards + (j < self.rows[split] % shards) for j in range(shards)]


@dataclass(frozen=True)
class ShardInfo:
    """One finished shard.

    `record_bytes` or else `offsets` says where its records are; in the rows layout possibly neither does.
    """

    path: Annotated[str, Field(description="the file")]
    split: Annotated[str, Field(description="the part it belongs to")]
    rows: Annotated[int, Field(description="its rows")]
    records: Annotated[int, Field(description="its records")]
    bytes: Annotated[int, Field(description="the size of the file, compressed if it is")]
    crc32c: Annotated[int, Field(description="the CRC32C of the whole file as it is stored, not masked")]
    record_bytes: Annotated[
        int | None,
        Field(
            description="the length of every record with its framing (16 bytes), uncompressed, where all but the last "
            "are equal and the last is no longer"
        ),
    ] = None
    offsets: Annotated[
        tuple[int, ...] | None,
        Field(description="else, in the layout `blocks`: where each record begins in the uncompressed file"),
    ] = None
    same_group: Annotated[
        int | None,
        Field(
            description="the rows that directly follow a row of the same row group of the source; null in datasets of "
            "releases before 0.2.0"
        ),
    ] = None

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShardInfo:
        """From JSON types."""
        offsets = data.get("offsets")
        return cls(**{**data, "offsets": None if offsets is None else tuple(offsets)})


def record_starts(shard: ShardInfo) -> range | tuple[int, ...] | None:
    """Where the records of a shard begin in its uncompressed bytes; None where the manifest does not state it."""
    if shard.offsets is not None:
        return shard.offsets
    if shard.record_bytes is None or shard.record_bytes < OVERHEAD:
        return None
    return range(0, shard.records * shard.record_bytes, shard.record_bytes)


def write_shards(
    store: Store,
    attempt: str,
    plan: TaskShards,
    batches: Iterable[AssignedRows],
    *,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    shuffle: Shuffle = "mixed",
    seed: int = 0,
    window: int = WINDOW_ROWS,
    recorder: RowRecorder | None = None,
) -> tuple[ShardInfo, ...]:
    """Write a task's shards as `<attempt>/<final path>`, and return them with their final paths, split by split.

    A batch is (index of each row's split, the rows); rows may have a column ROW_GROUP of integers. `mixed` permutes
    within windows of `window` rows (fewer where they exceed 64 MiB) and deals them out over the task's shards; `none`
    keeps the order and cuts it into consecutive pieces; so does `global`, whose batches are shuffled and packed
    already. `recorder` notes where the first rows go. Raises SourceError where the number of rows is not the planned
    one, and leaves no complete attempt.
    """
    encoder = encoder_of(infos, layout)
    with _created(store, [f"{attempt}/{path}" for paths in plan.shards for path in paths]) as files:
        each = iter(files)
        writers = [[_ShardWriter(next(each), encoder, layout) for _ in paths] for paths in plan.shards]
        chunks = batches if shuffle == "global" else _packed(batches, encoder)
        if shuffle == "mixed":
            chunks = windows(batches, encoder, window, WINDOW_BYTES)
        _scatter(plan, chunks, writers, shuffle=shuffle, seed=seed, recorder=recorder)
        finished = [[writer.finish() for writer in group] for group in writers]
    return tuple(
        ShardInfo(path, name, *facts)
        for name, paths, group in zip(plan.splits, plan.shards, finished, strict=True)
        for path, facts in zip(paths, group, strict=True)
    )


@contextlib.contextmanager
def _created(store: Store, paths: Sequence[str]) -> Iterator[list[CountingWriter]]:
    """New files, closed in parallel when the block ends: making a file durable takes half a second on HDFS."""
    contexts = [store.create(path) for path in paths]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(context) for context in contexts]
        stack.pop_all()
        with ThreadPoolExecutor(CLOSING) as pool:
            closing = [pool.submit(context.__exit__, None, None, None) for context in contexts]
        for closed in closing:  # all are closed, even if one fails
            closed.result()


def _scatter(
    plan: TaskShards,
    chunks: Iterable[AssignedRows],
    writers: Sequence[Sequence[_ShardWriter]],
    *,
    shuffle: Shuffle,
    seed: int,
    recorder: RowRecorder | None,
) -> None:
    """Pass every row to its shard. SourceError where there are more rows than planned, or, at the end, fewer."""
    random = np.random.Generator(np.random.PCG64([seed, plan.task]))
    done = [0] * len(plan.splits)
    for assigned, rows in chunks:
        order = random.permutation(len(assigned)) if shuffle == "mixed" else np.arange(len(assigned))
        for split in range(len(plan.splits)):
            index = order[assigned[order] == split]
            refuse_more(plan, split, done[split] + len(index))
            for shard, piece in _deal(plan, split, done[split], index, shuffle):
                writers[split][shard].add(columns.take(rows, piece) if shuffle == "mixed" else _cut(rows, piece))
                if recorder is not None:
                    recorder.went(split, shard, piece)
            done[split] += len(index)
        if recorder is not None:
            recorder.finish()
    refuse_fewer(plan, done)


class PlannedRows(Protocol):
    """A task whose rows of each split are planned."""

    @property
    def task(self) -> int:
        """Its number."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Its rows of each split."""


def refuse_more(plan: PlannedRows, split: int, rows: int) -> None:
    """SourceError where a task has found more rows of a split than planned."""
    if rows > plan.rows[split]:
        raise _changed(plan, split, f"at least {rows:,}")


def refuse_fewer(plan: PlannedRows, rows: Sequence[int]) -> None:
    """SourceError where a task has found another number of rows of a split than planned."""
    for split, total in enumerate(rows):
        if total != plan.rows[split]:
            raise _changed(plan, split, f"{total:,}")


def _changed(plan: PlannedRows, split: int, found: str) -> SourceError:
    return SourceError(
        f"Task {plan.task} found {found} rows for the split {plan.splits[split]!r}, but the plan counted "
        f"{plan.rows[split]:,}: the source changed after the plan was made. Start again with "
        "--overwrite, over files that do not change."
    )


def _deal(
    plan: TaskShards, split: int, done: int, index: npt.NDArray[np.int64], shuffle: Shuffle
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(shard, its rows of `index`) for the next rows of a split, of which `done` were dealt before."""
    shards = len(plan.shards[split])
    if not len(index):
        return
    if shuffle == "mixed":  # round robin: shard j gets the rows j, j + shards, j + 2 shards, ...
        for shard in range(shards):
            yield shard, index[(shard - done) % shards :: shards]
        return
    ends = offsets_of(np.array(plan.rows_per_shard(split), np.int64)) - done
    for shard in range(shards):
        yield shard, index[max(0, ends[shard]) : max(0, ends[shard + 1])]


def _cut(rows: Rows, piece: npt.NDArray[np.int64]) -> Rows:
    """The rows at ascending positions, without a copy where these are neighbours."""
    if len(piece) and piece[-1] - piece[0] + 1 == len(piece):
        return columns.cut(rows, int(piece[0]), int(piece[-1]) + 1)
    return columns.take(rows, piece)


def _packed(batches: Iterable[AssignedRows], encoder: RecordEncoder) -> Iterator[AssignedRows]:
    """The batches, packed for the encoder."""
    for assigned, rows in batches:
        yield assigned, _pack(rows, encoder)


def _pack(rows: Rows, encoder: RecordEncoder) -> Rows:
    """Packed rows, which keep their row groups."""
    packed = encoder.pack(rows)
    return {**packed, ROW_GROUP: rows[ROW_GROUP]} if ROW_GROUP in rows else packed


def windows(
    batches: Iterable[AssignedRows], encoder: RecordEncoder, most_rows: int, most_bytes: int
) -> Iterator[AssignedRows]:
    """The same rows in windows of `most_rows`, or of the fewest rows that reach `most_bytes` of values; packed."""
    held: list[AssignedRows] = []
    held_rows = held_bytes = 0
    for assigned, rows in batches:
        ends = offsets_of(columns.bytes_per_row(encoder.infos, rows))
        packed = _pack(rows, encoder)
        start = 0
        while start < len(assigned):
            full = int(np.searchsorted(ends, ends[start] + most_bytes - held_bytes, side="left"))
            stop = min(start + most_rows - held_rows, full, len(assigned))
            held.append((assigned[start:stop], columns.cut(packed, start, stop)))
            held_rows += stop - start
            held_bytes += int(ends[stop] - ends[start])
            start = stop
            if held_rows == most_rows or held_bytes >= most_bytes:
                yield _joined(held)
                held, held_rows, held_bytes = [], 0, 0
    if held:
        yield _joined(held)


def _joined(held: Sequence[AssignedRows]) -> AssignedRows:
    return np.concatenate([assigned for assigned, _ in held]), columns.join([rows for _, rows in held])


class _ShardWriter:
    """One growing shard. Rows wait until they fill a record, so records do not depend on the batches."""

    def __init__(self, file: Any, encoder: RecordEncoder, layout: Layout):
        self._file = file
        self._encoder = encoder
        self._layout = layout
        self._pending: list[Rows] = []  # fewer rows than a record holds
        self._pending_rows = 0
        self._gzip = Gzip() if layout.compression == "gzip" else None
        self._rows = self._records = self._bytes = self._crc = 0
        self._lengths: list[npt.NDArray[np.int64]] = []
        self._last_group: np.integer[Any] | None = None
        self._same_group: int | None = 0

    def add(self, rows: Rows) -> None:
        """Append packed rows."""
        total, record_rows = columns.row_count(rows), self._encoder.rows_per_record
        at = 0
        if self._pending_rows:
            at = min(total, record_rows - self._pending_rows)
            self._hold(columns.cut(rows, 0, at))
            if self._pending_rows < record_rows:
                return
            self._write_pending()
        whole = total - (total - at) % record_rows
        step = record_rows * max(1, ENCODED_ROWS // record_rows)
        for start in range(at, whole, step):
            self._write(columns.cut(rows, start, min(start + step, whole)))
        if whole < total:
            self._hold(columns.take(rows, np.arange(whole, total)))  # a copy, so that the written rows can be freed

    def _hold(self, rows: Rows) -> None:
        self._pending.append(rows)
        self._pending_rows += columns.row_count(rows)

    def _write_pending(self) -> None:
        self._write(columns.join(self._pending))
        self._pending, self._pending_rows = [], 0

    def finish(self) -> tuple[int, int, int, int, int | None, tuple[int, ...] | None, int | None]:
        """Write pending rows; returns ShardInfo's fields from `rows` on."""
        if self._pending_rows:
            self._write_pending()
        if self._gzip:
            self._put(self._gzip.finish())
        return (self._rows, self._records, self._bytes, self._crc, *self._record_places(), self._same_group)

    def _write(self, rows: Rows) -> None:
        encoded = self._encoder.encode_packed(rows)
        self._rows += int(encoded.rows.sum())
        self._records += len(encoded.lengths)
        self._lengths.append(encoded.lengths)
        self._put(self._gzip.add(encoded.data) if self._gzip else encoded.data)
        self._note_groups(rows.get(ROW_GROUP))

    def _note_groups(self, groups: npt.NDArray[np.integer[Any]] | None) -> None:
        if groups is None or self._same_group is None:
            self._same_group = None
            return
        self._same_group += int(np.count_nonzero(groups[1:] == groups[:-1])) + int(groups[0] == self._last_group)
        self._last_group = groups[-1]

    def _put(self, data: bytes | npt.NDArray[np.uint8]) -> None:
        if len(data):
            self._file.write(data)
            self._crc = google_crc32c.extend(self._crc, data)
            self._bytes += len(data)

    def _record_places(self) -> tuple[int | None, tuple[int, ...] | None]:
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.int64)
        if len(lengths) and (lengths[:-1] == lengths[0]).all() and lengths[-1] <= lengths[0]:
            return int(lengths[0]), None
        if self._layout.kind == "rows" and len(lengths):
            return None, None
        return None, tuple(offsets_of(lengths)[:-1].tolist())
