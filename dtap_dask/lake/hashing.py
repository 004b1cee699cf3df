"""64-bit hashes of rows. They must never change: another value would move rows between splits."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import farmhash
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.errors import DataError
from dtap_dask.lake.fingerprint import fingerprints
from dtap_dask.lake.schema import MICROSECONDS, MICROSECONDS_PER_DAY, is_text

U64 = npt.NDArray[np.uint64]

NULL_HASH = np.uint64(0x6A09E667F3BCC909)  # the hash of null: the fraction of the square root of two


def splitmix64(x: U64) -> U64:
    """Steele, Lea and Flood's SplitMix64 output for state `x`, shape [n]: a bijection of 64-bit numbers."""
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fold(first: U64, second: U64) -> U64:
    """Combine two hashes of shape [n] into one; order matters."""
    return splitmix64(splitmix64(first) ^ second)


def fingerprint64(values: pa.Array) -> U64:
    """FarmHash Fingerprint64 of the UTF-8 or binary bytes, shape [n]; null gives `NULL_HASH`.

    `values` is a string or binary array of any layout. Of a dictionary-encoded array each distinct value is hashed
    once. Equal to `tf.strings.to_hash_bucket_fast` before its modulus.
    """
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if not pa.types.is_dictionary(values.type):
        return _fingerprint_each(values)
    codes = values.indices
    if len(values.dictionary) > len(codes):  # a slice of a large column chunk: hash only the entries it uses
        return _fingerprint_each(values.dictionary_decode())
    words = np.append(_fingerprint_each(values.dictionary), NULL_HASH)
    indices = pc.fill_null(codes.cast(pa.int64()), len(values.dictionary)).to_numpy(zero_copy_only=False)
    return np.asarray(words[indices], np.uint64)


def _fingerprint_each(values: pa.Array) -> U64:
    if not pa.types.is_large_binary(values.type):
        values = values.cast(pa.large_binary())
    if len(values) == 0:
        return np.empty(0, np.uint64)
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int64, len(values) + 1, values.offset * 8)
    hashes = fingerprints(np.frombuffer(data if data is not None else b"", np.uint8), ends)
    if values.null_count:
        hashes[values.is_null().to_numpy(zero_copy_only=False)] = NULL_HASH
    return hashes


def column_hash(name: str, values: pa.Array) -> U64:
    """The hash of one key column, shape [n]: see `key_hash`. DataError for a type that cannot be a key."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if is_text(values.type):
        return fingerprint64(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        return np.full(len(values), NULL_HASH)
    hashes = _decimals(name, values) if pa.types.is_decimal(values.type) else splitmix64(_integers(name, values))
    if values.null_count:
        hashes[values.is_null().to_numpy(zero_copy_only=False)] = NULL_HASH
    return hashes


def is_key_type(kind: pa.DataType) -> bool:
    """Whether a column of this type can be part of a split key: integers, booleans, text, dates, timestamps, and
    decimals of scale 0."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_decimal(kind):
        return bool(kind.scale == 0)
    checks = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp, is_text)
    return pa.types.is_null(kind) or any(check(kind) for check in checks)


def key_hash(columns: Sequence[tuple[str, pa.Array]]) -> U64:
    """One hash per row of the named key columns (at least one), shape [n].

    An integer of any width is hashed by value, a boolean as 0 or 1, a date or timestamp as microseconds since 1970,
    rounded down: all with SplitMix64. A decimal of scale 0 is hashed as an integer; beyond 64 bits as Fingerprint64 of
    its digits. Text is Fingerprint64 of its bytes, null is `NULL_HASH`. Several columns are folded in order. DataError
    for floats, other decimals and nested columns.
    """
    hashes = [column_hash(name, values) for name, values in columns]
    total = hashes[0]
    for other in hashes[1:]:
        total = fold(total, other)
    return total


def row_hash(key: str, numbers: npt.NDArray[np.int64]) -> U64:
    """The hash of rows without key columns, shape [n]: of the file's key and the row numbers in the file."""
    file = np.full(len(numbers), np.uint64(farmhash.Fingerprint64(key.encode())))
    return fold(file, splitmix64(numbers.view(np.uint64)))


def _decimals(name: str, values: pa.Array) -> U64:
    """The hashes of whole numbers of any size; undefined for nulls."""
    _refuse_unfit(name, values.type)
    values = values.cast(pa.decimal256(76, 0)).fill_null(0)
    low, high = (pa.scalar(Decimal(int(bound)), values.type) for bound in (-(2**63), 2**64 - 1))
    inside = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
    unsigned = pc.and_(inside, pc.greater_equal(values, pa.scalar(Decimal(2**63), values.type)))
    zero = pa.scalar(Decimal(0), values.type)
    signed = pc.if_else(pc.and_not(inside, unsigned), values, zero).cast(pa.int64())
    large = pc.if_else(unsigned, values, zero).cast(pa.uint64())
    hashes = splitmix64(np.where(unsigned.to_numpy(False), large.to_numpy(), signed.to_numpy().view(np.uint64)))
    beyond = ~inside.to_numpy(zero_copy_only=False)
    if beyond.any():
        hashes[beyond] = fingerprint64(values.filter(pa.array(beyond)).cast(pa.string()))
    return hashes


def _refuse_unfit(name: str, kind: pa.DataType) -> None:
    if not is_key_type(kind):
        raise DataError(
            f"Column {name!r} is {kind}, which cannot be part of a split key: equal values do not always have equal "
            "bytes. Use integer, boolean, text, date or timestamp columns in `split.key`, or derive one of those."
        )


def _integers(name: str, values: pa.Array) -> U64:
    kind = values.type
    _refuse_unfit(name, kind)
    scale = 1
    if pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    elif pa.types.is_date32(kind):
        values, scale = values.view(pa.int32()), MICROSECONDS_PER_DAY
    elif pa.types.is_date64(kind):
        values, scale = values.view(pa.int64()), 1_000
    elif pa.types.is_timestamp(kind):
        values, scale = values.view(pa.int64()), MICROSECONDS.get(kind.unit, 0)
    plain = values.fill_null(0).to_numpy(zero_copy_only=False)
    if scale == 0:  # nanoseconds
        plain, scale = np.floor_divide(plain, 1_000), 1
    if plain.dtype != np.uint64:
        plain = plain.astype(np.int64).view(np.uint64)
    return np.asarray(plain * np.uint64(scale), np.uint64)
