"""A sequence of items that are built one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazyItems(Sequence[T]):
    """A sequence that builds items on access; all tasks' arguments at once would not fit in memory."""

    def __init__(self, length: int, make: Callable[[int], T]):
        self._indices, self._make = range(length), make

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        if isinstance(at, slice):
            return [self._make(index) for index in self._indices[at]]
        return self._make(self._indices[at])
