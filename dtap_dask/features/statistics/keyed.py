"""A statistic of a column for each value of a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pyarrow as pa

from dtap_dask.features.columns.column import Column, Decimals, Lists, Numbers, Text, numbers, rows_at
from dtap_dask.features.columns.vocabulary import Places
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import ColumnStatistic, Statistic

Key = bytes | int
Scalars = Numbers | Decimals | Text

PENDING = 1 << 20  # values kept until they are sorted by key together


class KeyedStatistic(Statistic):
    """A statistic of one kind of all rows, `whole`, and of the rows with each value of a key, see `by_key`.

    Rows without a key or without a value count in `whole` only. Keys are text as bytes, integers, booleans as 0 and 1,
    and times as microseconds since 1970. With more than `most` keys `excess` is true, and none of them is held.
    """

    def __init__(self, kind: type[ColumnStatistic], most: int):
        super().__init__()
        self.whole = kind()
        self.excess = False
        self._kind, self._most = kind, most
        self._parts: list[ColumnStatistic] = []
        self._places: dict[Key, int] = {}  # of each key in `_parts`
        self._pending: list[tuple[Places, Scalars]] = []  # for each value the place of its key
        self._waiting = 0

    def empty(self) -> Self:
        return type(self)(self._kind, self._most)

    def add(self, *samples: Sample) -> None:
        """Take in a batch: a sample of the column and one of the key."""
        values, keys = samples
        self.whole.add(values)
        self.count, self.nulls, self.infinities = self.whole.count, self.whole.nulls, self.whole.infinities
        index = np.flatnonzero(values.present & keys.present)
        if not len(index) or self.infinities or self.excess:
            return
        distinct, codes = _distinct(rows_at(_scalars(keys.column), index))
        places = np.array([self._places.setdefault(key, len(self._places)) for key in distinct], np.int64)
        self._pending.append((places[codes], rows_at(_scalars(values.column), index)))
        self._waiting += len(index)
        if len(self._places) > self._most:
            self._give_up()
        if self._waiting > PENDING:
            self.settle()

    def _give_up(self) -> None:
        self.excess, self._parts, self._places, self._pending, self._waiting = True, [], {}, [], 0

    def settle(self) -> None:
        self.whole.settle()
        if not self._pending:
            return
        places = np.concatenate([one for one, _ in self._pending])
        column = _together([one for _, one in self._pending])
        self._pending, self._waiting = [], 0
        self._parts += [self._kind() for _ in range(len(self._places) - len(self._parts))]
        small = len(self._parts) <= 1 << 16  # NumPy sorts these in linear time
        column = rows_at(column, np.argsort(places.astype(np.uint16) if small else places, kind="stable"))
        ends = np.cumsum(np.bincount(places, minlength=len(self._parts))).tolist()
        for begin, end, part in zip([0, *ends[:-1]], ends, self._parts, strict=True):
            if begin < end:
                part.add(Sample(_slice(column, begin, end)))
                part.settle()

    def _merge(self, parts: Sequence[Self]) -> None:
        if parts:
            self.whole = self._kind.merged([part.whole for part in parts])
        self.whole.nulls = self.nulls  # also of parts without a value
        found: dict[Key, list[ColumnStatistic]] = {}
        for part in parts:
            for key, place in part._places.items():
                found.setdefault(key, []).append(part._parts[place])
        self._parts = [self._kind.merged(several) for several in found.values()]
        self._places = {key: place for place, key in enumerate(found)}
        if len(found) > self._most or any(part.excess for part in parts):
            self._give_up()

    def by_key(self) -> list[tuple[Key, ColumnStatistic]]:
        """The statistic of each key, which has at least one value; in rising order, text by its bytes."""
        return [(key, self._parts[place]) for key, place in sorted(self._places.items())]


def _scalars(column: Column) -> Scalars:
    assert not isinstance(column, Lists)
    return column


def _distinct(keys: Scalars) -> tuple[list[Key], Places]:
    """The distinct ones of keys without null, and the place of each key among them; repeats are harmless."""
    if isinstance(keys, Text):
        coded = keys.coded
        used = np.flatnonzero(np.bincount(coded.codes, minlength=len(coded.words)))
        places = np.zeros(len(coded.words), np.int64)
        places[used] = np.arange(len(used))
        return coded.words.binary.take(pa.array(used)).to_pylist(), places[coded.codes]
    values = numbers(keys).values
    encoded = pa.array(values.astype(np.uint8) if values.dtype == np.bool_ else values).dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _together(columns: Sequence[Scalars]) -> Scalars:
    """The rows of columns of one type, without nulls."""
    first = columns[0]
    if isinstance(first, Text):
        return Text(pa.concat_arrays([one.plain() for one in columns if isinstance(one, Text)]))
    if isinstance(first, Decimals):
        return Decimals(pa.concat_arrays([one.array for one in columns if isinstance(one, Decimals)]))
    return Numbers(np.concatenate([numbers(one).values for one in columns]))


def _slice(column: Scalars, begin: int, end: int) -> Scalars:
    if isinstance(column, Text):
        return Text(column.plain().slice(begin, end - begin))
    if isinstance(column, Decimals):
        return Decimals(column.array.slice(begin, end - begin))
    return Numbers(column.values[begin:end])
