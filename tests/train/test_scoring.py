"""Scores of rows that are encoded with a dataset's state, joined to them by a kept column."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pyarrow as pa

import dtap_dask
from dtap_dask.loading.dataset import open_split
from in_process import run_in_process
from reuse import scoring, trips, write_lake, write_training

FLOATS = ["fare", "mean", "both"]


def small_model(dataset: str) -> keras.Model:
    inputs = dtap_dask.inputs(dataset, features=[*FLOATS, "company"])
    company = keras.layers.Flatten()(keras.layers.Embedding(inputs["company"].ids, 3)(inputs["company"]))
    numbers = [keras.layers.Reshape((-1,))(inputs[name]) for name in FLOATS]
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(keras.layers.concatenate([*numbers, company])))


def test_scores_joined_by_id_are_those_of_transformed_rows(tmp_path: Path) -> None:
    write_training(tmp_path)
    keras.utils.set_random_seed(0)
    model = small_model(str(tmp_path / "out"))
    order = np.random.default_rng(3).permutation(300)
    table = trips(300, seed=7).drop(["tip", "kind", "weight"]).take(pa.array(order))
    path = str(tmp_path / "scores")
    output = {"path": path, "shuffle": "mixed", "shard_size": "2KiB", "rows_per_record": 32}
    run_in_process(scoring(tmp_path, source={"path": write_lake(tmp_path, table, "new", 40)}, output=output))

    scored = []
    names = [*FLOATS, "company"]
    for batch, kept in dtap_dask.load(path, batch_size=128, features=names, kept=True):
        scored.append(pd.DataFrame({"id": kept["id"].numpy(), "score": model(batch).numpy()[:, 0]}))
    joined = table.to_pandas().merge(pd.concat(scored), on="id", validate="one_to_one")

    features = dtap_dask.transform(str(tmp_path / "out"), table.to_pandas())
    expected = model({name: features[name] for name in names}).numpy()[:, 0]
    assert joined["id"].tolist() == order.tolist()
    assert not np.array_equal(pd.concat(scored)["id"], order)  # the records are in another order
    np.testing.assert_allclose(joined["score"], expected, rtol=1e-6)
    assert len(set(expected.tolist())) > 250


def test_a_dataset_with_a_taken_state_is_not_shuffled_by_default(tmp_path: Path) -> None:
    write_training(tmp_path)
    run_in_process(scoring(tmp_path))
    assert open_split(tmp_path / "out", "train", None).fitted
    assert not open_split(tmp_path / "scores", "train", None).fitted
