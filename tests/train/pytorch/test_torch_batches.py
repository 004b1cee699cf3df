"""`dtap_dask.torch_batches` under PyTorch's own DataLoader."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dtap_dask
from datasets import in_memory
from dtap_dask.errors import DataError, JobError, OutputError
from dtap_dask.loading.columns import Ragged
from dtap_dask.records.example import Layout
from float_rows import FIXED, LISTS, arrays, write_floats
from numbered_rows import INFOS, PLAIN, values, write


def test_without_pytorch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for function in (dtap_dask.torch_batches, dtap_dask.torch_rows):
        with pytest.raises(JobError, match=r"^PyTorch is not installed; `pip install 'dtap-dask\[torch\]'`"):
            function("nowhere")


torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

from dtap_dask.train.pytorch.epochs import SharedEpochs  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than processors
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 0, 1, 47], Layout("blocks", 8), PLAIN)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 47], Layout("blocks", 8), INFOS)


def loader(path: str, workers: int, method: str = "fork", **options: Any) -> tuple[Any, Any]:
    """A dataset and its DataLoader."""
    persistent = options.pop("persistent_workers", False)
    data = dtap_dask.torch_batches(path, workers=workers, kept=True, **{"batch_size": 9, **options})
    return data, DataLoader(
        data,
        batch_size=None,
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=method if workers else None,
    )


def rows_of(batches: Any) -> list[list[int]]:
    """The numbers of the rows of each batch, without padding."""
    found = []
    for batch, kept in batches:
        weight = batch.weight if len(batch) == 3 else torch.ones(len(kept["row"]))
        found.append(kept["row"][weight > 0].tolist())
    return found


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_row_comes_once_in_every_epoch(path: str, workers: int) -> None:
    data, batches = loader(path, workers)
    epochs = [rows_of(batches) for _ in range(3)]
    assert [sorted(itertools.chain(*epoch)) for epoch in epochs] == [list(range(ROWS))] * 3
    assert len({str(epoch) for epoch in epochs}) == 3
    assert [len(epoch) for epoch in epochs] == [len(data)] * 3 == [len(batches)] * 3
    if workers < 2:
        plain = dtap_dask.batches(path, batch_size=9, kept=True)
        assert epochs[0] == [kept["row"].tolist() for _, kept in plain]
    else:
        _, persistent = loader(path, workers, persistent_workers=True)
        assert [rows_of(persistent) for _ in range(3)] == epochs


def test_readers_with_workers_share_the_rows_of_an_epoch(path: str) -> None:
    parts = [rows_of(loader(path, 2, readers=(index, 2))[1]) for index in range(2)]
    assert sorted(row for part in parts for batch in part for row in batch) == list(range(ROWS))
    assert len(parts[0]) == len(parts[1])


def test_a_loop_continues_from_any_number_of_batches(path: str) -> None:
    data, batches = loader(path, 2, persistent_workers=True)
    assert data.state(0)["epoch"] == 0
    first = rows_of(batches)
    second, states = list[list[int]](), list[Any]()
    for taken, batch in enumerate(batches, 1):
        second += rows_of([batch])
        states.append(json.loads(json.dumps(data.state(taken))))
    third = rows_of(batches)
    assert len({str(epoch) for epoch in (first, second, third)}) == 3
    for taken in (4, 5):
        again, continued = loader(path, 2, state=states[taken - 1])
        assert rows_of(continued) == second[taken:]
        assert rows_of(continued) == third
        assert again.state(len(again)) == data.state(len(data))
    assert states[-1]["epoch"] == 2
    assert "turn" in states[4]
    assert len(json.dumps(states[4])) < 400


def test_set_epoch_reaches_persistent_workers(path: str) -> None:
    for persistent in (False, True):
        data, batches = loader(path, 2, persistent_workers=persistent)
        found = list[Any]()
        for epoch in (2, 0, 2):
            data.set_epoch(epoch)
            assert data.state(0)["epoch"] == epoch
            found.append(rows_of(batches))
        assert found[0] == found[2] != found[1]
        assert data.state(0)["epoch"] == 2
        assert rows_of(batches) not in found  # epoch 3
    for wrong in (-1, 1.5, None, True, 2**31):
        with pytest.raises(JobError, match="^epoch: .* is not the number of an epoch"):
            data.set_epoch(wrong)


def test_spawned_workers_give_the_same_batches(everything: str) -> None:
    """Of texts and lists, too; and set_epoch reaches them."""
    forked, spawned = (loader(everything, 2, method) for method in ("fork", "spawn"))
    for data, _ in (forked, spawned):
        data.set_epoch(3)
    for one, other in zip(forked[1], spawned[1], strict=True):
        for (features, label, weight), kept in (one, other):
            numbers = kept["row"].tolist()
            assert plain(label) == values("late", numbers)
            assert plain(weight) == values("weight", numbers)
            for name, column in features.items():
                assert plain(column) == values(name, numbers), name
        assert torch.equal(one.kept["row"], other.kept["row"])
    assert forked[0].state(1) == spawned[0].state(1)


def plain(column: Any) -> list[Any]:
    if isinstance(column, Ragged):
        return [column.values[a:b].tolist() for a, b in zip(column.offsets, column.offsets[1:], strict=False)]
    return column.tolist()


@pytest.mark.parametrize("ids", ["int64", "stored"])
def test_a_batch_is_that_of_batches_as_tensors(everything: str, ids: Any) -> None:
    options = {"ids": ids, "as_vectors": ids == "stored", "kept": True, "batch_size": 20}
    expected = [*dtap_dask.batches(everything, **options)]
    plainly = [*dtap_dask.torch_batches(everything, **options)]
    sent = pickle.loads(pickle.dumps(plainly))
    copied = copy.deepcopy(plainly)
    loaded = [*DataLoader(dtap_dask.torch_batches(everything, **options), batch_size=None)]
    for found in (plainly, sent, copied, loaded):
        for batch, given in zip(expected, found, strict=True):
            assert (given.batch.features.keys(), given.kept.keys()) == (batch[0][0].keys(), batch[1].keys())
            pairs = [*zip(batch[0][0].values(), given.batch.features.values(), strict=True)]
            pairs += [*zip(batch[0][1:], given.batch[1:], strict=True), (batch[1]["row"], given.kept["row"])]
            for column, tensor in pairs:
                _same(column, tensor)


def _same(column: Any, tensor: Any) -> None:
    if isinstance(column, Ragged):
        assert isinstance(tensor, Ragged)
        for one, other in zip(column, tensor, strict=True):
            _same(one, other)
        return
    if column.dtype == object:
        assert isinstance(tensor, np.ndarray)
    else:
        assert isinstance(tensor, torch.Tensor)
        assert str(tensor.dtype) == f"torch.{column.dtype}"
    assert tensor.tolist() == column.tolist()


@pytest.mark.parametrize("floats", ["float16", "bfloat16"])
def test_floats_in_fewer_bytes(tmp_path: Path, floats: Any) -> None:
    given = arrays()
    path = write_floats(tmp_path / "data", "blocks", LISTS, given)
    plainly = [*dtap_dask.torch_batches(path, shuffle=False, floats=floats)]
    rows = dtap_dask.torch_rows(path, floats=floats)
    for features, label in (*plainly, *pickle.loads(pickle.dumps(plainly)), rows[range(21)]):
        for name in ("single", "vector", "double"):
            expected = torch.from_numpy(given[name]).to(getattr(torch, floats))
            assert features[name].dtype == expected.dtype
            assert torch.allclose(features[name], expected, rtol=0, atol=0, equal_nan=True), name
        assert features["list"].values.dtype == getattr(torch, floats)
        assert label.dtype == torch.float32
    given["single"][3] = -7e4
    path = write_floats(tmp_path / "more", "blocks", FIXED, given)
    if floats == "float16":
        with pytest.raises(DataError, match="'single' holds -70,000, but the largest number of float16"):
            list(dtap_dask.torch_batches(path, floats=floats))
        with pytest.raises(DataError, match="'single' holds -70,000"):
            dtap_dask.torch_rows(path, floats=floats)[3]


def test_tensors_share_the_memory_of_arrays(path: str) -> None:
    from dtap_dask.train.pytorch.tensors import tensors_of

    features, label = next(iter(dtap_dask.batches(path)))
    found = tensors_of((features, label), kept=False)
    features["fare"][0], label[0] = 123, 45
    assert (found.features["fare"][0], found.label[0]) == (123, 45)


def test_lists_go_into_embedding_bags(everything: str) -> None:
    batch, kept = next(iter(dtap_dask.torch_batches(everything, features=["tags"], kept=True)))
    column = batch.features["tags"]
    bags = torch.nn.EmbeddingBag(200, 1, mode="sum", include_last_offset=True)
    torch.nn.init.ones_(bags.weight)
    rows = kept["row"].tolist()
    assert bags(*column)[:, 0].tolist() == [len(tags) for tags in values("tags", rows)]


def test_label_false_gives_features_alone(path: str) -> None:
    data = dtap_dask.torch_batches(path, label=False, workers=2, batch_size=9, features=["sizes", "fare"])
    found = [*DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")]
    assert [[*batch] for batch in found] == [["sizes", "fare"]] * len(data)
    assert sum(len(batch["fare"]) for batch in found) == ROWS


def test_chosen_rows_are_counted_once_for_all_workers(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, Any] = {"where": "row >= 20", "resample": {True: 2}, "class_weights": "balanced", "skip": 3}
    data, batches = loader(path, 2, **chosen)
    monkeypatch.setattr("dtap_dask.loading.reading.source.counted", None)  # workers and copies do not count again
    found = [*batches]
    rows = sorted(itertools.chain(*(kept["row"].tolist() for _, kept in found)))
    assert rows == sorted([*range(20, ROWS), *(row for row in range(20, ROWS) if row % 3 == 0)])
    assert {len(batch) for batch, _ in found} == {3}
    assert len(pickle.loads(pickle.dumps(data))) == len(data) == len(found)
    monkeypatch.undo()
    _, continued = loader(path, 2, **chosen, state=data.state(5))
    assert rows_of(continued) == rows_of(found)[5:]


def test_another_number_of_workers_is_refused(path: str) -> None:
    with pytest.raises(JobError, match="divided among 2 workers, but the DataLoader has 0. Give it num_workers=2"):
        next(iter(dtap_dask.torch_batches(path, workers=2)))
    with pytest.raises(JobError, match="divided among 0 workers, but the DataLoader has 1.*with workers=1"):
        next(iter(DataLoader(dtap_dask.torch_batches(path), batch_size=None, num_workers=1)))
    for wrong in (-1, 1.5, "2", True):
        with pytest.raises(JobError, match=f"^workers: {wrong!r} is not a number of workers"):
            dtap_dask.torch_batches(path, workers=wrong)


def test_states_of_something_else_are_refused(path: str, everything: str) -> None:
    state = dtap_dask.torch_batches(path, batch_size=9).state(3)
    with pytest.raises(JobError, match=r"state\.dataset: the state is of "):
        dtap_dask.torch_batches(everything, state=state)
    for wrong in (-1, 2, None, 1.0):
        with pytest.raises(JobError, match="^batches: "):
            dtap_dask.torch_batches(path).state(wrong)


def test_damage_reaches_the_loop_or_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path, [30, 47], Layout("blocks", 8), PLAIN)
    shard = max(tmp_path.glob("train/*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(OutputError, match=rf"{shard.name} is damaged: the checksum of record \d"):
        rows_of(loader(path, 2)[1])
    dataset, batches = loader(path, 2, on_bad_record="skip")
    with warnings.catch_warnings(action="ignore"):  # a worker prints the warning
        epochs = [sorted(itertools.chain(*rows_of(batches))) for _ in range(2)]
    assert epochs[0] == epochs[1]
    assert len(epochs[0]) == 77 - 8
    assert dataset.stats()["skipped_records"] == 4  # both workers read the window, which is all of the dataset


def test_remote_shards_are_staged_in_every_worker(path: str, tmp_path: Path) -> None:
    with in_memory(path, "memory://torch") as url:
        storage = {"cache": {"path": str(tmp_path / "cache")}}
        _, batches = loader(url, 2, storage=storage)
        assert sorted(itertools.chain(*rows_of(batches))) == list(range(ROWS))


# Epochs that workers begin.


def test_workers_that_were_ended_early_begin_the_same_epoch_as_the_others() -> None:
    epochs = SharedEpochs(3, 4)
    assert epochs.current == 4
    assert [epochs.begin(worker, "a") for worker in (1, 0, 2)] == [4, 4, 4]
    assert [epochs.begin(worker, "b") for worker in (2,)] == [5]  # the loop is left before the others begin
    assert [epochs.begin(worker, "c") for worker in (0, 2, 1)] == [6, 6, 6]
    assert epochs.current == 6
    assert [epochs.begin(worker, "c") for worker in (0, 2, 1)] == [7, 7, 7]  # with the same seed as before
    epochs.set(1)
    assert epochs.current == 1
    assert [epochs.begin(worker, "d") for worker in (0, 1, 2)] == [1, 1, 1]
    copied = pickle.loads(pickle.dumps(epochs))
    assert copied.begin(0, "e") == 2
    assert epochs.current == 1
