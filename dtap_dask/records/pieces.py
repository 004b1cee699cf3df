"""The files between the two steps of a global shuffle: rows that one task has dealt to the shards of the dataset.

A file has a piece for each window of the task's rows and each shard, window by window. A piece is an Arrow IPC record
batch without its schema, of packed rows: a matrix of the encoder is a column of fixed-size binary values. Then comes
the index, whose entries are grouped by shard, and a tail of two uint32: the numbers of windows and of shards. All is
little-endian. No other program reads these files, and they are deleted when the dataset is committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import OutputError
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns
from dtap_dask.records.columns import ColumnArray
from dtap_dask.records.example import Layout, decode_records, encoder_of
from dtap_dask.records.shard import ROW_GROUP
from dtap_dask.records.tfrecord import read_exactly
from dtap_dask.storage import CountingWriter, Store

_ENTRY = np.dtype([("start", "<u8"), ("size", "<u8"), ("rows", "<u4"), ("crc", "<u4")])
_TAIL = np.dtype([("windows", "<u4"), ("shards", "<u4")])
PieceIndex = npt.NDArray[np.void]


class PieceWriter:
    """Appends pieces to a file, and the index at the end; notes the file's size and CRC32C."""

    def __init__(self, file: CountingWriter, shards: int):
        self._file = file
        self._shards = shards
        self._entries: list[tuple[int, int, int, int]] = []
        self.bytes = self.crc32c = 0

    def add(self, rows: Rows) -> None:
        """The piece of the next shard; each window has one for every shard."""
        data = _serialized(rows)
        self._entries.append((self.bytes, data.nbytes, columns.row_count(rows), google_crc32c.value(data)))
        self._put(data)

    def finish(self) -> None:
        """Write the index."""
        index = np.array(self._entries, _ENTRY).reshape(-1, self._shards)
        self._put(np.frombuffer(index.T.tobytes(), np.uint8))
        self._put(np.frombuffer(np.array([(len(index), self._shards)], _TAIL).tobytes(), np.uint8))

    def _put(self, data: npt.NDArray[np.uint8]) -> None:
        self._file.write(data.data)
        self.crc32c = google_crc32c.extend(self.crc32c, data)
        self.bytes += data.nbytes


def _serialized(rows: Rows) -> npt.NDArray[np.uint8]:
    arrays = [_as_binary(column) if isinstance(column, np.ndarray) else column for column in rows.values()]
    batch = pa.RecordBatch.from_arrays(arrays, list(rows))
    return np.frombuffer(batch.serialize(), np.uint8)


def _as_binary(column: npt.NDArray[np.generic]) -> pa.Array:
    """Rows of an array [n, ...] as values of a fixed size, without a copy."""
    kind = pa.binary(column.itemsize * int(np.prod(column.shape[1:], dtype=np.int64)))
    return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(np.ascontiguousarray(column))])


class PieceReader:
    """Reads the pieces of one shard from the files of all tasks, as one sequence of packed rows.

    OutputError where a file is missing or damaged.
    """

    def __init__(self, store: Store, paths: Sequence[str], shard: int, infos: Sequence[FeatureInfo], layout: Layout):
        self._store, self._paths, self._shard = store, paths, shard
        packed = encoder_of(infos, layout).pack(decode_records(infos, layout, []))
        self._empty: Rows = {**packed, ROW_GROUP: np.empty(0, np.int32)}
        self._schema = pa.schema(
            [
                (name, _as_binary(column).type if isinstance(column, np.ndarray) else column.type)
                for name, column in self._empty.items()
            ]
        )
        self._indexes = [self._index(path) for path in paths]

    @property
    def rows(self) -> int:
        """The rows of all pieces."""
        return sum(int(index["rows"].sum()) for index in self._indexes)

    @property
    def bytes(self) -> int:
        """The bytes of all pieces, about those of their rows in memory."""
        return sum(int(index["size"].sum()) for index in self._indexes)

    def take(self, wanted: npt.NDArray[np.int64]) -> Rows:
        """The rows with these numbers, which ascend; rows are numbered from 0, in the order of tasks and windows.

        The numbers of row groups are made different for each task.
        """
        parts = [self._empty]
        first = 0
        for task, (path, index) in enumerate(zip(self._paths, self._indexes, strict=True)):
            ends = np.searchsorted(wanted, first + np.concatenate([[0], np.cumsum(index["rows"], dtype=np.int64)]))
            if ends[0] == ends[-1]:
                first += int(index["rows"].sum())
                continue
            with self._open(path) as file:
                for entry, start, stop in zip(index, ends[:-1], ends[1:], strict=True):
                    if stop > start:
                        parts.append(self._piece(file, entry, wanted[start:stop] - first, task, path))
                    first += int(entry["rows"])
        return columns.join(parts)

    def _piece(
        self, file: BinaryIO, entry: np.void, wanted: npt.NDArray[np.int64], task: int, path: str
    ) -> dict[str, ColumnArray]:
        file.seek(int(entry["start"]))
        data = read_exactly(file, int(entry["size"]))
        if len(data) != entry["size"] or google_crc32c.value(data) != entry["crc"]:
            raise self._damaged(path)
        batch = pa.ipc.read_record_batch(pa.py_buffer(data), self._schema)
        rows = {name: _as_numpy(batch.column(name), empty) for name, empty in self._empty.items()}
        rows[ROW_GROUP] = rows[ROW_GROUP].astype(np.int64) + (task << 32)
        return rows if len(wanted) == batch.num_rows else columns.take(rows, wanted)

    def _index(self, path: str) -> PieceIndex:
        """The entries of the shard in one file, one for each window."""
        with self._open(path) as file:
            end = file.seek(0, 2) - _TAIL.itemsize
            if end < 0:
                raise self._damaged(path)
            file.seek(end)
            [(windows, shards)] = np.frombuffer(read_exactly(file, _TAIL.itemsize), _TAIL).tolist()
            start = end - (shards - self._shard) * windows * _ENTRY.itemsize
            if self._shard >= shards or start < 0:
                raise self._damaged(path)
            file.seek(start)
            return np.frombuffer(read_exactly(file, windows * _ENTRY.itemsize), _ENTRY)

    @contextmanager
    def _open(self, path: str) -> Iterator[BinaryIO]:
        try:
            with self._store.open_input(path) as file:
                yield file
        except (FileNotFoundError, ValueError, pa.ArrowInvalid) as error:  # also too short for its own index
            raise self._damaged(path) from error

    def _damaged(self, path: str) -> OutputError:
        return OutputError(
            f"{self._store.url}/{path}, in which the run keeps shuffled rows, is missing or damaged. Continue with "
            "--resume (in Python resume=True), which writes it again."
        )


def _as_numpy(column: pa.Array, empty: Any) -> Any:
    """The column of a piece as it was packed, like the empty one."""
    if not isinstance(empty, np.ndarray):
        return column
    count = len(column) * int(np.prod(empty.shape[1:], dtype=np.int64))
    return np.frombuffer(column.buffers()[1], empty.dtype, count).reshape(len(column), *empty.shape[1:])
