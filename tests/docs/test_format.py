"""A reader written from docs/format.md alone gives what `load` gives, and what such a writer writes is a dataset."""

from __future__ import annotations

import ast
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import dtap_dask
import format_reader
import format_writer
from dtap_dask.errors import OutputError
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.verify import verify_dataset
from dtap_dask.storage import open_store
from in_process import run_in_process

PAGES = Path(dtap_dask.__file__).parent / "docs"
LAYOUTS = [("blocks", "none"), ("blocks", "gzip"), ("rows", "none"), ("rows", "gzip")]


@pytest.fixture(scope="module")
def source(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some trips, and vectors and tensors beside."""
    folder = tmp_path_factory.mktemp("source")
    trips = pq.read_table(lake / "trips").slice(0, 3000).combine_chunks()
    count = len(trips)
    vector = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(3.0 * count)), 3)
    inner = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(4 * count, dtype=np.int16)), 2)
    tensor = pa.FixedSizeListArray.from_arrays(inner, 2)
    pq.write_table(trips.append_column("vector", vector).append_column("tensor", tensor), folder / "trips.parquet")
    return folder


def job(source: Path, output: Path, layout: str, compression: str) -> dict[str, Any]:
    exact = ["trip_id", "tolls"] + (["fare"] if layout == "blocks" else [])
    return {
        "version": 1,
        "source": {"path": str(source), "where": "fare is not null and payment_type is not null"},
        "derive": {"big_tipper": "coalesce(tips > 0.2 * fare, false)", "weight": "1 + month / 12"},
        "label": "big_tipper",
        "weight": "weight",
        "keep": exact,
        "split": {"parts": {"train": 0.7, "eval": 0.3}, "key": ["trip_id"]},
        "features": [
            {"columns": ["trip_miles", "trip_seconds"], "steps": [{"impute": "mean"}, "standard_scale"]},
            {"columns": ["trip_miles"], "steps": [{"impute": "mean"}], "as": "miles", "allow_null": True},
            {"columns": ["company"], "steps": [{"ordinal_encode": {"top_k": 5, "oov_buckets": 3}}]},
            {"columns": ["payment_type"], "steps": ["one_hot_encode"]},
            {"columns": ["shared"], "steps": [{"impute": "most_frequent"}, {"cast": "bool"}]},
            {"columns": ["payment_type"], "as": "payment"},
            {"columns": ["waypoints", "tags", "vector", "tensor"]},
            {"columns": ["fare", "month"], "name": "both"},
        ],
        "output": {
            "path": str(output), "layout": layout, "compression": compression, "rows_per_record": 100,
            "shard_size": "20KiB", "shuffle": "none",
        },
    }  # fmt: skip


@pytest.fixture(scope="module", params=LAYOUTS, ids="-".join)
def dataset(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dataset") / "out"
    run_in_process(job(source, output, *request.param))
    return output


def loaded(path: Path, split: str) -> dict[str, Any]:
    """What `load` gives, column by column."""
    parts: dict[str, list[Any]] = {}
    for (features, label, weight), kept in dtap_dask.load(str(path), split, 500, shuffle=False, kept=True):
        for name, tensor in {**features, "big_tipper": label, "weight": weight, **kept}.items():
            parts.setdefault(name, []).append(tensor)
    return {name: tf.concat(tensors, 0) for name, tensors in parts.items()}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_reader_made_from_the_page_alone_reads_the_same(dataset: Path, split: str) -> None:
    found, expected = format_reader.read(dataset, split), loaded(dataset, split)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        ours = found[name]
        if isinstance(tensor, tf.RaggedTensor):
            theirs = tensor.to_list()
            assert [list(row) for row in ours] == theirs, name
            assert any(len(row) > 1 for row in theirs), name
        elif tensor.dtype == tf.string:
            assert ours == tensor.numpy().tolist(), name
        else:
            assert ours.dtype == tensor.numpy().dtype, name
            np.testing.assert_array_equal(ours, tensor.numpy(), name)


def test_manifests_fit_the_schema(dataset: Path) -> None:
    schema = json.loads((PAGES / "manifest.schema.json").read_text())
    manifest = json.loads((dataset / "manifest.json").read_text())
    jsonschema.validate(manifest, schema)
    for wrong in ({"format_version": "one"}, {"byte_order": "big"}, {"unknown": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**manifest, **wrong}, schema)


def test_the_page_says_which_word_an_id_stands_for(dataset: Path, source: Path) -> None:
    found, word = format_reader.read(dataset, "train"), format_reader.words(dataset, "company")
    trips = pq.read_table(source / "trips.parquet", columns=["trip_id", "company"]).to_pydict()
    company = dict(zip(trips["trip_id"], trips["company"], strict=True))
    seen = {(int(id_), company[int(trip)]) for id_, trip in zip(found["company"], found["trip_id"], strict=True)}
    assert {name for id_, name in seen if id_ == 0} == {None}
    assert all(word(id_) == name for id_, name in seen if id_ > 3)
    assert len({id_ for id_, _ in seen if id_ > 3}) == 5


SIZES = {"equal": [4, 4, 1], "unequal": [2, 4, 1, 2]}  # the rows of the records


@pytest.mark.parametrize(("layout", "sizes"), [("rows", "equal"), ("blocks", "equal"), ("blocks", "unequal")])
def test_a_writer_made_from_the_page_alone_writes_a_dataset(tmp_path: Path, layout: str, sizes: str) -> None:
    rows = format_writer.example_rows(9)
    ends = np.cumsum([0, *SIZES[sizes]])
    groups = [rows[start:stop] for start, stop in itertools.pairwise(ends)]
    format_writer.write(tmp_path, layout, groups)
    jsonschema.validate(
        json.loads((tmp_path / "manifest.json").read_text()), json.loads((PAGES / "manifest.schema.json").read_text())
    )
    store = open_store(str(tmp_path))
    assert verify_dataset(store, read_manifest(store)).rows == 9
    assert dtap_dask.read_records(tmp_path).to_pylist() == rows
    [(features, label)] = dtap_dask.batches(tmp_path, batch_size=9, shuffle=False)
    assert features["fare"].tolist() == [row["fare"] for row in rows]
    assert features["pair"].tolist() == [row["pair"] for row in rows]
    assert features["word"].tolist() == [row["word"] for row in rows]
    visits = features["visits"]
    assert [part.tolist() for part in np.split(visits.values, visits.offsets[1:-1])] == [row["visits"] for row in rows]
    assert (label.dtype, label.tolist()) == (np.float32, [row["paid"] for row in rows])


def test_columns_in_another_order_than_that_of_the_features_are_refused(tmp_path: Path) -> None:
    format_writer.write(tmp_path, "blocks", [format_writer.example_rows(3)])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    fare, pair = manifest["features"][0]["place"], manifest["features"][2]["place"]
    assert (fare["offset"], pair["offset"]) == (0, 1)
    fare["offset"], pair["offset"] = 2, 0
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="the place of 'fare' is not the one that the order of the features gives it"):
        dtap_dask.batches(tmp_path)


@pytest.mark.parametrize("program", [format_reader, format_writer])
def test_the_programs_know_nothing_but_the_page(program: ModuleType) -> None:
    tree = ast.parse(Path(str(program.__file__)).read_text())
    names = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert not any(name.startswith("dtap_dask") for name in names)
