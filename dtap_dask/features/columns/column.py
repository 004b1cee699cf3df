"""A column of a batch as NumPy sees it: numbers with their nulls, or text as codes into its distinct words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import farmhash
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.lake.schema import MICROSECONDS, MICROSECONDS_PER_DAY, is_text
from dtap_dask.lake.sql.kernels.decimals import to_floating

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of shape [n], or [n, k] for vectors.

    Among floats NaN is null and `valid` is None. For integers and booleans `valid` is False at nulls, whose values
    mean nothing; None says that there are none. Dates and timestamps are int64 microseconds since 1970.
    """

    values: Array
    valid: Mask | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_float(self) -> bool:
        return self.values.dtype.kind == "f"

    def nulls(self) -> Mask | None:
        """Where nulls are, shape [n] (any of a vector's places); None if there are none."""
        if not self.is_float:
            return None if self.valid is None else ~self.valid
        missing: Mask = np.isnan(self.values)
        if missing.ndim == 2:
            missing = np.asarray(missing.any(axis=1))
        return missing if missing.any() else None

    def infinities(self) -> int:
        """How many values are infinite."""
        if not self.is_float or np.isfinite(self.values).all():
            return 0
        return int(np.isinf(self.values).sum())

    def floats(self) -> Floats:
        """The values as float64, NaN where null; not to be written to."""
        if self.is_float:
            return self.values.astype(np.float64, copy=False)
        out = self.values.astype(np.float64)
        if self.valid is not None:
            out[~self.valid] = np.nan
        return out


class Words:
    """The distinct values of a text column in one batch, shape [m], without nulls. Repeats are harmless."""

    def __init__(self, array: pa.Array, key: tuple[object, ...] | None = None):
        self.array = array
        self._key = key

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal for the same words in the same order: batches of one row group repeat their dictionary."""
        return self._key or (str(self.array.type), len(self.array), *_fingerprints(self.array))

    @cached_property
    def binary(self) -> pa.Array:
        """The words as large_binary."""
        return self.array.cast(pa.large_binary())


def _fingerprints(array: pa.Array) -> list[object]:
    if len(array) == 0:
        return []
    if array.type not in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
        array = array.cast(pa.large_binary())
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    offsets = np.frombuffer(array.buffers()[1], np.int64 if wide else np.int32)
    offsets = offsets[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    block = memoryview(data)[int(offsets[0]) : int(offsets[-1])] if data is not None else b""
    return [farmhash.Fingerprint128(block), farmhash.Fingerprint128(offsets - offsets[0])]


@dataclass(frozen=True, slots=True)
class Coded:
    """Text as codes into words; the code len(words) is null, and `nulls` says whether there is any."""

    codes: Array
    words: Words
    nulls: bool


class Text:
    """A text column: an Arrow array, or codes. Codes are computed on first use; text that is only passed through
    never needs them."""

    def __init__(self, source: pa.Array | Coded):
        self._source = source

    def __len__(self) -> int:
        return len(self._source.codes) if isinstance(self._source, Coded) else len(self._source)

    @cached_property
    def coded(self) -> Coded:
        return self._source if isinstance(self._source, Coded) else _encode(self._source)

    @cached_property
    def _plain(self) -> pa.Array | None:
        """The source, if it is not coded in any way."""
        if isinstance(self._source, Coded) or pa.types.is_dictionary(self._source.type):
            return None
        return self._source

    def nulls(self) -> Mask | None:
        if self._plain is not None:
            return _bits(self._plain.is_null()) if self._plain.null_count else None
        coded = self.coded
        return coded.codes == len(coded.words) if coded.nulls else None

    def infinities(self) -> int:
        return 0

    def plain(self) -> pa.Array:
        """The text as a large_binary array, shape [n]."""
        if self._plain is not None:
            return self._plain.cast(pa.large_binary())
        coded = self.coded
        mask = coded.codes == len(coded.words) if coded.nulls else None
        return coded.words.binary.take(pa.array(coded.codes, mask=mask))


class Decimals:
    """A decimal column, for the steps that treat its values exactly; all others use `numbers`."""

    def __init__(self, array: pa.Array):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def numbers(self) -> Numbers:
        """The values as float64, NaN where null."""
        return _numbers(self.array)

    def nulls(self) -> Mask | None:
        return _bits(self.array.is_null()) if self.array.null_count else None

    def infinities(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of lists of any length, which can only be passed through or cast."""

    array: pa.Array

    def __len__(self) -> int:
        return len(self.array)

    def nulls(self) -> Mask | None:
        """Rows that are null or hold a null."""
        inner = self.array.flatten()
        holes = inner.null_count or (pa.types.is_floating(inner.type) and bool(np.isnan(inner.to_numpy(False)).any()))
        if not self.array.null_count and not holes:
            return None
        missing = _bits(self.array.is_null())
        if holes:
            empty = _bits(inner.is_null(nan_is_null=True))
            rows = self.array.value_parent_indices().to_numpy(zero_copy_only=False)
            missing[rows[empty]] = True
        return missing

    def infinities(self) -> int:
        inner = self.array.flatten()
        return int(np.isinf(inner.to_numpy(zero_copy_only=False)).sum()) if pa.types.is_floating(inner.type) else 0


Column = Numbers | Decimals | Text | Lists


def numbers(column: Column) -> Numbers:
    """The column as numbers; the types were checked when the graph was built."""
    if isinstance(column, Decimals):
        return column.numbers
    assert isinstance(column, Numbers)
    return column


def text(column: Column) -> Text:
    """The column as text; the types were checked when the graph was built."""
    assert isinstance(column, Text)
    return column


def present(column: Column) -> Column:
    """The column without its null rows."""
    nulls = column.nulls()
    if nulls is None:
        return column
    assert not isinstance(column, Lists)
    if isinstance(column, Text):
        coded = column.coded
        return Text(Coded(coded.codes[~nulls], coded.words, nulls=False))
    if isinstance(column, Decimals):
        return Decimals(column.array.drop_null())
    return Numbers(column.values[~nulls])


def shape_of(kind: pa.DataType) -> tuple[int, ...]:
    """The shape of one value: (k,) for lists of k numbers, (k, l) for lists of k such lists, () for anything else."""
    return (kind.list_size, *shape_of(kind.value_type)) if pa.types.is_fixed_size_list(kind) else ()


def item_of(kind: pa.DataType) -> pa.DataType:
    """The type of the numbers in (lists of) lists of a fixed size; any other type itself."""
    return item_of(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind


def from_arrow(array: pa.Array) -> Column:
    """A column of a record batch; `array` is of a type that `valuetype.source_type` accepts."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_dictionary(kind):
        if is_text(kind.value_type):
            return Text(array)
        return from_arrow(array.dictionary_decode())
    if is_text(kind):
        return Text(array)
    if pa.types.is_fixed_size_list(kind):
        return _vectors(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return Lists(array)
    return Decimals(array) if pa.types.is_decimal(kind) else _numbers(array)


def _numbers(array: pa.Array) -> Numbers:
    kind = array.type
    if pa.types.is_null(kind):
        return Numbers(np.full(len(array), np.nan))
    if pa.types.is_decimal(kind):
        array = to_floating(array, pa.float64())
        kind = array.type
    valid = _validity(array)
    if pa.types.is_boolean(kind):
        return Numbers(_unpack(array.buffers()[1], array.offset, len(array)), valid)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return Numbers(_microseconds(array, valid), valid)
    values = _view(array, kind.to_pandas_dtype())
    if valid is not None and values.dtype.kind == "f":
        return Numbers(np.where(valid, values, values.dtype.type(np.nan)))
    return Numbers(values, valid)


def _microseconds(array: pa.Array, valid: Mask | None) -> npt.NDArray[np.int64]:
    kind = array.type
    if pa.types.is_date32(kind):
        return _times(_view(array, np.int32).astype(np.int64), MICROSECONDS_PER_DAY, valid)
    values = _view(array, np.int64)
    if pa.types.is_date64(kind):
        return _times(values, 1_000, valid)
    if kind.unit == "ns":
        return np.floor_divide(values, 1_000)
    return _times(values, MICROSECONDS[kind.unit], valid)


def _times(values: npt.NDArray[np.int64], factor: int, valid: Mask | None) -> npt.NDArray[np.int64]:
    """`values * factor`. OverflowError where int64 does not hold that."""
    most = np.iinfo(np.int64).max // factor
    if len(values) and (values.max() > most or values.min() < -most):
        beyond = np.abs(values.astype(np.float64)) > most  # near the bound either way is centuries off
        count = int(np.count_nonzero(beyond if valid is None else beyond & valid))
        if count:
            raise OverflowError(f"{count:,} dates or times lie beyond what microseconds since 1970 hold in 64 bits")
    return values * factor


def _vectors(array: pa.Array) -> Numbers:
    """[n, k] of a fixed-size list of numbers, or of such lists; a null row is null in every place."""
    size = array.type.list_size
    places = array.values.slice(array.offset * size, len(array) * size)
    inner = _vectors(places) if pa.types.is_fixed_size_list(places.type) else _numbers(places)
    values = inner.values.reshape(len(array), math.prod(shape_of(array.type)))
    valid = None if inner.valid is None else np.asarray(inner.valid.reshape(len(array), size).all(axis=1))
    rows = _validity(array)
    if rows is None:
        return Numbers(values, valid)
    if inner.is_float:
        return Numbers(np.where(rows[:, None], values, values.dtype.type(np.nan)))
    return Numbers(values, rows if valid is None else rows & valid)


def _encode(array: pa.Array) -> Coded:
    if not pa.types.is_dictionary(array.type):
        if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
            array = array.cast(pa.large_binary())
        array = array.dictionary_encode()
    words, indices = array.dictionary, array.indices
    codes = _view(indices, indices.type.to_pandas_dtype())
    if codes.dtype.itemsize < 4 or codes.dtype.kind == "u":  # len(words) must fit as a code
        codes = codes.astype(np.int64)
    valid = _validity(indices)
    if words.null_count:
        known = ~_bits(words.is_null())
        codes = codes if valid is None else np.where(valid, codes, 0)
        valid = known[codes] if valid is None else valid & known[codes]
        words = words.fill_null(b"" if "binary" in str(words.type) else "")
    if valid is None or valid.all():
        return Coded(codes, Words(words), nulls=False)
    return Coded(np.where(valid, codes, codes.dtype.type(len(words))), Words(words), nulls=True)


def _view(array: pa.Array, dtype: npt.DTypeLike) -> Array:
    """The values as they are in memory, nulls included."""
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * np.dtype(dtype).itemsize)


def _validity(array: pa.Array) -> Mask | None:
    if array.null_count == 0:
        return None
    return _unpack(array.buffers()[0], array.offset, len(array))


def _unpack(bits: pa.Buffer, offset: int, count: int) -> Mask:
    if count == 0:
        return np.empty(0, np.bool_)
    first = offset // 8
    block = np.frombuffer(bits, np.uint8)[first : (offset + count + 7) // 8]
    return np.unpackbits(block, bitorder="little")[offset - first * 8 :][:count].view(np.bool_)


def _bits(array: pa.BooleanArray) -> Mask:
    return _unpack(array.buffers()[1], array.offset, len(array))
