"""docs/transform.md: an interpreter written from it gives what Transform gives, and its example and schema hold."""

from __future__ import annotations

import ast
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dtap_dask
import interpreted_lists
import transform_interpreter
from dtap_dask.docs import pages
from dtap_dask.features import FeatureSpec, FittedState, Transform, build, parse_step
from dtap_dask.features.steps.registry import OPERATIONS
from dtap_dask.storage import open_store
from fitting import fit_batches
from format_reader import read
from in_process import run_in_process

FOLDER = Path(pages.__file__).parent
PAGE = (FOLDER / "transform.md").read_text()
SCHEMA = json.loads((FOLDER / "transform.schema.json").read_text())


def spec(name: str, columns: str, *steps: Any, role: Any = "feature", **more: Any) -> FeatureSpec:
    parsed = tuple(parse_step(*step) if isinstance(step, tuple) else parse_step(step) for step in steps)
    return FeatureSpec(name, role, tuple(columns.split()), parsed, **more)


FREQUENT = ("impute", {"strategy": "most_frequent", "indicator": True})
SPECS = [
    spec("mean", "x", ("impute", {"indicator": True}), "standard_scale"),
    spec("nan", "x", ("standard_scale", {"with_mean": False}), allow_null=True),
    spec("median", "x", ("impute", "median"), ("clip", {"min": 0, "max": 2}), "log1p", ("minmax_scale", [-1, 1])),
    spec("maxabs", "n", ("clip", {"max": 3}), "maxabs_scale"),
    spec("robust", "x", ("robust_scale", {"unit_variance": True}), allow_null=True),
    spec("ranks", "x", ("quantile_transform", {"n_quantiles": 7}), allow_null=True),
    spec("scores", "n", ("quantile_transform", "normal")),
    spec("power", "x", ("power_transform", False), allow_null=True),
    spec("nearly normal", "n", "power_transform"),
    spec("among", "x", ("standard_scale", {"by": "s"}), ("robust_scale", {"by": "b"}), allow_null=True),
    spec("mode", "s", ("impute", {"strategy": "most_frequent", "by": "n"}), ("hash_encode", 99)),
    spec("by_day", "y", ("bucketize", {"quantiles": 3, "by": "m"})),
    spec("buckets", "x", ("impute", {"strategy": "constant", "value": 9}), ("bucketize", {"quantiles": 5})),
    spec("bounds", "n", ("bucketize", {"boundaries": [-1, 0.5, 3]}), ("cast", "float32")),
    spec("word", "s", ("ordinal_encode", {"top_k": 2, "oov_buckets": 3})),
    spec("ahead", "s", ("ordinal_encode", {"first": ["yy", "never"], "top_k": 4})),
    spec("known", "s", ("ordinal_encode", {"vocabulary": ["red", "never"], "oov_buckets": 2})),
    spec("both", "s", ("ordinal_encode", {"share": "words", "min_count": 2})),
    spec("both_lists", "l", ("impute", "most_frequent"), ("ordinal_encode", {"share": "words", "min_count": 2})),
    spec("filled", "s", FREQUENT, ("ordinal_encode", 3)),
    spec("number", "m", ("ordinal_encode", {"min_count": 30, "oov_buckets": 2})),
    spec("hot", "s", "one_hot_encode"),
    spec("hashed", "s n", ("hash_encode", 1000), vector=True),
    spec("vector", "x y n", "impute", "standard_scale", ("pca", 2), ("cast", "float64"), vector=True),
    spec("whitened", "x y n", "impute", ("pca", {"n_components": 2, "whiten": True}), vector=True),
    spec("topics", "x y n", "impute", ("truncated_svd", 2), vector=True),
    spec("often", "s", "count_encode"),
    spec("share", "m", ("count_encode", True)),
    spec("crossed", "s n b", ("cross", "-"), ("hash_encode", 50), vector=True),
    spec("products", "x y n", "impute", ("polynomial", {"interaction_only": True, "include_bias": False}), vector=True),
    spec("beside", "y b", "passthrough", vector=True),
    spec("text", "t"),
    spec("cents", "d", ("impute", {"strategy": "most_frequent"}), ("cast", "string")),
    spec("whole", "y", ("cast", "int16")),
    spec("day", "when", ("cast", "int64"), ("minmax_scale", None)),
    spec("clock", "when", ("datetime_parts", ["year", "day_of_year", "week", "is_weekend"])),
    spec("there", "when", ("datetime_parts", {"extract": ["month", "hour"], "zone": "Europe/London", "cyclic": True})),
    spec("bought", "l", ("impute", {"strategy": "constant", "value": "?"}), ("ordinal_encode", 3)),
    spec("recent", "k", "null_as_empty", ("last", 5), ("pad", {"length": 3, "side": "pre", "value": 7, "mask": True})),
    spec("early", "l", ("impute", "most_frequent"), ("first", 2), ("hash_encode", 9), ("pad", 2)),
    spec("words", "w2", ("tokenize", {"ngrams": 2, "max_tokens": 3}), "ordinal_encode", ("pad", 4)),
    spec("tags", "w2", ("tokenize", {"pattern": "[^a-z]+", "lower": False}), "null_as_empty", ("multi_hot", 2)),
    spec("bag", "w2", ("text_hash", {"buckets": 5, "separator": " ", "ngrams": [2, 1], "signed": True})),
    spec("counted", "l", ("impute", "most_frequent"), ("multi_hot", {"mode": "count"})),
    spec("held", "l", ("impute", "most_frequent"), ("ordinal_encode", 2), ("last", 2), "multi_hot"),
    spec("bought_count", "k", "null_as_empty", "list_length"),
    spec("place", "v", ("impute", {"indicator": True}), "standard_scale", ("minmax_scale", [-1, 1])),
    spec(
        "middle", "v", ("impute", {"strategy": "constant", "value": 1}), "log1p", ("bucketize", {"boundaries": [0.5]})
    ),
    spec("any_place", "v", ("clip", {"min": 0}), "robust_scale", "maxabs_scale", allow_null=True),
    spec("padded", "k", "null_as_empty", ("pad", 2), ("standard_scale", {"with_mean": False})),
    spec("square", "x y", "impute", "polynomial", "standard_scale", vector=True),
    spec("likely", "s", ("target_encode", {"target_type": "binary", "cv": 2})),
    spec("each", "m", ("target_encode", {"target_type": "multiclass", "smooth": 3, "cv": 2})),
    spec("t", "t", "ordinal_encode", role="label"),
    spec("w", "w", role="weight"),
    spec("n", "n", role="kept"),
    spec("d", "dd", role="kept"),
]


def rows(count: int = 300) -> pa.RecordBatch:
    rng = np.random.default_rng(4)
    holes = rng.random(count) < 0.2
    return pa.record_batch(
        {
            "x": pa.array(rng.lognormal(size=count), mask=holes),
            "y": rng.normal(size=count),
            "n": rng.integers(-5, 5, count),
            "m": pa.array(rng.integers(0, 9, count).astype(np.int16), mask=holes),
            "s": pa.array(rng.choice(["blue", "red", "grün", "x", "yy"], count), mask=holes).dictionary_encode(),
            "l": pa.array(
                [rng.choice(["a", "b", "c", "d", None], size).tolist() for size in rng.integers(0, 4, count)]
            ),
            "w2": [" ".join(rng.choice(["Red", "a", "ÜBER", "x  y", "\t"], n)) for n in rng.integers(0, 5, count)],
            "k": pa.array(
                [None if n == 9 else rng.integers(-9, 9, n).tolist() for n in rng.integers(0, 10, count)],
                pa.list_(pa.int8()),
            ),
            "t": pa.array(rng.choice(["no", "yes"], count)),
            "b": rng.random(count) < 0.5,
            "w": rng.random(count),
            "d": pa.array([Decimal(int(i)).scaleb(-2) for i in rng.integers(-9, 9, count)], pa.decimal128(9, 2), holes),
            "dd": pa.array([Decimal(int(i)).scaleb(-2) for i in rng.integers(-9, 9, count)], pa.decimal128(9, 2)),
            "v": pa.array(
                [None if rng.random() < 0.1 else rng.choice([0, 0.25, 3.5, None], 3).tolist() for _ in range(count)],
                pa.list_(pa.float32(), 3),
            ),
            "when": pa.array(rng.integers(0, 2 * 10**9, count), pa.timestamp("s")),
        }
    )


@pytest.fixture(scope="module")
def state() -> FittedState:
    batch = rows()
    assert {step.name for one in SPECS for step in one.steps} | {
        "label_encode",
        "keyed",
        "missing_indicator",
        "pad_mask",
        "estimator",  # what it has learnt is opaque
    } == set(OPERATIONS)
    folds = pa.array(np.arange(200) % 2)
    return fit_batches(build(SPECS, batch.schema), [batch.slice(0, 200).append_column("<fold 2>", folds)])


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    when = batch.column("when").cast(pa.timestamp("us")).cast(pa.int64())
    return pa.Table.from_batches([batch]).set_column(batch.schema.names.index("when"), "when", when).to_pylist()


def test_an_interpreter_written_from_the_page_gives_what_transform_gives(state: FittedState, tmp_path: Path) -> None:
    state.save(open_store(str(tmp_path)))
    document = json.loads((tmp_path / "transform.json").read_text())
    batch = rows()
    found = transform_interpreter.run(document, tmp_path, plain_rows(batch))
    expected = Transform(state).apply(batch)
    assert list(found) == list(expected)
    for output in document["outputs"]:
        ours, theirs = found[output["name"]], expected[output["name"]]
        if output["stored"] == "bytes":
            texts = [format(one, "f").encode() if isinstance(one, Decimal) else one for one in ours]
            assert texts == theirs.to_pylist(), output["name"]
            continue
        if output["shape"] == [None]:
            assert ours == theirs.to_pylist(), output["name"]
            continue
        made = np.array(ours, np.float64 if output["stored"].startswith("float") else np.int64)
        assert made.shape == (batch.num_rows, *output["shape"])
        assert theirs.dtype == output["stored"]
        np.testing.assert_allclose(made, theirs, rtol=2e-7, atol=1e-7, err_msg=output["name"])
        if np.dtype(output["stored"]).kind in "iu":
            np.testing.assert_array_equal(made, theirs)


NUMBERS = ["trip_miles", "trip_seconds", "fare"]
OTHERS = ["company", "payment_type", "pickup_latitude", "pickup_community_area", "dropoff_community_area"]
COLUMNS = [*NUMBERS, *OTHERS, "trip_start", "tips", "minute", "trip_id"]


def job(source: Path, output: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "source": {"path": str(source), "where": "payment_type in ('Cash', 'Credit Card')"},
        "derive": {"minute": "extract(minute from trip_start)"},
        "label": {"column": "payment_type", "steps": ["ordinal_encode"]},
        "keep": ["trip_id"],
        "split": {"parts": {"train": 0.7, "eval": 0.3}, "key": ["trip_id"]},
        "features": [
            {"columns": NUMBERS, "steps": [{"impute": {"strategy": "mean", "indicator": True}}, "standard_scale"]},
            {"columns": NUMBERS, "steps": [{"impute": "median"}, {"clip": {"min": 1}}, "log1p", "minmax_scale"],
             "name": "sizes"},
            {"columns": NUMBERS, "steps": [{"impute": {"strategy": "constant", "value": 1}}, "maxabs_scale",
             {"pca": 2}], "name": "components"},
            {"columns": NUMBERS, "steps": [{"impute": "mean"}, "maxabs_scale",
             {"pca": {"n_components": 2, "whiten": True}}], "name": "whitened"},
            {"columns": ["company", "pickup_community_area"], "steps": ["one_hot_encode", {"truncated_svd": 3}],
             "name": "topics"},
            {"columns": NUMBERS, "steps": [{"impute": "mean"}, {"polynomial": [2, 3]}], "name": "products"},
            {"columns": ["pickup_latitude"], "steps": [{"impute": "mean"}, {"bucketize": {"quantiles": 4}}]},
            {"columns": ["pickup_latitude"], "steps": ["robust_scale", {"impute": "mean"}], "as": "north"},
            {"columns": ["fare"], "steps": [{"impute": {"strategy": "median", "by": "company"}},
             {"standard_scale": {"by": "minute"}}], "as": "fare_among"},
            {"columns": ["pickup_latitude"], "steps": ["quantile_transform", {"impute": "mean"}], "as": "rank"},
            {"columns": ["pickup_latitude"], "steps": ["power_transform", {"impute": "mean"}], "as": "power"},
            {"columns": ["company"], "steps": [{"ordinal_encode": {"top_k": 5, "oov_buckets": 3}}]},
            {"columns": ["dropoff_community_area"], "steps": [{"ordinal_encode": {"min_count": 20}}]},
            {"columns": ["company"], "steps": [{"count_encode": True}], "as": "share"},
            {"columns": ["company", "pickup_community_area"], "steps": ["cross", "ordinal_encode"], "name": "route"},
            {"columns": ["company"], "steps": ["one_hot_encode"], "as": "one_hot"},
            {"columns": ["company", "pickup_community_area"], "steps": [{"hash_encode": 50}], "as": "{column}_hash"},
            {"columns": ["trip_seconds"], "steps": [{"impute": "most_frequent"}, {"cast": "string"},
             {"hash_encode": 9}], "as": "text"},
            {"columns": ["company"], "steps": [{"target_encode": {"target_type": "binary"}}], "as": "likely"},
            {"columns": ["company"], "steps": ["tokenize", "null_as_empty", {"first": 4}, {"last": 3},
             {"hash_encode": 99}, {"pad": {"length": 2, "mask": True}}], "as": "words"},
            {"columns": ["company"], "steps": ["tokenize", "null_as_empty", {"multi_hot": 9}], "as": "said"},
            {"columns": ["company"], "steps": ["tokenize", "null_as_empty", "list_length"], "as": "long"},
            {"columns": ["payment_type"], "steps": [{"text_hash": 7}], "as": "bag"},
            {"columns": ["trip_start"], "steps": [{"cast": "int64"}]},
            {"columns": ["trip_start"], "steps": [{"datetime_parts": ["hour"]}], "as": "at"},
            {"columns": ["tips"], "steps": ["passthrough"], "allow_null": True},
            {"columns": ["minute"]},
        ],
        "output": {"path": str(output)},
    }  # fmt: skip


@pytest.fixture(scope="module")
def dataset(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("transform") / "out"
    run_in_process(job(lake / "trips" / "year=2013" / "month=4", output))
    return output


def test_an_interpreter_written_from_the_page_computes_a_dataset(dataset: Path, lake: Path) -> None:
    described = job(lake / "trips" / "year=2013" / "month=4", dataset)
    rows = dtap_dask.read(described, columns=COLUMNS).compute()
    source = {name: [None if pd.isna(one) else one for one in rows[name].tolist()] for name in COLUMNS}
    document = json.loads((dataset / "transform.json").read_text())
    assert {one["operation"] for one in document["values"] if "operation" in one} == set(OPERATIONS) - {"estimator"}
    by_row = [dict(zip(source, row, strict=True)) for row in zip(*source.values(), strict=True)]
    computed = transform_interpreter.run(document, dataset, by_row)
    at = {trip: row for row, trip in enumerate(source["trip_id"])}
    for split in ("train", "eval"):
        stored = read(dataset, split)
        order = [at[int(trip)] for trip in stored["trip_id"]]
        assert set(computed) == set(stored)
        of_folds = {"likely"} if split == "train" else set()  # the rows of the fitted part are encoded out of fold
        for name in computed.keys() - of_folds:
            made = np.array(computed[name], np.float64)[order]
            np.testing.assert_allclose(made, stored[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_interpreter_knows_nothing_but_the_page() -> None:
    files = [Path(one.__file__).read_text() for one in (transform_interpreter, interpreted_lists)]
    nodes = [node for text in files for node in ast.walk(ast.parse(text))]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in modules | names if name and name.startswith("dtap_dask")]


def test_states_fit_the_schema(state: FittedState) -> None:
    document = json.loads(json.dumps(state.as_json()))
    jsonschema.validate(document, SCHEMA)
    jsonschema.validate(json.loads(json.dumps(FittedState.unfitted(state.graph).as_json())), SCHEMA)
    assert set(SCHEMA["$defs"]["value"]["oneOf"][2]["properties"]["operation"]["enum"]) == set(OPERATIONS)
    for wrong in ({"format": 1}, {"values": [{"column": "x", "inputs": [0]}]}, {"unknown": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **wrong}, SCHEMA)


def test_every_key_and_operation_is_described() -> None:
    value = [one["properties"] for one in SCHEMA["$defs"]["value"]["oneOf"]]
    keys = [*SCHEMA["properties"], *(f"values[].{key}" for one in value for key in one)]
    keys += [f"outputs[].{key}" for key in SCHEMA["$defs"]["output"]["properties"]]
    table = PAGE.partition("## Keys")[2].partition("## Values")[0]
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) != []
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == set(keys)
    operations = PAGE.partition("## Operations")[2].partition("## Outputs")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", operations, re.MULTILINE)) == set(OPERATIONS)
    assert set(transform_interpreter.OPERATIONS) == set(OPERATIONS)


def test_the_example_is_what_the_rows_give(tmp_path: Path) -> None:
    batch = pa.record_batch(
        {"fare": [4.0, None, 10.0, 6.0], "company": ["blue", "red", None, "blue"], "tips": [True, False, True, True]}
    )
    specs = [
        spec("fare", "fare", "impute", "standard_scale", place="features[0]"),
        spec("company", "company", ("ordinal_encode", 2), place="features[1]"),
        spec("tips", "tips", role="label", place="label"),
    ]
    state = fit_batches(build(specs, batch.schema), [batch])
    state.save(open_store(str(tmp_path)))
    document = json.loads((tmp_path / "transform.json").read_text())
    del document["arrow_schema"]
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert json.loads(example) == document
    vocabulary = pq.read_table(tmp_path / "transform/0.parquet").to_pydict()
    assert vocabulary == {"vocabulary": ["blue", "red"], "counts": [2, 1]}
    made = Transform(state).apply(batch)
    assert (made["fare"][1], made["company"][1]) == (0, 3)
