"""Fitted state: what is saved is what is loaded, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtap_dask.errors import OutputError
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.storage import open_store
from fitting import fit_batches


def make():
    rng = np.random.default_rng(0)
    rows = pa.record_batch(
        {
            "x": pa.array(rng.lognormal(size=200) / 3),
            "y": pa.array(rng.normal(size=200)),
            "s": pa.array(rng.choice(["a", "ü", "\0", None], 200)),
            "n": pa.array(rng.integers(0, 9, 200), pa.int16()),
            "t": pa.array(rng.integers(0, 9, 200), pa.timestamp("us", "UTC")),
            "b": pa.array(rng.choice(["no", "yes"], 200)),
            "raw": pa.array([b"\xff\xfe", None] * 100, pa.binary()),
        }
    )
    step = parse_step
    specs = [
        FeatureSpec(
            "x", "feature", ("x",), (step("impute", {"indicator": True}), step("standard_scale")), place="features[0]"
        ),
        FeatureSpec(
            "v", "feature", ("x", "y"), (step("minmax_scale"), step("pca", 2)), vector=True, place="features[1]"
        ),
        FeatureSpec("s", "feature", ("s",), (step("impute", {"strategy": "most_frequent"}), step("ordinal_encode"))),
        FeatureSpec("hot", "feature", ("n",), (step("one_hot_encode"),)),
        FeatureSpec("again", "feature", ("n",), (step("one_hot_encode"),)),
        FeatureSpec("q", "feature", ("t",), (step("cast", "int64"), step("bucketize", {"quantiles": 4}))),
        FeatureSpec("raw", "feature", ("raw",), (step("impute", {"strategy": "most_frequent"}),)),
        FeatureSpec("b", "label", ("b",), (step("ordinal_encode"),), place="label"),
        FeatureSpec("y", "kept", ("y",)),
    ]
    graph = build(specs, rows.schema)
    return rows, graph, fit_batches(graph, [rows.slice(0, 70), rows.slice(70)])


def test_what_is_saved_is_what_is_loaded(tmp_path):
    rows, graph, state = make()
    store = open_store(str(tmp_path))
    for prefix in ("", "_run/1/fitted"):
        state.save(store, prefix)
        loaded = FittedState.load(store, prefix)
        assert loaded == state
        assert loaded.as_json() == state.as_json()
        first, second = Transform(state), Transform(loaded)
        assert first.infos == second.infos
        made, again = first.apply(rows), second.apply(rows)
        assert made.keys() == again.keys() == {output.name for output in graph.outputs}
        for name, values in made.items():
            same = (
                values.equals(again[name])
                if isinstance(values, pa.Array)
                else values.tobytes() == again[name].tobytes()
            )
            assert same, name


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        make()[2].save(open_store(str(tmp_path / folder)))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert "transform.json" in map(str, files)
    assert len(files) == 4
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_the_file_names_numbers_as_dask_ml_does(tmp_path):
    rows, _, state = make()
    state.save(open_store(str(tmp_path)))
    document = json.loads((tmp_path / "transform.json").read_text())
    outputs = {output["name"]: output for output in document["outputs"]}

    def value(name):
        [place] = outputs[name]["values"]
        return document["values"][place]

    scaled = value("x")
    [imputed] = [document["values"][place] for place in scaled["inputs"]]
    x = rows.column("x").to_numpy()
    np.testing.assert_allclose(imputed["fitted"]["statistics_"], x.mean(), rtol=1e-14)
    assert set(scaled["fitted"]) == {"n_samples_seen_", "mean_", "var_", "scale_"}
    assert len(value("v")["fitted"]["components_"]) == 2
    assert outputs["hot"]["values"] == outputs["again"]["values"]
    vocabulary = pq.read_table(tmp_path / value("s")["vocabulary"])
    assert vocabulary.column_names == ["vocabulary", "counts"]
    assert vocabulary.column("counts").to_pylist() == sorted(vocabulary.column("counts").to_pylist(), reverse=True)
    infos = {info.name: info for info in Transform(state).infos}
    assert infos["s"].vocabulary == value("s")["vocabulary"]
    assert set(infos["b"].classes) == {"no", "yes"}


def test_values_have_inputs_and_their_numbers():
    _, graph, state = make()
    [scaled] = graph.outputs[0].values
    [imputed] = scaled.inputs
    [source] = imputed.inputs
    assert (source.columns, source.inputs) == (("x",), ())
    assert [value.applied.name for value in (imputed, scaled)] == ["impute", "standard_scale"]
    assert state.fitted[scaled]["n_samples_seen_"] == 200
    assert [output.name for output in graph.outputs[:2]] == ["x", "x_missing"]


def test_states_of_other_numbers_differ():
    _, graph, state = make()
    value = next(iter(state.fitted))
    other = FittedState(graph, state.passes, state.rows, {**state.fitted, value: {"statistics_": 0.0}})
    assert other != state
    assert make()[2] == state
    assert FittedState.unfitted(state.graph).graph == graph


def test_another_format_is_refused(tmp_path):
    store = open_store(str(tmp_path))
    store.write_atomic("transform.json", b'{"format": 99}')
    with pytest.raises(OutputError, match="has format 99"):
        FittedState.load(store)
    store.write_atomic("transform.json", b'{"format": 1, "levels": 1, "features": []}')
    with pytest.raises(OutputError, match=r"has format 1, and .* reads 2\. .*, or .*--overwrite"):
        FittedState.load(store)
