"""What a step is: its options, which columns it takes, what it must learn, and how it is applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from dtap_dask.errors import DataError, DtapError
from dtap_dask.features.column import Array, Column, present, shape_of
from dtap_dask.features.statistic import Statistic
from dtap_dask.lake.schema import is_text

Base = Literal["float", "int", "bool", "text", "time", "list", "onehot"]
Fitted = Mapping[str, Any]  # numbers, strings, tuples of numbers, and one pa.Array for a vocabulary
Bound = Callable[[Column], Column]


@dataclass(frozen=True)
class ValueType:
    """What is known of a column between two steps before anything is read.

    `nulls`: a null of the source may still be there. `cast`: the dtype that the last step, a cast, gave it.
    `encoder`: the index of the step that made ids of it. `source`: its Arrow type in the lake. `width`: the
    places of a fixed-size list, all together in one of lists. `holds`: of integers, the dtype that holds every value
    that may be there.
    """

    base: Base
    source: pa.DataType
    nulls: bool = True
    cast: str | None = None
    encoder: int | None = None
    width: int | None = None
    holds: str = "int64"

    def become(self, base: Base, **changes: Any) -> ValueType:
        """The kind after a step: no longer as cast, no ids, any integers, unless `changes` say so."""
        return replace(self, **{"cast": None, "encoder": None, "holds": "int64", "base": base, **changes})

    @property
    def is_number(self) -> bool:
        return self.base in ("float", "int", "bool") and self.width is None


class Unfit(Exception):
    """A step that cannot take this column; its text goes into a Problem."""


@dataclass(frozen=True)
class ErrorContext:
    """Where a step stands, for messages about data."""

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
    """The error for what a step cannot do with its column, for reasons that nobody thought of."""
    why = " ".join(str(error).split()) or "no message"
    return DataError(
        f"{str(context).capitalize()}, failed with {type(error).__name__}: {why[:500].rstrip('.')}. Leave the rows "
        "that cause it out with `source.where`, `derive` a column of another type and use that, or leave the column "
        "out. If the values are ordinary ones, please report it with the job file."
    )


class Step(BaseModel):
    """One operation on a column. Children are frozen models whose fields are the options of the job file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    scalar: ClassVar[str | None] = None
    """The option that `name: value` sets."""

    def kind(self, given: ValueType, index: int) -> ValueType:
        """The kind of column that comes out, as step number `index`. Raises `Unfit`."""
        raise NotImplementedError

    @property
    def statistic(self) -> type[Statistic] | None:
        """What must be learnt from the column before this step can be applied; None for nothing."""
        return None

    @property
    def keeps_nulls(self) -> bool:
        """Whether null in always gives null out."""
        return True

    def fit(self, statistic: Any, context: ErrorContext) -> Fitted:
        """The numbers learnt, named as dask-ml and scikit-learn name them. DataError if that cannot be."""
        return {}

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        """The step as a function of a column; it may keep what it has looked up for the next batch."""
        raise NotImplementedError

    def ids(self, fitted: Fitted) -> int | None:
        """The largest id + 1, for a step that makes ids."""
        return None

    def number_only(self, given: ValueType) -> None:
        """Refuse anything but plain numbers."""
        if given.is_number:
            return
        if given.base == "time":
            raise Unfit(f"{self.name} needs numbers, and the column is {given.source}. Put `cast: int64` before it "
                        "(microseconds since 1970).")  # fmt: skip
        if given.base == "text":
            raise Unfit(f"{self.name} needs numbers, and the column is text. Encode it (ordinal_encode, "
                        "one_hot_encode, hash_encode), or `cast: float64` before it if it spells numbers.")  # fmt: skip
        raise Unfit(f"{self.name} needs one number a row, and the column is {describe(given)}.")


class DropNulls(Step):
    """Leave out the null rows: what a step after an imputer that is not fitted yet sees of its column."""

    name: ClassVar[str] = "drop_nulls"

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        return present


def describe(kind: ValueType) -> str:
    """A kind in words."""
    if kind.width is not None:
        return f"a {'vector' if len(shape_of(kind.source)) == 1 else 'tensor'} ({kind.source})"
    return {"list": f"a list ({kind.source})", "onehot": "one-hot vectors", "text": "text"}.get(kind.base, kind.base)


def source_kind(source: pa.DataType) -> ValueType:
    """The kind of a column of the lake. Raises `Unfit` for types that cannot be features."""
    base = source
    if isinstance(base, pa.BaseExtensionType):
        base = base.storage_type
    if pa.types.is_dictionary(base):
        base = base.value_type
    if is_text(base):
        return ValueType("text", source)
    if pa.types.is_fixed_size_list(base):
        inner = source_kind(base.value_type)
        if not inner.is_number and inner.width is None:
            raise Unfit(f"it is {source}; of fixed-size lists only those of numbers can be features.")
        return ValueType(inner.base, source, width=base.list_size * (inner.width or 1), holds=inner.holds)
    if pa.types.is_list(base) or pa.types.is_large_list(base):
        inner = source_kind(base.value_type)
        if not inner.is_number and inner.base != "text":
            raise Unfit(f"it is {source}; of lists only those of numbers or text can be features.")
        return ValueType("list", source)
    return ValueType(_plain(base), source, holds=str(base) if pa.types.is_integer(base) else "int64")


def _plain(kind: pa.DataType) -> Base:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "float"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "time"
    if pa.types.is_null(kind):
        raise Unfit("its Arrow type is null: no file holds a value of it. Leave it out.")
    raise Unfit(f"it is {kind}, which cannot be a feature. Derive plain columns from it with `derive`.")


def narrow(largest: int) -> str:
    """The narrowest stored dtype for ids up to `largest`."""
    if largest <= 0xFF:
        return "uint8"
    if largest <= 0xFFFF:
        return "uint16"
    return "int32" if largest <= 0x7FFFFFFF else "int64"


def fits(number: float, dtype: str) -> bool:
    """Whether a whole number lies in the range of an integer dtype."""
    limits = np.iinfo(dtype)
    return int(limits.min) <= number <= int(limits.max)


def is_finite(number: float) -> bool:
    """Whether a number is finite as float64; an integer may be too large for one."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def rows_of(array: Array, most: int = 3) -> str:
    """A few values for a message."""
    few = [repr(value) for value in array[:most].tolist()]
    return ", ".join(few) + (", ..." if len(array) > most else "")
