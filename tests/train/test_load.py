"""Loading: every row once an epoch with its own values, in an order that (seed, epoch) decides, ready for Keras."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dtap_dask.errors import DataError, JobError, OutputError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.dataset import open_split
from dtap_dask.records.example import Layout
from dtap_dask.train import blocks
from dtap_dask.train.load import load
from numbered_rows import INFOS, PLAIN, values, write
from property_tests import examples


def numbers(data: tf.data.Dataset) -> list[int]:
    """The row numbers of one epoch, from a dataset loaded with kept columns."""
    return [int(row) for _, kept in data for row in kept["row"]]


def plain(values: Any) -> list[Any]:
    return values.to_list() if isinstance(values, tf.RaggedTensor) else values.numpy().tolist()


@given(
    shards=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    record=st.integers(1, 17),
    batch=st.integers(1, 60),
    kind=st.sampled_from(["blocks", "rows"]),
    compression=st.sampled_from(["none", "gzip"]),
    shuffle=st.booleans(),
    drop=st.booleans(),
)
@examples(0.125, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_once_with_its_own_values(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shards: list[int],
    record: int,
    batch: int,
    kind: Any,
    compression: Any,
    shuffle: bool,
    drop: bool,
) -> None:
    path = write(tmp_path_factory.mktemp("data"), shards, Layout(kind, record, compression))
    total = sum(shards)
    if total < (batch if drop else 1):
        with pytest.raises(DataError, match="has no rows" if not total else "drops them all"):
            load(path, batch_size=batch, shuffle=shuffle, drop_remainder=drop)
        return
    data = load(path, batch_size=batch, shuffle=shuffle, kept=True, drop_remainder=drop)
    expected = [batch] * (total // batch) + [total % batch] * (total % batch > 0 and not drop)
    assert len(data) == len(expected)
    for _ in range(2):
        seen: list[int] = []
        sizes = []
        for (features, label, weight), kept in data:
            rows = kept["row"].numpy().tolist()
            for name, found in {**features, "late": label, "weight": weight}.items():
                assert plain(found) == values(name, rows), name
            seen += rows
            sizes.append(len(rows))
        assert sizes == expected
        assert len(set(seen)) == len(seen) == sum(expected)
        assert set(seen) <= set(range(total))
        assert shuffle or seen == list(range(len(seen)))


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("drop", [True, False])
def test_shapes_and_dtypes_are_static(tmp_path: Path, kind: Any, drop: bool) -> None:
    path = write(tmp_path, [10, 5], Layout(kind, 4))
    n = 6 if drop else None
    (features, label, weight), kept = load(path, batch_size=6, kept=True, drop_remainder=drop).element_spec
    assert features == {
        "fare": tf.TensorSpec([n], tf.float32),
        "miles": tf.TensorSpec([n], tf.float32),
        "company": tf.TensorSpec([n], tf.int64),
        "payment": tf.TensorSpec([n], tf.int64),
        "sizes": tf.TensorSpec([n, 3], tf.float32),
        "flags": tf.TensorSpec([n, 2], tf.int64),
        "big": tf.TensorSpec([n], tf.uint32),
        "note": tf.TensorSpec([n], tf.string),
        "tags": tf.RaggedTensorSpec([n, None], tf.int64),
        "words": tf.RaggedTensorSpec([n, None], tf.string),
        "pair": tf.TensorSpec([n, 2], tf.string),
    }
    assert label == weight == tf.TensorSpec([n], tf.float32)
    assert kept == {"row": tf.TensorSpec([n], tf.int64)}
    assert load(path, batch_size=6, drop_remainder=drop).element_spec == (features, label, weight)


@given(records=st.lists(st.integers(1, 9), min_size=1, max_size=5), shuffled=st.booleans())
@examples(0.075, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_of_different_sizes_decode_as_they_do_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, *, records: list[int], shuffled: bool
) -> None:
    infos = (*INFOS, FeatureInfo("none", "feature", "float64", "float64", (0,)))
    path = write(tmp_path_factory.mktemp("data"), records, Layout("blocks", 9), infos)
    split = open_split(path, "train", None)
    shards = sorted(str(file) for file in Path(path).rglob("*.tfrecord"))
    serialized = [record for shard in shards for record in tf.data.TFRecordDataset(shard)]
    names = {info.name for info in infos}
    places = np.random.default_rng(0).permutation(sum(records))
    order = (lambda _: tf.constant(places)) if shuffled else None
    together = blocks.decode_blocks(split, names, tf.stack(serialized), order)
    one_by_one = [blocks.decode_blocks(split, names, record[None], None) for record in serialized]
    found = together["row"].numpy().tolist()
    assert found == (places.tolist() if shuffled else list(range(sum(records))))
    for name in names:
        rows = [row for part in one_by_one for row in plain(part[name])]
        assert plain(together[name]) == [rows[row] for row in found], name
        assert together[name].dtype == one_by_one[0][name].dtype


def test_records_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    narrow, wide = (FeatureInfo("flags", "feature", "int64", "uint8", (size,)) for size in (1, 2))
    number = FeatureInfo("row", "kept", "int64", "int64")
    split = open_split(write(tmp_path / "one", [6], Layout("blocks", 4), (wide, number)), "train", None)
    foreign = dataclasses.replace(split, infos=(narrow, number))
    records = tf.stack(list(tf.data.TFRecordDataset(list(split.paths))))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not of the manifest's widths"):
        blocks.decode_blocks(foreign, {"row", "flags"}, records, None)


@pytest.mark.parametrize("infos", [PLAIN, INFOS])
def test_a_plain_loop_gives_what_tensorflows_own_iterator_gives(tmp_path: Path, infos: tuple[FeatureInfo, ...]) -> None:
    path = write(tmp_path, [30, 0, 12], Layout("blocks", 4), infos)
    quick = load(path, batch_size=5, kept=True)
    own = tf.data.Dataset.take(load(path, batch_size=5, kept=True), -1)  # another dataset: its iterator is TensorFlow's
    assert type(iter(quick)) is not type(iter(own))
    for _ in range(2):
        pairs = list(zip(quick, own, strict=True))
        assert len(pairs) == 9
        for one, other in pairs:
            tf.nest.assert_same_structure(one, other, expand_composites=True)
            for left, right in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
                assert plain(left) == plain(right)
                assert (left.dtype, left.shape) == (right.dtype, right.shape)
    iterator = iter(quick)
    assert len(list(iterator)) == 9
    assert next(iterator, None) is None


def infos_with(*roles: Any) -> tuple[FeatureInfo, ...]:
    """A feature, and a further column for each role."""
    names = iter(["late", "miles", "payment"])
    further = [FeatureInfo(next(names), role, "float32", "float32") for role in roles]
    return (FeatureInfo("fare", "feature", "float32", "float32"), *further)


FEATURES = {"fare": tf.TensorSpec([None], tf.float32)}
ONE = tf.TensorSpec([None], tf.float32)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ([], FEATURES),
        (["label"], (FEATURES, ONE)),
        (["label", "weight"], (FEATURES, ONE, ONE)),
        (["label", "label"], (FEATURES, {"late": ONE, "miles": ONE})),
        (["label", "label", "weight"], (FEATURES, {"late": ONE, "miles": ONE}, ONE)),
        (["weight"], (FEATURES, tf.nest.map_structure(lambda _: None, ONE), ONE)),
        (["kept"], FEATURES),
    ],
)
def test_structure_follows_the_roles(tmp_path: Path, roles: list[Any], expected: Any) -> None:
    path = write(tmp_path, [9], Layout("blocks", 4), infos_with(*roles))
    data = load(path, batch_size=4)
    if roles == ["weight"]:  # Keras's own spelling of a weight without a label
        for features, label, weight in data:
            assert label is None
            assert features["fare"].shape == weight.shape
    else:
        assert data.element_spec == expected
    kept = load(path, batch_size=4, kept=True).element_spec[1]
    assert kept == ({"late": ONE} if roles == ["kept"] else {})


def test_texts_that_nobody_asked_for_are_not_parsed(tmp_path: Path) -> None:
    texts = (FeatureInfo("note", "kept", "bytes", "bytes"), FeatureInfo("words", "kept", "bytes", "bytes", (None,)))
    path = write(tmp_path, [9, 5], Layout("blocks", 4), (*PLAIN, *texts))
    split = open_split(path, "train", None)
    graph = tf.function(lambda records: blocks.decode_blocks(split, {"row"}, records, None)["row"])
    operations = graph.get_concrete_function(tf.TensorSpec([None], tf.string)).graph.get_operations()
    (parse,) = [each for each in operations if each.type == "ParseExampleV2"]
    assert parse.get_attr("ragged_value_types") == []
    for _, kept in load(path, batch_size=14, kept=True):
        for name in ("note", "words"):
            assert plain(kept[name]) == values(name, kept["row"].numpy().tolist())


def model_of(features: list[str], outputs: int = 1) -> keras.Model:
    inputs = {name: keras.Input((), name=name) for name in features}
    joined = keras.layers.Concatenate()([keras.ops.expand_dims(each, -1) for each in inputs.values()] * 2)
    heads = {name: keras.layers.Dense(1, name=name)(joined) for name in ("late", "miles")[:outputs]}
    model = keras.Model(inputs, heads if outputs > 1 else heads["late"])
    model.compile("adam", loss="mse" if outputs == 1 else {"late": "mse", "miles": "mse"})
    return model


@pytest.mark.parametrize("roles", [["label"], ["label", "weight"], ["label", "label"]])
def test_keras_fits_evaluates_and_predicts(tmp_path: Path, roles: list[Any]) -> None:
    data = load(write(tmp_path, [30, 0, 12], Layout("blocks", 4), infos_with(*roles)), batch_size=5)
    model = model_of(["fare"], roles.count("label"))
    # Keras warns that it does not shuffle a dataset itself, unless it is told not to
    history = model.fit(data, epochs=2, verbose=0, shuffle=False)
    assert len(history.history["loss"]) == 2
    assert np.isfinite(model.evaluate(data, verbose=0, return_dict=True)["loss"])
    predicted = tf.nest.flatten(model.predict(data, verbose=0))
    assert [len(head) for head in predicted] == [42] * roles.count("label")


@pytest.fixture(scope="module")
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("plain"), [300, 0, 120], Layout("blocks", 4), PLAIN)


def test_an_epochs_order_follows_from_seed_and_epoch_alone(plain_path: str) -> None:
    first = load(plain_path, seed=3, batch_size=7, kept=True)
    epochs = [numbers(first) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    tf.random.set_seed(1)
    again = load(plain_path, seed=3, batch_size=50, kept=True)
    assert [numbers(again) for _ in range(3)] == epochs
    repeated = load(plain_path, seed=3, batch_size=420, kept=True).repeat(3)
    assert numbers(repeated) == [row for epoch in epochs for row in epoch]
    assert numbers(load(plain_path, seed=4, kept=True)) != epochs[0]


def test_the_order_is_pinned(plain_path: str) -> None:
    data = load(plain_path, kept=True)
    assert [numbers(data)[:8] for _ in range(2)] == [
        [218, 240, 280, 84, 77, 172, 175, 309],
        [318, 185, 27, 159, 82, 385, 198, 292],
    ]


def test_an_iterator_that_nobody_reads_is_no_epoch(plain_path: str) -> None:
    data, other = (load(plain_path, kept=True) for _ in range(2))
    assert numbers(data) == numbers(other)
    unread = iter(data)
    assert numbers(data) == numbers(other)
    assert unread is not None


def test_fit_sees_the_same_epochs_as_a_loop(plain_path: str) -> None:
    seen: list[list[float]] = []

    class Watch(keras.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> dict[str, float]:
            tf.py_function(lambda fare: seen.append(fare.numpy().tolist()), [data[0]["fare"]], [])
            return {"loss": 0.0}

    model = Watch()
    model.compile()
    model.fit(load(plain_path, batch_size=420), epochs=3, verbose=0, shuffle=False)
    loop = load(plain_path, batch_size=420)
    assert seen == [next(features["fare"].numpy().tolist() for features, _ in loop) for _ in range(3)]


@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_shuffling_mixes_rows_of_all_shards(tmp_path: Path, kind: Any) -> None:
    path = write(tmp_path, [2000] * 10, Layout(kind, 100), PLAIN)
    rows = np.array(numbers(load(path, kept=True)))
    together = np.mean(rows[1:] // 100 == rows[:-1] // 100)  # neighbours from one record: 0.5 % by chance
    assert together < 0.01
    assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.03
    shards = [len(np.unique(rows[start : start + 100] // 2000)) for start in range(0, len(rows), 100)]
    assert min(shards) >= 8


def test_rows_of_different_windows_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows far smaller than the data: shards taken in turns and the buffer of blocks still mix all of it."""
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", 400)
    path = write(tmp_path, [1000] * 10, Layout("blocks", 50), PLAIN)
    rows = np.array(numbers(load(path, kept=True)))
    assert sorted(rows) == list(range(10_000))
    assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.15
    assert np.mean([len(np.unique(part // 50)) for part in np.split(rows, 25)]) > 7


def test_the_end_of_an_epoch_does_not_wait_for_autotune(plain_path: str) -> None:
    assert load(plain_path).options().autotune.enabled is False


def test_a_few_shards_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lets training begin while the other shards are still on their way; then all others in turns."""
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", 1)
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.MIXED_BYTES", 1)
    rows = np.array(numbers(load(write(tmp_path, [40] * 12, Layout("blocks", 10), PLAIN), kept=True)))
    shards = rows // 40
    assert [len(set(part)) for part in (shards[: 4 * 40], shards[4 * 40 :])] == [4, 8]
    assert len(set(shards[4 * 40 : 4 * 40 + 8 * 64])) == 8


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("shards", [[], [0], [0, 0]])
def test_an_empty_split_is_refused(tmp_path: Path, kind: Any, shards: list[int]) -> None:
    with pytest.raises(DataError, match="The split 'train' of .* has no rows.*No other split has any"):
        load(write(tmp_path, shards, Layout(kind, 4)), batch_size=4)


def test_numpys_integers_are_taken(plain_path: str) -> None:
    first = next(iter(load(plain_path, batch_size=np.int64(32), seed=np.uint8(3), kept=True)))
    again = next(iter(load(plain_path, batch_size=32, seed=3, kept=True)))
    tf.nest.map_structure(np.testing.assert_array_equal, first, again)


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "here", [9, 4], Layout("blocks", 4), PLAIN)
    with pytest.raises(JobError, match=r"no split 'tain'. Did you mean 'train'\?"):
        load(path, "tain")
    with pytest.raises(JobError, match=r"storage: found '/cache': a mapping such as"):
        load(tmp_path, storage="/cache")
    with pytest.raises(JobError, match=r"Known here: train\."):
        load(path, "xyz")
    for wrong in (0, -1, 2.5, True, None, np.int64(0), np.True_, np.float64(3)):
        with pytest.raises(JobError, match=r"batch_size.*not a positive number of rows"):
            load(path, batch_size=wrong)  # type: ignore[arg-type]
    with pytest.raises(JobError, match=r"batch_size: .*\n.*seed: 'x' is not an integer"):
        load(path, batch_size=0, seed="x")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="There is no folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="holds no dataset"):
        load(tmp_path)


def test_a_dtap_path_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "trips", [9], Layout("blocks", 4), PLAIN)
    taps = {"dtap": {"map": {"Lake": str(tmp_path)}}}
    assert len(load("dtap://Lake/trips", batch_size=4, storage=taps)) == 3


def shard_of(path: str) -> Path:
    return next(Path(path).glob("train/part-00000*"))


def test_a_shard_of_another_size_is_refused_before_training(tmp_path: Path) -> None:
    path = write(tmp_path, [9, 4], Layout("blocks", 4), PLAIN)
    shard = shard_of(path)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    stated = f"part-00000.* has {len(whole) - 1:,} bytes; the manifest states {len(whole):,} bytes"
    with pytest.raises(OutputError, match=stated):
        load(path)
    shard.unlink()
    with pytest.raises(OutputError, match="is missing"):
        load(path)


def test_workers_share_the_batches(plain_path: str) -> None:
    """As tf.distribute shards a dataset for several workers: together they see every row once."""
    from tensorflow.python.data.experimental.ops.distribute import _AutoShardDataset

    workers = [_AutoShardDataset(load(plain_path, batch_size=50, kept=True), 3, worker, None) for worker in range(3)]
    parts = [numbers(worker) for worker in workers]
    assert sorted(row for part in parts for row in part) == list(range(420))
    assert all(parts)
