"""Loading from a store that TensorFlow cannot open: the same batches, staged while training goes on."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import warm
from datasets import write_dataset
from dtap_dask.errors import DtapError, OutputError, StorageError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.order import epoch_order
from dtap_dask.loading.shards import staging
from dtap_dask.records.example import Layout
from dtap_dask.storage import cache, fetch, open_store
from dtap_dask.train.inputs import inputs
from dtap_dask.train.load import load
from waiting import HANG

HELPERS = Path(__file__).parents[1] / "helpers"
INFOS = (
    FeatureInfo("fare", "feature", "float32", "float32"),
    FeatureInfo("tags", "feature", "int64", "int32", (None,)),
    FeatureInfo("late", "label", "bool", "bool"),
    FeatureInfo("row", "kept", "int64", "int64"),
)
ROWS = 40  # of a shard
SMALL = {
    "loading.order.epoch_order.WINDOW_ROWS": 10,
    "loading.order.epoch_order.MIXED_BYTES": 1,
    "train.load.READY": 2,
    "train.passes.DECODERS": 1,
}


def columns(first: int, count: int) -> dict[str, Any]:
    """Each value follows from the row's number."""
    import pyarrow as pa

    rows = np.arange(first, first + count)
    return {
        "fare": rows.astype(np.float32),
        "tags": pa.array([list(range(row % 3)) for row in rows], pa.large_list(pa.int32())),
        "late": rows % 2 == 0,
        "row": rows,
    }


def write(folder: Path, shards: int, kind: Any = "blocks", compression: Any = "none") -> str:
    """A finished dataset of this number of shards, blocks of 10 rows; its path."""
    return write_dataset(folder, INFOS, Layout(kind, 10, compression), {"train": [ROWS] * shards}, columns)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(HELPERS)
    monkeypatch.setattr(cache, "_sound", set())
    monkeypatch.setattr(cache, "PATIENCE", 0.5)
    yield
    gc.collect()
    assert not staging.open_sessions
    assert not staging_threads()


def staging_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("staging")]


class Far:
    """A dataset behind elsewhere://, its cache, and what was read of its shards."""

    def __init__(self, folder: Path, path: str):
        import elsewhere

        self._elsewhere = elsewhere
        self.folder, self.path, self.url = folder, path, f"elsewhere://{path}"
        self.log, self.cache = folder / "reads", folder / "cache"
        self.size = sum(file.stat().st_size for file in Path(path).glob("train/*"))

    def storage(self, size: int | str = "1GiB", **options: Any) -> dict[str, Any]:
        return {
            "elsewhere": {"log": str(self.log), **options},
            "cache": {"path": str(self.cache), "size": size},
        }

    def reads(self) -> list[tuple[str, int, int]]:
        return self._elsewhere.reads(self.log, ".tfrecord")

    def files(self) -> set[str]:
        return {os.path.basename(path) for path, _, _ in self.reads()}


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path, write(tmp_path / "data", 12))


def batches(data: tf.data.Dataset) -> list[Any]:
    """The bytes of every tensor of every batch, splits of ragged ones too."""
    return [[part.numpy().tobytes() for part in tf.nest.flatten(batch, expand_composites=True)] for batch in data]


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_staged_batches_are_those_read_in_place(tmp_path: Path, kind: Any, compression: Any, shuffle: bool) -> None:
    """Byte for byte, for two epochs, whichever shard comes when, and in the second from the cache."""
    far = Far(tmp_path, write(tmp_path / "data", 21, kind, compression))
    options: dict[str, Any] = {"batch_size": 7, "shuffle": shuffle, "seed": 5, "kept": True}
    local, staged = load(far.path, **options), load(far.url, **options, storage=far.storage(pause=0.01))
    epochs = [batches(staged) for _ in range(2)]
    assert epochs == [batches(local) for _ in range(2)]
    assert (epochs[0] == epochs[1]) != shuffle
    assert sum(size for _, _, size in far.reads()) == far.size
    assert len(staged) == len(local) == 120
    assert staged.element_spec == local.element_spec


def test_memory_and_inputs(tmp_path: Path) -> None:
    path = write(tmp_path / "data", 5)
    here, there = open_store(path), open_store("memory://test_load_remote")
    for info in here.list_files():
        there.write_atomic(info.path, here.read_bytes(info.path))
    storage = {"dtap": {"map": {"Far": "memory://test_load_remote"}}, "cache": {"path": str(tmp_path / "cache")}}
    assert batches(load("dtap://Far", storage=storage)) == batches(load(path))
    assert set(inputs("dtap://Far", storage=storage)) == {"fare", "tags"}
    there.delete_tree("")


def test_the_first_batch_waits_for_the_first_few_shards_only(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", 10)
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.MIXED_BYTES", 1)
    monkeypatch.setattr("dtap_dask.train.load.READY", 2)
    iterator = iter(load(far.url, batch_size=10, storage=far.storage(pause=0.4)))
    next(iterator)
    seen = far.files()
    assert len(seen) <= 8
    for _ in iterator:
        pass
    assert len(far.files()) == 12
    assert len(far.reads()) == 12


def test_what_is_ahead_is_bounded(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unshuffled one shard is read at a time: of the others a few are fetched until it is done, not all."""
    for name, value in SMALL.items():
        monkeypatch.setattr(f"dtap_dask.{name}", value)
    iterator = iter(load(far.url, batch_size=10, shuffle=False, storage=far.storage()))
    next(iterator)
    time.sleep(0.5)
    first = len(far.files())
    assert 2 <= first < 12
    assert len(list(iterator)) == 47
    assert len(far.files()) == 12


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_cache_smaller_than_the_data_is_enough_for_what_is_open_at_once(
    far: Far, monkeypatch: pytest.MonkeyPatch, shuffle: bool
) -> None:
    monkeypatch.setattr(epoch_order, "CYCLE", 4)
    monkeypatch.setattr(epoch_order, "MIXED_BYTES", 1)
    largest = max(file.stat().st_size for file in Path(far.path).glob("train/*"))
    storage = far.storage(size=(4 if shuffle else 1) * largest)
    staged, local = load(far.url, shuffle=shuffle, storage=storage), load(far.path, shuffle=shuffle)
    for _ in range(2):
        assert batches(staged) == batches(local)
        assert sum(file.stat().st_size for file in far.cache.glob("*-*")) <= storage["cache"]["size"]
    assert sum(size for _, _, size in far.reads()) > 1.5 * far.size  # the second epoch fetched again


def test_a_cache_that_is_too_small_is_refused_before_training(far: Far) -> None:
    sizes = sorted(file.stat().st_size for file in Path(far.path).glob("train/*"))
    need = sum(sizes)
    said = f"too small: the 12 shards of {far.url} read at the same time take {need:,} bytes.*size to {need:,} or more"
    with pytest.raises(StorageError, match=said):
        load(far.url, storage=far.storage(size=need - 1))
    with pytest.raises(StorageError, match="the 1 shard of"):
        load(far.url, shuffle=False, storage=far.storage(size=10))
    assert far.files() == set()


def test_two_loops_at_once_share_the_cache(far: Far) -> None:
    one, other = (load(far.url, batch_size=9, kept=True, storage=far.storage(pause=0.01)) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, first[1], second[1])
    assert sum(size for _, _, size in far.reads()) == far.size


def test_no_room_beside_another_loop_is_said(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(f"dtap_dask.{name}", value)
    storage = far.storage(size=far.size)
    data = load(far.url, batch_size=9, storage=storage)
    iterator = iter(data)
    next(iterator)
    with pytest.raises(StorageError, match="is in use: others that are reading now hold .*storage.cache.size"):
        list(load(far.url, storage=storage))
    del iterator
    assert len(batches(data)) == len(data)


def model() -> keras.Model:
    fare = keras.Input((), name="fare")
    built = keras.Model({"fare": fare}, keras.layers.Dense(1)(keras.ops.expand_dims(fare, -1)))
    built.compile("sgd", loss="mse")
    return built


def without_lists(features: Any, label: Any) -> Any:
    return {"fare": features["fare"] / 1000.0}, label


def test_keras_fits_for_two_epochs(far: Far) -> None:
    losses = []
    for path, storage in ((far.path, None), (far.url, far.storage(pause=0.01))):
        data = load(path, batch_size=50, storage=storage)
        keras.utils.set_random_seed(0)
        history = model().fit(data.map(without_lists), epochs=2, verbose=0, shuffle=False)
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_keras_takes_the_dataset_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "INFOS", tuple(info for info in INFOS if info.name != "tags"))
    far = Far(tmp_path, write(tmp_path / "data", 3))
    data = load(far.url, batch_size=50, storage=far.storage())
    fitted = model()
    fitted.fit(data, epochs=2, verbose=0, shuffle=False, validation_data=load(far.url, storage=far.storage()))
    damage(far)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is damaged: its CRC32C is"):
        fitted.fit(load(far.url, storage=fresh(far)), verbose=0, shuffle=False)


def damage(far: Far) -> Path:
    """Flip a bit of one shard; its path."""
    shard = max(Path(far.path).glob("train/*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    return shard


def fresh(far: Far) -> dict[str, Any]:
    return {**far.storage(), "cache": {"path": str(far.folder / "fresh")}}


def test_failures_of_the_background_come_as_our_own(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "WAIT", 0.01)
    shard = damage(far)
    data = load(far.url, storage=far.storage())
    for _ in range(2):
        with pytest.raises(OutputError, match=f"{shard.name} is damaged: its CRC32C is .* the manifest states"):
            list(data)
    with pytest.raises(OutputError, match=f"{shard.name} is damaged"):
        list(data.map(lambda *batch: batch))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{shard.name} is damaged"):
        list(tf.data.Dataset.zip((data,)))
    with pytest.raises(StorageError, match="could not be read, 4 times in a row: the other end is gone"):
        list(load(far.url, storage={**fresh(far), "elsewhere": {"log": str(far.log), "failing": 100}}))


@pytest.mark.parametrize("spoilt", [1, 2])
def test_a_file_that_arrives_damaged_is_fetched_once_more(
    far: Far, monkeypatch: pytest.MonkeyPatch, spoilt: int
) -> None:
    """The first `spoilt` fetches of one shard have a wrong bit on the way; the store's file is sound."""
    name, fetches, pieces = sorted(os.listdir(f"{far.path}/train"))[5], list[str](), fetch._pieces

    def wrong(store: Any, shard: Any, at: int) -> Iterator[bytes]:
        fetches.append(os.path.basename(shard.path))
        for data in pieces(store, shard, at):
            yield bytes([data[0] ^ 1]) + data[1:] if fetches.count(name) <= spoilt and name in shard.path else data

    monkeypatch.setattr(fetch, "_pieces", wrong)
    if spoilt == 1:
        assert batches(load(far.url, storage=far.storage())) == batches(load(far.path))
        assert fetches.count(name) == 2
        assert len(fetches) == 13
        return
    with pytest.raises(OutputError, match=rf"{name} is damaged.*\(fetched twice\)"):
        list(load(far.url, storage=far.storage()))
    assert fetches.count(name) == 2


def test_all_records_of_a_damaged_file_are_left_out(far: Far) -> None:
    damage(far)
    data = load(far.url, batch_size=50, kept=True, storage=far.storage(), on_bad_record="skip")
    with pytest.warns(UserWarning, match=r"its CRC32C is .* are left out"):
        found = list(data)
    assert len(found) == len(data) == 10
    rows = [row for (*_, weight), kept in found for row in kept["row"].numpy()[weight.numpy() > 0]]
    assert sorted(rows) == list(range(11 * ROWS))  # the last shard is the damaged one
    assert data.stats()["skipped_records"] == ROWS // 10


@pytest.mark.parametrize("batches_read", [0, 1, 20])
def test_an_iterator_left_in_the_middle_lets_go_of_all(far: Far, batches_read: int) -> None:
    data = load(far.url, batch_size=7, storage=far.storage(pause=0.05))
    iterator = iter(data)
    for _ in range(batches_read):
        next(iterator)
    del iterator
    assert not staging_threads()
    assert not staging.open_sessions
    assert os.listdir(far.cache / "reserved") == []
    assert len(batches(data)) == len(data)
    for _ in itertools.islice(data, 3):
        pass
    assert not staging_threads()


IN_A_THREAD = "threading.Thread(target=lambda: next(iterator), daemon=True).start()"


def test_a_program_may_end_in_the_middle_and_never_imports_dask(far: Far) -> None:
    """With one iterator that has been read from, one that was given up, and one whose first batch is under way."""
    found = "sorted(name for name in sys.modules if name.partition('.')[0] in ('dask', 'distributed', 'dask_ml'))"
    ends(
        far,
        f"for _ in dtap_dask.load({far.path!r}): pass\ndtap_dask.inputs({far.path!r})\n"
        "kept = begin(); next(kept)\niterator = begin(); next(iterator); del iterator\n"
        f"iterator = begin(); {IN_A_THREAD}; time.sleep(0.4)",
        first=f"atexit.register(lambda: print('tensorflow' in sys.modules, {found}))",
        last="True []\n",
    )


def test_a_program_may_end_while_tensorflow_calls_python(far: Far) -> None:
    """As a session is opened, so that there is none yet, and as one is closed, so that there is none any more.

    When Python is taken down, after what is registered with atexit, no such call is under way.
    """
    slow = f"""
from dtap_dask.loading.shards.staging import StagingSession
from dtap_dask.train import ending
ending._DRAIN = {HANG}  # however busy the machine is
under_way, calls = [], []
opening = threading.Event()
def slow(name, function):
    def call(*given, **named):
        calls.append(name); under_way.append(name)
        if calls.count("__init__") == 2:
            opening.set()
        time.sleep(0.2); function(*given, **named); time.sleep(0.2); under_way.remove(name)
    setattr(StagingSession, name, call)
for name in ("__init__", "close"):
    slow(name, getattr(StagingSession, name))
kept = begin(); next(kept)
iterator = begin()
"""
    told = "atexit.register(lambda: print(len(under_way), *sorted(set(calls))))"
    ends(far, f"{slow}{IN_A_THREAD}; opening.wait()", first=told, last="0 __init__ close\n")


def ends(far: Far, how: str, first: str = "", last: str = "") -> None:
    """A program that does so with iterators, `begin()`, prints its last words and exits with 0."""
    code = (
        f"import atexit, sys, threading, time; sys.path.insert(0, {str(HELPERS)!r}); {first}\n"
        "import elsewhere, dtap_dask\n"
        "def begin():\n"
        f"    return iter(dtap_dask.load({far.url!r}, batch_size=7, storage={far.storage(pause=0.12)!r}))\n"
        f"{how}\nprint('end', flush=True)\n"
    )
    command = [warm.python("tensorflow"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end\n" + last


def test_a_mount_is_read_in_place(far: Far) -> None:
    storage = {**far.storage(), "mounts": {far.url: far.path}}
    data = load(far.url, storage=storage)
    assert batches(data) == batches(load(far.path))
    assert far.files() == set()
    assert not far.cache.exists()
    (far.folder / "other").mkdir()
    with pytest.raises(DtapError, match="there is no manifest.json"):
        load(far.url, storage={**far.storage(), "mounts": {far.url: str(far.folder / "other")}})


def test_shards_are_compared_with_the_manifest_before_training(far: Far) -> None:
    shard = max(Path(far.path).glob("train/*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(OutputError, match=f"{shard.name} has {len(whole) - 1:,} bytes; the manifest states"):
        load(far.url, storage=far.storage())
    shard.unlink()
    with pytest.raises(OutputError, match=f"{shard.name} is missing"):
        load(far.url, storage=far.storage())
