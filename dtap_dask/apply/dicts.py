"""The columns of rows that are dicts, read from one block of rows after another.

A block's dicts stay in the processor's caches while all columns are read, which takes half the time of reading one
column of all rows after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from dtap_dask.apply import encoded, objects
from dtap_dask.lake.schema import is_text

BLOCK_ROWS = 4096

_Dicts = Sequence[Mapping[str, Any]]


def columns_of_dicts(rows: _Dicts, schema: pa.Schema) -> dict[str, Any]:
    """The columns of `schema` that any of the rows has, null in the others.

    They are lists. Of many rows, floats are an Arrow array and short texts are `Pieces`, where these hold the values
    that Arrow would read.
    """
    plain = set(map(type, rows)) <= {dict}  # others may make up a missing value
    if plain and len(rows) <= BLOCK_ROWS:
        try:  # the fastest way for one row
            return {name: list(map(itemgetter(name), rows)) for name in schema.names}
        except KeyError:
            pass
    many = plain and len(rows) > encoded.ENCODED_FROM
    sample = list(islice(rows, encoded.SAMPLED_TEXT)) if many else []
    columns = {field.name: _reader(field, sample) for field in schema}
    left, read = iter(rows if plain else map(dict, rows)), 0
    while block := list(islice(left, BLOCK_ROWS)):
        read += len(block)
        for name, column in columns.items():
            if not column.add(block):
                columns[name] = others = _ObjectReader(name)
                others.add(list(islice(rows, read)))
    return {name: column.values() for name, column in columns.items() if not column.is_absent}


class _Reader(Protocol):
    """The values under a name."""

    is_absent: bool
    """Whether no row had the name."""

    def add(self, rows: _Dicts) -> bool:
        """Append those of further rows; False if only `_ObjectReader` can hold them."""

    def values(self) -> Any:
        """All of them."""


def _reader(field: pa.Field, sample: _Dicts) -> _Reader:
    values = [row.get(field.name) for row in sample]
    if set(map(type, values)) == {float}:
        return _FloatReader(field.name)
    if is_text(field.type) and objects.are_short_and_repeat(values):
        return Pieces(field.name)
    return _ObjectReader(field.name)


class _ObjectReader:
    """Any values."""

    def __init__(self, name: str):
        self._name = name
        self._values: list[Any] = []
        self.is_absent = True

    def add(self, rows: _Dicts) -> bool:
        count = len(self._values)
        try:
            self._values.extend(map(itemgetter(self._name), rows))
            self.is_absent = False
        except KeyError:
            self._values[count:] = [row.get(self._name) for row in rows]
            self.is_absent &= not any(self._name in row for row in rows)
        return True

    def values(self) -> list[Any]:
        return self._values


class _FloatReader:
    """Floats alone."""

    is_absent = False

    def __init__(self, name: str):
        self._get = itemgetter(name)
        self._blocks: list[Any] = []

    def add(self, rows: _Dicts) -> bool:
        try:
            floats = objects.as_floats(list(map(self._get, rows)))
        except KeyError:
            return False
        if floats is not None:
            self._blocks.append(floats)
        return floats is not None

    def values(self) -> pa.DoubleArray:
        return pa.array(np.concatenate(self._blocks), from_pandas=True)


class Pieces:
    """Texts alone, joined a block at a time, as Arrow reads them only once all are there."""

    is_absent = False

    def __init__(self, name: str):
        self._get = itemgetter(name)
        self._pieces: list[bytes] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: _Dicts) -> bool:
        try:
            joined = objects.as_joined(map(self._get, rows), len(rows))
        except KeyError:
            return False
        if joined is not None:
            self._pieces.append(joined)
            self._count += len(rows)
        return joined is not None

    def values(self) -> Pieces:
        return self

    def joined(self) -> objects.Joined:
        """All of them, as Arrow reads them."""
        return objects.Joined.of(self._pieces)
