"""Training on several workers and replicas of tf.distribute, in processes of their own, against one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import warm
from dtap_dask.errors import JobError
from dtap_dask.loading.batches import batches
from dtap_dask.records.example import Layout
from dtap_dask.train.load import load
from numbered_rows import PLAIN, write
from waiting import HANG

ROWS, SIZE, RATE, EPOCHS = 37, 8, 0.1, 2
WORKER = f"""
import contextlib, json, os, sys, tempfile
import keras
import tensorflow as tf
from dtap_dask import Backup, load, saved_state

path = sys.argv[1]

def distributed(strategy, loaded, state=None):
    def of(context):
        loaded.append(load(path, batch_size={SIZE}, readers=context, kept=True, state=state))
        return loaded[-1]
    return strategy.distribute_datasets_from_function(of)

def train(strategy):
    loaded = []
    data = distributed(strategy, loaded)
    with strategy.scope():
        weights = tf.Variable([0.5, -0.5], aggregation=tf.VariableAggregation.SUM)

    @tf.function
    def step(batch):
        def replica(batch):
            (features, label, weight), kept = batch
            with tf.GradientTape() as tape:
                found = features["fare"] / 20 * weights[0] + weights[1]
                loss = tf.reduce_sum(weight * (found - label) ** 2) / ({SIZE} * strategy.num_replicas_in_sync)
            weights.assign_sub({RATE} * tape.gradient(loss, weights))
            return loss, tf.boolean_mask(kept["row"], weight > 0)
        loss, rows = strategy.run(replica, (batch,))
        return strategy.reduce("SUM", loss, None), rows

    rows, losses = [], []
    for epoch in range({EPOCHS}):
        rows.append([])
        for batch in data:
            loss, found = step(batch)
            losses.append(float(loss))
            rows[-1] += rows_of(strategy, found)
    half = len(loaded[0]) // 2
    again = distributed(strategy, loaded, loaded[0].state(({EPOCHS} - 1) * len(loaded[0]) + half))
    rest = [row for batch in again for row in rows_of(strategy, batch[1]["row"])]
    return [rows, losses, weights.numpy().tolist(), rest, half * {SIZE}]

def rows_of(strategy, found):
    return [int(row) for part in strategy.experimental_local_results(found) for row in part]

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

def fitted(folder, stop=None):
    data = load(path, batch_size={SIZE}, drop_remainder=True, state=saved_state(folder))
    data = data.map(lambda features, label: (features["fare"][:, None] / 20, label))
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD({RATE}), "mse")
    callbacks = [Backup(folder, data, every=1), Stop()]
    callbacks[1].left = stop or -1
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(data, epochs={EPOCHS}, shuffle=False, verbose=0, callbacks=callbacks)
    return [float(weight.squeeze()) for weight in model.get_weights()]

def fitted_thrice(strategy):
    folders = [tempfile.mkdtemp() for _ in range(3)]
    with strategy.scope():
        fitted(folders[0], stop=6)
        found = [fitted(folders[0]), fitted(folders[1])]
    return [*found, fitted(folders[2])]

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
found = [train(tf.distribute.MultiWorkerMirroredStrategy())]
if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
    one = tf.distribute.ReductionToOneDevice()  # the cluster of the workers is still there
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], one)
    found += [train(strategy), fitted_thrice(strategy)]
print(json.dumps(found))
"""


def trained(path: str, task: dict[str, Any]) -> Any:
    """What a worker prints at its end."""
    command = [warm.python("tensorflow"), "-c", WORKER, path]
    environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def free_addresses(count: int) -> list[str]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in listening]
    for each in listening:
        each.close()
    return found


def trained_alone(path: str, pipelines: int, replicas: int) -> tuple[list[float], list[float]]:
    """Losses and weights of one process that is given the batches of all replicas, joined, in NumPy."""
    contexts = [tf.distribute.InputContext(pipelines, index, pipelines * replicas) for index in range(pipelines)]
    readers = [batches(path, batch_size=SIZE, readers=context) for context in contexts]
    weights, losses = np.array([0.5, -0.5]), list[float]()
    for _ in range(EPOCHS):
        pipes = [iter(reader) for reader in readers]
        for _ in range(len(readers[0]) // replicas):
            found = [next(pipe) for pipe in pipes for _ in range(replicas)]
            fare = np.concatenate([features["fare"] for features, _, _ in found]) / 20
            label, weight = (np.concatenate([batch[at] for batch in found]) for at in (1, 2))
            error = fare * weights[0] + weights[1] - label
            losses.append(float((weight * error**2).sum() / len(error)))
            weights -= RATE * np.array([(2 * weight * error * by).sum() / len(error) for by in (fare, 1)])
    return losses, weights.tolist()


def test_workers_and_replicas_train_as_one_process_does_on_their_joined_batches(tmp_path: Path) -> None:
    """Two workers; afterwards the first of them on two replicas of its own, also within `fit`, interrupted or not."""
    path = write(tmp_path, [ROWS], Layout("blocks", 8), PLAIN)  # one shard for two workers
    cluster = {"worker": free_addresses(2)}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
    with ThreadPoolExecutor(2) as pool:
        (first, replicas, fitted), (second,) = pool.map(trained, [path] * 2, tasks)
    interrupted, undisturbed, without_strategy = fitted
    assert interrupted == undisturbed
    np.testing.assert_allclose(undisturbed, without_strategy, rtol=1e-5)
    for rows, _, _, rest, taken in (first, second, replicas):  # continued in the middle of the last epoch
        left = rows[-1][taken:]
        assert left
        assert rest[: len(left)] == left
    for epoch in range(EPOCHS):
        assert sorted(first[0][epoch] + second[0][epoch]) == sorted(replicas[0][epoch]) == [*range(ROWS)]
    for found, alone in [
        *((worker[1:3], trained_alone(path, 2, 1)) for worker in (first, second)),
        (replicas[1:3], trained_alone(path, 1, 2)),
    ]:
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_load_takes_what_batches_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [1], Layout("blocks", 8), PLAIN)  # one record, and more readers than rows
    for index in range(3):
        context = tf.distribute.InputContext(3, index, 6)
        config = {"cluster": {"worker": ["a:1"] * 3}, "task": {"type": "worker", "index": index}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        for readers, count in (context, 2), ("TF_CONFIG", 1):
            data = load(path, batch_size=4, readers=readers, kept=True)
            weights = [batch[2].numpy().sum() for batch, _ in data]
            assert len(data) == len(weights) == count
            assert sum(weights) == (index == 0)


def test_readers_and_tf_data_service_exclude_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, [30], Layout("blocks", 8), PLAIN)
    service = tf.data.experimental.service.distribute("distributed_epoch", "grpc://127.0.0.1:1")
    with pytest.raises(JobError, match="readers: tf.data service divides the rows among its consumers itself"):
        load(path, batch_size=4, readers=(0, 2), remainder="drop").apply(service)
