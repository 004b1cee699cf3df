"""The rows that an epoch has of each run, and which they are among the decoded rows of a window.

A class of n rows of which an epoch has T is sampled systematically (Madow, 1949): with one random start for the class,
every run gets its share of T, rounded so that all together have exactly T rows. Within a run rows are drawn without
replacement; where it gets more rows than it has, all come equally often but for one. So only the number of rows of each
class in each run is kept, and an epoch is drawn from its number, without the rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dtap_dask.errors import DamagedError, DataError, JobError, Problem
from dtap_dask.features.columns.column import Mask, offsets_of
from dtap_dask.features.engine.transform import Rows
from dtap_dask.loading.choice.conditions import scalar_column
from dtap_dask.loading.choice.labels import as_classes, classes_in, shown, unknown_classes
from dtap_dask.loading.choice.selection import Selection
from dtap_dask.loading.order.epoch_order import EpochKey, Window, random_of
from dtap_dask.loading.order.runs import RowNumbers, Runs
from dtap_dask.loading.shards.decode import Decoder

_STARTS, _ROWS_OF_RUNS = 3, 4  # what a random sequence draws; the order of an epoch has 0 to 2
_ENDLESS = 1 << 61  # more rows than any class may have
_MOST_COPIES = 1 << 20  # rows that one run may become
_EXACT = 3_000_000_000  # rows of a class up to which products of two such numbers fit in int64

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RunCounts:
    """How many of the rows that may be chosen each run has, by class where these matter.

    Entry e counts `rows[e]` rows of class `classes[e]`; the entries of run r are `first[r]` to `first[r + 1]` - 1, by
    ascending class. `values` are the label's values for all classes, of its type; None: one class, of all rows.
    """

    first: RowNumbers
    classes: RowNumbers
    rows: RowNumbers
    values: pa.Array | None

    @cached_property
    def totals(self) -> RowNumbers:
        """The rows of each class, int64 [classes]."""
        found = np.zeros(1 if self.values is None else len(self.values), np.int64)
        np.add.at(found, self.classes, self.rows)
        return found

    def digest(self, *, by_class: bool) -> str:
        """16 hexadecimal digits that differ where any count does; without `by_class`, any run's of all classes."""
        parts = (self.first, self.classes, self.rows) if by_class else (self.per_run(self.rows),)
        return hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()[:16]

    def per_run(self, rows: RowNumbers) -> RowNumbers:
        """The sum of `rows` of all entries of each run, int64 [runs]."""
        found = np.zeros(len(self.first) - 1, np.int64)
        np.add.at(found, self.runs, rows)
        return found

    @cached_property
    def runs(self) -> RowNumbers:
        """The run of each entry."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    @cached_property
    def by_class(self) -> RowNumbers:
        """The entries class by class, those of each class in the order of runs."""
        return np.argsort(self.classes, kind="stable")

    def drawn(self, wanted: RowNumbers, key: EpochKey) -> RowNumbers:
        """The rows of each entry in one epoch, so that class c has exactly `wanted[c]`."""
        if (wanted == self.totals).all():
            return self.rows
        classes, rows = self.classes[self.by_class], self.rows[self.by_class]
        ends = np.cumsum(rows) - offsets_of(self.totals)[classes]
        start = np.array([random_of(key, _STARTS, c).integers(max(1, n)) for c, n in enumerate(self.totals)])
        found = np.empty_like(self.rows)
        found[self.by_class] = _share(ends, self.totals, wanted, start, classes) - _share(
            ends - rows, self.totals, wanted, start, classes
        )
        return found


def _share(
    rows: RowNumbers, totals: RowNumbers, wanted: RowNumbers, start: RowNumbers, classes: RowNumbers
) -> RowNumbers:
    """floor(rows * wanted / total + start / total) for the first rows of a class, without rounding before the floor."""
    whole, part = np.divmod(wanted, np.maximum(totals, 1))
    if totals.max(initial=0) > _EXACT:
        rows = rows.astype(object)
    return (rows * whole[classes] + (rows * part[classes] + start[classes]) // totals[classes]).astype(np.int64)


class RowChoice:
    """What a selection makes of the runs of its split."""

    def __init__(self, selection: Selection, runs: Runs, counts: RunCounts | None):
        """`counts` for a selection whose rows are counted."""
        self.selection, self.runs, self.counts = selection, runs, counts
        self._starts = offsets_of(runs.rows)

    @cached_property
    def in_range(self) -> RowNumbers:
        """The rows of each run that are left by `skip` and `take`, int64 [runs]."""
        first, last = self.selection.first, self.selection.first + self.selection.split.rows
        inside = np.clip(self._starts, first, last)
        return np.diff(inside)

    @cached_property
    def wanted(self) -> RowNumbers:
        """The rows of each class in every epoch, int64 [classes], where they are counted."""
        counts, factors = self.counts, self.selection.factors
        assert counts is not None
        if factors is None:
            return counts.totals
        if factors == "balanced":
            return np.full(len(counts.totals), counts.totals.max(initial=0))
        values = [] if counts.values is None else counts.values.to_pylist()
        named = [factors.get(value, 1.0) for value in values]
        found = [round(rows * factor) for rows, factor in zip(counts.totals.tolist(), named, strict=True)]
        return np.array([min(rows, _ENDLESS) for rows in found], np.int64)

    def refuse(self) -> None:
        """DataError where no row is left; JobError, with every problem, where the classes are not those asked for."""
        selection, counts = self.selection, self.counts
        assert counts is not None
        if not counts.rows.size:
            sql = None if selection.condition is None else selection.condition.expression.sql
            why = "damaged records had all" if sql is None else f"{sql!r} is true of none of"
            raise DataError(
                f"`{'resample' if sql is None else 'where'}` leaves no row of the split {selection.whole.name!r} of "
                f"{selection.whole.store.url}: {why} {selection.split.rows:,} rows."
            )
        if counts.values is None or selection.label is None:
            return
        values = counts.values.to_pylist()
        problems = [
            problem
            for argument, given in (("resample", selection.factors), ("class_weights", selection.weights))
            for problem in unknown_classes(selection.label, argument, given, values)
        ]
        for value, wanted in zip(values, self.wanted.tolist(), strict=True):
            if not wanted:
                problems.append(Problem(f"resample[{shown(selection.label, value)}]", _NOTHING_LEFT))
        often = -(-self.wanted // counts.totals)[counts.classes]
        most = int((counts.rows * often)[often > 1].max(initial=0))
        if most > _MOST_COPIES:
            problems.append(Problem("resample", _MANY.format(rows=most, most=_MOST_COPIES)))
        if problems:
            raise JobError(problems)

    @property
    def rows(self) -> int:
        """The rows of every epoch."""
        return int(self.wanted.sum()) if self.selection.drawn else self.selection.split.rows

    @cached_property
    def weights(self) -> tuple[pa.Array, Weights] | None:
        """Values of the label, and the weight of each, float32; one more weight is that of other values."""
        selection, label = self.selection, self.selection.label
        if selection.weights is None or label is None:
            return None
        if selection.weights == "balanced":
            assert self.counts is not None
            assert self.counts.values is not None
            some = self.wanted > 0
            found = self.wanted.sum() / (some.sum() * np.maximum(self.wanted, 1))
            return self.counts.values, np.append(found, 1).astype(np.float32)
        values = as_classes(label, [*selection.weights])
        return values, np.array([*selection.weights.values(), 1], np.float32)

    def epoch(self, key: EpochKey) -> EpochRows:
        """The rows of one epoch."""
        drawn = self.counts.drawn(self.wanted, key) if self.counts is not None and self.selection.drawn else None
        return EpochRows(self, key, drawn)

    def among(self, window: Window, decoder: Decoder | None, packed: Rows, lost: Mask | None) -> Mask:
        """Which of the decoded rows of a window may be chosen, bool [decoded rows]; those of damaged records may not.

        `decoder` has made `packed` of the window's records; None where no column matters.
        """
        rows = self.runs.rows[window.runs]
        if (self.in_range[window.runs] == rows).all():
            found = np.ones(rows.sum(), np.bool_)
        else:
            number = np.repeat(self._starts[window.runs] - offsets_of(rows)[:-1], rows) + np.arange(rows.sum())
            first = self.selection.first
            found = (first <= number) & (number < first + self.selection.split.rows)
        if decoder is None:
            return found
        if lost is not None:
            found &= ~lost
        condition = self.selection.condition
        return found if condition is None else condition.true_of(decoder, packed, found)


class EpochRows:
    """The rows of one epoch: `rows` are those of each run, int64 [runs]."""

    def __init__(self, choice: RowChoice, key: EpochKey, drawn: RowNumbers | None):
        self._choice, self._key, self._drawn = choice, key, drawn
        self.rows = choice.in_range if choice.counts is None or drawn is None else choice.counts.per_run(drawn)

    @property
    def decoder(self) -> Decoder | None:
        """The decoder of the columns that matter; None if none does."""
        return self._choice.selection.decoder

    def places(self, window: Window, decoder: Decoder | None, packed: Rows, lost: Mask | None) -> RowNumbers:
        """The places of a window's rows among its decoded ones, ascending, int64 [window.rows]. See RowChoice.among.

        DamagedError where the records do not hold the rows that were counted.
        """
        choice, counts = self._choice, self._choice.counts
        if counts is None or self._drawn is None:
            return np.flatnonzero(choice.among(window, None, {}, None))
        assert decoder is not None
        places = np.flatnonzero(choice.among(window, decoder, packed, lost))
        first = counts.first[window.runs]
        sizes = counts.first[window.runs + 1] - first
        entries = np.repeat(first - offsets_of(sizes)[:-1], sizes) + np.arange(sizes.sum())
        many = len(counts.totals)
        cells = np.full(len(window.runs) * many + 1, -1)  # the entry of each run and class, by its place in `entries`
        cells[np.repeat(np.arange(len(window.runs)), sizes) * many + counts.classes[entries]] = np.arange(len(entries))
        cell = np.repeat(np.arange(len(window.runs)) * many, choice.runs.rows[window.runs])[places]
        if counts.values is not None:
            label = choice.selection.label
            assert label is not None
            found = classes_in(scalar_column(decoder, packed, label), counts.values)[places]
            cell = np.where(found < 0, -1, cell + found)
        entry = cells[cell]
        if (entry < 0).any() or (np.bincount(entry, minlength=len(entries)) != counts.rows[entries]).any():
            raise DamagedError(_CHANGED)
        return np.repeat(places, self._copies(window, entry, counts.rows[entries], self._drawn[entries]))

    def weight(self, decoder: Decoder, packed: Rows) -> Weights | None:
        """The weight of each of a window's decoded rows by its class, float32 [decoded rows]; None: all weigh 1."""
        choice, label = self._choice, self._choice.selection.label
        if choice.weights is None or label is None:
            return None
        values, weights = choice.weights
        return weights[classes_in(scalar_column(decoder, packed, label), values)]

    def _copies(self, window: Window, entry: RowNumbers, rows: RowNumbers, drawn: RowNumbers) -> RowNumbers:
        """How often each row comes, where `entry` is its entry, of which `drawn` of `rows` come."""
        often, more = np.divmod(drawn, rows)
        if not more.any():
            return often[entry]
        random = random_of(self._key, _ROWS_OF_RUNS, window.number).integers(1 << 32, size=len(entry))
        order = np.argsort((entry << 32) | random, kind="stable")
        rank = np.empty_like(entry)
        rank[order] = np.arange(len(entry)) - np.repeat(offsets_of(rows)[:-1], rows)
        return often[entry] + (rank < more[entry])


_NOTHING_LEFT = "this factor leaves no row of the class; leave it out with `where`, or use a larger one"
_MANY = (
    "{rows:,} copies of rows of records that are read together would be in memory at once, more than {most:,}; use "
    "smaller factors, or `class_weights`"
)
_CHANGED = (
    "The records do not hold the rows that were counted when the dataset was loaded: it was written again, or records "
    "were damaged or mended since. Load it again."
)
