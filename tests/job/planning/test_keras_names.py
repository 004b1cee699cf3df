"""Names of features that Keras can export, as Keras itself has it."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from dtap_dask.job.planning.keras_names import can_be_exported, collisions, exportable, keras_name_warnings
from dtap_dask.job.planning.plan import make_plan

GOOD = ["plain", "A1", "a.b", "c-d", "1abc", "a_1", "ab_", "e\\f", "g>h", "inputs", "training", "name", "args"]
BAD = ["with blank", "_lead", "colon:x", "ümläut", "sum(a)", "a,b", "a'b", "a=b", "[a]", "日本", "a+b", "self", "class"]


def exported(names: list[str], folder: Path) -> bool:
    """Whether Keras exports a model of these inputs, whose signature then gives what the model gives."""
    inputs = {name: keras.Input((), name=name) for name in names}
    values = [keras.ops.expand_dims(each, -1) for each in inputs.values()]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.concatenate([*values, values[0]])))
    try:
        model.export(str(folder), verbose=False)
    except (ValueError, TypeError):
        return False
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    batch = {name: tf.constant([float(number)]) for number, name in enumerate(names)}
    (found,) = signature(**batch).values()
    np.testing.assert_allclose(found, model(batch), rtol=1e-5)
    return True


def test_what_is_said_to_be_exported_is(tmp_path: Path) -> None:
    assert all(map(can_be_exported, GOOD))
    assert not collisions([*GOOD, "h-i", "H_i"])
    assert exported([*GOOD, "h-i", "H_i"], tmp_path)
    assert not list(keras_name_warnings(GOOD))


@pytest.mark.parametrize("name", BAD)
def test_what_is_said_not_to_be_exported_is_not(tmp_path: Path, name: str) -> None:
    assert not can_be_exported(name)
    assert not exported([name, "other"], tmp_path)
    assert can_be_exported(exportable(name))
    assert exportable("ümläut") == "umlaut"


@pytest.mark.parametrize("names", [["a.b", "a_b"], ["A", "a"], ["a-b", "a.b"]])
def test_names_that_become_one_are_told(tmp_path: Path, names: list[str]) -> None:
    assert collisions(names) == [tuple(names)]
    assert not exported(names, tmp_path)
    (said,) = keras_name_warnings(names)
    assert f"has both {names[0]!r} and {names[1]!r}" in said
    assert "Give one another name with `as` (or `name`)" in said


def test_a_plan_warns_of_them_and_takes_the_remedy(tmp_path: Path) -> None:
    pq.write_table(pa.table({"Trip Miles": [1.0], "_x": [2.0], "ok": [3.0], "ä": [1]}), tmp_path / "a.parquet")

    def warnings(*features: object) -> str:
        job = {"version": 1, "source": {"path": str(tmp_path / "a.parquet")}, "keep": ["ä"], "features": [*features]}
        return " ".join(make_plan({**job, "output": {"path": str(tmp_path / "out")}}).warnings)

    said = warnings({"columns": ["Trip Miles", "_x", "ok"]})
    assert "features named 'Trip Miles', '_x', but cannot export them" in said
    assert "for example to `Trip_Miles`, `x`." in said
    assert "ä" not in said  # no feature
    renamed = {"columns": ["Trip Miles"], "as": "Trip_Miles"}, {"columns": ["_x"], "name": "x"}, {"columns": ["ok"]}
    assert "export" not in warnings(*renamed)
