"""Loading from a position: states, checkpoints, and training that was killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import warm
from datasets import in_memory
from dtap_dask.errors import JobError, OutputError, StorageError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.batches import batches
from dtap_dask.records.example import Layout
from dtap_dask.train.backup import Backup, saved_state
from dtap_dask.train.load import load
from numbered_rows import INFOS, PLAIN, write
from same_batches import same
from waiting import until

SHARDS = [30, 0, 1, 47]
BATCH = 13


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), SHARDS, Layout("blocks", 8), PLAIN)


def rows_of(data: Any) -> list[int]:
    return [int(row) for _, kept in data for row in kept["row"]]


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    "options",
    [
        {"kept": True},
        {"shuffle": False, "ids": "int32", "as_vectors": True},
        {"readers": (1, 3), "features": ["sizes", "company", "fare"], "ids": "stored", "as_vectors": True},
        {"readers": (2, 3), "remainder": "repeat", "label": False, "kept": True},
        {"remainder": "drop", "features": ["words", "miles"]},
    ],
)
def test_load_gives_what_batches_gives(tmp_path: Path, kind: Any, compression: Any, options: dict[str, Any]) -> None:
    """For all kinds of columns, in two epochs."""
    path = write(tmp_path, SHARDS, Layout(kind, 8, compression))
    ours, theirs = (make(path, batch_size=BATCH, **options) for make in (batches, load))
    assert len(ours) == len(theirs)
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)


def test_padding_of_a_vector_without_values(tmp_path: Path) -> None:
    none = FeatureInfo("none", "feature", "float64", "float64", (0,))
    path = write(tmp_path, [5], Layout("blocks", 4), (*INFOS, none))
    for one, other in zip(*(make(path, batch_size=4, remainder="pad") for make in (batches, load)), strict=True):
        same(one, other)


def test_a_state_may_be_taken_from_one_and_given_to_the_other(path: str) -> None:
    options: dict[str, Any] = {"batch_size": BATCH, "kept": True}
    whole = [rows_of(batches(path, **options))]
    iterator = iter(load(path, **options))
    taken = rows_of(next(iterator) for _ in range(2))
    state = json.loads(json.dumps(iterator.state()))
    assert taken + rows_of(batches(path, state=state, **options)) == whole[0]
    resumed = load(path, state=state, **options)
    assert taken + rows_of(resumed) == whole[0]
    assert rows_of(resumed) == rows_of(batches(path, state={**state, "epoch": 1, "taken": []}, **options))
    for wrong in ({**state, "seed": 9}, {**state, "split": "eval"}):
        with pytest.raises(JobError, match=r"state\.(seed|split): the state is of .* but this is"):
            load(path, state=wrong, **options)


@pytest.mark.parametrize("taken", [0, 1, 6, 7, 14])
def test_states_count_the_epochs_of_repeated_and_mapped_datasets(path: str, taken: int) -> None:
    def data(state: Any = None) -> Any:
        return load(path, batch_size=BATCH, kept=True, state=state).map(lambda *batch: batch).prefetch(2).repeat()

    iterator = iter(data())
    for _ in range(taken):
        next(iterator)
    state = iterator.state()
    assert (state["epoch"], len(state["taken"])) == (taken // 6, taken % 6 > 0)
    rest, again = (rows_of(batch for batch, _ in zip(one, range(9), strict=False)) for one in (iterator, data(state)))
    assert rest == again


def test_the_position_of_other_elements_is_refused(path: str, tmp_path: Path) -> None:
    data = load(path, batch_size=BATCH)
    unordered, freely = data.map(lambda *batch: batch, 2, deterministic=False), tf.data.Options()
    freely.deterministic = False
    others = (data.take(3), data.unbatch(), data.repeat(2).repeat(2), data.filter(lambda *_: True))
    for other in (*others, unordered, data.with_options(freely)):
        iterator = iter(other)
        next(iterator)
        with pytest.raises(StorageError, match="not the loaded batches one by one"):
            iterator.state()
        with pytest.raises(StorageError, match="not the loaded batches one by one"):
            tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    repeated = load(path, batch_size=BATCH).repeat()
    one, other = iter(repeated), iter(repeated)
    for _ in range(7):
        next(one), next(other)
    with pytest.raises(StorageError, match="Load the dataset once for each of them"):
        one.state()


@pytest.fixture
def staged(path: str, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dataset on a filesystem that TensorFlow cannot open, and the storage to load it with."""
    with in_memory(path, "memory://test_resume") as url:
        yield url, {"cache": {"path": str(tmp_path / "cache")}}


def test_a_state_is_of_the_rows_wherever_they_are(
    path: str, staged: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Staged datasets are saved in checkpoints, too; a checkpoint is small, and restores in place what was staged."""
    url, storage = staged
    options: dict[str, Any] = {"batch_size": BATCH, "kept": True}
    whole = rows_of(load(path, **options))
    iterator = iter(load(url, storage=storage, **options))
    taken = rows_of(next(iterator) for _ in range(2))
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    assert sum(file.stat().st_size for file in tmp_path.glob("checkpoint*")) < 3000
    again = iter(load(path, **options))
    tf.train.Checkpoint(iterator=again).restore(saved)
    assert taken + rows_of(again) == whole
    assert taken + rows_of(batches(url, state=iterator.state(), storage=storage, **options)) == whole
    with pytest.raises(JobError, match=r"state\.seed"):
        tf.train.Checkpoint(iterator=iter(load(path, seed=1, **options))).restore(saved)


# Training.


def model() -> keras.Model:
    inputs = {name: keras.Input((), name=name) for name in ("fare", "miles")}
    joined = keras.layers.concatenate([keras.ops.expand_dims(each, -1) for each in inputs.values()])
    built = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dropout(0.3)(joined / 100.0)))
    built.compile(keras.optimizers.Adam(0.01), loss="mse")
    return built


def train(
    path: str,
    folder: str,
    epochs: int = 3,
    *,
    size: int = 4,
    every: int = 3,
    steps: int | None = None,
    together: int = 1,
    **callback: Any,
) -> list[Any]:
    """The final weights; `steps` in each epoch, several of them `together` in one call of a compiled function."""
    keras.utils.set_random_seed(5)
    data = load(path, batch_size=size, features=["fare", "miles"], state=saved_state(folder))
    data = data if steps is None else data.repeat()
    fitted = model()
    fitted.steps_per_execution = together
    calls = [Backup(folder, data, every=every), *callback.values()]
    fitted.fit(data, epochs=epochs, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=calls)
    return [value.tolist() for value in fitted.get_weights()]


class Stop(keras.callbacks.Callback):  # type: ignore[misc]
    """Interrupts training after that many calls."""

    def __init__(self, calls: int):
        super().__init__()
        self._left = calls

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("how", "calls"),
    [
        ({}, (2, 4, 7)),
        ({"together": 3}, (1, 2)),
        ({"steps": 5, "together": 2}, (2, 3, 4)),
        ({"steps": 4, "together": 3}, (2, 3)),
    ],
)
def test_training_continues_in_the_middle_and_at_the_end_of_epochs(
    path: str, tmp_path: Path, how: dict[str, Any], calls: tuple[int, ...]
) -> None:
    """Interrupted before Keras reports the end of an epoch, too; epochs of the data have 4 batches of 20 rows."""
    how = {"size": 20, "every": 1, "epochs": 2, **how}
    undisturbed = train(path, str(tmp_path / "undisturbed"), **how)
    for number in calls:
        folder = str(tmp_path / f"{number}")
        with pytest.raises(KeyboardInterrupt):
            train(path, folder, stop=Stop(number), **how)
        assert train(path, folder, **how) == undisturbed, number


SLOW = """
import sys, time, json, keras
sys.path[:0] = {paths!r}
from test_resume import train
class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print(batch, flush=True)
        time.sleep({pause})
print(json.dumps(train({path!r}, {folder!r}, slow=Slow())))
"""


def test_training_that_was_killed_ends_with_the_same_weights(path: str, tmp_path: Path) -> None:
    undisturbed = train(path, str(tmp_path / "undisturbed"))
    folder = str(tmp_path / "killed")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]
    code = SLOW.format(paths=paths, path=path, folder=folder, pause=0.2)
    command = [warm.python("tensorflow"), "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        until(lambda: (saved_state(folder) or {}).get("epoch") == 1 and bool(saved_state(folder)["taken"]))  # type: ignore[index]
        time.sleep(0.3)
        killed.kill()
        killed.communicate()  # its output ends as the process that trains does
    assert killed.returncode == -signal.SIGKILL
    assert train(path, folder) == undisturbed
    assert train(path, folder) == undisturbed  # finished: nothing is left to train


def test_a_backup_of_another_place_or_model_is_refused(path: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "backup")
    train(path, folder, epochs=1)
    data = load(path, batch_size=4, features=["fare", "miles"])
    with pytest.raises(JobError, match=r"do not begin where the model in .* was: load them with .*saved_state"):
        model().fit(data, verbose=0, shuffle=False, callbacks=[Backup(folder, data)])
    data = load(path, batch_size=4, features=["fare", "miles"], state=saved_state(folder))
    other = model()
    other.compile("sgd", "mse")  # it has fewer variables than Adam
    with pytest.raises(OutputError, match="has other variables than this one"):
        other.fit(data, verbose=0, shuffle=False, callbacks=[Backup(folder, data)])
    with pytest.raises(JobError, match="give what load"):
        Backup(folder, data.take(3))
    with pytest.raises(JobError, match=r"data: they are repeated a number of times; use `repeat\(\)`"):
        Backup(folder, data.repeat(2))
    for wrong in ({"every": 0}, {"every": 1.5}, {"folder": "gs://bucket/backup"}, {"folder": None}):
        with pytest.raises(JobError, match=r"(every|folder): .* is not"):
            Backup(**{"folder": folder, "data": data, **wrong})  # type: ignore[arg-type]
    with pytest.raises(JobError, match="folder: 'gs://bucket/backup' is not the path of a folder on a local"):
        saved_state("gs://bucket/backup")
    file = Path(folder, "backup.npz")
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    empty = io.BytesIO()
    np.savez(empty, other=1)
    for damaged in (b"PK", b"", whole[: len(whole) // 2], whole[:-9], bytes(changed), empty.getvalue()):
        file.write_bytes(damaged)
        with pytest.raises(OutputError, match="cannot be read"):
            saved_state(folder)
    assert saved_state(os.fspath(tmp_path / "nothing")) is None
