"""Positions: what is left of an epoch for any number of readers, against sets of rows."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.loading.order.position import Position, divided, size
from property_tests import examples


def rows_of(spans: list[tuple[int, int]]) -> list[int]:
    return [row for start, stop in spans for row in range(start, stop)]


@given(rows=st.integers(0, 60), counts=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), max_size=5))
@examples(2)
def test_what_is_left_is_what_was_not_taken_by_any_reader(rows: int, counts: list[tuple[int, int]]) -> None:
    """Readers change again and again within an epoch; the oracle keeps a list of the rows of each."""
    position, left = Position(3), list(range(rows))
    readers, parts = 0, list[list[int]]()
    for count, taken in counts:
        if count != readers:
            left, readers = [row for part in parts for row in part] if parts else left, count
            ends = [len(left) // count * n + min(n, len(left) % count) for n in range(count + 1)]
            parts = [left[start:stop] for start, stop in itertools.pairwise(ends)]
        assert [rows_of(part) for part in position.parts(rows, count)] == parts
        position = position.after(count, taken)
        parts = [part[taken:] for part in parts]
        assert [rows_of(part) for part in position.parts(rows, count)] == parts
    assert position.epoch == 3
    assert sorted(rows_of(position.left(rows))) == sorted(row for part in parts or [left] for row in part)


@given(rows=st.integers(0, 40), count=st.integers(1, 50))
@examples(0.5)
def test_parts_differ_by_one_row_at_most(rows: int, count: int) -> None:
    sizes = [size(part) for part in divided([(0, rows // 3), (rows // 3, rows)], count)]
    assert sum(sizes) == rows
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
