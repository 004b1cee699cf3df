"""Mixtures as tf.data datasets: the batches of `batches`, with positions, checkpoints and Keras's fit."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from datasets import in_memory
from dtap_dask.errors import JobError, OutputError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.loading.mixture.source import MixtureSource
from dtap_dask.train.backup import Backup, saved_state
from dtap_dask.train.chunks import OPEN
from dtap_dask.train.load import load
from dtap_dask.train.passes import DECODERS
from mixtures import all_kinds, dataset
from numbered_rows import rows_of
from same_batches import same


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return {name: dataset(folder, name) for name in ("few", "many")}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of them in an epoch."""
    monkeypatch.setattr(MixtureSource, "chunk", 32)


def mixture(paths: dict[str, str], repeat: str = "") -> Mixture:
    weights = {"many": 3, "few": 1}
    return Mixture({n: Component(paths[n], weight=w, repeat=n in repeat) for n, w in weights.items()})


@pytest.mark.parametrize(
    "options",
    [
        {"kept": True},
        {"kept": True, "as_vectors": True, "ids": "int32", "readers": (1, 3)},
        {"features": ["company", "flags", "fare"], "remainder": "drop"},
        {"features": ["words", "payment"], "remainder": "repeat", "label": False},
    ],
)
def test_load_gives_what_batches_gives(tmp_path: Path, options: dict[str, Any]) -> None:
    """For all kinds of columns, in two epochs."""
    both = all_kinds(tmp_path)
    ours, theirs = (make(both, batch_size=13, **options) for make in (batches, load))
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    if "as_vectors" in options:
        assert ours.vectors == theirs.vectors


@pytest.mark.parametrize("features", [["fare"], ["fare", "words"]])
def test_components_that_choose_and_weigh_rows(tmp_path: Path, features: list[str]) -> None:
    """As matrices and as records; only one component has weights of classes."""
    many, few = all_kinds(tmp_path).components.values()
    weighed = replace(few, class_weights={True: 3}, take=9)
    both = Mixture({"many": replace(many, where="company % 2 = 0", resample="balanced"), "few": weighed})
    options: dict[str, Any] = {"batch_size": 13, "kept": True, "features": features}
    for one, other in zip(batches(both, **options), load(both, **options), strict=True):
        same(one, other)


def test_the_number_of_batches_is_exact_endless_or_unknown(paths: dict[str, str]) -> None:
    data = load(mixture(paths), batch_size=13)
    assert len(data) == len(list(data)) == 7
    assert int(load(mixture(paths, "few"), batch_size=13).cardinality()) == tf.data.UNKNOWN_CARDINALITY
    endless = load(mixture(paths, "few many"), batch_size=13)
    assert int(endless.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert len(list(itertools.islice(endless, 20))) == 20


@pytest.mark.parametrize("repeat", ["few", "few many"])
def test_positions_and_checkpoints(paths: dict[str, str], repeat: str, tmp_path: Path) -> None:
    """A state may be taken from `load` or `batches` and given to either, in later epochs, too."""
    options: dict[str, Any] = {"batch_size": 13, "kept": True}

    def data(state: Any = None) -> Any:
        return load(mixture(paths, repeat), state=state, **options).map(lambda *batch: batch).repeat()

    iterator = iter(data())
    for taken in (3, 9):
        for _ in range(taken):
            next(iterator)
        state = json.loads(json.dumps(iterator.state()))
        saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
        rest = rows_of(itertools.islice(iterator, 4))
        again = iter(data())
        tf.train.Checkpoint(iterator=again).restore(saved)
        assert rows_of(itertools.islice(again, 4)) == rest
        assert rows_of(itertools.islice(data(state), 4)) == rest
        ours = batches(mixture(paths, repeat), state=state, **options)
        assert rows_of(itertools.islice((batch for _ in range(3) for batch in ours), 4)) == rest
    assert state["epoch"] == (0 if repeat == "few many" else 2)


def test_iterators_at_the_same_time_and_ones_given_up(paths: dict[str, str]) -> None:
    """More passes than are kept open: the others are opened again. Those that were given up do not keep threads."""
    options: dict[str, Any] = {"batch_size": 10, "kept": True}
    ours = batches(mixture(paths, "few"), **options)
    epochs = [rows_of(ours) for _ in range(OPEN + 2)]
    data = load(mixture(paths, "few"), **options)
    found: list[list[int]] = [[] for _ in epochs]
    for parts in tf.data.Dataset.zip(*([data] * len(epochs))):
        for rows, batch in zip(found, parts, strict=True):
            rows.extend(rows_of([batch]))
    count = min(map(len, found))
    assert sorted(rows[:count] for rows in found) == sorted(rows[:count] for rows in epochs)
    endless, before = load(mixture(paths, "few many"), **options), {*threading.enumerate()}
    for _ in range(OPEN + 6):
        next(iter(endless))
    threads = [each for each in threading.enumerate() if each.name.startswith("dtap_dask loading")]
    assert len({*threads} - before) <= OPEN * DECODERS


def test_staged_components(paths: dict[str, str], tmp_path: Path) -> None:
    storage = {"cache": {"path": str(tmp_path)}}
    with in_memory(paths["few"], "memory://few") as few, in_memory(paths["many"], "memory://many") as many:
        staged = load(mixture({"few": few, "many": many}, "few"), batch_size=13, kept=True, storage=storage)
        assert rows_of(staged) == rows_of(batches(mixture(paths, "few"), kept=True))


def train(paths: dict[str, str], folder: str, repeat: str, *calls: Any) -> list[Any]:
    """The final weights; without an end of the data, epochs are as long as those of the mixture that has one."""
    keras.utils.set_random_seed(5)
    data = load(mixture(paths, repeat), batch_size=8, features=["fare"], state=saved_state(folder))
    scalar = keras.Input((), name="fare")
    built = keras.Model({"fare": scalar}, keras.layers.Dense(1)(keras.ops.expand_dims(scalar, -1) / 100.0))
    built.compile("adam", loss="mse")
    calls = (Backup(folder, data, every=3), *calls)
    built.fit(data, epochs=2, steps_per_epoch=12 if repeat else None, verbose=0, shuffle=False, callbacks=calls)
    return [value.tolist() for value in built.get_weights()]


class Stop(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training in the second epoch, as if it were killed."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras saves nothing after it."""
        if self.params["epochs"] and batch == 7 and self.model.optimizer.iterations.numpy() > 12:
            raise KeyboardInterrupt


@pytest.mark.parametrize("repeat", ["", "few many"])
def test_training_that_was_interrupted_ends_with_the_same_weights(
    paths: dict[str, str], tmp_path: Path, repeat: str
) -> None:
    undisturbed = train(paths, str(tmp_path / "undisturbed"), repeat)
    folder = str(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train(paths, folder, repeat, Stop())
    state = saved_state(folder)
    assert state is not None
    assert (state["epoch"], state["chunk"] + state["rows"]) == ((0, 18 * 8) if repeat else (1, 6 * 8))
    assert train(paths, folder, repeat) == undisturbed


def test_damage_and_the_service_are_errors_of_ours(paths: dict[str, str], tmp_path: Path) -> None:
    found = {name: dataset(tmp_path, name) for name in paths}
    shard = max(Path(found["many"]).glob("train/*"), key=lambda file: file.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(OutputError, match=rf"{shard.name} is damaged"):
        list(load(mixture(found), batch_size=13))
    service = tf.data.experimental.service.distribute("parallel_epochs", "grpc://localhost:1")
    with pytest.raises(JobError, match="a mixture can only be loaded in place"):
        load(mixture(paths)).apply(service)
