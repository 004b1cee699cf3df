"""The Keras layer of a dataset: what it gives for the rows of the lake, in a model, saved and loaded without it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
from dtap_dask.apply.dataset import open_features
from dtap_dask.errors import DataError, DtapError, JobError, OutputError, SourceError
from dtap_dask.job.samples import source_rows
from dtap_dask.train.serving.command import print_export, without_log
from dtap_dask.train.serving.export import export_features
from dtap_dask.train.serving.parity import parity
from dtap_dask.train.serving.rows import raw_tensors
from in_process import run_in_process

ROWS = pa.table(
    {
        "fare": pa.array([4.5, None, 12.25, 7.0, 3.0, 5.0], pa.float32()),
        "miles": [1.0, 2.5, 4.0, 0.5, 3.75, 8.0],
        "trips": pa.array([3, None, 2, 7, 2**40, 3]),
        "company": ["a\nb", None, "", "Taxi", "Taxi", "a\nb"],
        "tags": [["x"], ["x", "y"], [], ["z"], ["y"], ["x", "x"]],
        "tip": [1, 0, 0, 1, 1, 0],
    }
)
JOB: dict[str, Any] = {
    "version": 1,
    "derive": {"per_mile": "fare / miles"},
    "label": "tip",
    "features": [
        {"columns": ["fare", "miles"], "steps": ["impute", "standard_scale"], "name": "sizes"},
        {"columns": ["per_mile"], "steps": [{"impute": "median"}, "log1p"]},
        {"columns": ["company", "trips"], "steps": [{"ordinal_encode": {"oov_buckets": 3}}]},
        {"columns": ["tags"], "steps": [{"hash_encode": 10}]},
    ],
    "output": {"shuffle": "none"},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset of ROWS."""
    folder = tmp_path_factory.mktemp("serving")
    pq.write_table(ROWS, folder / "rows.parquet")
    job = JOB | {"source": {"path": str(folder / "rows.parquet")}}
    run_in_process(job | {"output": JOB["output"] | {"path": str(folder / "out")}})
    return folder / "out"


@pytest.fixture(scope="module")
def layer(dataset: Path) -> Any:
    """Its layer."""
    return dtap_dask.serving(dataset)


def raw(layer: Any, rows: pa.Table = ROWS) -> dict[str, Any]:
    """The tensors that the layer takes."""
    return raw_tensors(rows.select([one.name for one in layer.raw_columns]).combine_chunks().to_batches()[0])


def assert_same(made: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(made) == list(wanted)
    for name, values in wanted.items():
        assert made[name].dtype == values.dtype
        if isinstance(values, tf.RaggedTensor):
            assert made[name].to_list() == values.to_list()
        else:
            np.testing.assert_allclose(made[name], values, rtol=1.2e-7)


def test_raw_columns_are_those_that_features_need(layer: Any) -> None:
    assert [one.name for one in layer.raw_columns] == ["fare", "miles", "trips", "company", "tags"]


@pytest.mark.parametrize("graph", [False, True])
def test_features_are_those_of_load(dataset: Path, layer: Any, graph: bool) -> None:
    [(wanted, _)] = dtap_dask.load(dataset, batch_size=100, shuffle=False)
    assert_same((tf.function(layer) if graph else layer)(raw(layer)), wanted)


def test_one_row_and_columns_of_one_place(layer: Any) -> None:
    made = layer(raw(layer, ROWS.slice(2, 1)))
    assert made["sizes"].shape == (1, 2)
    rows = raw(layer) | {"fare": tf.constant(ROWS["fare"].to_numpy()[:, None])}
    assert_same(layer(rows), layer(raw(layer)))


def test_a_million_rows(layer: Any) -> None:
    rows = raw(layer, pa.concat_tables([ROWS] * 166_667).combine_chunks())
    made = tf.function(layer)(rows)
    assert made["sizes"].shape == (1_000_002, 2)
    np.testing.assert_array_equal(made["company"][-6:], layer(raw(layer))["company"])


def whole(layer: Any) -> Any:
    """A model from raw columns."""
    inputs = layer.raw_inputs(nulls=True)
    features = layer(inputs)
    ids = keras.layers.Embedding(features["company"].ids, 2)(features["company"])
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.concatenate([ids, features["sizes"]])))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saves variables so
def test_a_model_is_saved_and_loaded_without_the_dataset(layer: Any, tmp_path: Path) -> None:
    model = whole(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    wanted = model(raw(layer)).numpy()
    np.testing.assert_array_equal(loaded(raw(layer)).numpy(), wanted)
    np.testing.assert_allclose(loaded.predict(raw(layer), verbose=0), wanted, rtol=1e-6)
    loaded.save(tmp_path / "again.keras")  # the file that it was loaded from is gone
    again = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again(raw(layer)).numpy(), wanted)


def test_raw_tensors_come_by_name(layer: Any) -> None:
    with pytest.raises(DataError, match="a dict with one for each column, by name, not <class 'list'>"):
        layer.module(list(raw(layer).values()))


def test_raw_tensors_have_as_many_rows_as_each_other(layer: Any) -> None:
    shorter = raw(layer) | {"fare": tf.constant([1.0, 2.0])}
    with pytest.raises(DataError, match="different numbers of rows: .*'fare' 2"):
        layer.module(shorter)


def test_missing_columns_and_values_that_records_refuse(layer: Any) -> None:
    with pytest.raises(DataError, match="lack 'fare', which the features need"):
        layer({name: values for name, values in raw(layer).items() if name != "fare"})
    wrong = raw(layer) | {"fare": tf.constant([np.inf] * 6)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature 'sizes'.*would make an infinity"):
        layer(wrong)


def test_a_copy_of_the_configuration_alone_says_what_it_lacks(layer: Any) -> None:
    copied = keras.models.clone_model(whole(layer))
    with pytest.raises(DtapError, match="clone_model and from_config copy its configuration alone"):
        copied(raw(layer))


def test_layers_of_two_datasets_in_one_model(dataset: Path, layer: Any) -> None:
    inputs, other = layer.raw_inputs(nulls=True), dtap_dask.serving(dataset)
    model = keras.Model(inputs, layer(inputs)["sizes"] - other(inputs)["sizes"])
    assert not model(raw(layer)).numpy().any()


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        dtap_dask.serving(tmp_path)


def test_an_export_serves_raw_tensors_and_examples(dataset: Path, layer: Any, tmp_path: Path) -> None:
    found = export_features(dataset, tmp_path / "saved")
    assert found["differing"] == 0
    assert 0 < found["refused"] < found["rows"]
    signatures = tf.saved_model.load(tmp_path / "saved").signatures
    [(wanted, _)] = dtap_dask.load(dataset, batch_size=100, shuffle=False)
    made = signatures["serving_examples"](examples=tf.constant([example(row) for row in ROWS.to_pylist()]))
    assert made.pop("tags_lengths").numpy().tolist() == [1, 2, 0, 1, 1, 2]
    flat = {name: one.flat_values if isinstance(one, tf.RaggedTensor) else one for name, one in wanted.items()}
    assert_same({name: made[name] for name in wanted}, flat)
    rows = raw(layer, ROWS.slice(2, 4))
    plain = {name: one for name, one in rows.items() if not name.endswith("_null") and name != "tags"}
    plain |= {"tags": rows["tags"].flat_values, "tags_lengths": rows["tags"].row_lengths()}
    assert signatures["serving_default"](**plain)["company"].numpy().tolist() == wanted["company"].numpy()[2:].tolist()
    for folder, says in (
        (tmp_path / "saved", "is not empty"),
        (tmp_path / "saved/saved_model.pb", "is a file"),
        ("s3://served", "is not on this machine"),
    ):
        with pytest.raises(JobError, match=says):
            export_features(dataset, folder)


def test_an_export_is_checked_on_rows_of_the_source_where_they_can_be_read(dataset: Path, tmp_path: Path) -> None:
    said = print_export(str(dataset), str(tmp_path / "a"), None, {}, source_rows)
    assert f"the features as a SavedModel. {len(ROWS)} rows of the source and 32 made-up rows give what" in said
    found = json.loads((tmp_path / "a" / "parity.json").read_text())
    assert (found["rows"], found["of_source"], found["differing"]) == (len(ROWS) + 32, len(ROWS), 0)
    assert found["source_not_read"] is None

    def gone(*_: Any) -> pa.Table:
        raise SourceError("No files at lake.")

    said = print_export(str(dataset), str(tmp_path / "b"), None, {}, gone)
    assert "SavedModel. 32 made-up rows give what" in said
    assert said.endswith("Rows of the source were not compared: No files at lake.")


def test_what_is_logged_during_an_import_is_shown_only_if_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with without_log():
        os.write(2, b"no GPU")
    assert capfd.readouterr().err == ""
    with pytest.raises(OSError, match="closed"), without_log():
        raise OSError(f"closed after {os.write(2, b'no library')} bytes")
    os.write(2, b", and what comes after")
    assert capfd.readouterr().err == "no library, and what comes after"


def test_rows_that_differ_are_counted_and_their_features_named(dataset: Path, layer: Any) -> None:
    def served(rows: pa.RecordBatch) -> dict[str, Any]:
        made = layer(raw_tensors(rows))
        company = made["company"]
        return made | {"tags": made["tags"].flat_values, "company": tf.where(company == 4, company + 1, company)}

    found = parity(open_features(dataset), served, source_rows)
    taxis = sum(one == "Taxi" for one in ROWS["company"].to_pylist())
    assert found["differing"] >= taxis
    assert found["features"] == ["company"]


def example(row: dict[str, Any]) -> bytes:
    """A row as a serialized tf.train.Example: without the features that are null."""
    made = tf.train.Example()
    for name, value in row.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        feature = made.features.feature[name]
        for one in values:
            if isinstance(one, str):
                feature.bytes_list.value.append(one.encode())
            elif isinstance(one, float):
                feature.float_list.value.append(one)
            else:
                feature.int64_list.value.append(one)
    return bytes(made.SerializeToString())
