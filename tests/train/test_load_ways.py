"""The ways in which people train: some features, several passes, checkpoints, tf.data service, damaged files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops import data_service_ops

import numbered_rows
from datasets import in_memory, write_dataset
from dtap_dask.errors import DataError, JobError, OutputError, StorageError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import open_split
from dtap_dask.records.example import Layout
from dtap_dask.train import blocks
from dtap_dask.train.inputs import inputs
from dtap_dask.train.load import load

INFOS = (
    FeatureInfo("a", "feature", "float32", "float32"),
    FeatureInfo("half", "feature", "float16", "float16"),
    FeatureInfo("b", "feature", "float32", "float32"),
    FeatureInfo("label", "label", "float32", "float32"),
    FeatureInfo("c", "feature", "float32", "float32"),
    FeatureInfo("id", "feature", "int64", "uint8"),
    FeatureInfo("word", "feature", "bytes", "bytes", (2,)),
    FeatureInfo("halves", "feature", "float16", "float16", (None,)),
    FeatureInfo("pairs", "feature", "float16", "float16", (2, 2)),
    FeatureInfo("row", "kept", "int64", "int64"),
)
WITHOUT_HALVES = tuple(info for info in INFOS if info.dtype != "float16")
NAMES = [info.name for info in INFOS if info.role == "feature"]
ROWS, BATCH, BATCHES = 230, 25, 10  # the last batch has 5 rows


def columns(infos: tuple[FeatureInfo, ...], first: int, count: int) -> dict[str, Any]:
    """Each value follows from the row's number."""
    import pyarrow as pa

    rows = np.arange(first, first + count)
    made: dict[str, Any] = {
        "a": rows.astype(np.float32),
        "half": (rows / 2).astype(np.float16),
        "b": (-rows).astype(np.float32),
        "label": (rows % 2).astype(np.float32),
        "c": (rows * 3).astype(np.float32),
        "id": (rows % 7).astype(np.uint8),
        "word": pa.array([[b"%d" % row, b"x"] for row in rows.tolist()], pa.large_list(pa.large_binary())),
        "halves": pa.array([[np.float16(row)] * (row % 3) for row in rows.tolist()], pa.large_list(pa.float16())),
        "pairs": (rows[:, None, None] + np.array([[0.0, 0.5], [1.0, 1.5]])).astype(np.float16),
        "row": rows,
    }
    return {info.name: made[info.name] for info in infos}


def write(
    folder: Path,
    layout: Layout,
    infos: tuple[FeatureInfo, ...] = INFOS,
    splits: Mapping[str, list[int]] | None = None,
    job: Mapping[str, Any] | None = None,
) -> str:
    """A dataset whose splits have shards of these numbers of rows, each split's numbered from 0 on; its path."""
    splits = splits or {"train": [100, 90, 40]}
    return write_dataset(folder, infos, layout, splits, partial(columns, infos), job)


def rows_of(data: Any) -> list[int]:
    """The numbers of the rows of one pass."""
    return [int(row) for _, kept in data for row in kept["row"]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("ways"), Layout("blocks", 16))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset that was fitted on `early`."""
    splits = {"early": [60, 60], "late": [50, 20], "train": [30], "none": []}
    job = {"split": {"where": {"early": "x"}, "fit": "early"}}
    return write(tmp_path_factory.mktemp("parts"), Layout("blocks", 16), WITHOUT_HALVES, splits, job)


# Features of one's choice.


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("names", [["c"], ["word", "a"], ["c", "a"], ["id", "b", "word"], ["a", "b", "c"]])
def test_some_features_are_those_of_the_whole_in_the_order_asked_for(
    tmp_path: Path, kind: Any, names: list[str]
) -> None:
    path = write(tmp_path, Layout(kind, 16), WITHOUT_HALVES)
    whole = list(load(path, batch_size=BATCH, shuffle=False, kept=True))
    some = list(load(path, batch_size=BATCH, shuffle=False, kept=True, features=names))
    assert len(some) == len(whole) == BATCHES
    for ((features, label), kept), ((all_features, all_labels), all_kept) in zip(some, whole, strict=True):
        assert list(features) == names
        for name in names:
            np.testing.assert_array_equal(features[name], all_features[name])
        np.testing.assert_array_equal(label, all_labels)
        np.testing.assert_array_equal(kept["row"], all_kept["row"])
    assert list(inputs(path, features=names)) == names


def test_what_was_not_asked_for_is_not_decoded(path: str) -> None:
    """A matrix whose bytes are damaged does no harm as long as none of its columns is wanted."""
    split = open_split(path, "train", None)
    records = tf.stack(list(tf.data.TFRecordDataset(list(split.paths))))
    broken = tf.strings.regex_replace(records, "uint8", "uint9")  # the matrix of `id` is gone
    assert blocks.decode_blocks(split, {"a"}, broken, None)["a"].shape == [ROWS]
    with pytest.raises(tf.errors.InvalidArgumentError, match="uint8"):
        blocks.decode_blocks(split, {"id"}, broken, None)


@pytest.mark.parametrize("of", [load, inputs])
def test_a_choice_that_cannot_be_is_refused(path: str, of: Any) -> None:
    with pytest.raises(JobError, match=r"features: the dataset has no feature 'wurd'\. Did you mean 'word'\?"):
        of(path, features=["a", "wurd"])
    with pytest.raises(JobError, match="'label' is not a feature but the label: it comes with every batch"):
        of(path, features=["label"])
    with pytest.raises(JobError, match="'row' is not a feature but a kept column: give `kept=True`"):
        of(path, features=["row"])
    with pytest.raises(JobError, match="'a' is named twice"):
        of(path, features=["a", "b", "a"])
    for wrong in ("a", [], [1]):
        with pytest.raises(JobError, match=r"is not a list of names, such as \['a', 'half'\]"):
            of(path, features=wrong)


def test_a_model_of_some_features_trains_on_those(path: str) -> None:
    names = ["id", "c"]
    found = inputs(path, features=names)
    parts = [keras.ops.expand_dims(keras.ops.cast(each, "float32"), -1) for each in found.values()]
    model = keras.Model(found, keras.layers.Dense(1, use_bias=False)(keras.layers.concatenate(parts)))
    model.compile("sgd", "mse")
    model.fit(load(path, features=names), verbose=0, shuffle=False)
    first, second = model.get_weights()[0][:, 0]
    data = load(path, features=names, shuffle=False)
    features = next(iter(data))[0]
    by_hand = features["id"].numpy() * first + features["c"].numpy() * second
    np.testing.assert_allclose(model.predict(data, verbose=0)[:, 0], by_hand, rtol=1e-4)


def test_half_precision_loads(path: str) -> None:
    (features, _), kept = next(iter(load(path, batch_size=ROWS, kept=True)))
    rows = kept["row"].numpy()
    assert {features[name].dtype for name in ("half", "halves", "pairs")} == {tf.float16}
    np.testing.assert_array_equal(features["half"], (rows / 2).astype(np.float16))
    assert features["halves"].to_list() == [[float(np.float16(row))] * (row % 3) for row in rows.tolist()]
    np.testing.assert_array_equal(features["pairs"], columns(INFOS, 0, ROWS)["pairs"][rows])


# The order of passes.


def test_only_the_fitted_part_is_shuffled_unless_told_otherwise(parts: str) -> None:
    assert rows_of(load(parts, "late", kept=True)) == list(range(70))
    assert rows_of(load(parts, "train", kept=True)) == list(range(30))
    early = rows_of(load(parts, "early", kept=True))
    assert early != list(range(120))
    assert sorted(early) == list(range(120))
    assert rows_of(load(parts, "early", kept=True, shuffle=False)) == list(range(120))
    assert rows_of(load(parts, "late", kept=True, shuffle=True)) != list(range(70))


def test_passes_over_another_part_line_up(parts: str) -> None:
    data = load(parts, "late", batch_size=8, features=["a"])
    found = inputs(parts, features=["a"])
    model = keras.Model(found, keras.ops.expand_dims(found["a"], -1))
    predicted = model.predict(data, verbose=0)[:, 0]
    labels = np.concatenate([label for _, label in data])
    np.testing.assert_array_equal(predicted % 2, labels)
    zipped = tf.data.Dataset.zip(data.map(lambda features, _: features["a"]), data.map(lambda _, label: label))
    for values, label in zipped:
        np.testing.assert_array_equal(values % 2, label)


def test_an_empty_part_is_refused_and_the_others_named(parts: str) -> None:
    with pytest.raises(DataError, match=r"split 'none' of .* has no rows.*'early' \(120 rows\), 'late' \(70 rows\)"):
        load(parts, "none")


@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_tensorflow_has_no_errors_to_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: Any
) -> None:
    """Where batches are joined of the rows of two windows, with and without texts and lists."""
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", 32)
    for name, infos in ("all", numbered_rows.INFOS), ("plain", numbered_rows.PLAIN):
        for _ in load(numbered_rows.write(tmp_path / name, [60, 40], Layout(kind, 8), infos), batch_size=25):
            pass
    assert "RefCount" not in capfd.readouterr().err


# Checkpoints of iterators.


@pytest.mark.parametrize("taken", [1, BATCHES, BATCHES + 1, 2 * BATCHES + 3])
@pytest.mark.parametrize("window", [65_536, 32])
def test_a_restored_iterator_goes_on_with_the_epochs_to_come(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int, window: int
) -> None:
    """Whether all rows are decoded before the first batch is taken, or some during the epoch."""
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", window)

    def epochs() -> Any:
        return load(path, batch_size=BATCH, kept=True).repeat(4)

    undisturbed = rows_of(epochs())
    assert len({tuple(undisturbed[start : start + ROWS]) for start in range(0, 4 * ROWS, ROWS)}) == 4
    iterator = iter(epochs())
    before = rows_of(next(iterator) for _ in range(taken))
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    again = iter(epochs())
    tf.train.Checkpoint(iterator=again).restore(saved)
    assert before + rows_of(again) == undisturbed


def test_epochs_begun_by_hand_go_on_after_a_restore(path: str, tmp_path: Path) -> None:
    data, other = (load(path, batch_size=BATCH, kept=True) for _ in range(2))
    epochs = [rows_of(data) for _ in range(4)]
    data = load(path, batch_size=BATCH, kept=True)
    assert rows_of(data) == epochs[0]
    iterator = iter(data)
    before = rows_of(next(iterator) for _ in range(3))
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    again = iter(other)
    tf.train.Checkpoint(iterator=again).restore(saved)
    assert before + rows_of(again) == epochs[1]
    assert rows_of(other) == epochs[2]


def test_an_unshuffled_iterator_is_restored(path: str, tmp_path: Path) -> None:
    data = load(path, batch_size=BATCH, shuffle=False, kept=True).repeat(2)
    iterator = iter(data)
    before = rows_of(next(iterator) for _ in range(13))
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    again = iter(data)
    tf.train.Checkpoint(iterator=again).restore(saved)
    assert before + rows_of(again) == [*range(ROWS)] * 2


@pytest.fixture
def staged(path: str, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dataset on a filesystem that TensorFlow cannot open, and the storage to load it with."""
    with in_memory(path, "memory://test_load_ways") as url:
        yield url, {"cache": {"path": str(tmp_path / "cache")}}


# tf.data service, and tools that look into a dataset.


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of a tf.data service of two workers."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.removeprefix("grpc://")
    config = tf.data.experimental.service.WorkerConfig(dispatcher_address=address, heartbeat_interval_ms=20)
    workers = [tf.data.experimental.service.WorkerServer(config) for _ in range(2)]
    yield dispatcher.target
    for worker in workers:
        worker._stop()
    dispatcher._stop()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_workers_of_the_service_divide_the_rows(tmp_path: Path, service: str, kind: Any, shuffle: bool) -> None:
    path = write(tmp_path, Layout(kind, 16), WITHOUT_HALVES, {"train": [50, 0, 40, 30, 60, 10]})
    data = load(path, batch_size=8, kept=True, shuffle=shuffle)
    # As `distribute`, which asks for tasks only once a second.
    once = data_service_ops._distribute("distributed_epoch", service, task_refresh_interval_hint_ms=20)
    for _ in range(2):
        assert sorted(rows_of(data.apply(once))) == list(range(190))
    mapped = data.map(lambda batch, kept: (batch, {"row": kept["row"] * 2}))
    assert sorted(rows_of(mapped.apply(once))) == list(range(0, 380, 2))


@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_each_worker_of_the_service_goes_through_all_rows(tmp_path: Path, service: str, kind: Any) -> None:
    """In an order of its own every time, also where the program has set TensorFlow's seed: workers begin afresh."""
    tf.random.set_seed(1)
    path = write(tmp_path, Layout(kind, 16), WITHOUT_HALVES)
    each = tf.data.experimental.service.distribute("parallel_epochs", service)
    data = load(path, batch_size=8, kept=True).apply(each)
    passes = [[tuple(kept["row"].numpy().tolist()) for _, kept in data] for _ in range(2)]
    for batches in passes:
        assert sorted(row for batch in batches for row in batch) == sorted([*range(ROWS)] * 2)
    assert len({*passes[0], *passes[1]}) == len(passes[0]) + len(passes[1])  # no two workers or passes agree


def test_a_staged_dataset_is_not_served(staged: tuple[str, dict[str, Any]], service: str) -> None:
    url, storage = staged
    with pytest.raises(StorageError, match=r"no filesystem that the workers of tf\.data service can open"):
        load(url, storage=storage).apply(tf.data.experimental.service.distribute("distributed_epoch", service))


@pytest.mark.parametrize("features", [None, ["a", "b"]])  # with ragged columns and without
def test_tools_that_look_for_the_batch_step_find_it(path: str, features: list[str] | None) -> None:
    """As TensorFlow Decision Forests does: down the inputs to TensorFlow's class, whose batch size it reads."""
    data = load(path, batch_size=BATCH, features=features)
    kind = type(tf.data.Dataset.range(1).batch(1))
    step = data
    while not isinstance(step, kind):
        step = step._input_dataset
    assert int(step._batch_size) == data._batch_size == BATCH
    assert step.element_spec == data.element_spec
    assert len(data.repeat(3)) == 3 * BATCHES
    assert len(data.map(lambda *batch: batch)) == BATCHES


def test_structures_of_other_classes_stay_what_they_are(path: str) -> None:
    data = load(path, features=["a"]).map(lambda features, label: [features["a"], label])
    assert type(next(iter(data))) is type(next(iter(tf.data.Dataset.take(data, -1))))


# Damage.


def damaged(folder: Path, layout: Layout, at: float) -> tuple[str, str]:
    """A dataset with a flipped bit in its second shard, at a fraction of it; its path and the shard's."""
    path = write(folder, layout, WITHOUT_HALVES)
    shard = next(folder.glob("train/part-00001*"))
    data = bytearray(shard.read_bytes())
    data[int(len(data) * at)] ^= 1
    shard.write_bytes(data)
    return path, str(shard)


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("at", [0.0, 0.4, 0.999])
def test_a_damaged_shard_is_named(tmp_path: Path, kind: Any, compression: Any, at: float) -> None:
    path, shard = damaged(tmp_path, Layout(kind, 16, compression), at)
    for data in (load(path), load(path).repeat()):
        with pytest.raises(OutputError) as caught:
            list(data)
        assert shard in str(caught.value)
        assert "at byte " in str(caught.value) or compression == "gzip"
        assert "Copy the file again" in str(caught.value) or "write the dataset again" in str(caught.value)


def test_a_shard_that_vanishes_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, Layout("blocks", 16))
    data = load(path)
    next(tmp_path.glob("train/part-00001*")).unlink()
    with pytest.raises(OutputError, match="part-00001.* cannot be opened: No such file or directory.*load it again"):
        list(data)
