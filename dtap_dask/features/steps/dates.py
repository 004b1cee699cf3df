"""The parts of dates and times as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import field_validator, model_validator

from dtap_dask.errors import DataError
from dtap_dask.features.columns.column import Column, Numbers, numbers
from dtap_dask.features.steps.operation import Bound, ErrorContext, Fitted, Operation, Part, rows_of
from dtap_dask.features.steps.valuetype import Unfit, ValueType, describe
from dtap_dask.features.steps.zones import zone
from dtap_dask.lake.schema import MICROSECONDS
from dtap_dask.lake.sql.kernels import calendar

PartName = Literal["year", "month", "day", "hour", "minute", "weekday", "day_of_year", "week", "is_weekend"]
Unit = Literal["s", "ms", "us"]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _DatePart:
    """`count` gives it for seconds since 1970 on the zone's own clock, int64 [n]. `holds` is the dtype of all values.

    A part that repeats goes from `first` to `first` + `period` - 1.
    """

    count: Callable[[Integers], Integers]
    holds: str = "uint8"
    period: int | None = None
    first: int = 0
    of_day: bool = False


def _calendar(kernel: Callable[[pa.Array], pa.Array]) -> Callable[[Integers], Integers]:
    return lambda seconds: np.asarray(kernel(pa.array(seconds).cast(pa.timestamp("s"))))


def _weekday(seconds: Integers) -> Integers:
    return (seconds // 86_400 + 3) % 7  # 1970 began on a Thursday


PARTS: dict[str, _DatePart] = {
    "year": _DatePart(_calendar(calendar.year), "int32"),
    "month": _DatePart(_calendar(calendar.month), period=12, first=1),
    "day": _DatePart(_calendar(calendar.day), period=31, first=1),
    "hour": _DatePart(lambda seconds: seconds // 3600 % 24, period=24, of_day=True),
    "minute": _DatePart(lambda seconds: seconds // 60 % 60, period=60, of_day=True),
    "weekday": _DatePart(_weekday, period=7),
    "day_of_year": _DatePart(_calendar(calendar.day_of_year), "uint16", period=366, first=1),
    "week": _DatePart(_calendar(calendar.week), period=53, first=1),
    "is_weekend": _DatePart(lambda seconds: (_weekday(seconds) >= 5).astype(np.int64)),
}


class DatetimeParts(Operation):
    """Parts of dates and times, an output each: year, month (1 to 12), day (1 to 31), hour, minute, weekday (Monday 0
    to Sunday 6), day_of_year (1 to 366), week (of ISO 8601, 1 to 53) and is_weekend (1 on Saturday and Sunday).

    Parts are those of UTC, or of the clock of `zone`; times without a zone are taken as they are, or as UTC where
    `zone` is given. Integers are times in UTC, `unit`s since 1970. With `cyclic` a part that repeats becomes sin(a) and
    cos(a), a = 2 pi (part - its smallest value) / period; the period is 12, 31, 24, 60, 7, 366 and 53, and the others
    stay numbers. Nulls stay null.
    """

    name: ClassVar[str] = "datetime_parts"
    scalar: ClassVar[str | None] = "extract"

    extract: tuple[PartName, ...]
    zone: str | None = None
    unit: Unit | None = None
    cyclic: bool | Literal["sin", "cos"] = False

    @field_validator("extract", mode="before")
    @classmethod
    def _one(cls, found: object) -> object:
        return [found] if isinstance(found, str) else found

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.extract:
            raise ValueError(f"`extract` needs one part or more, of {', '.join(PARTS)}")
        twice = next((part for part in self.extract if self.extract.count(part) > 1), None)
        if twice is not None:
            raise ValueError(f"`extract` has {twice} twice")
        if self.zone is not None:
            zone(self.zone)
        if self.cyclic and not any(PARTS[part].period for part in self.extract):
            repeating = ", ".join(part for part, one in PARTS.items() if one.period)
            raise ValueError(f"`cyclic` is for parts that repeat: {repeating}. Leave it out, or add one of them")
        return self

    def parts(self) -> Sequence[Part]:
        made = []
        for part in self.extract:
            waves: tuple[Literal["sin", "cos"], ...] = ()
            if PARTS[part].period:
                waves = ("sin", "cos") if self.cyclic is True else (self.cyclic,) if self.cyclic else ()
            one = self.model_copy(update={"extract": (part,), "cyclic": False})
            made += [Part(f"{part}_{wave}", one.model_copy(update={"cyclic": wave})) for wave in waves]
            made += [] if waves else [Part(part, one)]
        return made

    def check_input(self, given: ValueType) -> None:
        if given.base not in ("time", "int") or given.width is not None or given.ids:
            raise Unfit(f"{self.name} needs dates, timestamps, or whole numbers with `unit`, and the column is "
                        f"{'ids' if given.ids else describe(given)}. {self._remedy(given)}")  # fmt: skip
        if given.base == "int":
            if self.unit is None:
                raise Unfit("datetime_parts needs `unit` for a column of whole numbers: s, ms or us since 1970.")
            return
        if self.unit is not None:
            raise Unfit(f"`unit` is for whole numbers, and the column is {given.source}. Leave it out.")
        if pa.types.is_timestamp(given.source):
            if given.source.tz not in (None, "UTC") and self.zone is None:
                raise Unfit(
                    f"the column is {given.source}: say which clock is meant, `zone: {given.source.tz}` or `zone: UTC`."
                )
            return
        refused = [part for part in self.extract if PARTS[part].of_day]
        if refused:
            raise Unfit(f"a date ({given.source}) has no {' and no '.join(refused)}. Leave that out of `extract`.")
        if self.zone is not None:
            raise Unfit(f"a date ({given.source}) has no zone. Leave `zone` out.")

    def _remedy(self, given: ValueType) -> str:
        if given.base == "text":
            return "`derive` a column `try_cast(... as timestamp)` and use that."
        return "Put `cast: int64` before it." if given.is_number and given.base == "float" else "Leave the column out."

    def type_of(self, given: ValueType, *others: ValueType) -> ValueType:
        self.check_input(given)
        return given.become("float") if self.cyclic else given.become("int", holds=self._part.holds)

    @property
    def _part(self) -> _DatePart:
        """The one part of an operation in the graph, see `parts`."""
        [part] = self.extract
        return PARTS[part]

    @property
    def wave(self) -> tuple[float, ...]:
        """The sine or cosine of each value of the part, from the smallest."""
        period, function = self._part.period, math.sin if self.cyclic == "sin" else math.cos
        assert period is not None
        return tuple(function(2 * math.pi * number / period) for number in range(period))

    def bind(self, fitted: Fitted, context: ErrorContext) -> Bound:
        part, per_second = self._part, 1_000_000 // MICROSECONDS[self.unit or "us"]
        clock = zone(self.zone) if self.zone is not None else None
        wave = np.array(self.wave) if self.cyclic else None

        def apply(column: Column) -> Column:
            given = numbers(column)
            seconds = self._checked(given, context) // per_second
            if clock is not None:
                seconds = seconds + clock.offsets_at(seconds)
            found = part.count(seconds)
            if wave is None:
                return Numbers(found.astype(part.holds), given.valid)
            out = wave[found - part.first]
            return Numbers(out if given.valid is None else np.where(given.valid, out, np.nan))

        return apply

    def _checked(self, given: Numbers, context: ErrorContext) -> Integers:
        """The values as int64, 0 for null. DataError for times beyond 64 bits of microseconds."""
        values = given.values if given.valid is None else np.where(given.valid, given.values, 0)
        most = np.iinfo(np.int64).max // MICROSECONDS[self.unit or "us"]
        bad = (values > most) | (values < -most - 1)
        if bad.any():
            raise DataError(
                f"{int(bad.sum()):,} values of {context} are no times in `{self.unit}` since 1970 that 64 bits of "
                f"microseconds hold: {rows_of(values[bad])}. Give another `unit`, or leave such rows out with "
                "`source.where`."
            )
        return values.astype(np.int64)
