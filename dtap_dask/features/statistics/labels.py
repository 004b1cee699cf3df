"""What the labels are of the rows with each value of a column, fold by fold: what target encoding learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.columns.column import Array, Floats, Mask, Text, numbers
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import Statistic

Codes = npt.NDArray[np.int64]

PENDING = 1 << 18  # values of batches that may wait to be merged
MOST_CLASSES = 1000


@dataclass(frozen=True)
class LabelCells:
    """Count, mean and sum of squared deviations of labels, each float64 of one shape: a cell for each group of rows."""

    count: Floats
    mean: Floats
    squares: Floats

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> LabelCells:
        """Cells without rows."""
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def take(self, places: Any) -> LabelCells:
        """Some of the cells, as NumPy indexes them."""
        return LabelCells(self.count[places], self.mean[places], self.squares[places])

    def add(self, places: Codes, other: LabelCells) -> None:
        """Take in further rows of the first axis at distinct places (Chan, Golub and LeVeque)."""
        mine = self.take(places)
        total = mine.count + other.count
        share = other.count / np.maximum(total, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            delta = np.where(mine.count > 0, other.mean - mine.mean, 0.0)
            squares = mine.squares + other.squares + delta * delta * mine.count * share
        self.count[places] = total
        self.mean[places] = np.where(mine.count > 0, mine.mean + delta * share, other.mean)
        self.squares[places] = squares

    def together(self, axis: int) -> LabelCells:
        """The cells along an axis as one."""
        count = self.count.sum(axis)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = (self.count * self.mean).sum(axis) / np.maximum(count, 1)
            deviations = self.mean - np.expand_dims(mean, axis)
            squares = (self.squares + self.count * deviations * deviations).sum(axis)
        return LabelCells(count, mean, squares)


@dataclass(frozen=True)
class LabelPart:
    """Distinct values, null among them; the labels found with them; and the cells.

    Without classes `labels` is empty and the cells have the shape [values, folds]; with classes the counts of `cells`
    have the shape [values, folds, classes], and they alone are used.
    """

    values: pa.Array
    labels: Floats
    cells: LabelCells


class LabelMoments(Statistic):
    """The moments of the label for each value of a column, null included, and each fold; with `classes` the counts of
    its values instead, which are exact.

    `inexact`: whether float64 does not tell the integers of classes apart. Memory grows with the number of values times
    folds (times classes).
    """

    def __init__(self, folds: int, classes: bool) -> None:
        super().__init__()
        self.folds = folds
        self.classes = classes
        self.inexact = False
        self.part: LabelPart | None = None
        self._pending: list[LabelPart] = []
        self._waiting = 0

    def empty(self) -> Self:
        return type(self)(self.folds, self.classes)

    def add(self, *samples: Sample) -> None:
        """Take in a batch: values, labels, folds."""
        given, label, fold = samples
        labels = label.rows_as_floats
        known = np.isfinite(labels)
        self.infinities += int(np.isinf(labels).sum())
        self.nulls += int(np.isnan(labels).sum())
        self.count += int(known.sum())
        if known.any():
            self.inexact = self.inexact or (self.classes and _beyond_float64(label.values))
            codes, values = _coded(given, known)
            self._wait(self._counted(codes, values, labels[known], fold.rows_as_floats[known].astype(np.int64)))

    def _counted(self, codes: Codes, values: pa.Array, labels: Floats, folds: Codes) -> LabelPart:
        cell, shape = codes * self.folds + folds, (len(values), self.folds)
        size = len(values) * self.folds
        if self.classes:
            found, place = np.unique(labels, return_inverse=True)
            if len(found) > MOST_CLASSES + 1:  # an error in any case, and a table of all would be huge
                some = place <= MOST_CLASSES
                return self._counted(codes[some], values, labels[some], folds[some])
            count = np.bincount(cell * len(found) + place, minlength=size * len(found)).astype(np.float64)
            return LabelPart(values, found, LabelCells(*[count.reshape(*shape, len(found))] * 3))
        count = np.bincount(cell, minlength=size).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.bincount(cell, labels, size) / np.maximum(count, 1)
            deviations = labels - mean[cell]
            squares = np.bincount(cell, deviations * deviations, size).astype(np.float64)
        cells = LabelCells(count.reshape(shape), mean.reshape(shape), squares.reshape(shape))
        return LabelPart(values, np.empty(0), cells)

    def _wait(self, part: LabelPart) -> None:
        self._pending.append(part)
        self._waiting += len(part.values)
        if self._waiting > max(PENDING, 2 * len(self.part.values) if self.part else 0):
            self.settle()

    def settle(self) -> None:
        if self._pending:
            self.part = self._together([*([self.part] if self.part else []), *self._pending])
            self._pending, self._waiting = [], 0

    def _merge(self, parts: Sequence[Self]) -> None:
        self.inexact = any(part.inexact for part in parts)
        kept = [part.part for part in parts if part.part is not None]
        self.part = self._together(kept) if kept else None

    def _together(self, parts: Sequence[LabelPart]) -> LabelPart:
        kind = next((part.values.type for part in parts if not pa.types.is_null(part.values.type)), pa.null())
        values = pa.concat_arrays([part.values.cast(kind) for part in parts])
        encoded = values.dictionary_encode(null_encoding="encode")
        places = np.split(
            encoded.indices.to_numpy().astype(np.int64), np.cumsum([len(one.values) for one in parts])[:-1]
        )
        labels = np.unique(np.concatenate([part.labels for part in parts]))[: MOST_CLASSES + 1]
        shape = (len(encoded.dictionary), self.folds, *([len(labels)] if self.classes else []))
        cells = LabelCells.none(shape)
        for part, own in zip(parts, places, strict=True):
            if self.classes:
                there = part.labels <= labels[-1]  # with too many classes, which are an error, the first are enough
                at = np.searchsorted(labels, part.labels[there])
                cells.count[own[:, None], :, at[None, :]] += np.moveaxis(part.cells.count[:, :, there], 2, 1)
            else:
                cells.add(own, part.cells)
        return LabelPart(encoded.dictionary, labels, cells)

    def by_value(self) -> LabelPart:
        """All that was seen (at least one row), by rising value, null last; of classes the cells are those of 0 and 1,
        of the shape [values, folds, classes], where 1 stands for the class."""
        assert self.part is not None
        order = pc.sort_indices(self.part.values).to_numpy()
        cells = self.part.cells.take(order)
        if self.classes:
            count = np.repeat(cells.count.sum(2, keepdims=True), cells.count.shape[2], axis=2)
            mean = cells.count / np.maximum(count, 1)
            cells = LabelCells(count, mean, count * mean * (1 - mean))
        return LabelPart(self.part.values.take(pa.array(order)), self.part.labels, cells)


def _coded(given: Sample, known: Mask) -> tuple[Codes, pa.Array]:
    """The code of each row where `known`, and the distinct values that occur, null among them."""
    if isinstance(given.column, Text):
        coded = given.coded
        codes, rank = _used(coded.codes[known], len(coded.words) + 1)
        words = coded.words.binary.take(pa.array(rank, mask=rank == len(coded.words)))
        encoded = words.dictionary_encode(null_encoding="encode")  # words may repeat
        return encoded.indices.to_numpy().astype(np.int64)[codes], encoded.dictionary
    column = numbers(given.column)
    valid = np.ones(len(column), np.bool_) if column.valid is None else column.valid
    values = column.values.astype(np.uint8) if column.values.dtype == np.bool_ else column.values
    rows = given.chosen(np.arange(len(column)))[known]
    encoded = pa.array(values[rows], mask=~valid[rows]).dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _beyond_float64(values: Array) -> bool:
    return values.dtype.kind in "iu" and bool((values > 2**53).any() or (values < -(2**53)).any())


def _used(codes: Array, size: int) -> tuple[Codes, Codes]:
    """The codes that occur, in order, and each row's place among them."""
    there = np.zeros(size, np.bool_)
    there[codes] = True
    used = np.flatnonzero(there)
    rank = np.cumsum(there) - 1
    return rank[codes], used
