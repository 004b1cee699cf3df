"""A column of a batch as NumPy sees it: numbers with their nulls, or text as codes into its distinct words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import farmhash
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.columns.buffers import bits, validity, view
from dtap_dask.lake.fingerprint import Offsets
from dtap_dask.lake.sql.kernels.decimals import to_floating

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


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
        array = self.array
        return array.view(pa.large_binary()) if pa.types.is_large_string(array.type) else array.cast(pa.large_binary())


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
            return bits(self._plain.is_null()) if self._plain.null_count else None
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

    def take(self, index: Offsets) -> Text:
        """The rows at `index`, as codes."""
        coded = self.coded
        codes = coded.codes[index]
        return Text(Coded(codes, coded.words, coded.nulls and bool((codes == len(coded.words)).any())))


class Decimals:
    """A decimal column, for the steps that treat its values exactly; all others use `numbers`."""

    def __init__(self, array: pa.Array):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def numbers(self) -> Numbers:
        """The values as float64, NaN where null."""
        return Numbers(to_floating(self.array, pa.float64()).to_numpy(zero_copy_only=False))

    def nulls(self) -> Mask | None:
        return bits(self.array.is_null()) if self.array.null_count else None

    def infinities(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of n lists of any length: row i holds `elements[offsets[i]:offsets[i + 1]]`.

    `offsets` is int64 [n + 1] and begins with 0. `valid` is False at null lists, which have no elements; None says
    that there are none.
    """

    offsets: Offsets
    elements: Numbers | Decimals | Text
    valid: Mask | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Offsets:
        """The number of elements of each row, int64 [n]."""
        return np.diff(self.offsets)

    def nulls(self) -> Mask | None:
        """Rows that are null or hold a null."""
        missing, holes = self.missing(), self.holes()
        return holes if missing is None else missing if holes is None else missing | holes

    def missing(self) -> Mask | None:
        """Rows that are null."""
        return None if self.valid is None else ~self.valid

    def holes(self) -> Mask | None:
        """Rows that hold a null."""
        nulls = self.elements.nulls()
        if nulls is None:
            return None
        before = offsets_of(nulls)
        return np.asarray(before[self.offsets[1:]] > before[self.offsets[:-1]])

    def infinities(self) -> int:
        return self.elements.infinities()


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


def lists(column: Column) -> Lists:
    """The column as lists; the types were checked when the graph was built."""
    assert isinstance(column, Lists)
    return column


def elements_of(column: Column) -> Numbers | Decimals | Text:
    """The elements of all lists, one after the other; any other column itself."""
    return column.elements if isinstance(column, Lists) else column


def offsets_of(lengths: npt.ArrayLike) -> Offsets:
    """[0, l0, l0 + l1, ...]: where each of the lists of these lengths begins, and the end of the last, as [n + 1]."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def present(column: Column) -> Column:
    """The column without its null rows, and lists without their null elements."""
    if isinstance(column, Lists):
        return _present_lists(column)
    nulls = column.nulls()
    return column if nulls is None else rows_at(column, np.flatnonzero(~nulls))


def _present_lists(column: Lists) -> Lists:
    nulls, lengths, elements = column.elements.nulls(), column.lengths, column.elements
    if nulls is not None:
        lengths = np.diff(offsets_of(~nulls)[column.offsets])
        elements = rows_at(elements, np.flatnonzero(~nulls))
    return Lists(offsets_of(lengths if column.valid is None else lengths[column.valid]), elements)


def rows_at(column: Numbers | Decimals | Text, index: Offsets) -> Numbers | Decimals | Text:
    """The rows at `index`, int64 [m], in that order."""
    if isinstance(column, Text):
        return column.take(index)
    if isinstance(column, Decimals):
        return Decimals(column.array.take(pa.array(index)))
    valid = None if column.valid is None else column.valid[index]
    return Numbers(column.values[index], None if valid is None or valid.all() else valid)


def shape_of(kind: pa.DataType) -> tuple[int, ...]:
    """The shape of one value: (k,) for lists of k numbers, (k, l) for lists of k such lists, () for anything else."""
    return (kind.list_size, *shape_of(kind.value_type)) if pa.types.is_fixed_size_list(kind) else ()


def item_of(kind: pa.DataType) -> pa.DataType:
    """The type of the numbers in (lists of) lists of a fixed size; any other type itself."""
    return item_of(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind


def _encode(array: pa.Array) -> Coded:
    if not pa.types.is_dictionary(array.type):
        if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
            array = array.cast(pa.large_binary())
        if len(array) == 1:  # when a model serves: its own dictionary, made without Arrow's tables
            return Coded(np.zeros(1, np.int32), Words(array.drop_null()), nulls=array.null_count == 1)
        array = array.dictionary_encode()
    words, indices = array.dictionary, array.indices
    codes = view(indices, indices.type.to_pandas_dtype())
    if codes.dtype.itemsize < 4 or codes.dtype.kind == "u":  # len(words) must fit as a code
        codes = codes.astype(np.int64)
    valid = validity(indices)
    if words.null_count:
        known = ~bits(words.is_null())
        codes = codes if valid is None else np.where(valid, codes, 0)
        valid = known[codes] if valid is None else valid & known[codes]
        words = words.fill_null(b"" if "binary" in str(words.type) else "")
    if valid is None or valid.all():
        return Coded(codes, Words(words), nulls=False)
    return Coded(np.where(valid, codes, codes.dtype.type(len(words))), Words(words), nulls=True)
