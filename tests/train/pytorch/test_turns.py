"""Positions among batches that several workers hand over in turn; without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError
from dtap_dask.loading.batches import batches, epoch_batches
from dtap_dask.loading.reading.opening import open_loader
from dtap_dask.records.example import Layout
from dtap_dask.train.pytorch.turns import TurnPosition, Turns
from numbered_rows import PLAIN, write
from property_tests import examples

ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 0, 1, 47], Layout("blocks", 8), PLAIN)


class Loader:
    """The batches of a DataLoader's workers in turn, as lists of the numbers of rows, without padding."""

    def __init__(self, path: str, size: int, workers: int, readers: Any = None, **options: Any):
        self.source, self.options = open_loader(
            path, "train", size, None, 3, readers=readers, storage=None, features=["fare"], kept=True, label=True,
            as_vectors=False, ids="int64", **{"remainder": None, **options},
        )  # fmt: skip
        self.turns = Turns(self.source, self.options, workers)

    def taken(self, start: TurnPosition) -> list[list[int]]:
        """What is left of an epoch, as a DataLoader takes it: workers that have no batch are passed over."""
        left = [self._of_worker(start, worker) for worker in range(self.turns.workers)]
        found = list[list[int]]()
        while left:
            for one in list(left):
                batch = next(one, None)
                if batch is None:
                    left.remove(one)
                else:
                    found.append(batch)
        return found

    def _of_worker(self, start: TurnPosition, worker: int) -> Iterator[list[int]]:
        reader, position = self.turns.of_worker(start, worker)
        for batch, kept in epoch_batches(self.source.of_reader(reader), self.options, position):
            weight = batch[2] if len(batch) == 3 else np.ones(len(kept["row"]))
            yield kept["row"][weight > 0].tolist()


@given(
    size=st.integers(1, 45),
    workers=st.integers(1, 5),
    reader=st.sampled_from([None, (0, 2), (1, 2)]),
    remainder=st.sampled_from(["keep", "drop", "pad", "repeat"]),
    data=st.data(),
)
@examples(0.5)
def test_from_every_state_come_the_batches_of_an_undisturbed_run(
    path: str, *, size: int, workers: int, reader: Any, remainder: str, data: Any
) -> None:
    if reader is not None and remainder == "keep":
        remainder = "pad"
    loader = Loader(path, size, workers, reader, remainder=remainder)
    try:
        start = loader.turns.start(None)
    except DataError:
        assert remainder == "drop"
        return
    whole = loader.taken(start)
    assert len(whole) == loader.turns.left(start.position)
    taken = data.draw(st.integers(0, len(whole)))
    after = loader.turns.after(start, taken)
    if taken == len(whole):
        assert (after.position.epoch, after.position.taken, after.ahead) == (1, (), 0)
        return
    again = data.draw(st.integers(0, len(whole) - taken - 1))
    assert loader.turns.after(after, again) == loader.turns.after(start, taken + again)
    state = json.loads(json.dumps(loader.turns.state(after)))
    found = Loader(path, size, workers, reader, remainder=remainder)
    assert found.taken(found.turns.start(state)) == whole[taken:]


@given(
    size=st.integers(1, 45), workers=st.integers(1, 5), others=st.integers(1, 5), count=st.integers(1, 3),
    data=st.data(),
)  # fmt: skip
@examples(0.4)
def test_every_row_comes_once_also_with_another_number_of_workers_and_readers(
    path: str, *, size: int, workers: int, others: int, count: int, data: Any
) -> None:
    loaders = [Loader(path, size, workers, (index, count), remainder="pad") for index in range(count)]
    start = loaders[0].turns.start(None)
    whole = [loader.taken(start) for loader in loaders]
    assert sorted(row for part in whole for batch in part for row in batch) == list(range(ROWS))
    assert len({len(part) for part in whole}) == 1
    turns = data.draw(st.integers(0, len(whole[0]) // workers - 1))
    state = loaders[0].turns.state(loaders[0].turns.after(start, turns * workers))
    rows = [row for part in whole for batch in part[: turns * workers] for row in batch]
    found = Loader(path, size + 1, others)
    rows += [row for batch in found.taken(found.turns.start(state)) for row in batch]
    assert sorted(rows) == list(range(ROWS))
    # Such a state is one of `batches`, too.
    rest = [row for _, kept in batches(path, seed=3, batch_size=9, kept=True, state=state) for row in kept["row"]]
    assert len(rest) == ROWS - turns * workers * size * count or turns * workers * size * count > ROWS


def test_one_worker_gives_the_batches_of_batches(path: str) -> None:
    loader = Loader(path, 10, 1)
    expected = [kept["row"].tolist() for _, kept in batches(path, batch_size=10, seed=3, kept=True)]
    assert loader.taken(loader.turns.start(None)) == expected


def test_a_state_within_a_turn_needs_the_same_workers(path: str) -> None:
    loader = Loader(path, 10, 3)
    start = loader.turns.start(None)
    state = loader.turns.state(loader.turns.after(start, 4))
    assert state["turn"] == {"readers": 1, "workers": 3, "batch_size": 10, "batches": 1}
    assert "turn" not in loader.turns.state(loader.turns.after(start, 3))
    for other in (Loader(path, 10, 2), Loader(path, 11, 3), Loader(path, 10, 3, (0, 2))):
        with pytest.raises(JobError, match=r"^state\.turn: the state is in the middle of a turn of 1 x 3 workers with"):
            other.turns.start(state)
    with pytest.raises(JobError, match=r"^state\.turn: .* of the workers of a DataLoader; continue with"):
        batches(path, seed=3, state=state)
    for wrong in ({}, [], None, {**state["turn"], "batches": 0}):
        with pytest.raises(JobError, match=r"^state\.turn"):
            loader.turns.start({**state, "turn": wrong})
    with pytest.raises(JobError, match=r"^state\.dataset"):
        loader.turns.start({**state, "dataset": "0"})


@pytest.mark.parametrize("batches", [-1, 10])
def test_an_iteration_has_that_many_batches(path: str, batches: int) -> None:
    loader = Loader(path, 10, 3)
    with pytest.raises(JobError, match=rf"^batches: {batches} is not 0 to 9, the batches of this iteration"):
        loader.turns.after(loader.turns.start(None), batches)
