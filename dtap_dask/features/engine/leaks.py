"""Finds features that give the label away: each column alone against each label, on a sample of the fitted rows.

A column is looked at in two ways, both of which add up over batches and tasks: how far it is a line of a numeric label
(Pearson's r), and how far its values, if they are few, settle which of few labels a row has (Goodman and Kruskal's
lambda: the share of wrong guesses that goes away when the value is known). Few tasks look, and most columns are ruled
out by their first rows: that costs some milliseconds of each of these tasks, however large the source is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.features.columns.arrow import from_arrow
from dtap_dask.features.columns.column import Array, Column, Decimals, Floats, Lists, Numbers, Text, numbers
from dtap_dask.features.graph.graph import Graph
from dtap_dask.features.steps.valuetype import source_type

TASKS = 4  # spread over all
BATCHES = 8  # in each of these tasks
FIRST = 300  # rows of the first batch, which rule most columns out
ROWS = 1024  # at the start of each later batch
FEWEST = 200  # rows needed for a verdict
MOST = 64  # values of a column, and of a label, that are counted
A_VALUE = 20  # rows that each value needs on average
CORRELATED = 0.999
EXPLAINED = 0.99
RULED_OUT = 0.9  # of either measure, after FEWEST rows


@dataclass
class Line:
    """Co-moments of a column and a label, over the rows where both are there."""

    rows: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    @classmethod
    def of(cls, x: Floats, y: Floats) -> Line:
        """Of one batch, shapes [n]."""
        there = np.isfinite(x) & np.isfinite(y)
        if not there.any():
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            x, y = x[there], y[there]
            dx, dy = x - x.mean(), y - y.mean()
            products = (float((a * b).sum()) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
            return cls(len(x), float(x.mean()), float(y.mean()), *products)

    def add(self, other: Line) -> None:
        """Take in further rows (Chan, Golub and LeVeque)."""
        total = self.rows + other.rows
        if not other.rows:
            return
        dx, dy, weight = other.x - self.x, other.y - self.y, self.rows * (other.rows / total)
        self.xx += other.xx + dx * dx * weight
        self.yy += other.yy + dy * dy * weight
        self.xy += other.xy + dx * dy * weight
        self.x += dx * (other.rows / total)
        self.y += dy * (other.rows / total)
        self.rows = total

    @property
    def strength(self) -> float | None:
        """The absolute value of r; None where one of both does not vary, or overflows."""
        size = math.sqrt(self.xx) * math.sqrt(self.yy)
        found = abs(self.xy) / size if size > 0 else math.nan
        return min(found, 1.0) if math.isfinite(found) else None

    threshold = CORRELATED

    def __str__(self) -> str:
        return f"|r| = {self.strength or 0:.4f} over {self.rows:,} rows, where {self.threshold} counts as too much"


@dataclass
class Table:
    """How often each value of a column, null among them, came with each label."""

    pairs: Counter[tuple[Hashable, Hashable]] = field(default_factory=Counter)
    rows: int = 0

    def add(self, other: Table) -> None:
        """Take in further rows."""
        self.pairs.update(other.pairs)
        self.rows += other.rows

    @property
    def values(self) -> int:
        """How many values the column has."""
        return len({value for value, _ in self.pairs})

    @property
    def strength(self) -> float | None:
        """Goodman and Kruskal's lambda; None with one label only, or with too few rows a value."""
        best: dict[Hashable, int] = {}
        labels: Counter[Hashable] = Counter()
        for (value, label), count in self.pairs.items():
            best[value] = max(best.get(value, 0), count)
            labels[label] += count
        commonest = max(labels.values(), default=0)
        if len(labels) < 2 or self.rows < A_VALUE * len(best):
            return None
        return (sum(best.values()) - commonest) / (self.rows - commonest)

    threshold = EXPLAINED

    def __str__(self) -> str:
        return (
            f"its {self.values:,} values leave {1 - (self.strength or 0):.2%} of the wrong guesses over {self.rows:,} "
            f"rows, where {1 - self.threshold:.0%} counts as too few"
        )


def looking(task: int, tasks: int) -> bool:
    """Whether a task is one of the TASKS, spread over all, that look for leaks."""
    return task in {tasks * place // TASKS for place in range(TASKS)}


Pair = tuple[str, str]
Measured = Line | Table


@dataclass
class Suspects:
    """The measurements of the pairs (column, label) that are not ruled out yet."""

    lines: dict[Pair, Line] = field(default_factory=dict)
    tables: dict[Pair, Table] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Suspects:
        """All pairs that can be measured, before any row is seen."""
        found = cls()
        wanted = [(column, source_type(graph.schema.field(column).type, column)) for output in graph.outputs
                  if output.role == "feature" for column in output.sources]  # fmt: skip
        for name, target in _labels(graph):
            for column, kind in wanted:
                if column == name or kind.base == "list" or kind.width is not None:
                    continue
                if kind.base != "text" and target != "text":
                    found.lines[column, name] = Line()
                if target != "float":
                    found.tables[column, name] = Table()
        return found

    @property
    def columns(self) -> list[str]:
        """The columns of the remaining pairs."""
        return sorted({name for pair in (*self.lines, *self.tables) for name in pair})

    def add(self, rows: pa.RecordBatch) -> None:
        """Measure some rows."""
        columns = {name: from_arrow(rows.column(name)) for name in self.columns}
        floats = {name: numbers(columns[name]).floats() for name in {name for pair in self.lines for name in pair}}
        codes = {name: _codes(columns[name]) for name in {name for pair in self.tables for name in pair}}
        for pair, line in self.lines.items():
            line.add(Line.of(*(floats[name] for name in pair)))
        for pair, table in list(self.tables.items()):
            value, label = (codes[name] for name in pair)
            if value is None or label is None:
                del self.tables[pair]
            else:
                table.add(_crossed(value, label))
        self._rule_out()

    def _rule_out(self) -> None:
        self.lines = {pair: line for pair, line in self.lines.items() if not _is_weak(line)}
        self.tables = {
            pair: table for pair, table in self.tables.items() if not _is_weak(table) and table.values <= MOST
        }

    @staticmethod
    def merged(parts: Sequence[Suspects]) -> Suspects | None:
        """The pairs that no part has ruled out, over all rows; the parts stay as they are. None without parts."""
        if not parts:
            return None
        total = Suspects()
        for pair in parts[0].lines:
            if all(pair in part.lines for part in parts):
                total.lines[pair] = Line()
                for part in parts:
                    total.lines[pair].add(part.lines[pair])
        for pair in parts[0].tables:
            if all(pair in part.tables for part in parts):
                total.tables[pair] = Table()
                for part in parts:
                    total.tables[pair].add(part.tables[pair])
        total._rule_out()
        return total

    def warnings(self) -> Iterator[str]:
        """A sentence for each column that gives a label away."""
        found: dict[Pair, Measured] = {}
        measured: list[tuple[Pair, Measured]] = [*self.lines.items(), *self.tables.items()]
        for pair, one in measured:
            strength = one.strength
            if one.rows >= FEWEST and strength is not None and strength >= one.threshold:
                found.setdefault(pair, one)
        for (column, label), one in found.items():
            yield (
                f"The feature column {column!r} alone predicts the label {label!r}: {one}. If it is known only once "
                "the label is, take it out of the features."
            )


def _labels(graph: Graph) -> Iterator[tuple[str, str]]:
    """The source column of each label, and the base type of its values."""
    for output in graph.outputs:
        [column, *_] = output.columns
        kind = source_type(graph.schema.field(column).type, column)
        if output.role == "label" and kind.width is None and kind.base not in ("list", "time"):
            yield column, kind.base


def _is_weak(one: Measured) -> bool:
    strength = one.strength
    return one.rows >= FEWEST and strength is not None and strength < RULED_OUT


@dataclass(frozen=True)
class _Codes:
    """The distinct values of a column and the position of each row's value among them, shape [n]."""

    values: Sequence[Hashable]
    places: npt.NDArray[np.int64]


def _codes(column: Column) -> _Codes | None:
    """The distinct values of a batch, null as None; None where they are too many."""
    if isinstance(column, Lists):
        return None
    if isinstance(column, Text):
        coded = column.coded
        found, places = np.unique(coded.codes, return_inverse=True)
        words = coded.words.array.take(pa.array(found[found < len(coded.words)])).to_pylist()
        values: list[Any] = [*words, *[None] * (len(found) - len(words))]
    else:
        found, places = np.unique(_plain(column), return_inverse=True)
        values = found.tolist()
        nulls = column.nulls()
        if nulls is not None:
            values, places = [*values, None], np.where(nulls, len(values), places)
    return _Codes(values, places) if len(values) <= MOST + 1 else None


def _plain(column: Numbers | Decimals) -> Array:
    """The numbers, with an arbitrary number in place of nulls."""
    given = numbers(column)
    return np.nan_to_num(given.values) if given.is_float else given.values


def _crossed(value: _Codes, label: _Codes) -> Table:
    """Counts of pairs; rows without a label are ignored."""
    width = len(label.values)
    tally = np.bincount(value.places * width + label.places, minlength=len(value.values) * width)
    pairs: Counter[tuple[Hashable, Hashable]] = Counter()
    for place in np.flatnonzero(tally).tolist():
        one, other = value.values[place // width], label.values[place % width]
        if other is not None:
            pairs[one, other] += int(tally[place])
    return Table(pairs, pairs.total())
