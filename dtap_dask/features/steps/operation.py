"""An operation: its options, which inputs it takes, what it must learn from them, and how it is applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from dtap_dask.errors import DataError, DtapError
from dtap_dask.features.columns.column import Array, Column, Floats, present
from dtap_dask.features.statistics.statistic import Statistic
from dtap_dask.features.steps.given_words import GivenWords
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe
from dtap_dask.lake.split import fold_column

Fitted = Mapping[str, Any]  # numbers, strings, tuples of numbers, and one pa.Array for a vocabulary
Bound = Callable[..., Column]  # one column for each input
Inverse = Callable[[Column], Sequence[Column]]  # from a result, one column for each input


@dataclass(frozen=True)
class StatisticSpec:
    """The statistic that an operation is fitted from, of all its inputs: a class and what it is made with."""

    kind: type[Statistic]
    options: tuple[Any, ...] = ()

    def empty(self) -> Statistic:
        """The statistic before any row was added."""
        return self.kind(*self.options)


@dataclass(frozen=True)
class Source:
    """A column as it is read: of the lake, or with `folds` the fold of each row, which a scan adds.

    Folds are 0 to `folds` - 1 in the fitted part of the rows, and -1 in all others.
    """

    column: str
    folds: int = 0

    @classmethod
    def fold(cls, folds: int) -> Source:
        """The fold of each row, one of `folds`."""
        return cls(fold_column(folds), folds)


Need = Literal["label"] | Source


@dataclass(frozen=True)
class Part:
    """One of the values that an operation makes.

    Its output is named after the feature, with `_suffix` behind it unless that is empty. An `extra` part becomes an
    output as it is, beside the feature; later steps apply to the others.
    """

    suffix: str
    operation: Operation
    extra: bool = False


@dataclass(frozen=True)
class ErrorContext:
    """What messages about data name: output, columns and step."""

    feature: str
    column: str
    step: str

    def __str__(self) -> str:
        made = "" if self.feature == self.column else f" (feature {self.feature!r})"
        return f"column {self.column!r}{made}, step {self.step}"


@contextmanager
def naming(context: ErrorContext) -> Iterator[None]:
    """Turn whatever is raised into a DataError that names the context; errors that name it already pass unchanged."""
    try:
        yield
    except (DtapError, MemoryError):
        raise
    except Exception as error:
        raise unforeseen(context, error) from error


def unforeseen(context: ErrorContext, error: Exception) -> DataError:
    """The error for what a step cannot do with its column, for an unexpected reason."""
    why = " ".join(str(error).split()) or "no message"
    return DataError(
        f"{str(context).capitalize()}, failed with {type(error).__name__}: {why[:500].rstrip('.')}. Leave the rows "
        "that cause it out with `source.where`, `derive` a column of another type and use that, or leave the column "
        "out. If the values are ordinary ones, please report it with the job file."
    )


class Operation(BaseModel):
    """What is done to one or several inputs. Children are frozen models whose fields are the options of the job file.

    Equal operations of equal inputs give equal values, which are computed and fitted once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    scalar: ClassVar[str | None] = None
    """The option that `name: value` sets."""

    on_block: ClassVar[bool] = False
    """Whether it takes all columns of a block at once; otherwise it is applied to each."""

    on_elements: ClassVar[bool] = False
    """Whether it is applied to each element of lists, and learns from all of them: see `elements`."""

    on_places: ClassVar[bool] = False
    """Whether it is applied to each place of vectors, and learns from each alone: see `places`."""

    makes_ids: ClassVar[bool] = False
    """Whether the result is ids, whose number `ids` gives."""

    keeps_ids: ClassVar[bool] = False
    """Whether ids, or one-hot vectors, are still the same ones in the result."""

    cuts: ClassVar[bool] = False
    """Whether it may leave elements of a list out, so that a null or an infinity among them does no harm."""

    @property
    def title(self) -> str:
        """What messages and plans call it."""
        return self.name

    precision_floor: ClassVar[float] = 0.0
    """Smaller results are as exact as this: they are differences of numbers that libraries round in their own ways."""

    @property
    def shared(self) -> str | None:
        """The name under which values with this operation learn from the inputs of all of them; None: each alone."""
        return None

    def parts(self) -> Sequence[Part]:
        """The values that this step makes; most make one."""
        return (Part("", self),)

    def needs(self) -> Sequence[Need]:
        """Inputs besides the columns that the job names, given after these; those of a block end with the folds.

        Rows that are not fitted may come without labels and folds: then the operation is applied without them.
        """
        return ()

    def check(self) -> None:
        """Raise `Unfit` where its options cannot be used here; asked once when a job is checked."""

    def check_input(self, given: ValueType) -> None:
        """Raise `Unfit` for an input that it cannot take; asked for each column that the job names."""

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        """The type of the result, for inputs of these types. Raises `Unfit`."""
        raise NotImplementedError

    @property
    def statistic(self) -> StatisticSpec | None:
        """The statistic that must be known before the operation can be applied; None if it learns nothing."""
        return None

    @property
    def fills(self) -> bool:
        """Whether it puts one fitted value in place of nulls and changes nothing else: see `filling`."""
        return False

    @property
    def is_linear(self) -> bool:
        """Whether the result is a * x + b once it is fitted: see `linear`."""
        return False

    @property
    def keeps_nulls(self) -> bool:
        """Whether null in always gives null out."""
        return True

    @property
    def without_twin(self) -> str:
        """Why no TensorFlow graph can apply it when a model serves; empty if one can."""
        return ""

    def known(self, words: Mapping[str, GivenWords], given: ValueType) -> Fitted:
        """What is fitted before any row is read, for an input (or elements of lists) of this type; most know nothing.

        `words` has the words of files that options name, by digest. Raises `Unfit` for words of another type.
        """
        return {}

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        """The fitted numbers, named as dask-ml and scikit-learn name them. DataError if there are none."""
        return {}

    def fit_further(self, known: Fitted, statistic: Any, context: ErrorContext) -> Fitted:
        """`fit`, on top of what was known before any row was read."""
        return self.fit(statistic, context)

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        """The operation as a function of its input columns; it may cache lookups for the next batch."""
        raise NotImplementedError

    def inverse(self, fitted: Fitted) -> Inverse | None:
        """What gives the inputs back, as far as the result tells them; None for an operation without an inverse.

        Values that an operation made alike (nulls that were filled, values beyond bounds) stay as they are.
        """
        return None

    def filling(self, fitted: Fitted, result: ValueType) -> Column:
        """A column of one row: the fitted value that takes the place of nulls."""
        raise NotImplementedError

    def linear(self, fitted: Fitted) -> tuple[float, float]:
        """(a, b) such that the result is a * x + b."""
        raise NotImplementedError

    @property
    def planned_ids(self) -> int | None:
        """The largest id + 1, where the options alone tell it."""
        return None

    @property
    def counts_ids(self) -> bool:
        """Whether it needs the number of ids of its input, which is known once its encoder is fitted: see `of_ids`."""
        return False

    def taking(self, ids: int | None) -> Operation:
        """The operation for an input of ids; None where their number is not known yet. Raises `Unfit`."""
        return self

    def of_ids(self, ids: int) -> Fitted:
        """What is fitted for an input of that many ids. Raises `Unfit`."""
        return {}

    def ids(self, fitted: Fitted) -> int | None:
        """The largest id + 1, for an operation that makes ids."""
        return None

    def classes(self, fitted: Fitted) -> tuple[str, ...] | None:
        """The names of the ids or of the places of a vector, where each is for one value."""
        return None

    def width(self, fitted: Fitted, given: Sequence[int]) -> int:
        """How many numbers a row of the result has, given those of the inputs."""
        return given[0]

    def guess(self, rows: int) -> tuple[Fitted, Fitted]:
        """What may be fitted from `rows` rows, at least and at most, as far as the size of the output depends on it."""
        return {}, {}

    def guess_further(self, known: Fitted, rows: int) -> tuple[Fitted, Fitted]:
        """`guess`, on top of what was known before any row was read."""
        return self.guess(rows)

    def number_only(self, given: ValueType) -> None:
        """Refuse anything but plain numbers."""
        if given.is_number:
            return
        if given.base == "time":
            raise Unfit(f"{self.name} needs numbers, and the column is {given.source}. Put `datetime_parts` before it, "
                        "or `cast: int64` (microseconds since 1970).")  # fmt: skip
        if given.base == "text":
            raise Unfit(f"{self.name} needs numbers, and the column is text. Encode it (ordinal_encode, "
                        "one_hot_encode, hash_encode), or `cast: float64` before it if it spells numbers.")  # fmt: skip
        raise Unfit(f"{self.name} needs one number a row, and the column is {describe(given)}.{self.before_pad(given)}")

    def before_pad(self, given: ValueType) -> str:
        """What to do with a vector where only elements of lists can be taken; empty for any other input."""
        is_vector = given.width is not None and self.on_elements
        return " Put it before `pad`, where it is applied to each element of lists." if is_vector else ""


class WithoutNulls(Operation):
    """Only the rows that are not null: what a statistic behind an imputer that is not fitted yet is taken of."""

    name: ClassVar[str] = "without_nulls"

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        return given

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        return present


def need_values(
    statistic: Statistic, context: ErrorContext, instead: str = "or look at `source.where` and `split.fit`"
) -> None:
    """Refuse to learn from nulls only; `instead` is what else to do than to leave the column out."""
    if statistic.count == 0:
        found = f"{statistic.nulls:,} nulls and no value" if statistic.nulls else "no value"
        raise DataError(
            f"There is nothing to learn in {context}: the fitted rows hold {found}. Leave the column out, {instead}."
        )


def refuse_infinities(values: Floats, context: ErrorContext) -> None:
    """DataError where there are infinite values."""
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(
            f"{infinite:,} values of {context} are infinite. Leave such rows out with `source.where`, or put `clip` "
            "before it."
        )


def narrow(largest: int) -> str:
    """The narrowest stored dtype for ids up to `largest`."""
    if largest <= 0xFF:
        return "uint8"
    if largest <= 0xFFFF:
        return "uint16"
    return "int32" if largest <= 0x7FFFFFFF else "int64"


def fits(number: float, dtype: str) -> bool:
    """Whether a whole number is in the range of an integer dtype."""
    limits = np.iinfo(dtype)
    return int(limits.min) <= number <= int(limits.max)


def is_finite(number: float) -> bool:
    """Whether a number is finite as float64; an integer may be too large for one."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def rows_of(array: Array, most: int = 3) -> str:
    """The first values, for a message."""
    few = [repr(value) for value in array[:most].tolist()]
    return ", ".join(few) + (", ..." if len(array) > most else "")
