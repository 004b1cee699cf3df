"""Row groups as a stream of slices, one group after the other or several round-robin, within a fixed memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from dtap_dask.lake.parquet.decoding import STREAM_BUFFER, OpenFile, RowGroupSlice, Slices, coalesced
from dtap_dask.lake.parquet.opening import ParsedFooter, open_checked
from dtap_dask.lake.parquet.row_group import RowGroup
from dtap_dask.lake.schema import delivered_type
from dtap_dask.storage import Store

BATCH_BYTES = 32 << 20  # largest planned batch
OPEN_BYTES = 256 << 20  # memory of all row groups open at the same time
T = TypeVar("T")


def row_bytes(schema: pa.Schema, group: RowGroup) -> int:
    """Estimated bytes of a decoded row of a group, at least the widths of the types."""
    width = sum(_width(field.type) for field in schema)
    return max(width, -(-group.raw_bytes // max(group.rows, 1)), 1)


def planned_rows(schema: pa.Schema, group: RowGroup, batch_rows: int) -> int:
    """Rows of a batch: `batch_rows`, or fewer so that it stays within BATCH_BYTES."""
    return max(1, min(batch_rows, BATCH_BYTES // row_bytes(schema, group)))


def read_sequential(
    store: Store, schema: pa.Schema, groups: Sequence[RowGroup], batch_rows: int, *, verify: bool
) -> Slices:
    """All rows of the groups, one group after the other. Consecutive groups of a file share one opened file.

    `verify`: whether to verify the checksums of pages that have one.
    """
    opened: OpenFile | None = None
    with contextlib.ExitStack() as stack:
        for position, group in enumerate(groups):
            if opened is None or opened.path != group.file:
                stack.close()
                source = stack.enter_context(open_checked(store, group.file, group.file_size, group.version))
                opened = OpenFile(store, group, source, verify=verify)
            yield from opened.read(schema, group, position, planned_rows(schema, group, batch_rows), BATCH_BYTES)


def read_interleaved(
    store: Store,
    schema: pa.Schema,
    groups: Sequence[RowGroup],
    batch_rows: int,
    transform: Callable[[RowGroupSlice, int], Iterable[T]],
    *,
    verify: bool,
    result_bytes: int = 0,
) -> Generator[T, None, None]:
    """The results of `transform` for all rows of the groups; several groups are open, each gives one result per turn.

    `transform(slice, turns)` gives about `turns` results for a slice, each for `batch_rows` / (open groups) rows. As
    many groups are open as fit into OPEN_BYTES by the plan's estimates, at `result_bytes` per row of a result, but at
    least one; when a group ends the next one is opened. A slice covers as many turns as the remaining memory allows.
    Each file is opened once, its footer read once. `verify`: see `read_sequential`. The sequence depends on the
    arguments only.
    """
    count, turn_rows, read_rows = _rows_at_once(schema, groups, batch_rows, result_bytes)
    most_bytes = min(BATCH_BYTES, OPEN_BYTES // count)
    costs = [_cost(schema, group, read_rows, result_bytes) for group in groups]
    waiting = list(range(len(groups)))[::-1]
    running: dict[int, Iterator[T]] = {}

    def results(pieces: Slices) -> Iterator[T]:
        for piece in pieces:
            yield from transform(piece, -(-piece.rows // turn_rows))

    with contextlib.ExitStack() as stack:
        files = _OpenFiles(store, stack, verify)
        while running or waiting:
            while waiting and (not running or sum(costs[i] for i in (*running, waiting[-1])) <= OPEN_BYTES):
                position = waiting.pop()
                group = groups[position]
                rows = planned_rows(schema, group, read_rows)
                running[position] = results(files.open(group).read(schema, group, position, rows, most_bytes))
            yield from _one_turn(running)


class _OpenFiles:
    """Files opened once each, until `stack` closes; their footers are read once."""

    def __init__(self, store: Store, stack: contextlib.ExitStack, verify: bool):
        self._store, self._stack, self._verify = store, stack, verify
        self._sources: dict[str, tuple[Any, ParsedFooter]] = {}

    def open(self, group: RowGroup) -> OpenFile:
        """A reader of a group's file with a position of its own."""
        if group.file in self._sources:
            return OpenFile(self._store, group, *self._sources[group.file], verify=self._verify)
        source = self._stack.enter_context(open_checked(self._store, group.file, group.file_size, group.version))
        opened = OpenFile(self._store, group, source, verify=self._verify)
        self._sources[group.file] = source, opened.footer
        return opened


def _one_turn(running: dict[int, Iterator[T]]) -> Iterator[T]:
    """One result of each running group; a group without another result is removed."""
    for position, results in list(running.items()):
        try:
            result = next(results)
        except StopIteration:
            del running[position]
        else:
            yield result


def _rows_at_once(
    schema: pa.Schema, groups: Sequence[RowGroup], batch_rows: int, result_bytes: int
) -> tuple[int, int, int]:
    """Number of groups open at first, rows of a turn, and rows to decode at once: as many turns as fit into memory.

    Neither number of rows exceeds `batch_rows`.
    """
    held = count = 0
    for group in groups:
        more = _cost(schema, group, batch_rows // (count + 1), result_bytes)
        if held + more > OPEN_BYTES:
            break
        held += more
        count += 1
    turn_rows = max(1, batch_rows // max(count, 1))
    held = sum(_cost(schema, group, turn_rows, result_bytes) for group in groups[:count])
    widest = max((row_bytes(schema, group) + result_bytes for group in groups[:count]), default=1)
    more_turns = max(0, OPEN_BYTES - held) // max(count, 1) // (widest * turn_rows)
    return max(count, 1), turn_rows, turn_rows * min(1 + more_turns, max(1, batch_rows // turn_rows))


def _cost(schema: pa.Schema, group: RowGroup, rows: int, result_bytes: int = 0) -> int:
    """Bytes held by an open row group: fetched column chunks, the batch being decoded, and its results."""
    fetched = group.bytes if coalesced(group) else STREAM_BUFFER * max(len(schema), 1)
    rows = min(planned_rows(schema, group, max(rows, 1)), max(group.rows, 1))
    return fetched + rows * (row_bytes(schema, group) + result_bytes)


def _width(kind: pa.DataType) -> int:
    """Bytes of one value: exact for fixed widths; of a code for text; of an offset and one number for a list."""
    if pa.types.is_struct(kind):
        return sum(_width(field.type) for field in kind)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 4 if pa.types.is_dictionary(delivered_type(kind)) else 8
