"""`stats()` of `load`, and the callback FeedRate: what a loop or a model waits for, against loops of known times."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from dtap_dask.errors import JobError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.loading.shards.decode import Decoder
from dtap_dask.records import columns
from dtap_dask.records.example import Layout
from dtap_dask.train import feed_warning, passes
from dtap_dask.train.feed_rate import FeedRate
from dtap_dask.train.feed_warning import FeedWarning
from dtap_dask.train.forms import ColumnForm
from dtap_dask.train.load import load
from numbered_rows import PLAIN, write
from waiting import slowed, until

SIZE = WINDOW = 8
ROWS = 12 * SIZE
SLOW = 0.05  # seconds


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [ROWS // 2] * 2, Layout("blocks", 8), PLAIN)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", WINDOW)
    monkeypatch.setattr(passes, "DECODERS", 1)
    monkeypatch.setattr(feed_warning, "FEWEST", 5)
    monkeypatch.setattr(feed_warning, "SHORTEST", 0.0)


def late(tensor: tf.Tensor, seconds: float) -> tf.Tensor:
    """The tensor, after a pause of TensorFlow."""
    found = tf.numpy_function(slowed(lambda value: value, seconds), [tensor], tensor.dtype)
    found.set_shape(tensor.shape)
    return found


class Pause(keras.layers.Layer):
    """A layer that takes a while."""

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds = seconds

    def call(self, inputs: Any) -> Any:
        return tf.stop_gradient(late(inputs, self._seconds))


def model_of(step: float, steps_per_execution: int = 1) -> keras.Model:
    """A model whose steps take that many seconds."""
    fare = keras.Input((), name="fare")
    values = keras.layers.Reshape((1,))(fare)
    model = keras.Model({"fare": fare}, keras.layers.Dense(1)(Pause(step)(values) if step else values))
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution, jit_compile=False)
    return model


def loaded(path: str, **options: Any) -> Any:
    return load(path, batch_size=SIZE, features=["fare"], **options)


def fitted(model: keras.Model, data: Any, *, of: Any = None, **options: Any) -> dict[str, list[float]]:
    callbacks = [FeedRate(data if of is None else of)]
    return model.fit(data, shuffle=False, verbose=0, callbacks=callbacks, **options).history


def in_tensorflow(patch: pytest.MonkeyPatch) -> None:
    structured = ColumnForm.structured

    def slow(self: ColumnForm, tensors: Any) -> Any:
        return structured(self, [late(tensors[0], SLOW), *tensors[1:]])

    patch.setattr(ColumnForm, "structured", slow)


SLOWED = {
    "disk": lambda patch: patch.setattr(os, "preadv", slowed(os.preadv, SLOW)),
    "decode": lambda patch: patch.setattr(Decoder, "decode", slowed(Decoder.decode, SLOW)),
    "decode in TensorFlow": in_tensorflow,
    "shuffle": lambda patch: patch.setattr(columns, "take", slowed(columns.take, SLOW)),
}


@pytest.mark.parametrize("stage", SLOWED)
def test_plain_loops_know_what_they_wait_for(path: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    SLOWED[stage](monkeypatch)
    data = loaded(path)
    sizes = [len(label) for _, label in data]
    found = data.stats()
    assert found["bottleneck"] == stage.split(maxsplit=1)[0]
    assert found["waiting"] > 0.5
    assert (found["batches"], found["rows"]) == (len(sizes), sum(sizes)) == (12, ROWS)
    assert found["queues"] == {"records": 0, "decoded": 0, "ready": None}
    assert found["bytes"] == sum(file.stat().st_size for file in Path(path).glob("train/*"))


def test_a_slow_plain_loop_does_not_wait(path: str) -> None:
    data = loaded(path)
    for _ in data:
        time.sleep(2 * SLOW)
    found = data.stats()
    assert found["waiting"] < 0.1
    assert found["bottleneck"] is None
    iterator = iter(data)
    next(iterator)
    until(lambda: data.stats()["queues"]["decoded"] > SIZE)
    assert data.stats()["rows"] == SIZE


@pytest.mark.parametrize(
    ("feed", "step", "at_once", "least", "most"),
    [
        (2 * SLOW, 0, 1, 0.6, 1),
        (0, 2 * SLOW, 1, 0, 0.1),
        (0, 2 * SLOW, 4, 0, 0.1),
        (2 * SLOW, SLOW, 1, 0.3, 0.6),  # half of the time, were there nothing else
        (2 * SLOW, SLOW, 4, 0.3, 0.6),
    ],
)
def test_waiting_within_fit_is_what_a_step_does_not_take(
    path: str, monkeypatch: pytest.MonkeyPatch, feed: float, step: float, at_once: int, least: float, most: float
) -> None:
    if feed:
        monkeypatch.setattr(os, "preadv", slowed(os.preadv, feed))
    data = loaded(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fitted(model_of(step, at_once), data)
    assert least <= history["waiting"][0] <= most
    assert history["rows_per_second"][0] <= SIZE / max(feed, step) * 1.05
    assert data.stats()["rows"] == ROWS
    assert data.stats()["waiting"] == history["waiting"][0]
    named = [str(each.message) for each in caught if each.category is FeedWarning]
    assert len(named) == (feed > 0)
    assert all("for reading records from disk. Put the dataset" in text for text in named)


@pytest.mark.parametrize("stage", feed_warning.REMEDIES)
def test_the_warning_names_the_bottleneck_once(path: str, monkeypatch: pytest.MonkeyPatch, stage: Any) -> None:
    data = loaded(path)
    callback = FeedRate(data)
    found = {"bottleneck": stage, "waiting": 0.345, "batches": 5, "seconds": 9.0, "rows_per_second": 1.0}
    monkeypatch.setattr(data, "stats", lambda: found)
    with pytest.warns(FeedWarning, match="The model waits for data in 34% of the time, most of all for ") as caught:
        callback.on_epoch_end(0, {})
    assert feed_warning.REMEDIES[stage] in str(caught[0].message)
    callback.on_epoch_end(1, {})
    with monkeypatch.context() as patch:
        patch.setattr(feed_warning, "FEWEST", 6)
        FeedRate(data).on_epoch_end(0, {})
    found["bottleneck"] = None
    FeedRate(data).on_epoch_end(0, {})


def test_a_long_epoch_is_not_waited_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SLOWED["shuffle"](monkeypatch)
    monkeypatch.setattr(feed_warning, "SOON", 4 * SLOW)
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(len(caught))

    data = loaded(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FeedWarning)
        model_of(0).fit(data, shuffle=False, verbose=0, callbacks=[FeedRate(data), Seen()])
    assert seen[0] == 0
    assert seen[-1] == len(caught) == 1
    assert "shuffling" in str(caught[0].message)


def test_epochs_and_iterators_are_measured_by_themselves(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one iterator for all epochs, too; validation with the same dataset is not part of an epoch."""
    monkeypatch.setattr(feed_warning, "FEWEST", ROWS)  # whatever a busy machine makes these short steps wait for
    data = loaded(path)
    model = model_of(0.01)
    history = fitted(model, data.repeat(), of=data, epochs=3, steps_per_epoch=7)
    assert data.stats()["rows"] == 7 * SIZE
    assert data.stats()["queues"]["decoded"] >= 0
    assert all(0 <= share < 1 for share in history["waiting"])
    again = fitted(model, data, epochs=2, validation_data=data, validation_steps=3)
    assert len(again["waiting"]) == len(again["rows_per_second"]) == 2
    assert all(rate < SIZE / 0.01 for rate in again["rows_per_second"])
    other = loaded(path, seed=1)
    assert fitted(model, other)["rows_per_second"][0] > 0
    assert other.stats()["batches"] == 12


@pytest.mark.parametrize("way", [load, batches])
def test_of_a_mixture_all_components_are_measured(path: str, monkeypatch: pytest.MonkeyPatch, way: Any) -> None:
    SLOWED["disk"](monkeypatch)
    data = way(Mixture({"a": Component(path), "b": Component(path)}), batch_size=SIZE, features=["fare"])
    for _ in data:
        pass
    found = data.stats()
    assert (found["bottleneck"], found["rows"], found["queues"]["records"]) == ("disk", 2 * ROWS, 0)
    assert found["waiting"] > 0.5
    assert found["bytes"] == 2 * sum(file.stat().st_size for file in Path(path).glob("train/*"))


def test_without_the_callback_functions_are_not_measured(path: str) -> None:
    data = loaded(path)
    model_of(0).fit(data, shuffle=False, verbose=0)
    found = data.stats()
    assert (found["rows"], found["waiting"], found["bottleneck"]) == (None, None, None)


def test_under_a_strategy_the_rate_is_known_and_waiting_is_not(path: str) -> None:
    data = loaded(path)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        history = fitted(model_of(0), data)
    assert history["rows_per_second"][0] > 0
    assert "waiting" not in history


def test_other_datasets_are_refused() -> None:
    with pytest.raises(JobError, match=r"data.*give what load\(...\) returned"):
        FeedRate(tf.data.Dataset.range(3))
