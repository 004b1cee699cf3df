"""Positions among batches that several workers hand over in turn; without PyTorch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError
from dtap_dask.loading.batches import batches, epoch_batches
from dtap_dask.loading.mixture.component import Mixture
from dtap_dask.loading.mixture.opening import opened
from dtap_dask.loading.mixture.source import MixtureSource
from dtap_dask.records.example import Layout
from dtap_dask.train.pytorch.turns import TurnPosition, Turns
from mixtures import dataset, mixture, numbers, of
from numbered_rows import PLAIN, rows_of, write
from property_tests import examples

ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 0, 1, 47], Layout("blocks", 8), PLAIN)


class Loader:
    """The batches of a DataLoader's workers in turn, as lists of the numbers of rows, without padding."""

    def __init__(self, path: str | Mixture, size: int, workers: int, readers: Any = None, **options: Any):
        source, self.options = opened(
            path, "train", size, None, 3, readers=readers, storage=None, features=["fare"], kept=True, label=True,
            as_vectors=False, ids="int64", **{"remainder": None, **options},
        )  # fmt: skip
        self.turns = Turns(source, self.options, workers)

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
        for one in epoch_batches(self.turns.source.of_reader(reader), self.options, position):
            yield rows_of([one])


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


# Mixtures, whose workers are readers that draw the same components.


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of two components, whose rows are mixed in small chunks."""
    folder = tmp_path_factory.mktemp("components")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixtureSource, "chunk", 16)
        yield {name: dataset(folder, name) for name in ("few", "many")}


@given(
    size=st.integers(3, 30),
    workers=st.integers(1, 4),
    reader=st.sampled_from([None, (0, 2), (1, 2)]),
    remainder=st.sampled_from(["drop", "pad", "repeat"]),
    repeat=st.sampled_from(["", "few"]),
    data=st.data(),
)
@examples(0.3)
def test_a_mixture_continues_from_every_state(
    paths: dict[str, str], *, size: int, workers: int, reader: Any, remainder: str, repeat: str, data: Any
) -> None:
    """In the epoch of the state, and in later ones."""
    loader = Loader(mixture(paths, repeat=repeat), size, workers, reader, remainder=remainder)
    try:
        start = loader.turns.start(None)
    except DataError:
        assert remainder == "drop"
        return
    epochs = [loader.taken(loader.turns.epoch(number, start)) for number in range(3)]
    number = data.draw(st.integers(0, 1))
    begin = loader.turns.epoch(number, start)
    assert len(epochs[number]) == loader.turns.left(begin.position)
    taken = data.draw(st.integers(0, len(epochs[number])))
    state = json.loads(json.dumps(loader.turns.state(loader.turns.after(begin, taken))))
    again = Loader(mixture(paths, repeat=repeat), size, workers, reader, remainder=remainder).turns
    found = again.start(state)
    last = found.position.epoch
    assert last == number + (taken == len(epochs[number]))
    assert loader.taken(found) == (epochs[number][taken:] if last == number else epochs[last])
    assert loader.taken(again.epoch(2, found)) == epochs[2]
    if last:
        assert loader.taken(again.epoch(0, found)) == epochs[0]


@given(workers=st.integers(2, 4), others=st.integers(1, 4), count=st.integers(1, 2), data=st.data())
@examples(0.2)
def test_rows_of_a_mixture_come_once_with_other_workers_too(
    paths: dict[str, str], *, workers: int, others: int, count: int, data: Any
) -> None:
    """The state after whole turns of all readers' workers."""
    loaders = [Loader(mixture(paths), 7, workers, (index, count), remainder="pad") for index in range(count)]
    start = loaders[0].turns.start(None)
    whole = [loader.taken(start) for loader in loaders]
    everything = numbers("few") + numbers("many")
    assert sorted(row for part in whole for batch in part for row in batch) == everything
    turns = data.draw(st.integers(0, len(whole[0]) // workers - 1))
    state = loaders[0].turns.state(loaders[0].turns.after(start, turns * workers))
    rows = [row for part in whole for batch in part[: turns * workers] for row in batch]
    found = Loader(mixture(paths), 8, others, remainder="pad")
    rest = [row for batch in found.taken(found.turns.start(state)) for row in batch]
    assert sorted(rows + rest) == everything
    plain = rows_of(batches(mixture(paths), seed=3, batch_size=9, kept=True, state=state))
    assert sorted(rows + plain) == everything


def test_workers_of_a_mixture_have_the_batches_of_as_many_readers(paths: dict[str, str]) -> None:
    for repeat in ("", "few"):
        loader = Loader(mixture(paths, repeat=repeat), 9, 3, remainder="pad")
        found = loader.taken(loader.turns.start(None))
        for worker in range(3):
            options: dict[str, Any] = {"batch_size": 9, "seed": 3, "kept": True, "features": ["fare"]}
            expected = batches(mixture(paths, repeat=repeat), readers=(worker, 3), **options)
            assert found[worker::3] == [rows_of([batch]) for batch in expected]


def test_a_mixture_without_an_end_has_positions_and_later_epochs(paths: dict[str, str]) -> None:
    loader = Loader(mixture(paths, repeat="few many"), 9, 2, remainder="pad")
    start = loader.turns.start(None)
    assert loader.turns.left(start.position) is None
    parts = [itertools.islice(loader._of_worker(start, worker), 30) for worker in range(2)]
    whole = [batch for turn in zip(*parts, strict=True) for batch in turn]
    after = loader.turns.after(start, 41)
    again = loader.turns.start(json.loads(json.dumps(loader.turns.state(after))))
    parts = [itertools.islice(loader._of_worker(again, worker), 5) for worker in range(2)]
    assert [batch for turn in zip(*parts, strict=True) for batch in turn] == whole[41:51]
    with pytest.raises(JobError, match="^batches: -1 is not 0 or more"):
        loader.turns.after(start, -1)
    far = loader.turns.epoch(2**30, start)  # at once, as what came before does not matter
    assert far.position.epoch == 2**30
    assert of("few", next(loader._of_worker(far, 0)))
