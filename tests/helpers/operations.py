"""Operations that only tests have: of several columns, with several results, on blocks, and with label and folds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtap_dask.features.columns.column import Column, Numbers, Text, numbers
from dtap_dask.features.statistics.sample import Sample
from dtap_dask.features.statistics.statistic import Statistic
from dtap_dask.features.steps.operation import (
    Bound,
    ErrorContext,
    Fitted,
    Need,
    Operation,
    Part,
    Source,
    StatisticSpec,
)
from dtap_dask.features.steps.valuetype import ValueType
from dtap_dask.lake.hashing import fingerprint64


class Cross(Operation):
    """Several columns of text as one id, 0 to `buckets` - 1."""

    name: ClassVar[str] = "test_cross"
    on_block: ClassVar[bool] = True
    makes_ids: ClassVar[bool] = True

    buckets: int

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return given.become("int", nulls=frozenset(), ids=True)

    def ids(self, fitted: Fitted) -> int | None:
        return self.buckets

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(*columns: Column) -> Column:
            total = np.zeros(len(columns[0]), np.uint64)
            for column in columns:
                assert isinstance(column, Text)
                total = total * np.uint64(31) + fingerprint64(column.plain())
            return Numbers((total % np.uint64(self.buckets)).astype(np.int64))

        return apply


class DateParts(Operation):
    """One column of times as several numbers."""

    name: ClassVar[str] = "test_parts"
    names: tuple[str, ...] = ("hour", "day_of_week")

    def parts(self) -> Sequence[Part]:
        return [Part(name, DatePart(part=name)) for name in self.names]


class DatePart(Operation):
    """One part of a time."""

    name: ClassVar[str] = "test_part"
    part: str

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return given.become("int", holds="int64")

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        kernel = getattr(pc, self.part)

        def apply(column: Column) -> Column:
            given = numbers(column)
            return Numbers(kernel(pa.array(given.values).cast(pa.timestamp("us"))).to_numpy(), given.valid)

        return apply


class Polynomial(Operation):
    """All products of up to `degree` columns of a block."""

    name: ClassVar[str] = "test_polynomial"
    on_block: ClassVar[bool] = True

    degree: int

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        width = len(self._products(1 + len(others)))
        return given.joined(*others).become("float", source=pa.float64(), width=width)

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return len(self._products(sum(given)))

    def _products(self, columns: int) -> list[tuple[int, ...]]:
        degrees = range(1, self.degree + 1)
        return [product for degree in degrees for product in combinations_with_replacement(range(columns), degree)]

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(*columns: Column) -> Column:
            block = np.column_stack([numbers(column).floats() for column in columns])
            products = [block[:, list(product)].prod(axis=1) for product in self._products(block.shape[1])]
            return Numbers(np.column_stack(products))

        return apply


class SumsByWord(Statistic):
    """For each word and fold: the sum of the label, and how many rows there are."""

    def __init__(self, folds: int) -> None:
        super().__init__()
        self.folds = folds
        self.sums: dict[bytes, Any] = {}

    def empty(self) -> SumsByWord:
        return SumsByWord(self.folds)

    def add(self, *samples: Sample) -> None:
        word, label, fold = samples
        labels, folds = label.rows_as_floats, fold.rows_as_floats.astype(np.int64)
        self.count += len(labels)
        for code, name in enumerate(word.coded.words.binary.to_pylist()):
            mine = word.coded.codes == code
            sums = np.bincount(folds[mine], labels[mine], self.folds)
            self.sums[name] = self.sums.get(name, 0) + np.stack([sums, np.bincount(folds[mine], minlength=self.folds)])

    def _merge(self, parts: Sequence[SumsByWord]) -> None:
        for part in parts:
            for name, sums in part.sums.items():
                self.sums[name] = self.sums.get(name, 0) + sums


class TargetEncode(Operation):
    """The mean of the label for each word: in the fitted part that of the other folds, elsewhere that of all."""

    name: ClassVar[str] = "test_target"
    folds: int = 3

    def needs(self) -> Sequence[Need]:
        return ("label", Source.fold(self.folds))

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return given.become("float", source=pa.float64(), nulls=frozenset())

    @property
    def statistic(self) -> StatisticSpec | None:
        return StatisticSpec(SumsByWord, (self.folds,))

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        words = sorted(word for word, (_, counts) in statistic.sums.items() if counts.sum())
        table = []
        for word in words:
            sums, counts = statistic.sums[word]
            others = (sums.sum() - sums) / np.maximum(1, counts.sum() - counts)
            table.append((*others.tolist(), float(sums.sum() / counts.sum())))
        return {"words": pa.array(words, pa.large_binary()), "means": tuple(table)}

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        known = {word: row for row, word in enumerate(fitted["words"].to_pylist())}
        means = np.array(fitted["means"])

        def apply(*columns: Column) -> Column:
            word, _, fold = columns
            assert isinstance(word, Text)
            rows = np.array([known[one] for one in word.plain().to_pylist()])
            folds = numbers(fold).values
            return Numbers(means[rows, np.where(folds < 0, self.folds, folds)])

        return apply
