"""Any records of a shard that is on a local disk, with their checksums verified."""

from __future__ import annotations

import errno
import gzip
import itertools
import os
import struct
import weakref
import zlib
from dataclasses import dataclass
from time import perf_counter

import google_crc32c
import numpy as np

from dtap_dask.errors import DamagedError, OutputError
from dtap_dask.loading.feed import spent
from dtap_dask.loading.order.runs import RowNumbers
from dtap_dask.records.shard import ShardInfo, record_starts
from dtap_dask.records.tfrecord import FOOTER, HEADER, OVERHEAD, mask, masked_crcs
from dtap_dask.records.wire import Bytes

MANY = 16  # records that are checked with one operation for all of them
_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")
_RELEASED = np.empty(0, np.uint8)


@dataclass(frozen=True)
class RecordBytes:
    """Framed records, one after the other: record i is `data[ends[i]:ends[i + 1]]`.

    `begin` is where they begin in their shard. `lost` are the numbers of those that were damaged and are zeros now.
    """

    data: Bytes
    ends: RowNumbers
    begin: int = 0
    lost: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def length(self) -> int | None:
        """The length of each, framed, where they all have one."""
        lengths = np.diff(self.ends)
        return int(lengths[0]) if (lengths == lengths[0]).all() else None

    def payloads(self) -> list[Bytes]:
        """The data of each record, without a copy."""
        return [self.data[a + HEADER : b - FOOTER] for a, b in itertools.pairwise(self.ends.tolist())]

    def released(self) -> RecordBytes:
        """The same records without their data."""
        return RecordBytes(_RELEASED, self.ends, self.begin, self.lost)


class OpenShard:
    """A shard on a local disk, of which any records can be read; a compressed one is held in memory."""

    def __init__(self, name: str, shard: ShardInfo, path: str, compressed: bool):
        """OutputError where the file is missing, DamagedError where its records cannot be found."""
        self._name, self._shard = name, shard
        begin = perf_counter()
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0, _OTHER_REMEDY)
            raise OutputError(f"{name} cannot be opened: {error.strerror}. {remedy}") from error
        spent("disk", begin)
        close = weakref.finalize(self, os.close, self._file)  # once nobody reads it any more
        self._data = self._unpacked() if compressed else None
        if compressed:
            close()
        starts = record_starts(shard)
        self._starts = np.array(starts, np.int64) if starts is not None else self._scanned()

    def read(self, start: int, stop: int) -> RecordBytes:
        """The records `start` to `stop` - 1. DamagedError where the file ends early or a checksum is wrong."""
        begin = int(self._starts[start])
        end = int(self._starts[stop]) if stop < len(self._starts) else self._size
        if end > self._size or end < self._starts[stop - 1] + OVERHEAD:  # what was compressed is not the whole shard
            raise self._damaged(f"it ends at byte {self._size:,}, before the end of record {stop - 1:,}")
        ends = np.empty(stop - start + 1, np.int64)
        np.subtract(self._starts[start:stop], begin, out=ends[:-1])
        ends[-1] = end - begin
        found = RecordBytes(self._bytes(begin, end), ends, begin)
        self._check(found, start, begin)
        return found

    @property
    def _size(self) -> int:
        return self._shard.bytes if self._data is None else len(self._data)

    def _bytes(self, start: int, stop: int) -> Bytes:
        if self._data is not None:
            return self._data[start:stop]
        clock = perf_counter()
        data, at = np.empty(stop - start, np.uint8), 0
        while at < len(data):
            try:
                count = os.preadv(self._file, [data[at:].data], start + at)
            except OSError as error:
                raise self._unreadable(error) from error
            if not count:
                raise self._damaged(f"it ends at byte {start + at:,}, {stop - start - at:,} bytes early")
            at += count
        spent("disk", clock, len(data))
        return data

    def _unpacked(self) -> Bytes:
        try:
            with os.fdopen(os.dup(self._file), "rb") as file:
                begin = perf_counter()
                packed = file.read()
                spent("disk", begin, len(packed))
                return np.frombuffer(gzip.decompress(packed), np.uint8)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damaged(f"it cannot be decompressed: {error}") from error
        except OSError as error:
            raise self._unreadable(error) from error

    def _scanned(self) -> RowNumbers:
        """Where records begin, from the length before each."""
        data = self._data if self._data is not None else self._bytes(0, self._shard.bytes)
        starts, at, end, view = list[int](), 0, len(data), memoryview(data)  # type: ignore[arg-type]
        while at + OVERHEAD <= end:
            starts.append(at)
            at += OVERHEAD + _LENGTH.unpack_from(view, at)[0]
        if at != end or len(starts) != self._shard.records:
            raise self._damaged(f"it has {len(starts):,} records instead of {self._shard.records:,}")
        return np.array(starts, np.int64)

    def _check(self, found: RecordBytes, first: int, begin: int) -> None:
        """The length before each record, and the checksum after it."""
        if len(found) >= MANY and found.length is not None:
            self._check_equal(found, first, begin)
            return
        data = memoryview(found.data)  # type: ignore[arg-type]
        for number, payload in enumerate(found.payloads()):
            start, stop = found.ends[number : number + 2].tolist()
            (length,), (crc,) = _LENGTH.unpack_from(data, start), _CRC.unpack_from(data, stop - FOOTER)
            if length != len(payload) or crc != mask(google_crc32c.extend(0, payload)):
                raise self._damaged(f"the checksum of record {first + number:,}, at byte {begin + start:,}, is wrong")

    def _check_equal(self, found: RecordBytes, first: int, begin: int) -> None:
        """The same for records of one length."""
        rows = found.data.reshape(len(found), -1)
        lengths = np.ascontiguousarray(rows[:, : _LENGTH.size]).view("<u8")[:, 0]
        crcs = np.ascontiguousarray(rows[:, -FOOTER:]).view("<u4")[:, 0]
        wrong = (lengths != rows.shape[1] - OVERHEAD) | (crcs != masked_crcs(rows[:, HEADER:-FOOTER]))
        if wrong.any():
            number = int(np.flatnonzero(wrong)[0])
            place = f"record {first + number:,}, at byte {begin + number * rows.shape[1]:,}"
            raise self._damaged(f"the checksum of {place}, is wrong")

    def _unreadable(self, error: OSError) -> OutputError:
        return OutputError(f"{self._name} cannot be read: {error.strerror}. {_OTHER_REMEDY}")

    def _damaged(self, found: str) -> DamagedError:
        return DamagedError(
            f"{self._name} is damaged: {found}. Copy the file again from where it was written, or write the dataset "
            "again with `dtap-dask run JOB --overwrite`."
        )


_LIMIT = "This program has as many open files as it may have: raise the limit (`ulimit -n`)."
_REMEDIES = {
    errno.ENOENT: "The dataset was written again, moved or deleted after it was loaded: load it again.",
    errno.EMFILE: _LIMIT,
    errno.ENFILE: _LIMIT,
}
_OTHER_REMEDY = "Check its permissions, and the disk or mount that it is on."
