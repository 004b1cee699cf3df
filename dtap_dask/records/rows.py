"""The rows layout: one tf.train.Example per row, one feature per column, encoded column by column.

Lengths and integers are padded varints, so everything but the values is the same in each row: a template. If all
columns are of fixed width, a row is the template with its slots filled. Texts and lists follow the fixed-width columns,
each behind a header of fixed size, so that only their payloads vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns, tfrecord
from dtap_dask.records.binary import as_array, as_binary, bytes_list_values, matrix_as_binary
from dtap_dask.records.columns import ColumnArray
from dtap_dask.records.encoder import MOST_BYTES, EncodedRecords, RecordEncoder, too_large, too_wide
from dtap_dask.records.tfrecord import FOOTER, HEADER, OVERHEAD
from dtap_dask.records.wire import (
    BYTES_LIST,
    FLOAT_LIST,
    INT64_LIST,
    LENGTH_BYTES,
    Bytes,
    delimited,
    put_little_endian,
    put_varints,
    varint,
    varint_width,
)

_CHUNK = 4096  # rows encoded at once: the matrix of bytes fits in the processor's cache
_SIZED = 1 + LENGTH_BYTES  # a tag and a padded length


@dataclass(frozen=True)
class Slot:
    """The position of a fixed-width column in a row's bytes: `count` values of `size` bytes from `at` on."""

    info: FeatureInfo
    at: int
    count: int
    size: int

    @property
    def is_float(self) -> bool:
        """Whether the values are raw float32; otherwise they are varints."""
        return self.info.stored == "float32"


def kind_of(info: FeatureInfo) -> int:
    """The field of tf.train.Feature that holds the column."""
    if info.stored == "bytes":
        return BYTES_LIST
    return FLOAT_LIST if info.stored == "float32" else INT64_LIST


def value_bytes(info: FeatureInfo) -> int:
    """Bytes of one number in a record: 4 for a float, else the length of a varint that can hold every value."""
    if info.stored == "float32":
        return 4
    dtype = np.dtype(info.stored)
    if info.ids is not None:
        return varint_width(max(1, info.ids - 1).bit_length())
    return varint_width({"b": 1, "u": dtype.itemsize * 8}.get(dtype.kind, 64))


class RowsEncoder(RecordEncoder):
    """A record for every row."""

    def __init__(self, infos: Sequence[FeatureInfo]):
        super().__init__(infos, 1)
        fixed = [info for info in infos if columns.is_fixed(info)]
        self._variable = [info for info in infos if not columns.is_fixed(info)]
        self.template, self.slots = _template(fixed, bool(self._variable))
        if len(self.template) + OVERHEAD >= MOST_BYTES:
            raise too_wide(len(self.template))

    def pack(self, rows: Rows) -> Rows:
        """The rows as they are."""
        return rows

    def encode_packed(self, packed: Rows) -> EncodedRecords:
        """Framed records of all rows, in order."""
        total = columns.row_count(packed)
        data, lengths = self._varying(packed, total) if self._variable else self._fixed(packed, total)
        return EncodedRecords(data, lengths, np.ones(total, np.int64))

    def _fixed(self, rows: Rows, total: int) -> tuple[Bytes, npt.NDArray[np.int64]]:
        out = np.empty((total, len(self.template) + OVERHEAD), np.uint8)
        blank = np.frombuffer(tfrecord.header(len(self.template)) + self.template + bytes(FOOTER), np.uint8)
        for start in range(0, total, _CHUNK):
            chunk = out[start : start + _CHUNK]
            chunk[:] = blank
            self._fill(chunk, HEADER, columns.cut(rows, start, start + len(chunk)))
            put_little_endian(chunk, HEADER + len(self.template), tfrecord.masked_crcs(chunk[:, HEADER:-FOOTER]))
        return out.reshape(-1), np.full(total, out.shape[1], np.int64)

    def _fill(self, out: Bytes, shift: int, rows: Rows) -> None:
        """Write the values of the fixed-width columns into a matrix of templates, which begin at column `shift`."""
        for slot in self.slots:
            values = columns.matrix(slot.info, rows)
            if not slot.is_float:
                _check_range(slot.info, values)
            for i in range(slot.count):
                if slot.is_float:
                    put_little_endian(out, shift + slot.at + 4 * i, values[:, i])
                else:
                    put_varints(out, shift + slot.at + slot.size * i, values[:, i], slot.size)

    def _varying(self, rows: Rows, total: int) -> tuple[Bytes, npt.NDArray[np.int64]]:
        fixed = np.empty((total, HEADER + _SIZED + len(self.template)), np.uint8)
        fixed[:, HEADER + _SIZED :] = np.frombuffer(self.template, np.uint8)
        self._fill(fixed, HEADER + _SIZED, rows)
        pieces = [matrix_as_binary(fixed)]
        for info in self._variable:
            payload = _payload(info, rows)
            pieces += [matrix_as_binary(_headers(info, np.diff(as_array(payload)[0]))), payload]
        pieces.append(matrix_as_binary(np.zeros((total, FOOTER), np.uint8)))
        joined = pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))
        ends, flat = as_array(joined)
        lengths = np.diff(ends)
        if total and lengths.max() >= MOST_BYTES:
            raise too_large(int(lengths.argmax()), int(lengths.max()))
        out = flat.copy()  # Arrow's memory is read-only
        _seal(out, ends, lengths)
        return out, lengths


def _template(infos: Sequence[FeatureInfo], varying: bool) -> tuple[bytes, tuple[Slot, ...]]:
    """A row's serialized Example with zeros for values, and its slots; only the map's entries if others will follow."""
    entries, slots = b"", []
    for info in infos:
        number, size = columns.width(info), value_bytes(info)
        zero = bytes(4) if info.stored == "float32" else varint(0, size)
        feature = delimited(kind_of(info), delimited(1, zero * number))
        entries += delimited(1, delimited(1, info.name.encode()) + delimited(2, feature))
        slots.append((info, len(entries) - size * number, number, size))
    before = b"" if varying else b"\x0a" + varint(len(entries))
    return before + entries, tuple(Slot(info, at + len(before), number, size) for info, at, number, size in slots)


def _check_range(info: FeatureInfo, values: npt.NDArray[np.generic]) -> None:
    """DataError for an id beyond the declared number of ids, whose varint might not fit."""
    if info.ids is None or not values.size or values.dtype == np.bool_:
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > max(1, info.ids - 1):
        raise DataError(
            f"Column {info.name!r} has {info.ids} ids, from 0 on, but holds {low if low < 0 else high}. This is a "
            "mistake in the step that made it; please report it with the job file."
        )


def _payload(info: FeatureInfo, rows: Rows) -> pa.LargeBinaryArray:
    """The contents of the innermost message of a text or list column, for each row."""
    if columns.is_text(info):
        return columns.text_column(info, rows)
    lengths, values = columns.list_column(info, rows)
    ends = offsets_of(lengths)
    if info.stored == "bytes":
        starts, flat = as_array(bytes_list_values(values, LENGTH_BYTES))
        return as_binary(starts[ends], flat)
    return as_binary(ends * value_bytes(info), _packed(info, values))


def _packed(info: FeatureInfo, values: ColumnArray) -> Bytes:
    if info.stored == "float32":
        return np.ascontiguousarray(values, "<f4").view(np.uint8)
    numbers = np.asarray(values)
    _check_range(info, numbers)
    out = np.empty((len(numbers), value_bytes(info)), np.uint8)
    put_varints(out, 0, numbers, out.shape[1])
    return out.reshape(-1)


def _headers(info: FeatureInfo, sizes: npt.NDArray[np.int64]) -> Bytes:
    """Everything before the payload of a column's entry, for payloads of `sizes` bytes, as [n, length]."""
    name = delimited(1, info.name.encode())
    # Messages from the inside out, each a tag and a padded length: [value or packed numbers], list, feature. For a list
    # of texts the payload contains the innermost ones.
    tags = [kind_of(info) << 3 | 2, 0x12]
    if info.stored != "bytes" or columns.is_text(info):
        tags.insert(0, 0x0A)
    out = np.empty((len(sizes), _SIZED + len(name) + _SIZED * len(tags)), np.uint8)
    at, inner = out.shape[1], sizes
    for tag in tags:
        at -= _SIZED
        _put_sized(out, at, tag, inner)
        inner = inner + _SIZED
    at -= len(name)
    out[:, at : at + len(name)] = np.frombuffer(name, np.uint8)
    _put_sized(out, 0, 0x0A, inner + len(name))
    return out


def _put_sized(out: Bytes, at: int, tag: int, sizes: npt.NDArray[np.int64]) -> None:
    out[:, at] = tag
    put_varints(out, at + 1, sizes, LENGTH_BYTES)


def _seal(out: Bytes, ends: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
    """Fill in what depends on whole records: the length of the Example's only field, header and checksums."""
    sizes = lengths - OVERHEAD
    heads = np.empty((len(sizes), HEADER + _SIZED), np.uint8)
    put_little_endian(heads, 0, sizes)
    put_little_endian(heads, 8, tfrecord.masked_crcs(heads[:, :8]))
    _put_sized(heads, HEADER, 0x0A, sizes - _SIZED)
    out[ends[:-1, None] + np.arange(heads.shape[1])] = heads
    spans = zip((ends[:-1] + HEADER).tolist(), (ends[1:] - FOOTER).tolist(), strict=True)
    crcs = np.fromiter((google_crc32c.value(out[start:stop]) for start, stop in spans), np.uint32, len(sizes))
    tails = np.empty((len(sizes), FOOTER), np.uint8)
    put_little_endian(tails, 0, tfrecord.mask_all(crcs))
    out[ends[1:, None] - FOOTER + np.arange(FOOTER)] = tails
