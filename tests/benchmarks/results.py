"""What the sections hand to the table: figures, and how they stand against each other and against what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Unit = Literal["rows/s", "GB/s", "s", "MiB"]


@dataclass(frozen=True)
class Aim:
    """What a number should be: at least `bound`, or at most."""

    kind: Literal["at least", "at most"]
    bound: float

    def met(self, value: float) -> bool:
        """Whether `value` is what was aimed at."""
        return value >= self.bound if self.kind == "at least" else value <= self.bound


def at_least(bound: float) -> Aim:
    """A bound from below."""
    return Aim("at least", bound)


def at_most(bound: float) -> Aim:
    """A bound from above."""
    return Aim("at most", bound)


@dataclass
class Figure:
    """One thing that was measured: a value a round. Without values `note` says why there are none."""

    name: str
    unit: Unit = "rows/s"
    values: list[float] = field(default_factory=list)
    rows: int | None = None
    note: str = ""
    aim: Aim | None = None

    def add(self, rows: int, seconds: float) -> None:
        """One more round of so many rows in so many seconds."""
        self.rows = rows
        self.values.append(rows / seconds)

    @property
    def median(self) -> float:
        """The middle one of the rounds."""
        return median(self.values)


@dataclass(frozen=True)
class Ratio:
    """`of` against `to`, both measured: how many times as fast it is, as long it takes, or as large it is."""

    of: Figure
    to: Figure
    words: Literal["x as fast", "x the time", "x as much"]
    aim: Aim | None = None

    @property
    def value(self) -> float | None:
        """The ratio of the medians; None where one of the two was not measured."""
        if not (self.of.values and self.to.values):
            return None
        of, to = self.of.median, self.to.median
        turned = self.words == "x the time" if self.of.unit != "s" else self.words == "x as fast"
        return to / of if turned else of / to


@dataclass
class Section:
    """The figures of one part of the benchmark, with what a reader must know of how they came about."""

    title: str
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)


def marginal_rate(small: tuple[int, float], large: tuple[int, float]) -> float:
    """Rows a second of what the larger of two runs, (rows, seconds), did beyond the smaller: free of start-up.

    ValueError where the larger took no longer: then start-up varies by more than the rows take.
    """
    rows, seconds = large[0] - small[0], large[1] - small[1]
    if rows <= 0 or seconds <= 0:
        raise ValueError(f"{rows:,} more rows took {seconds:.1f} s more; no rate follows from that")
    return rows / seconds
