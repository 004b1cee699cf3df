"""A place in the sequence of epochs, the rows that are left there, and how readers divide them.

A position is kept as the rows that were taken, not as batches, so that it means the same for any batch size and, with
`Taken` for each number of readers there was, for any number of readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]  # rows of an epoch: the first, and the one after the last


@dataclass(frozen=True)
class Readers:
    """This reader's number, how many readers share each epoch, and how many replicas each of them feeds."""

    index: int = 0
    count: int = 1
    replicas: int = 1


@dataclass(frozen=True)
class Taken:
    """What was taken of an epoch while its rows were divided among `readers`: the first `rows` of each one's part."""

    readers: int
    rows: int


@dataclass(frozen=True)
class Position:
    """A place in an epoch: what was taken before, and with which numbers of readers.

    `batches` of each reader were taken since all replicas last had equally many, as where the epoch was begun.
    """

    epoch: int = 0
    taken: tuple[Taken, ...] = ()
    batches: int = 0

    def after(self, readers: int, rows: int, batches: int = 0) -> Position:
        """The place after the next `rows` of each of `readers`, in that many batches."""
        if not rows:
            return self
        taken = self.taken
        if taken and taken[-1].readers == readers:
            taken, rows = taken[:-1], taken[-1].rows + rows
        return Position(self.epoch, (*taken, Taken(readers, rows)), self.batches + batches)

    def left(self, rows: int) -> list[Span]:
        """What is left of an epoch of `rows`, in the order in which readers divide it."""
        spans = [(0, rows)]
        for each in self.taken:
            spans = [span for part in divided(spans, each.readers) for span in cut(part, each.rows)[1]]
        return spans

    def parts(self, rows: int, readers: int) -> list[list[Span]]:
        """What is left of an epoch of `rows` for each of `readers`."""
        return [cut(part, self.done(readers))[1] for part in divided(self.begin(readers).left(rows), readers)]

    def done(self, readers: int) -> int:
        """The rows that were taken of each part since the epoch was last divided, if among as many readers; else 0."""
        return self.taken[-1].rows if self.taken and self.taken[-1].readers == readers else 0

    def begin(self, readers: int) -> Position:
        """The place where the epoch was last divided among readers, if these are still as many; else this place."""
        return Position(self.epoch, self.taken[:-1]) if self.done(readers) else self


def divided(spans: Sequence[Span], count: int) -> list[list[Span]]:
    """The rows of `spans` in `count` consecutive parts whose sizes differ by one at most, the larger ones first."""
    total = size(spans)
    found, rest = list[list[Span]](), list(spans)
    for index in range(count):
        part, rest = cut(rest, total // count + (index < total % count))
        found.append(part)
    return found


def size(spans: Sequence[Span]) -> int:
    """The number of rows."""
    return sum(stop - start for start, stop in spans)


def cut(spans: Sequence[Span], rows: int) -> tuple[list[Span], list[Span]]:
    """The first `rows` of the spans, all if there are fewer, and the others."""
    head, tail = list[Span](), list[Span]()
    for start, stop in spans:
        middle = min(stop, start + rows)
        rows -= middle - start
        if start < middle:
            head.append((start, middle))
        if middle < stop:
            tail.append((middle, stop))
    return head, tail
