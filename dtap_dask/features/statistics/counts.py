"""Exact counts of a column's distinct values, for vocabularies and most frequent values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.columns.column import Array, Decimals, Text
from dtap_dask.features.columns.vocabulary import distance
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import ColumnStatistic

Tally = npt.NDArray[np.int64]

PENDING = 1 << 20  # words of batches that may wait to be merged


class Counts(ColumnStatistic):
    """Distinct non-null values and how often each occurs; memory grows with the number of distinct values.

    `values` is large_binary for text, else of the column's own type, in the order first seen; `tally` is
    int64 of the same length.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: pa.Array | None = None
        self.tally: Tally = np.empty(0, np.int64)
        self._pending: dict[tuple[object, ...], tuple[pa.Array, Tally]] = {}
        self._waiting = 0

    def add(self, *samples: Sample) -> None:
        """Take in a batch of one or several columns, which count together."""
        for sample in samples:
            self.add_weighted(sample, 1)

    def folded(self, sample: Sample, weight: int) -> Self:
        extra = self.empty()
        extra.add_weighted(sample, weight)
        extra.settle()
        if self.values is not None and extra.values is not None:
            extra.values = extra.values.cast(self.values.type)  # what fills booleans is a wider integer
        return type(self).merged([self, extra])

    def add_weighted(self, sample: Sample, weight: int) -> None:
        if not isinstance(sample.column, Text):
            super().add_weighted(sample, weight)
        elif weight and sample.rows:
            self._add_text(sample, weight)

    def _add_text(self, sample: Sample, weight: int) -> None:
        coded = sample.coded
        tally = np.bincount(coded.codes, minlength=len(coded.words) + 1)
        self.nulls += weight * int(tally[-1])
        tally = tally[:-1] * weight
        self.count += int(tally.sum())
        key = coded.words.key
        if key in self._pending:
            self._pending[key][1].__iadd__(tally)
        else:
            self._wait(key, coded.words.binary, tally)

    def _add(self, sample: Sample, weight: int) -> None:
        exact = isinstance(sample.column, Decimals)
        values, tally = _counted(sample.decimals) if exact else _count_numbers(sample.values)
        self._wait((self._waiting, len(self._pending)), values, tally * weight)

    def _wait(self, key: tuple[object, ...], values: pa.Array, tally: Tally) -> None:
        self._pending[key] = (values, tally)
        self._waiting += len(values)
        if self._waiting > max(PENDING, 2 * len(self.tally)):
            self.settle()

    def settle(self) -> None:
        if self._pending:
            parts = list(self._pending.values())
            if self.values is not None:
                parts.insert(0, (self.values, self.tally))
            self.values, self.tally = _together(parts)
            self._pending, self._waiting = {}, 0

    def _merge(self, parts: Sequence[Self]) -> None:
        assert not any(part._pending for part in parts), "settle before merging"
        kept = [(part.values, part.tally) for part in parts if part.values is not None]
        if kept:
            self.values, self.tally = _together(kept)

    def by_count(self) -> tuple[pa.Array, Tally]:
        """Values and counts by falling count, ties by rising value."""
        return self._sorted([("tally", "descending"), ("value", "ascending")])

    def by_value(self) -> tuple[pa.Array, Tally]:
        """Values and counts by rising value (text by its bytes)."""
        return self._sorted([("value", "ascending")])

    def _sorted(self, keys: list[tuple[str, str]]) -> tuple[pa.Array, Tally]:
        if self.values is None:
            return pa.array([], pa.null()), self.tally
        order = pc.sort_indices(pa.table({"value": self.values, "tally": self.tally}), sort_keys=keys)
        return self.values.take(order), self.tally[order.to_numpy()]


def _count_numbers(values: Array) -> tuple[pa.Array, Tally]:
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        values = values.astype(np.float64) + 0.0  # -0.0 is 0.0
    elif values.dtype.itemsize > 2 or len(values) < 1 << 16:
        low, high = int(values.min()), int(values.max())
        if high - low < 4 * len(values):
            tally = np.bincount(distance(values, low).astype(np.int64))
            there = np.flatnonzero(tally)
            # modulo 2^64 and then cut to the column's own width, which holds every sum
            found = (there.astype(np.uint64) + np.uint64(low % 2**64)).astype(values.dtype)
            return pa.array(found), tally[there]
    return _counted(pa.array(values))


def _counted(values: pa.Array) -> tuple[pa.Array, Tally]:
    counted = values.value_counts()
    return counted.field(0), counted.field(1).to_numpy()


def _common_type(types: Sequence[pa.DataType]) -> pa.DataType:
    """The type of all, or of integers of several widths that which holds all."""
    if len(set(types)) == 1:
        return types[0]
    return pa.from_numpy_dtype(np.result_type(*(one.to_pandas_dtype() for one in types)))


def _together(parts: Sequence[tuple[pa.Array, Tally]]) -> tuple[pa.Array, Tally]:
    kind = _common_type([part.type for part, _ in parts])
    values = pa.concat_arrays([part.cast(kind) for part, _ in parts])
    encoded = values.dictionary_encode()
    codes = encoded.indices.to_numpy()
    # float64 weights are exact up to 2^53 rows
    tally = np.bincount(codes, np.concatenate([tally for _, tally in parts]), len(encoded.dictionary))
    there = tally > 0
    values = encoded.dictionary
    if not there.all():
        values = values.filter(pa.array(there))
    return values, tally[there].astype(np.int64)
