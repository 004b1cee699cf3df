"""Products of the columns of a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, combinations_with_replacement
from math import comb
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from dtap_dask.features.columns.column import Column, Floats, Numbers, numbers
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation
from dtap_dask.features.steps.valuetype import Unfit, ValueType

MOST_PRODUCTS = 4096  # numbers a row: rows that are wider than this belong into a model's own layers
MOST_FACTORS = 64


class Polynomial(Operation):
    """The products of up to `degree`, or of (min, max), columns of a block, as scikit-learn's PolynomialFeatures.

    The places of the vector are in scikit-learn's order: 1 if `include_bias`, the columns, then products by rising
    degree, in lexicographic order of the columns. `interaction_only` leaves out powers. Nothing is fitted.
    """

    name: ClassVar[str] = "polynomial"
    scalar: ClassVar[str | None] = "degree"
    on_block: ClassVar[bool] = True

    degree: int | tuple[int, int] = 2
    interaction_only: bool = False
    include_bias: bool = True

    @model_validator(mode="after")
    def _some_degree(self) -> Self:
        least, most = self.degrees
        if least < 0 or most > MOST_FACTORS:
            raise ValueError(f"degrees are from 0 to {MOST_FACTORS}")
        if least > most:
            raise ValueError(f"the smallest degree, {least}, is above the largest, {most}")
        if most == 0:
            raise ValueError("there is no product of no columns; the largest degree must be at least 1")
        return self

    @property
    def degrees(self) -> tuple[int, int]:
        """The smallest and the largest number of factors."""
        return self.degree if isinstance(self.degree, tuple) else (0, self.degree)

    def check_input(self, given: ValueType) -> None:
        self.number_only(given)

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        count = self._count(1 + len(others))
        if count == 0:
            raise Unfit(f"the block has {1 + len(others)} columns, and interaction_only from degree {self.degrees[0]} "
                        "on needs as many. Lower the smallest `degree`, or name more columns.")  # fmt: skip
        if count > MOST_PRODUCTS:
            raise Unfit(
                f"degree {self.degrees[1]} of {1 + len(others)} columns makes {count:,} numbers a row, and at most "
                f"{MOST_PRODUCTS:,} are possible. Lower `degree`, set `interaction_only`, or name fewer columns."
            )
        return given.joined(*others).become("float", source=pa.float64(), width=count)

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        return self._count(len(given))

    def products(self, columns: int) -> Iterator[tuple[int, ...]]:
        """The factors of each place, as positions of columns; () is the constant 1."""
        choose = combinations if self.interaction_only else combinations_with_replacement
        least, most = self.degrees
        sizes = ([0] if self.include_bias else []) + [*range(max(1, least), most + 1)]
        return chain.from_iterable(choose(range(columns), size) for size in sizes)

    def _count(self, columns: int) -> int:
        """How many products there are."""
        least, most = max(1, self.degrees[0]), self.degrees[1]
        choose = comb if self.interaction_only else lambda columns, size: comb(columns + size - 1, size)
        return int(self.include_bias) + sum(choose(columns, size) for size in range(least, most + 1))

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        def apply(*columns: Column) -> Column:
            factors = [numbers(column).floats() for column in columns]
            return Numbers(np.column_stack(list(self._multiplied(factors))))

        return apply

    def _multiplied(self, factors: Sequence[Floats]) -> Iterator[Floats]:
        """The products, each from one with a factor less where that is a product, too."""
        made: dict[tuple[int, ...], Floats] = {(): np.where(np.isnan(factors[0]), np.nan, 1.0)}
        with np.errstate(over="ignore", invalid="ignore"):  # an infinity times 0 is NaN
            for places in self.products(len(factors)):
                yield self._product(places, factors, made)

    def _product(
        self, places: tuple[int, ...], factors: Sequence[Floats], made: dict[tuple[int, ...], Floats]
    ) -> Floats:
        if places not in made:
            made[places] = self._product(places[:-1], factors, made) * factors[places[-1]]
        return made[places]
