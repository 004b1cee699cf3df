"""`load(floats=...)`: the same batches as those of `batches`, in a loop and within fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dtap_dask.errors import DataError, JobError
from dtap_dask.loading.batches import batches
from dtap_dask.train.inputs import inputs
from dtap_dask.train.load import load
from float_rows import FIXED, LISTS, arrays, write_floats


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("infos", [FIXED, LISTS])
@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_batches_are_those_of_batches(tmp_path: Path, kind: Any, infos: Any, vectors: bool) -> None:
    path = write_floats(tmp_path, kind, infos, arrays())
    floats: Any = "bfloat16" if vectors else "float16"
    options: dict[str, Any] = {"kept": True, "as_vectors": vectors, "floats": floats, "batch_size": 8}
    data = load(path, **options)
    assert not vectors or data.vectors == batches(path, **options).vectors
    for ((features, label), kept), ((plain, plain_label), plain_kept) in zip(
        data, batches(path, **options), strict=True
    ):
        assert features.keys() == plain.keys()
        pairs = [*((features[name], column) for name, column in plain.items())]
        for tensor, column in [*pairs, (label, plain_label), (kept["kept"], plain_kept["kept"])]:
            flat, expected = (tensor.values, column.values) if hasattr(column, "offsets") else (tensor, column)
            assert flat.dtype == expected.dtype
            np.testing.assert_array_equal(flat.numpy().view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize(
    ("infos", "name", "message"),
    [(FIXED, "single", "The feature 'single' holds 70,000, but"), (LISTS, "list", "The feature 'list' holds 70,000")],
)
def test_numbers_that_would_become_infinite_end_a_loop_and_fit(
    tmp_path: Path, infos: Any, name: str, message: str
) -> None:
    given = arrays()
    if name == "list":
        given["list"][4][2] = 7e4
    else:
        given[name][7] = 7e4
    path = write_floats(tmp_path, "blocks", infos, given)
    with pytest.raises(DataError, match=message):
        list(load(path, floats="float16"))
    assert len(list(load(path, floats="bfloat16"))) == 1
    found = load(path, floats="float16", features=["double"])
    assert len(list(found)) == 1
    if name == "single":
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=False)
        data = load(path, floats="float16", features=["single"]).map(lambda row, label: (row["single"][:, None], label))
        with pytest.raises(tf.errors.InvalidArgumentError, match="holds 70,000, but the largest number"):
            model.fit(data, shuffle=False, verbose=0)


def test_models_take_them_at_their_inputs(tmp_path: Path) -> None:
    given = arrays()
    given["single"], given["label"] = np.full(21, 0.5, np.float32), np.zeros(21, np.float32)
    path = write_floats(tmp_path, "blocks", FIXED, given)
    names = ["single"]
    found = inputs(path, features=names)
    hidden = keras.layers.Dense(2, dtype="mixed_bfloat16")(keras.layers.Reshape((1,))(found["single"]))
    model = keras.Model(found, keras.layers.Dense(1, dtype="float32")(hidden))
    model.compile("sgd", "mse")
    losses = model.fit(load(path, features=names, floats="bfloat16"), shuffle=False, verbose=0, epochs=2)
    assert np.isfinite(losses.history["loss"]).all()
    assert losses.history["loss"][1] < losses.history["loss"][0]


def test_tf_data_service_is_refused(tmp_path: Path) -> None:
    path = write_floats(tmp_path, "blocks", FIXED, arrays())
    data = load(path, floats="float16")
    with pytest.raises(JobError, match="^floats: the workers of tf.data service"):
        data.apply(tf.data.experimental.service.distribute("distributed_epoch", "grpc://localhost:1"))
