"""Which component each row of a mixture is of."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

_COMPONENTS = 1000  # tells these random sequences from those of EpochOrder, which have the same seed

_ENDLESS = 1 << 62  # rows

DrawnRows = npt.NDArray[np.int64]  # rows of each component
Choices = npt.NDArray[np.int64]  # the component of each row


@dataclass(frozen=True)
class ChunkPlace:
    """The beginning of a chunk: the number of its first row in the epoch, and the rows drawn of each component."""

    row: int
    drawn: tuple[int, ...]


class EpochDraws:
    """The components of the rows of an epoch, from its first row or the one where it was continued with other weights.

    Rows are those of one reader; all readers draw the same. A chunk's rows are independent draws of the components that
    have rows left, in proportion to their weights; it ends where one of them gives its last row. So a chunk is a
    function of the seed, the epoch, the number of its first row, and the weights of those components. How many rows it
    has of each is drawn before their order, so that the chunks of a long epoch are passed over in little time.
    """

    def __init__(
        self, key: tuple[int, int], weights: Sequence[float], left: Sequence[int | None], chunk: int, row: int = 0
    ):
        """`key` is (seed, epoch); `left` has the rows that are left of each component, None where it is repeated.

        `chunk` is the number of rows in a chunk.
        """
        self.chunk = chunk
        self._made_of = key, weights, left, chunk, row
        self._key, self._weights = key, np.array(weights, np.float64) / max(weights)
        self._repeated = np.array([rows is None for rows in left])
        self._left = np.array([rows or 0 for rows in left], np.int64)
        self.first = ChunkPlace(row, (0,) * len(left))
        self._near = self.first
        self.counts = functools.lru_cache(4)(self._counts)

    def __reduce__(self) -> tuple[Any, ...]:
        return EpochDraws, self._made_of

    @property
    def endless(self) -> bool:
        """Whether all components are repeated."""
        return bool(self._repeated.all())

    @cached_property
    def end(self) -> int:
        """The number of rows of the whole epoch."""
        if self._repeated.any():
            return self.last.row
        return self.first.row + int(self._left.sum())

    @cached_property
    def last(self) -> ChunkPlace:
        """The end of the epoch, found by drawing all of it: some 20 µs a chunk."""
        place = self.first
        while (following := self.after(place)) is not place:
            place = following
        return place

    def located(self, row: int) -> tuple[ChunkPlace, int]:
        """The chunk of a row, and the row's number in it; at and after the end of the epoch, counted from the end."""
        place = self._near if self._near.row <= row else self.first
        while (following := self.after(place)).row <= row and following is not place:
            place = following
        self._near = place
        return place, row - place.row

    def after(self, place: ChunkPlace) -> ChunkPlace:
        """The next chunk; at the end of the epoch the same."""
        counts = self.counts(place)
        rows = int(counts.sum())
        if not rows:
            return place
        return ChunkPlace(place.row + rows, tuple((counts + place.drawn).tolist()))

    def choices(self, place: ChunkPlace) -> Choices:
        """The component of each row of a chunk."""
        random, counts, left = self._draw(place)
        found = random.permutation(np.repeat(np.arange(len(counts)), counts))
        ends = [
            int(np.flatnonzero(found == number)[left[number] - 1]) + 1
            for number in np.flatnonzero((left > 0) & (counts >= left)).tolist()
        ]
        return found[: min(ends, default=self.chunk)]

    def _counts(self, place: ChunkPlace) -> DrawnRows:
        _, counts, left = self._draw(place)
        return counts if (counts < left).all() else np.bincount(self.choices(place), minlength=len(left))

    def _draw(self, place: ChunkPlace) -> tuple[np.random.Generator, DrawnRows, DrawnRows]:
        """The rows of each component in a whole chunk, the rows that it has left, and what the order is drawn from."""
        seed, epoch = self._key
        random = np.random.Generator(np.random.PCG64([_COMPONENTS, seed % (1 << 64), epoch, place.row]))
        left = np.where(self._repeated, _ENDLESS, self._left - place.drawn)
        counts = np.zeros(len(left), np.int64)
        if self.endless or left[~self._repeated].any():
            active = np.flatnonzero(left)
            weights = self._weights[active]
            counts[active] = random.multinomial(self.chunk, weights / weights.sum())
        return random, counts, left
