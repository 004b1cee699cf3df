"""Words of a file that a job names as a vocabulary: one a line or a row, brought into the type of a column."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.steps.valuetype import Unfit, ValueType
from dtap_dask.lake.parquet.whole import read_table
from dtap_dask.lake.schema import is_text

Entry = Literal["line", "row"]

_MAGIC = b"PAR1"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NAMES = ("value", "vocabulary")
_WHOLE = r"^(0|-?[1-9][0-9]*)$"


@dataclass(frozen=True)
class GivenWords:
    """Distinct words without nulls, in the order of their ids; `entry` is what their numbers count in messages.

    Text is large_binary; a Parquet file may also give integers and booleans.
    """

    array: pa.Array
    entry: Entry

    def of_type(self, given: ValueType) -> pa.Array:
        """As the vocabulary of a column: large_binary, int64 or uint64, uint8 of booleans. Raises `Unfit`."""
        words, spelled = self.array, self.entry == "line"
        if given.base == "text":
            return words if pa.types.is_large_binary(words.type) else self._refuse_type("text")
        if given.base == "bool":
            if spelled:
                return self._parsed(
                    pc.or_(pc.equal(words, b"true"), pc.equal(words, b"false")),
                    "is neither true nor false",
                    pc.equal(words, b"true"),
                )
            return words.cast(pa.uint8()) if pa.types.is_boolean(words.type) else self._refuse_type("true or false")
        if not spelled and not pa.types.is_integer(words.type):
            self._refuse_type("a whole number")
        return self._whole(given, spelled)

    def _whole(self, given: ValueType, spelled: bool) -> pa.Array:
        words, limits = self.array, np.iinfo(given.holds)
        if spelled:
            fits = pc.match_substring_regex(words, _WHOLE)
            words = self._parsed(fits, "is no whole number", words).cast(pa.string())
        try:
            numbers = words.cast(pa.uint64() if given.holds == "uint64" else pa.int64())
        except pa.ArrowInvalid:
            raise Unfit(f"it holds numbers outside the range of {given.holds}, the column's type.") from None
        outside = pc.or_(pc.less(numbers, int(limits.min)), pc.greater(numbers, int(limits.max)))
        self._parsed(pc.invert(outside), f"is outside the range of {given.holds}, the column's type", words)
        return numbers

    def _parsed(self, good: pa.Array, problem: str, words: pa.Array) -> pa.Array:
        """The words, as uint8 if they are booleans, where all are `good`."""
        bad = pc.index(good, pa.scalar(False)).as_py()
        if bad >= 0:
            raise Unfit(f"{self.entry} {bad + 1:,}, {_shown(self.array[bad])}, {problem}.")
        return words.cast(pa.uint8()) if pa.types.is_boolean(words.type) else words

    def _refuse_type(self, needed: str) -> NoReturn:
        kind = "text" if pa.types.is_large_binary(self.array.type) else self.array.type
        raise Unfit(f"it holds {kind}, and the column is {needed}.")


def read_words(content: bytes) -> GivenWords:
    """The words of a file: a column of a Parquet file, or lines. ValueError for nulls, duplicates and empty lines."""
    is_parquet = content[:4] == _MAGIC and content[-4:] == _MAGIC
    words = GivenWords(_column(content), "row") if is_parquet else GivenWords(_lines(content), "line")
    if not len(words.array):
        raise ValueError("it holds no word")
    _refuse_duplicates(words)
    return words


def digest_of(content: bytes) -> str:
    """What names the content of a file in place of its path."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_of_words(words: pa.Array) -> str:
    """What names words without a file."""
    if not pa.types.is_large_binary(words.type):
        return digest_of(f"{words.type} {words.to_pylist()}".encode())
    lengths = pc.binary_length(words).to_numpy().tobytes()
    return digest_of(lengths + b"".join(words.to_pylist()))


def _lines(content: bytes) -> pa.Array:
    lines = content.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    if not lines[-1]:
        lines.pop()
    words = [line.removesuffix(b"\r") for line in lines]
    if b"" in words:
        raise ValueError(
            f"line {words.index(b'') + 1:,} is empty. Remove it, or give the words as a list or a Parquet file if the "
            "empty text is one of them"
        )
    return pa.array(words, pa.large_binary())


def _column(content: bytes) -> pa.Array:
    try:
        table = read_table(content)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it begins and ends as a Parquet file, and cannot be read: {error}") from error
    names = [name for name in _NAMES if name in table.column_names] or table.column_names
    if len(names) != 1:
        raise ValueError(f"it has the columns {', '.join(table.column_names)}: one is needed, or one named `value`")
    column = table.column(names[0]).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        raise ValueError(f"row {pc.index(column.is_null(), True).as_py() + 1:,} is null, which has an id of its own")
    if is_text(column.type):
        return column.cast(pa.large_binary())
    if not pa.types.is_integer(column.type) and not pa.types.is_boolean(column.type):
        raise ValueError(f"column {names[0]!r} is {column.type}: text, integers or booleans are needed")
    return column


def _refuse_duplicates(words: GivenWords) -> None:
    codes = words.array.dictionary_encode().indices.to_numpy()
    first = np.unique(codes, return_index=True)[1]
    if len(first) == len(codes):
        return
    twice = int(np.setdiff1d(np.arange(len(codes)), first)[0])
    raise ValueError(
        f"{words.entry}s {first[codes[twice]] + 1:,} and {twice + 1:,} are both {_shown(words.array[twice])}. Keep one"
    )


def _shown(word: pa.Scalar) -> str:
    plain = word.as_py()
    return repr(plain.decode(errors="replace") if isinstance(plain, bytes) else plain)
