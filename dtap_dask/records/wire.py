"""The parts of protobuf's wire format that tf.train.Example needs, for whole columns at once.

Source: protobuf.dev/programming-guides/encoding and tensorflow/core/example/{example,feature}.proto:
Example{features=1}, Features{map<string, Feature> feature=1}, Feature{bytes_list=1 | float_list=2 | int64_list=3},
each list {repeated value=1}, numbers packed or not.

A varint may be padded with continuation bytes without changing its value. Padding gives all rows of a schema the same
length, so that rows can be encoded column by column.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
MAX_VARINT = 10  # bytes of a 64-bit value, and of every negative one
LENGTH_BYTES = 4  # a padded length: 28 bits, above the 16 MiB that a record may have

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3
VALUE = 1 << 3 | DELIMITED  # the tag of a list's values: each text of a bytes_list, or all numbers packed


class WireError(ValueError):
    """Bytes that are not a valid protobuf message."""


def varint(value: int, width: int = 1) -> bytes:
    """`value` >= 0 as a varint, padded to at least `width` bytes."""
    out = bytearray()
    while value > 0x7F or len(out) + 1 < width:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(field: int, payload: bytes) -> bytes:
    """A length-delimited field: a string, bytes, a message or packed numbers."""
    return bytes([field << 3 | DELIMITED]) + varint(len(payload)) + payload


def varint_width(bits: int) -> int:
    """Bytes of a padded varint for unsigned values of up to `bits` bits: 1 to 8, or 10."""
    width = max(1, -(-bits // 7))
    return width if width <= 8 else MAX_VARINT


def put_little_endian(out: Bytes, at: int, values: npt.NDArray[np.generic]) -> None:
    """Write values[n] into the columns of the C-contiguous matrix out[n, length] from column `at` on."""
    if not len(values):
        return  # NumPy makes no strided view of an empty buffer
    dtype = values.dtype.newbyteorder("<")
    target: npt.NDArray[np.generic] = np.ndarray((len(out),), dtype, buffer=out, offset=at, strides=(out.shape[1],))
    target[...] = values


def put_varints(out: Bytes, at: int, values: npt.NDArray[np.generic], width: int) -> None:
    """Write integers or booleans [n] as padded varints of `width` bytes into out[n, length] from column `at` on.

    Negative values need width 10, as protobuf extends their sign to 64 bits.
    """
    wide = values.astype(np.uint64) if values.dtype == np.uint64 else values.astype(np.int64).view(np.uint64)
    spread = _spread_groups_of_seven(wide)
    body = min(width, 8)
    spread |= np.uint64(_continuation(body, last=width > 8))
    done = 0
    for size in (8, 4, 2, 1):
        if body - done >= size:
            put_little_endian(out, at + done, (spread >> np.uint64(8 * done)).astype(f"u{size}"))
            done += size
    if width > 8:
        ninth = (wide >> np.uint64(56)) & np.uint64(0x7F) | np.uint64(0x80)
        put_little_endian(out, at + 8, (ninth | (wide >> np.uint64(63)) << np.uint64(8)).astype(np.uint16))


def _spread_groups_of_seven(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The low 56 bits with each group of seven in its own byte: split into 28|28, then 14|14|14|14, then 7 each."""
    steps = (
        (0x000000000FFFFFFF, 0x00FFFFFFF0000000, 4),
        (0x00003FFF00003FFF, 0x0FFFC0000FFFC000, 2),
        (0x007F007F007F007F, 0x3F803F803F803F80, 1),
    )
    for low, high, shift in steps:
        value = (value & np.uint64(low)) | ((value & np.uint64(high)) << np.uint64(shift))
    return value


def _continuation(width: int, *, last: bool) -> int:
    """The continuation bits of a varint of `width` bytes; its last byte has one only if more bytes follow."""
    return sum(0x80 << 8 * i for i in range(width if last else width - 1))


def unpack_varints(data: bytes | memoryview | Bytes) -> npt.NDArray[np.int64]:
    """The values of packed varints, any widths mixed, as int64[n]. WireError if the last one is cut off."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80) + 1
    if len(raw) and (not len(ends) or ends[-1] != len(raw)):
        raise WireError("the last packed varint is cut off")
    if not len(raw):
        return np.empty(0, np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    if (ends - starts).max() > MAX_VARINT:
        raise WireError("a packed varint is longer than ten bytes")
    position = np.arange(len(raw)) - np.repeat(starts, ends - starts)
    parts = (raw & np.uint8(0x7F)).astype(np.uint64) << (7 * position).astype(np.uint64)
    return np.add.reduceat(parts, starts).view(np.int64)


def fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """Every field of a message: its number, its wire type, and its value (an int for a varint, else its bytes)."""
    at, end = 0, len(data)
    while at < end:
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = read_varint(data, at)
            yield number, kind, value
            continue
        if kind == DELIMITED:
            size, at = read_varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise WireError(f"wire type {kind} is not one that protobuf writes")
        if not number or at + size > end:
            raise WireError("a field runs past the end of its message")
        yield number, kind, data[at : at + size]
        at += size


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The varint that begins at `at`, and where it ends. WireError where it is cut off."""
    value = 0
    for i, byte in enumerate(data[at : at + MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise WireError("a varint is cut off or longer than ten bytes")


Values = npt.NDArray[np.float32] | npt.NDArray[np.int64] | list[bytes]


def parse_example(record: bytes | memoryview) -> dict[str, Values]:
    """A serialized tf.train.Example as {name: float32[n], int64[n] or list of bytes}; a feature of no kind is [].

    Raises WireError for bytes that are no Example.
    """
    return {name: parse_feature(feature) for name, feature in features_of(record)}


def features_of(record: bytes | memoryview | Bytes) -> Iterator[tuple[str, memoryview]]:
    """The name and the serialized Feature of each feature of a serialized Example. WireError where it is none."""
    for number, kind, value in fields(memoryview(record)):  # type: ignore[arg-type]
        if (number, kind) != (1, DELIMITED):
            continue
        for inner, inner_kind, entry in fields(_view(value)):
            if (inner, inner_kind) == (1, DELIMITED):
                yield _map_entry(_view(entry))


def texts_of(feature: memoryview) -> list[memoryview]:
    """The values of a serialized Feature that is a bytes_list, without a copy; WireError for other features."""
    lists = list(fields(feature))
    if any((number, kind) != (BYTES_LIST, DELIMITED) for number, kind, _ in lists):
        raise WireError("a feature of numbers where bytes belong")
    return [_view(value) for _, _, part in lists for number, _, value in fields(_view(part)) if number == 1]


def _view(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise WireError("a number where a message belongs")
    return value


def _map_entry(entry: memoryview) -> tuple[str, memoryview]:
    name, feature = "", memoryview(b"")
    for number, kind, value in fields(entry):
        if (number, kind) == (1, DELIMITED):
            try:
                name = bytes(_view(value)).decode()
            except UnicodeDecodeError as error:
                raise WireError("a feature's name is not UTF-8") from error
        elif (number, kind) == (2, DELIMITED):
            feature = _view(value)
    return name, feature


def parse_feature(feature: memoryview) -> Values:
    """The list of a Feature; of several kinds the last one written holds, as for any oneof."""
    kind_found, parts = 0, list[memoryview]()
    for number, kind, value in fields(feature):
        if number in (BYTES_LIST, FLOAT_LIST, INT64_LIST) and kind == DELIMITED:
            parts = parts if number == kind_found else []
            kind_found = number
            parts.append(_view(value))
    if kind_found in (0, BYTES_LIST):
        return [text for part in parts for text in _texts(part)]
    items = [item for part in parts for item in fields(part) if item[0] == 1]
    if kind_found == FLOAT_LIST:
        return np.frombuffer(b"".join(bytes(_view(value)) for _, _, value in items), "<f4")
    numbers = [
        np.array([value], np.uint64).view(np.int64) if isinstance(value, int) else unpack_varints(value)
        for _, _, value in items
    ]
    return np.concatenate(numbers) if numbers else np.empty(0, np.int64)


def _texts(data: memoryview) -> list[bytes]:
    """The values of a BytesList, as `fields` finds them but several times as fast: a block holds thousands."""
    raw, found, at = bytes(data), list[bytes](), 0
    while at < len(raw) - 1 and raw[at] == VALUE:
        size, at = raw[at + 1], at + 2
        if size > 0x7F:
            size, at = read_varint(data, at - 1)
        found.append(raw[at : at + size])
        at += size
    if at == len(raw):
        return found
    return [bytes(_view(value)) for number, _, value in fields(data) if number == 1]  # damaged, or another writer's
