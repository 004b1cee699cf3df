"""Training that is interrupted again and again, with other readers, batch sizes and remainders each time.

All choices of rows, layouts, damage and staging at once, against lists of rows: what each reader has of an epoch is a
part of what was left of it when it was last divided.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import in_memory
from dtap_dask.errors import DataError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.order import epoch_order as orders
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, PLAIN, write
from property_tests import examples

SHARDS = [30, 0, 1, 17]

Rows = list[int | None]  # None: padding


def shares(rows: Rows, count: int) -> list[Rows]:
    sizes = [len(rows) // count + (index < len(rows) % count) for index in range(count)]
    ends = [0, *itertools.accumulate(sizes)]
    return [rows[start:stop] for start, stop in itertools.pairwise(ends)]


class Reference:
    """Where all readers are: the rows that were left when the epoch was last divided, and how many each took since."""

    def __init__(self, order: Callable[[int], Rows]):
        self._order, self.epoch, self._count, self._done = order, 0, 1, 0
        self._left = order(0)

    def _divided(self, count: int) -> tuple[list[Rows], int]:
        """The parts of that many readers, and the rows of each that were taken."""
        if self._count == count or not self._done:
            return shares(self._left, count), self._done
        return shares([row for part in shares(self._left, self._count) for row in part[self._done :]], count), 0

    def batches_left(self, count: int, size: int, remainder: str) -> int:
        parts, done = self._divided(count)
        left = [max(0, len(part) - done) for part in parts]
        return min(left) // size if remainder == "drop" else -(-max(left) // size)

    def next_epoch(self) -> None:
        self.epoch, self._done = self.epoch + 1, 0
        self._left = self._order(self.epoch)

    def take(self, count: int, size: int, remainder: str, steps: int) -> list[list[Rows]]:
        """The next batches of each reader."""
        steps = min(steps, self.batches_left(count, size, remainder))
        parts, done = self._divided(count)
        starts, first = [done + step * size for step in range(steps)], self._order(self.epoch)[:1]
        if steps:
            self._left, self._count, self._done = [row for part in parts for row in part], count, done + steps * size
        if remainder == "repeat":
            return [
                [[own[row % len(own)] for own in [part or first] for row in range(at, at + size)] for at in starts]
                for part in parts
            ]
        found = [[part[at : at + size] for at in starts] for part in parts]
        if remainder == "pad":
            return [[rows + [None] * (size - len(rows)) for rows in mine] for mine in found]
        return found


def rows_in(batch: Any) -> Rows:
    main, kept = batch
    rows = kept["row"].tolist()
    weights = main[2].tolist() if len(main) == 3 else [1] * len(rows)
    return [row if weight else None for row, weight in zip(rows, weights, strict=True)]


CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "skip": st.integers(0, 30),
        "take": st.integers(15, 60),
        "where": st.sampled_from(['"row" % 5 <> 1', "fare > 3"]),
        "resample": st.sampled_from(["balanced", {True: 2.5, False: 0.5}]),
        "class_weights": st.just({True: 2.0}),
    },
)


@given(
    layout=st.builds(Layout, st.sampled_from(["blocks", "rows"]), st.just(8), st.sampled_from(["none", "gzip"])),
    plain=st.booleans(),
    damaged=st.booleans(),
    staged=st.booleans(),
    window=st.sampled_from([5, 20, 65_536]),
    shuffle=st.booleans(),
    choice=CHOICES,
    sessions=st.lists(
        st.tuples(
            st.sampled_from(["keep", "pad", "repeat", "drop"]),
            st.integers(1, 4),
            st.sampled_from([1, 2, 7, 50]),
            st.sampled_from([0, 1, 2, None]),
        ),
        min_size=1,
        max_size=5,
    ),
)
@pytest.mark.filterwarnings("ignore:.*left out")
@examples(0.25)
def test_every_session_continues_where_the_last_one_ended(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    layout: Layout,
    plain: bool,
    damaged: bool,
    staged: bool,
    window: int,
    shuffle: bool,
    choice: dict[str, Any],
    sessions: list[tuple[str, int, int, int | None]],
) -> None:
    """A session takes a number of steps, or all that are left of the epoch and one step of the next one."""
    folder = tmp_path_factory.mktemp("data")
    path = write(folder / "data", SHARDS, layout, PLAIN if plain else INFOS)
    if damaged:
        damage(path)
    options: dict[str, Any] = {**choice, "shuffle": shuffle, "kept": True, "on_bad_record": "skip"}
    options["storage"] = {"cache": {"path": str(folder / "cache")}}
    with pytest.MonkeyPatch.context() as patch, in_memory(path, "memory://test_sessions") as url:
        patch.setattr(orders, "WINDOW_ROWS", window)
        where = url if staged else path
        first = batches(where, batch_size=1000, **options)

        def order(epoch: int) -> Rows:
            state = {**first.state(), "epoch": epoch}
            (whole,) = itertools.islice(batches(where, batch_size=1000, state=state, **options), 2)
            return rows_in(whole)

        run_sessions(where, Reference(order), sessions, options)


def damage(path: str) -> None:
    """Damage a byte in the middle of the last shard."""
    shard = max(Path(path).glob("train/*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)


def run_sessions(path: str, reference: Reference, sessions: Any, options: dict[str, Any]) -> None:
    state: Any = None
    for remainder, readers, size, steps in sessions:
        count = 1 if remainder == "keep" else readers
        how = {**options, "batch_size": size, "remainder": remainder, "state": state}
        try:
            loaders = [batches(path, readers=(index, count), **how) for index in range(count)]
        except DataError as error:
            if remainder == "drop" and "drops them all" in str(error):
                continue
            raise
        if not reference.batches_left(count, size, remainder):
            reference.next_epoch()
        for taken in [steps] if steps is not None else [1000, 1]:
            expected = reference.take(count, size, remainder, taken)
            states = []
            for loader, mine in zip(loaders, expected, strict=True):
                iterator = iter(loader)
                found = [rows_in(batch) for batch in (iterator if taken == 1000 else itertools.islice(iterator, taken))]
                assert found == mine
                states.append(json.loads(json.dumps(iterator.state())))
            assert states == states[:1] * count
            state = states[0]
            if state["epoch"] > reference.epoch:
                reference.next_epoch()
