"""The blocks layout: many rows in one Example, numbers as raw little-endian bytes, texts as bytes_lists.

`rows` (int64) is the number of rows. All fixed-width columns of one stored dtype are one bytes feature named after the
dtype: a row-major matrix [rows, width], columns in the order of the schema. A text column is `<name>/values`, a
bytes_list with one text per row. A list column is `<name>/values`, the elements of all rows one after the other
(numbers raw in one bytes value, texts a bytes_list), and `<name>/lengths` (raw int32, the number of elements per row).

Texts are not raw bytes because TensorFlow has no operation that cuts a string at given offsets, but it parses a
bytes_list into one string per value. A value costs a tag and a length, padded to what the longest text of the feature
needs: two bytes as long as all texts are shorter than 128 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.columns.column import offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns
from dtap_dask.records.binary import as_array, bytes_list_values
from dtap_dask.records.encoder import MOST_BYTES, EncodedRecords, RecordEncoder, too_large, too_wide
from dtap_dask.records.tfrecord import OVERHEAD, header, mask
from dtap_dask.records.wire import (
    INT64_LIST,
    LENGTH_BYTES,
    Bytes,
    Values,
    delimited,
    features_of,
    parse_example,
    parse_feature,
    read_varint,
    texts_of,
    varint,
    varint_width,
)

ROWS = "rows"
_TEXT_OVERHEAD = 1 + LENGTH_BYTES  # the most bytes that a text takes besides its own
_LENGTH_BYTES = 4  # of a list's number of elements
RecordPart: TypeAlias = bytes | npt.NDArray[np.generic]


def matrices(infos: Sequence[FeatureInfo]) -> dict[str, list[FeatureInfo]]:
    """The fixed-width columns of each stored dtype; dtypes and columns in the order of the schema."""
    found: dict[str, list[FeatureInfo]] = {}
    for info in infos:
        if columns.is_fixed(info):
            found.setdefault(info.stored, []).append(info)
    return found


def variable(infos: Sequence[FeatureInfo]) -> list[FeatureInfo]:
    """The columns whose rows differ in size: texts and lists."""
    return [info for info in infos if not columns.is_fixed(info)]


def keys(info: FeatureInfo) -> tuple[str, ...]:
    """The features of a record that hold a column of texts or lists; the values come first."""
    parts = ("values",) if columns.is_text(info) else ("values", "lengths")
    return tuple(f"{info.name}/{part}" for part in parts)


def text_keys(infos: Sequence[FeatureInfo]) -> frozenset[str]:
    """The features of a record that are a bytes_list of texts; every other one is a single value."""
    return frozenset(keys(info)[0] for info in infos if info.stored == "bytes")


class BlocksEncoder(RecordEncoder):
    """A record for every `rows_per_record` rows, and one for the rest; fewer rows where texts or lists are large."""

    def __init__(self, infos: Sequence[FeatureInfo], rows_per_record: int):
        self._matrices = matrices(infos)
        self._variable = variable(infos)
        names = [*self._matrices, *(key for info in self._variable for key in keys(info))]
        # tags, lengths and kinds: at most nine numbers of five bytes around every feature, and its name
        self._overhead = OVERHEAD + 64 + sum(64 + len(name.encode()) for name in names)
        texts = sum(map(columns.is_text, infos))
        self._row_overhead = _TEXT_OVERHEAD * texts + _LENGTH_BYTES * (len(self._variable) - texts)
        self._row_size = sum(map(columns.fixed_bytes, infos)) + self._row_overhead
        if self._row_size + self._overhead >= MOST_BYTES:
            raise too_wide(self._row_size)
        most = (MOST_BYTES - 1 - self._overhead) // max(1, self._row_size)
        super().__init__(infos, min(rows_per_record, most))

    def pack(self, rows: Rows) -> Rows:
        """The matrix of each stored dtype, and the columns of variable size."""
        packed: Rows = {
            stored: _side_by_side(stored, [columns.matrix(info, rows) for info in infos])
            for stored, infos in self._matrices.items()
        }
        packed.update({keys(info)[0]: rows[info.name] for info in self._variable})
        return packed

    def encode_packed(self, packed: Rows) -> EncodedRecords:
        """Framed records of all rows, in order."""
        parts: list[RecordPart] = []
        lengths = []
        spans = list(self._spans(packed))
        for start, stop in spans:
            record = self._record(columns.cut(packed, start, stop), stop - start)
            lengths.append(sum(map(_size, record)) + OVERHEAD)
            parts += _framed(record)
        data = b"".join(
            part.reshape(-1).view(np.uint8).data if isinstance(part, np.ndarray) else part for part in parts
        )
        return EncodedRecords(
            data, np.array(lengths, np.int64), np.array([stop - start for start, stop in spans], np.int64)
        )

    def _spans(self, packed: Rows) -> Iterator[tuple[int, int]]:
        """(start, stop) of the rows of each record: `rows_per_record`, or fewer where texts and lists are large."""
        total = columns.row_count(packed)
        ends = offsets_of(self._sizes(packed)) if self._variable else None
        for first in range(0, total, self.rows_per_record):
            start, last = first, min(first + self.rows_per_record, total)
            while start < last:
                stop = last
                if ends is not None:
                    budget = MOST_BYTES - 1 - self._overhead
                    stop = min(last, int(np.searchsorted(ends, ends[start] + budget, side="right")) - 1)
                    if stop == start:
                        raise too_large(start, int(ends[start + 1] - ends[start]))
                yield start, stop
                start = stop

    def _sizes(self, packed: Rows) -> npt.NDArray[np.int64]:
        """The most bytes that each row adds to a record, as [n]."""
        rows = {info.name: packed[keys(info)[0]] for info in self._variable}
        sizes = columns.bytes_per_row(self.infos, rows) + self._row_overhead
        for info in self._variable:
            if info.stored == "bytes" and not columns.is_text(info):
                sizes += _TEXT_OVERHEAD * columns.list_column(info, rows)[0]
        return sizes

    def _record(self, packed: Rows, count: int) -> list[RecordPart]:
        """One serialized Example of all these rows, in pieces."""
        parts: list[RecordPart] = [_int64_entry(ROWS, count)]
        for stored in self._matrices:
            parts += _raw_entry(stored, packed[stored])
        for info in self._variable:
            parts += _variable_entries(info, {info.name: packed[keys(info)[0]]})
        return [b"\x0a" + varint(sum(map(_size, parts))), *parts]


def _size(part: RecordPart) -> int:
    return part.nbytes if isinstance(part, np.ndarray) else len(part)


def _framed(payload: list[RecordPart]) -> list[RecordPart]:
    crc = 0
    for part in payload:
        crc = google_crc32c.extend(crc, part)
    return [header(sum(map(_size, payload))), *payload, struct.pack("<I", mask(crc))]


def _side_by_side(stored: str, arrays: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """Arrays [n, width] of one dtype as one C-contiguous little-endian matrix; one alone is copied only if needed."""
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0], np.dtype(stored).newbyteorder("<"))
    widths = [array.shape[1] for array in arrays]
    out: npt.NDArray[np.generic] = np.empty((len(arrays[0]), sum(widths)), np.dtype(stored).newbyteorder("<"))
    at = 0
    for array, width in zip(arrays, widths, strict=True):
        out[:, at : at + width] = array
        at += width
    return out


def _variable_entries(info: FeatureInfo, rows: Rows) -> list[RecordPart]:
    """The feature map's entries for a column of texts or lists, under the names of `keys`."""
    if columns.is_text(info):
        return _entry(keys(info)[0], b"", _bytes_list(columns.text_column(info, rows)))
    key, lengths_key = keys(info)
    lengths, values = columns.list_column(info, rows)
    if isinstance(values, np.ndarray):
        raw = values.astype(np.dtype(info.stored).newbyteorder("<"), copy=False)
        entry = _raw_entry(key, np.ascontiguousarray(raw))
    else:
        entry = _entry(key, b"", _bytes_list(values))
    return entry + _raw_entry(lengths_key, lengths.astype("<i4"))


def _bytes_list(texts: pa.LargeBinaryArray) -> Bytes:
    """The serialized bytes_list of texts; there must be no nulls among them."""
    longest = int(np.diff(as_array(texts)[0]).max(initial=0))
    return as_array(bytes_list_values(texts, varint_width(longest.bit_length())))[1]


def _int64_entry(name: str, value: int) -> RecordPart:
    feature = delimited(INT64_LIST, delimited(1, varint(value)))
    return delimited(1, delimited(1, name.encode()) + delimited(2, feature))


def _raw_entry(name: str, values: npt.NDArray[np.generic]) -> list[RecordPart]:
    """The feature map's entry for a feature that is one bytes value."""
    return _entry(name, b"\x0a" + varint(values.nbytes), values)


def _entry(name: str, inner: bytes, values: npt.NDArray[np.generic]) -> list[RecordPart]:
    """One entry of the feature map, whose bytes_list is `inner` followed by `values`."""
    feature = b"\x0a" + varint(len(inner) + values.nbytes)
    value = b"\x12" + varint(len(feature) + len(inner) + values.nbytes)
    entry = delimited(1, name.encode()) + value + feature + inner
    return [b"\x0a" + varint(len(entry) + values.nbytes) + entry, values]


def rows_of(head: bytes) -> int:
    """The number of rows of a block from its first bytes: 'rows' is its first feature. ValueError for other bytes."""
    _, at = read_varint(memoryview(head), 1)
    entry = delimited(1, ROWS.encode())
    size, start = read_varint(memoryview(head), at + 1)
    if head[:1] != b"\x0a" or head[at : at + 1] != b"\x0a" or head[start : start + len(entry)] != entry:
        raise ValueError("its first feature is not 'rows'")
    return _count(parse_example(delimited(1, head[at : start + size]))[ROWS])


def _count(value: Values | None) -> int:
    """The value of the feature 'rows'."""
    if not isinstance(value, np.ndarray) or value.dtype != np.int64 or len(value) != 1 or value[0] < 0:
        raise ValueError("the feature 'rows' is not one integer")
    return int(value[0])


@dataclass(frozen=True)
class BlockFrame:
    """A block without its matrices: its number of rows, where each matrix begins, and all other bytes."""

    rows: int
    places: Mapping[str, int]
    others: Sequence[tuple[int, bytes]]

    @classmethod
    def of(cls, record: Bytes, widths: Mapping[str, int]) -> BlockFrame:
        """The frame of a block whose matrices have these stored dtypes and widths. ValueError for another record."""
        rows, values = 0, dict[str, memoryview]()
        for name, feature in features_of(record):
            if name == ROWS:
                rows = _count(parse_feature(feature))
            elif name in widths:
                values[name] = _single(name, feature)
        missing = [stored for stored in widths if stored not in values]
        if missing:
            raise ValueError(f"it has no feature {missing[0]!r}")
        for stored, width in widths.items():
            if len(values[stored]) != rows * width * np.dtype(stored).itemsize:
                raise ValueError(f"the feature {stored!r} has {len(values[stored]):,} bytes for {rows:,} rows")
        places = {stored: _address(values[stored]) - int(record.__array_interface__["data"][0]) for stored in widths}
        others, at = [], 0
        for stored in sorted(widths, key=lambda stored: places[stored]):
            others.append((at, record[at : places[stored]].tobytes()))
            at = places[stored] + len(values[stored])
        return cls(rows, places, [*others, (at, record[at:].tobytes())])

    def fits(self, record: Bytes) -> bool:
        """Whether a block of the same length differs from this one in its matrices only."""
        data = memoryview(record)  # type: ignore[arg-type]
        return all(data[at : at + len(part)] == part for at, part in self.others)


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])


def _single(name: str, feature: memoryview) -> memoryview:
    values = texts_of(feature)
    if len(values) != 1:
        raise ValueError(f"the feature {name!r} is not one bytes value")
    return values[0]


def decode_blocks(infos: Sequence[FeatureInfo], records: Sequence[bytes]) -> Rows:
    """The rows of all records, in order. ValueError where a record does not have this schema."""
    parts = [_decode_block(infos, parse_example(record)) for record in records]
    return columns.join(parts or [_decode_block(infos, _empty(infos))])


def _empty(infos: Sequence[FeatureInfo]) -> dict[str, Values]:
    names = [*matrices(infos), *(key for info in variable(infos) for key in keys(info))]
    texts = text_keys(infos)
    return {ROWS: np.zeros(1, np.int64), **{name: [] if name in texts else [b""] for name in names}}


def _decode_block(infos: Sequence[FeatureInfo], features: Mapping[str, Values]) -> Rows:
    total = _count(features.get(ROWS))
    known = {ROWS, *matrices(infos), *(key for info in variable(infos) for key in keys(info))}
    if set(features) != known:
        raise ValueError(f"it has the features {sorted(features)} instead of {sorted(known)}")
    found: Rows = {}
    for stored, group in matrices(infos).items():
        width = sum(map(columns.width, group))
        matrix = _raw(features, stored, stored, total * width).reshape(total, width)
        at = 0
        for info in group:
            found[info.name] = np.ascontiguousarray(matrix[:, at : at + columns.width(info)]).reshape(
                total, *info.shape
            )
            at += columns.width(info)
    for info in variable(infos):
        found[info.name] = _decode_variable(info, features, total)
    return {info.name: found[info.name] for info in infos}


def _raw(features: Mapping[str, Values], key: str, dtype: str, size: int) -> npt.NDArray[Any]:
    value = features[key]
    if not isinstance(value, list) or len(value) != 1:
        raise ValueError(f"the feature {key!r} is not one bytes value")
    raw = np.frombuffer(value[0], np.dtype(dtype).newbyteorder("<"))
    if len(raw) != size:
        raise ValueError(f"the feature {key!r} holds {len(raw)} values instead of {size}")
    return raw.astype(np.dtype(dtype), copy=False)


def _decode_variable(info: FeatureInfo, features: Mapping[str, Values], total: int) -> pa.Array:
    if columns.is_text(info):
        return _texts(features, keys(info)[0], total)
    key, lengths_key = keys(info)
    lengths = _raw(features, lengths_key, "int32", total).astype(np.int64)
    if (lengths < 0).any():
        raise ValueError(f"column {info.name!r} has a negative length")
    ends = offsets_of(lengths)
    size = int(ends[-1])
    values = _texts(features, key, size) if info.stored == "bytes" else pa.array(_raw(features, key, info.stored, size))
    return pa.LargeListArray.from_arrays(pa.array(ends), values)


def _texts(features: Mapping[str, Values], key: str, size: int) -> pa.LargeBinaryArray:
    texts = features[key]
    if not isinstance(texts, list) or len(texts) != size:
        raise ValueError(f"the feature {key!r} is not a bytes_list of {size} texts")
    return pa.array(texts, pa.large_binary())
