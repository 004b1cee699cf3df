"""Mixtures under PyTorch's own DataLoader, and rows of several datasets by number."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dtap_dask
from datasets import in_memory
from dtap_dask.errors import JobError
from dtap_dask.loading.mixture.source import MixtureSource
from mixtures import SHARDS, all_kinds, dataset, mixture, numbers, of
from numbered_rows import rows_of

torch = pytest.importorskip("torch")
from torch.utils.data import ConcatDataset, DataLoader, WeightedRandomSampler  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than processors
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of components whose rows are mixed in small chunks."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixtureSource, "chunk", 16)
        yield {name: dataset(folder, name) for name in SHARDS}


def loader(data: Any, **options: Any) -> Any:
    workers = data._workers
    return DataLoader(
        data, batch_size=None, num_workers=workers, multiprocessing_context="fork" if workers else None, **options
    )


def each(batches: Any) -> list[list[int]]:
    """The numbers of the rows of each batch, without padding."""
    return [rows_of([batch]) for batch in batches]


@pytest.mark.parametrize("repeat", ["", "few"])
def test_without_workers_the_batches_are_those_of_batches(paths: dict[str, str], repeat: str) -> None:
    data = dtap_dask.torch_batches(mixture(paths, repeat=repeat), batch_size=9, kept=True)
    expected = dtap_dask.batches(mixture(paths, repeat=repeat), batch_size=9, kept=True)
    for _ in range(3):
        found = [*loader(data)]
        assert each(found) == each(expected)
    assert {len(batch) for batch, _ in found} == {2}  # no weights
    assert {type(batch.features["fare"]) for batch, _ in found} == {torch.Tensor}
    if repeat:
        with pytest.raises(TypeError, match="no certain number of batches"):
            len(loader(data))
    else:
        assert len(data) == len(found)


def test_columns_of_all_kinds(tmp_path: Path) -> None:
    both = all_kinds(tmp_path)
    features = ["company", "tags", "sizes"]
    ours, theirs = (
        [*make(both, batch_size=40, kept=True, features=features)]
        for make in (dtap_dask.batches, dtap_dask.torch_batches)
    )
    sent = pickle.loads(pickle.dumps(theirs))
    for ((columns, late, weight), kept), one, other in zip(ours, theirs, sent, strict=True):
        for batch, more in (one, other):
            assert batch.features["company"].tolist() == columns["company"].tolist()
            assert [part.tolist() for part in batch.features["tags"]] == [part.tolist() for part in columns["tags"]]
            assert batch.features["sizes"].tolist() == columns["sizes"].tolist()
            assert (batch.label.tolist(), batch.weight.tolist()) == (late.tolist(), weight.tolist())
            assert more["row"].tolist() == kept["row"].tolist()


def test_workers_are_readers_of_the_mixture(paths: dict[str, str]) -> None:
    """Each row of components that are not repeated comes once in every epoch; also with persistent workers."""
    data = dtap_dask.torch_batches(mixture(paths, repeat="few"), batch_size=9, kept=True, workers=2)
    readers = [
        dtap_dask.batches(mixture(paths, repeat="few"), batch_size=9, kept=True, readers=(worker, 2))
        for worker in range(2)
    ]
    batches = loader(data, persistent_workers=True)
    epochs = [each(batches) for _ in range(3)]
    for epoch in epochs:
        assert [epoch[0::2], epoch[1::2]] == [each(reader) for reader in readers]
        assert sorted(of("many", [*itertools.chain(*epoch)])) == numbers("many")
    data.set_epoch(1)
    assert each(batches) == epochs[1]
    for taken in (4, 5):
        state = json.loads(json.dumps(data.state(taken)))
        assert ("turn" in state) == (taken == 5)
        again = dtap_dask.torch_batches(mixture(paths, repeat="few"), batch_size=9, kept=True, workers=2, state=state)
        assert [each(loader(again)) for _ in range(2)] == [epochs[1][taken:], epochs[2]]
    with pytest.raises(JobError, match=r"^state\.turn: .* of the workers of a DataLoader; continue with"):
        dtap_dask.batches(mixture(paths, repeat="few"), state=state)


def test_without_an_end(paths: dict[str, str]) -> None:
    data = dtap_dask.torch_batches(mixture(paths, repeat="few many"), batch_size=9, kept=True, workers=2)
    found = each(itertools.islice(loader(data), 31))
    assert {len(rows) for rows in found[:-1]} <= {8, 9}  # padded where the epoch of a component ends
    state = data.state(20)
    again = dtap_dask.torch_batches(mixture(paths, repeat="few many"), batch_size=9, kept=True, workers=2, state=state)
    assert each(itertools.islice(loader(again), 11)) == found[20:]
    with pytest.raises(TypeError, match="no certain number of batches"):
        len(data)


def test_a_copy_in_another_process_gives_the_same(paths: dict[str, str]) -> None:
    """As where workers are spawned."""
    chosen = {"many": dtap_dask.Component(paths["many"], where="row % 2 = 0"), "few": dtap_dask.Component(paths["few"])}
    data = dtap_dask.torch_batches(dtap_dask.Mixture(chosen), batch_size=9, kept=True)
    expected = each(data)
    assert data.stats()["rows"] == sum(map(len, expected))
    copy = pickle.loads(pickle.dumps(data))
    copy.set_epoch(0)
    assert each(copy) == expected
    assert sorted(itertools.chain(*expected)) == [*numbers("few"), *range(100, 178, 2)]


def test_staged_components(paths: dict[str, str], tmp_path: Path) -> None:
    storage = {"cache": {"path": str(tmp_path / "cache")}}
    with in_memory(paths["few"], "memory://torch_few") as few, in_memory(paths["many"], "memory://torch_many") as many:
        staged = mixture({"few": few, "many": many})
        data = dtap_dask.torch_batches(staged, batch_size=9, kept=True, workers=2, storage=storage)
        assert sorted(itertools.chain(*each(loader(data)))) == numbers("few") + numbers("many")


def test_bad_input(paths: dict[str, str]) -> None:
    with pytest.raises(
        JobError, match="^remainder: the workers of a mixture draw the same components, but with 'keep'"
    ):
        dtap_dask.torch_batches(mixture(paths), workers=2, remainder="keep")
    assert len(dtap_dask.torch_batches(mixture(paths), batch_size=100, workers=1, remainder="keep")) == 1
    with pytest.raises(JobError, match="^split: 'eval' has no meaning for a mixture"):
        dtap_dask.torch_batches(mixture(paths), "eval")
    with pytest.raises(JobError, match="it is of a single dataset, but this is a mixture"):
        dtap_dask.torch_batches(mixture(paths), state=dtap_dask.torch_batches(paths["few"]).state(0))
    rows: Any = mixture(paths)
    with pytest.raises(JobError, match="^path: the rows of a mixture have no numbers.* torch.utils.data.ConcatDataset"):
        dtap_dask.torch_rows(rows)


def test_rows_of_several_datasets_are_joined_and_drawn_by_pytorch(paths: dict[str, str]) -> None:
    """What the message for mixtures advises."""
    parts = [dtap_dask.torch_rows(paths[name], kept=True) for name in ("few", "many")]
    sampler = WeightedRandomSampler([6.0] * len(parts[0]) + [0.0] * 70 + [1.0] * 8, 200)
    found = [
        row
        for _, kept in DataLoader(ConcatDataset(parts), batch_size=50, sampler=sampler)
        for row in kept["row"].tolist()
    ]
    assert {*found} <= {*numbers("few"), *range(170, 178)}
    assert len(of("few", found)) > 150
