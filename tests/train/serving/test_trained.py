"""A trained Keras model behind the features: of every form that is exported, and those that are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
from dtap_dask.errors import JobError, OutputError
from dtap_dask.train.serving import export
from dtap_dask.train.serving.rows import raw_tensors
from dtap_dask.train.serving.signatures import to_signature
from dtap_dask.train.serving.trained import TrainedModel
from in_process import run_in_process

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saves so

ROWS = pa.table({"fare": [4.5, 12.25, 7.0, 3.0], "miles": [1.0, 4.0, 0.5, 3.75], "trips": [3, 2, 7, 3]})
JOB: dict[str, Any] = {
    "version": 1,
    "features": [
        {"columns": ["fare", "miles"], "steps": ["standard_scale"], "name": "sizes"},
        {"columns": ["trips"], "steps": ["ordinal_encode"]},
    ],
    "output": {"shuffle": "none"},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset of ROWS."""
    folder = tmp_path_factory.mktemp("trained")
    pq.write_table(ROWS, folder / "rows.parquet")
    source = {"source": {"path": str(folder / "rows.parquet")}}
    run_in_process(JOB | source | {"output": JOB["output"] | {"path": str(folder / "out")}})
    return folder / "out"


@pytest.fixture(scope="module")
def layer(dataset: Path) -> Any:
    """Its layer."""
    return dtap_dask.serving(dataset)


def sizes(width: int = 2, name: str = "sizes") -> Any:
    return keras.Input((width,), name=name)


def by_name() -> Any:
    one, trips = sizes(), keras.Input((), name="trips", dtype="int64")
    ids = keras.layers.Embedding(10, 1)(trips)
    return keras.Model({"sizes": one, "trips": trips}, {"tip": keras.layers.Dense(1)(one) + ids, "same": one})


def in_order() -> Any:
    one, trips = sizes(), keras.Input((1,), name="trips", dtype="int64")
    return keras.Model([trips, one], [keras.layers.Dense(1, name="tip")(one), keras.layers.Flatten(name="id")(trips)])


def sequential() -> Any:
    return keras.Sequential([sizes(), keras.layers.Dense(3), keras.layers.Dense(1, name="tip")])


@pytest.mark.parametrize(
    ("make", "outputs"), [(by_name, {"tip", "same"}), (in_order, {"tip", "id"}), (sequential, {"tip"})]
)
def test_models_take_the_features_that_their_inputs_name(layer: Any, tmp_path: Path, make: Any, outputs: Any) -> None:
    model = make()
    model.save(tmp_path / "model.keras")
    features = layer(raw_tensors(ROWS.to_batches()[0]))
    made = TrainedModel(tmp_path / "model.keras", layer)(features)
    assert made.keys() == outputs
    given = {"by_name": {name: features[name] for name in ("sizes", "trips")}, "sequential": features["sizes"]}
    wanted = model(given.get(make.__name__, [features["trips"], features["sizes"]]))
    tip = wanted["tip"] if isinstance(wanted, dict) else wanted[0] if isinstance(wanted, list) else wanted
    np.testing.assert_allclose(made["tip"], tip, rtol=1e-6)


def with_outputs_of_one_name() -> Any:
    one, shared = sizes(), keras.layers.Dense(2)
    return keras.Model({"sizes": one}, [shared(one), shared(one + 1)])


class OwnModel(keras.Model):  # type: ignore[misc]
    """A model of a class of its own."""

    def call(self, features: Any) -> Any:
        return features["sizes"]


def of_own_class() -> Any:
    model = OwnModel()
    model({"sizes": tf.constant([[1.0, 2.0]])})
    return model


def dense(one: Any) -> Any:
    return keras.Model({one.name: one}, keras.layers.Dense(1)(one))


REFUSED = [
    (
        lambda: dense(sizes(3)),
        r"does not take the features as they are: .*expected shape=\(None, 3\), found shape=\(None, 2\)",
    ),
    (lambda: dense(sizes(name="size")), r"inputs 'size', which are no features .*Name its inputs as features"),
    (lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "Name its inputs as features"),
    (with_outputs_of_one_name, "several of the model's outputs have one name: dense.*dict of outputs"),
    (of_own_class, "Could not locate class 'OwnModel'"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_models_that_do_not_fit_are_refused(layer: Any, tmp_path: Path, make: Any, says: str) -> None:
    make().save(tmp_path / "model.keras")
    with pytest.raises(JobError, match=f"model: .*{says}"):
        TrainedModel(tmp_path / "model.keras", layer)


def test_what_is_no_model_is_refused(layer: Any, tmp_path: Path) -> None:
    (tmp_path / "damaged.h5").write_bytes(b"no HDF5")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("other", "")
    for name, says in (("none.keras", "File not found"), ("damaged.h5", "open file"), ("other.keras", "config.json")):
        with pytest.raises(JobError, match=f"model: .*{name} is no model that Keras loads: .*{says}"):
            TrainedModel(tmp_path / name, layer)


def test_a_model_of_a_registered_class_has_no_inputs(layer: Any, tmp_path: Path) -> None:
    of_own_class().save(tmp_path / "model.keras")
    known, refused = (
        keras.saving.custom_object_scope({"OwnModel": OwnModel}),
        pytest.raises(JobError, match="does not know the model's inputs"),
    )
    with known, refused:
        TrainedModel(tmp_path / "model.keras", layer)


def test_a_model_that_has_the_layer_is_refused(layer: Any, tmp_path: Path) -> None:
    raw = layer.raw_inputs()
    keras.Model(raw, keras.layers.Dense(1)(layer(raw)["sizes"])).save(tmp_path / "model.keras")
    with pytest.raises(JobError, match=r"has the features' layer already: export it with `model\.export`"):
        TrainedModel(tmp_path / "model.keras", layer)


def test_an_export_with_a_model(dataset: Path, layer: Any, tmp_path: Path) -> None:
    model = sequential()
    model.save(tmp_path / "model.keras")
    export.export_features(dataset, tmp_path / "saved", tmp_path / "model.keras")
    signatures = tf.saved_model.load(tmp_path / "saved").signatures
    raw = raw_tensors(ROWS.to_batches()[0])
    rows, made = to_signature(raw, layer.raw_columns), layer(raw)
    np.testing.assert_allclose(signatures["serving_nullable"](**rows)["tip"], model(made["sizes"]), rtol=1e-6)
    np.testing.assert_array_equal(signatures["features"](**rows)["sizes"], made["sizes"])


def test_an_export_that_gives_others_than_transform_fails(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(saved: Any, module: Any) -> Any:
        def served(rows: pa.RecordBatch) -> Any:
            made = module(raw_tensors(rows))
            return made | {"sizes": made["sizes"] + tf.constant([0.0, 1e-6])}

        return served

    monkeypatch.setattr(export, "_features_of", shifted)
    with pytest.raises(OutputError, match=r"of 32 rows differ .* in sizes; see parity\.json there\. Do not serve it"):
        export.export_features(dataset, tmp_path / "saved")
    assert '"sizes"' in (tmp_path / "saved" / "parity.json").read_text()
