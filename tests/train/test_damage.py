"""`load(on_bad_record=...)`: the batches of `batches`, in place and staged, in loops and within `fit`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dtap_dask.errors import JobError, OutputError
from dtap_dask.loading.batches import batches
from dtap_dask.records.example import Layout
from dtap_dask.train.load import load
from numbered_rows import INFOS, PLAIN, write


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*left out")
        yield


def damaged(folder: Path, layout: Layout, infos: Any = PLAIN) -> str:
    path = write(folder, [30, 47], layout, infos)
    shard = max(Path(path).glob("train/*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("layout", "infos"), [(Layout("blocks", 8), PLAIN), (Layout("blocks", 8), INFOS), (Layout("rows"), PLAIN)]
)
def test_batches_are_those_of_numpy(tmp_path: Path, layout: Layout, infos: Any) -> None:
    path = damaged(tmp_path, layout, infos)
    options: dict[str, Any] = {"batch_size": 13, "kept": True, "seed": 2, "on_bad_record": "skip"}
    ours, theirs = load(path, **options), batches(path, **options)
    for one, other in zip(ours, theirs, strict=True):
        ((features, label, weight), kept), ((features2, label2, weight2), kept2) = one, other
        np.testing.assert_array_equal(weight, weight2)
        np.testing.assert_array_equal(label, label2)
        np.testing.assert_array_equal(kept["row"], kept2["row"])
        np.testing.assert_array_equal(features["fare"], features2["fare"])
    assert ours.stats()["skipped_records"] == theirs.stats()["skipped_records"] == 1


def test_lost_rows_do_not_train(tmp_path: Path) -> None:
    """A model fitted without them, by least squares of one gradient step, is the same."""
    path = damaged(tmp_path, Layout("blocks", 8))
    data = load(path, batch_size=77, features=["fare"], on_bad_record="skip")
    (features, label, weight) = next(iter(data))
    assert float(tf.reduce_sum(weight)) == 69
    weights = []
    sound = (weight.numpy() > 0).nonzero()[0]
    whole = tf.data.Dataset.from_tensors((features, label, weight))
    part = tf.data.Dataset.from_tensors(({"fare": tf.gather(features["fare"], sound)}, tf.gather(label, sound)))
    for each in (whole, part):
        fare = keras.Input((), name="fare")
        out = keras.layers.Dense(1, kernel_initializer="zeros")(keras.layers.Reshape((1,))(fare))
        model = keras.Model({"fare": fare}, out)
        model.compile(keras.optimizers.SGD(1.0), keras.losses.MeanSquaredError(reduction="sum"), run_eagerly=True)
        model.fit(each, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_by_default_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the checksum of record \d, at byte [\d,]+, is wrong"):
        list(load(damaged(tmp_path, Layout("blocks", 8))))


def test_workers_of_tf_data_service_cannot_leave_out_records(tmp_path: Path) -> None:
    data = load(damaged(tmp_path, Layout("blocks", 8)), on_bad_record="skip")
    service = tf.data.experimental.service.distribute("parallel_epochs", "grpc://nowhere:1")
    with pytest.raises(JobError, match="on_bad_record: the workers of tf.data service"):
        data.apply(service)
