"""A global shuffle in two steps: tasks deal their rows to all shards, then each shard's rows are permuted and written.

Where a row goes depends on the plan, the seed and the sequence of rows alone, not on batches or on which task is first.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtap_dask.errors import OutputError, StorageError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns
from dtap_dask.records.commit import first_to_json, is_intact, noted_rows
from dtap_dask.records.example import Layout, encoder_of
from dtap_dask.records.first_rows import RowRecorder
from dtap_dask.records.folder import RunPaths
from dtap_dask.records.pieces import PieceReader, PieceWriter
from dtap_dask.records.shard import AssignedRows, TaskShards, refuse_fewer, refuse_more, windows
from dtap_dask.records.shard_plan import ShuffleTask
from dtap_dask.storage import Store
from dtap_dask.storage.safe_json import parse_json

HELD_BYTES = 192 << 20  # of rows that either step holds at a time
WRITTEN_ROWS = 65_536  # permuted and encoded together
_DEALING, _PERMUTING = 1, 2  # of the generators' seeds
_NOTED_SHARDS = 64  # the most of which the order of rows is computed to note first rows
_MOST_ROWS = 1 << 62


@dataclass(frozen=True)
class PieceFile:
    """The pieces that a shuffle task has kept: their file, its size and its CRC32C."""

    path: str
    bytes: int
    crc32c: int


def run_shuffle_task(
    store: Store,
    run_id: str,
    task: ShuffleTask,
    batches: Iterable[AssignedRows],
    *,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    seed: int = 0,
    recorder: RowRecorder | None = None,
) -> PieceFile:
    """Deal one task's rows to the shards and keep them, unless they are kept already; running it twice is harmless.

    `batches` is read only if there is something to do. What `recorder` notes then is kept for `noted_rows`. Raises
    SourceError where the number of rows is not the planned one.
    """
    paths = RunPaths(run_id)
    done = _completed(store, run_id, task.task)
    if done is not None:
        return done
    draft = f"{paths.new_attempt(task.task)}/{uuid.uuid4().hex}"
    try:
        kept = deal_rows(store, draft, task, batches, infos=infos, layout=layout, seed=seed, recorder=recorder)
        store.replace(draft, paths.pieces(task.task))
    finally:
        with contextlib.suppress(OSError, StorageError):  # the first error matters more
            store.delete_tree(draft.rpartition("/")[0])
    record = {"bytes": kept.bytes, "crc32c": kept.crc32c, "first": first_to_json(recorder)}
    store.write_atomic(paths.dealt(task.task), json.dumps(record).encode())
    return PieceFile(paths.pieces(task.task), kept.bytes, kept.crc32c)


def _completed(store: Store, run_id: str, task: int) -> PieceFile | None:
    """What an earlier attempt has kept, its checksum verified; None if the task must run."""
    paths = RunPaths(run_id)
    try:
        noted_rows(store, paths.dealt(task))
        record = parse_json(store.read_bytes(paths.dealt(task)))
        kept = PieceFile(paths.pieces(task), int(record["bytes"]), int(record["crc32c"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return kept if is_intact(store, kept) else None


def deal_rows(
    store: Store,
    path: str,
    task: ShuffleTask,
    batches: Iterable[AssignedRows],
    *,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    seed: int,
    recorder: RowRecorder | None = None,
) -> PieceFile:
    """Write the rows of one task into a file of pieces, dealt at random to the shards of their splits.

    At most HELD_BYTES of rows are held at a time. SourceError where the number of rows is not the planned one.
    """
    encoder = encoder_of(infos, layout)
    random = np.random.Generator(np.random.PCG64([seed, _DEALING, task.task]))
    done = [0] * len(task.splits)
    with store.create(path) as file:
        pieces = PieceWriter(file, sum(task.shards))
        for assigned, rows in windows(batches, encoder, _MOST_ROWS, HELD_BYTES):
            order = random.permutation(len(assigned))
            dealt = []
            for split, shards in enumerate(task.shards):
                index = order[assigned[order] == split]
                refuse_more(task, split, done[split] + len(index))
                first = task.before[split] + done[split]
                dealt += [(split, shard, index[(shard - first) % shards :: shards]) for shard in range(shards)]
                done[split] += len(index)
            for _, _, piece in dealt:
                pieces.add(columns.take(rows, piece))
            if recorder is not None:
                _note(recorder, task, dealt, seed)
        refuse_fewer(task, done)
        pieces.finish()
    return PieceFile(path, pieces.bytes, pieces.crc32c)


def _note(
    recorder: RowRecorder, task: ShuffleTask, dealt: Sequence[tuple[int, int, npt.NDArray[np.int64]]], seed: int
) -> None:
    """Note where in the shards the first rows of the first window will be."""
    chosen = [one for one in dealt if recorder.wants(one[2])]
    for split, shard, piece in chosen[:_NOTED_SHARDS]:
        order = shard_order(seed, split, shard, task.shard_rows(split, shard))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        before = task.dealt_before(split, shard)
        recorder.went(split, shard, piece, places[before : before + len(piece)])
    recorder.finish()


def shard_order(seed: int, split: int, shard: int, rows: int) -> npt.NDArray[np.int64]:
    """The order in which a shard has the rows that were dealt to it; they are numbered by task and window."""
    return np.random.Generator(np.random.PCG64([seed, _PERMUTING, split, shard])).permutation(rows)


def gathered(
    store: Store,
    run_id: str,
    tasks: int,
    plan: TaskShards,
    place: tuple[int, int],
    *,
    infos: Sequence[FeatureInfo],
    layout: Layout,
    seed: int = 0,
) -> Iterator[AssignedRows]:
    """The packed rows of a shard in their final order, from the pieces of that many shuffle tasks.

    `place` is the number of the shard in its split, and among all. About HELD_BYTES are held at a time: the pieces of
    a larger shard are read several times. OutputError where pieces are missing or damaged.
    """
    [split] = (split for split, paths in enumerate(plan.shards) if paths)
    files = [RunPaths(run_id).pieces(task) for task in range(tasks)]
    reader = PieceReader(store, files, place[1], infos, layout)
    if reader.rows != plan.rows[split]:
        raise OutputError(
            f"The shuffled rows of {plan.shards[split][0]} are {reader.rows:,}, but {plan.rows[split]:,} were planned: "
            f"files in {store.url}/{RunPaths(run_id).folder} are damaged. Start over with --overwrite (in "
            "Python overwrite=True)."
        )
    order = shard_order(seed, split, place[0], reader.rows)
    for wanted in np.array_split(order, max(1, -(-reader.bytes // HELD_BYTES))):
        ascending = np.sort(wanted)
        rows, at = reader.take(ascending), np.searchsorted(ascending, wanted)
        for start in range(0, len(at), WRITTEN_ROWS):
            part = at[start : start + WRITTEN_ROWS]
            yield np.full(len(part), split, np.int16), columns.take(rows, part)
