"""INT96 timestamps, exactly: read as the 12 bytes stored, converted to microseconds here.

A value is nanoseconds of the day (64 bits), then the Julian day (32 bits). Older Arrow writers truncated days towards
zero, so that times before 1970 have negative nanoseconds; pyarrow's conversion to microseconds (26.0) takes them as
unsigned, 584 years later. Its conversion to nanoseconds wraps outside 1677-2262.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtap_dask.lake.parquet.thrift import Cursor

_TYPE_INT96, _TYPE_FIXED = b"\x06", b"\x0e"  # parquet.thrift's Type, in zigzag
_LENGTH = b"\x15\x18"  # SchemaElement.type_length = 12, as the field behind its type
_SCHEMA, _TYPE, _TYPE_LENGTH = 2, 1, 2  # fields of FileMetaData and of SchemaElement
_UNIX_EPOCH = 2_440_588  # as a Julian day
_DAY = 86_400_000_000  # microseconds
_FARTHEST = 106_000_000  # days from 1970: 290,000 years, a little less than microseconds in 64 bits hold
_LAYOUT = np.dtype([("nanoseconds", "<i8"), ("day", "<i4")])
RAW = pa.binary(12)


def has_int96(schema: pq.ParquetSchema) -> bool:
    """Whether a file has an INT96 column, nested ones included."""
    return any(schema.column(index).physical_type == "INT96" for index in range(len(schema)))


def as_bytes(footer: bytes) -> bytes:
    """The footer (FileMetaData in Thrift's compact protocol) with INT96 columns as fixed-size binary of 12 bytes.

    Only the schema changes, which is what pyarrow decodes by; the pages are the same. ValueError if the bytes are no
    footer.
    """
    cursor, parts, done = Cursor(footer), list[bytes](), 0
    for field, kind in cursor.fields():
        if field != _SCHEMA:
            cursor.skip(kind)
            continue
        for start, end, instead in _changes(cursor):
            parts += [footer[done:start], instead]
            done = end
        break
    return b"".join([*parts, footer[done:]])


def _changes(cursor: Cursor) -> list[tuple[int, int, bytes]]:
    """(start, end, replacement) for the elements of a schema, in order."""
    found = []
    _, count = cursor.elements()
    for _ in range(count):
        start = end = 0
        for field, kind in cursor.fields():
            before = cursor.at
            cursor.skip(kind)
            value = cursor.data[before : cursor.at]
            if field == _TYPE and value == _TYPE_INT96:
                start, end = before, cursor.at
            elif field == _TYPE_LENGTH and start:
                end = cursor.at
        if start:
            found.append((start, *_with_length(cursor.data, end, start)))
    return found


def _with_length(data: bytes, end: int, start: int) -> tuple[int, bytes]:
    """The end of an element's type (and length, if it has one) and its replacement."""
    following = data[end]
    had_length = end > start + 1
    if had_length or following >> 4 == 0:  # the end, or a field that gives its number in full
        return end, _TYPE_FIXED + _LENGTH
    # The next field is numbered relative to the one before, which is one less now.
    return end + 1, _TYPE_FIXED + _LENGTH + bytes([following - 0x10])


def timestamps(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """INT96 values (binary of 12 bytes, length n) as timestamps of `kind` (microseconds), rounded down.

    ValueError for a day that 64 bits cannot hold.
    """
    size, first = len(values), values.offset
    buffer = values.buffers()[1]
    raw = np.frombuffer(buffer, _LAYOUT, size, first * 12) if buffer is not None and size else np.empty(0, _LAYOUT)
    missing = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    days = raw["day"].astype(np.int64) - _UNIX_EPOCH
    micros = raw["nanoseconds"] // 1000
    if missing is not None:
        days[missing] = micros[missing] = 0
    if size and max(-int(days.min()), int(days.max())) > _FARTHEST:
        raise ValueError("an INT96 timestamp is more than 290,000 years from 1970")
    return pa.array(days * _DAY + micros, mask=missing).cast(kind)
