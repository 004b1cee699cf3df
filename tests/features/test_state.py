"""Fitted state: what is saved is what is loaded, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtap_dask.errors import OutputError
from dtap_dask.features import FeatureSpec, FittedState, Pipeline, Transform, fit_batches, parse_step
from dtap_dask.storage import open_store


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
    pipeline = Pipeline.build(specs, rows.schema)
    return rows, pipeline, fit_batches(pipeline, [rows.slice(0, 70), rows.slice(70)])


def test_what_is_saved_is_what_is_loaded(tmp_path):
    rows, pipeline, state = make()
    store = open_store(str(tmp_path))
    for prefix in ("", "_run/1/fitted"):
        state.save(store, prefix)
        loaded = FittedState.load(store, prefix)
        assert loaded == state
        assert loaded.as_json() == state.as_json()
        first, second = Transform(pipeline, state), Transform(loaded.pipeline, loaded)
        assert first.infos == second.infos
        made, again = first.apply(rows), second.apply(rows)
        assert made.keys() == again.keys() == set(pipeline.outputs)
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
    rows, pipeline, state = make()
    state.save(open_store(str(tmp_path)))
    document = json.loads((tmp_path / "transform.json").read_text())
    features = {feature["name"]: feature for feature in document["features"]}
    [[imputed, scaled]] = features["x"]["fitted"]
    x = rows.column("x").to_numpy()
    np.testing.assert_allclose(imputed["statistics_"], x.mean(), rtol=1e-14)
    assert set(scaled) == {"n_samples_seen_", "mean_", "var_", "scale_"}
    assert len(features["v"]["reduced"]["components_"]) == 2
    assert features["hot"]["fitted"] == features["again"]["fitted"]
    vocabulary = pq.read_table(tmp_path / features["s"]["fitted"][0][1]["file"])
    assert vocabulary.column_names == ["vocabulary", "counts"]
    assert vocabulary.column("counts").to_pylist() == sorted(vocabulary.column("counts").to_pylist(), reverse=True)
    infos = {info.name: info for info in Transform(pipeline, state).infos}
    assert infos["s"].vocabulary == features["s"]["fitted"][0][1]["file"]
    assert set(infos["b"].classes) == {"no", "yes"}


def test_columns_walk_over_steps_and_their_numbers():
    _, pipeline, state = make()
    feature = pipeline.features[0]
    [(column, steps)] = state.columns(feature)
    assert column == "x"
    assert [step.step.name for step in steps] == ["impute", "standard_scale"]
    assert steps[1].fitted["n_samples_seen_"] == 200
    assert state.reduced(feature) is None


def test_states_of_other_numbers_differ():
    _, pipeline, state = make()
    chain = next(iter(state.fitted))
    other = FittedState(
        state.specs, state.schema, state.levels, state.rows, {**state.fitted, chain: {"statistics_": 0.0}}
    )
    assert other != state
    assert make()[2] == state
    assert FittedState(state.specs, state.schema, 0, 0, {}).pipeline == pipeline


def test_another_format_is_refused(tmp_path):
    store = open_store(str(tmp_path))
    store.write_atomic("transform.json", b'{"format": 99}')
    with pytest.raises(OutputError, match="has format 99"):
        FittedState.load(store)
