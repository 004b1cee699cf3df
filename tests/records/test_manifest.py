"""The manifest: what it states, what reads it, and what is said where something is wrong."""

from __future__ import annotations

import json

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import OutputError, VerificationError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.commit import begin_commit, commit_dataset, run_write_task
from dtap_dask.records.example import Layout
from dtap_dask.records.manifest import FORMAT_VERSION, Amounts, Manifest, SourceTotals
from dtap_dask.records.manifest_build import build_manifest
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.shard import TaskShards
from dtap_dask.records.tfrecord import frame, read_records
from dtap_dask.records.verify import first_rows, verify_dataset, verify_shard
from dtap_dask.storage import open_store
from property_tests import examples

INFOS = (
    FeatureInfo("id", "kept", "int64", "int64"),
    FeatureInfo("v", "feature", "float32", "float32", (2,), ("a", "b")),
    FeatureInfo("word", "feature", "int64", "uint8", (), ("w",), 9, "transform/word.parquet"),
    FeatureInfo("small", "feature", "float32", "float32"),
    FeatureInfo("t", "feature", "bytes", "bytes"),
    FeatureInfo("tags", "feature", "bytes", "bytes", (None,)),
    FeatureInfo("label", "label", "int64", "uint8", (), ("l",), 2, None, ("no", "yes")),
)
JOB = {"version": 1, "name": None, "features": [{"columns": ["a"], "steps": [{"clip": {"min": None}}]}]}


def make(n):
    ids = np.arange(n, dtype=np.int64)
    return {
        "id": ids,
        "v": np.stack([ids, -ids], axis=1).astype(np.float32),
        "word": (ids % 9).astype(np.uint8),
        "small": ids.astype(np.float32),
        "t": pa.array([b"x" * (i % 5) for i in range(n)], pa.large_binary()),
        "tags": pa.array([[b"t"] * (i % 3) for i in range(n)], pa.large_list(pa.large_binary())),
        "label": (ids % 2).astype(np.uint8),
    }


def write(store, layout, n=25):
    plan = TaskShards(0, ("train", "eval"), (n, 0), (("train/a", "train/b"), ("eval/a",)))
    batches = [(np.zeros(n, np.int8), make(n))]
    shards = run_write_task(store, "r", plan, batches, infos=INFOS, layout=layout, shuffle="none")
    source = SourceTotals(files=Amounts(found=3, pruned=1, read=2))
    with store.create(f"{begin_commit(store, 'r')}/transform.json") as file:
        file.write(b"{}")
    manifest = build_manifest(
        job=JOB,
        fingerprint="f",
        source=source,
        infos=INFOS,
        layout=layout,
        splits=plan.splits,
        shards=shards,
    )
    return commit_dataset(store, "r", manifest)


@pytest.fixture(params=[Layout("blocks", 8), Layout("rows"), Layout("blocks", 8, "gzip"), Layout("rows", 1, "gzip")])
def dataset(request, tmp_path):
    store = open_store(str(tmp_path / "out"))
    return store, write(store, request.param)


def test_what_is_read_is_what_was_committed(dataset):
    store, manifest = dataset
    read = read_manifest(store)
    assert read == manifest
    assert read.to_bytes() == store.read_bytes("manifest.json")
    assert read.infos == INFOS
    assert read.job == JOB
    assert (read.splits["train"].rows, read.splits["eval"].rows) == (25, 0)
    assert [shard.rows for shard in read.shards] == [13, 12, 0]
    assert read.files == {"train/a", "train/b", "eval/a", "transform.json"}
    assert {"numpy", "pyarrow"} < set(read.software)


def test_another_program_reads_the_shards_with_the_manifest_alone(dataset):
    """Only json, TensorFlow and what the manifest says; none of our code."""
    store, _ = dataset
    manifest = json.loads(store.read_bytes("manifest.json"))
    spec = {}
    for name, one in manifest["feature_spec"].items():
        ragged = one["kind"] == "RaggedFeature"
        spec[name] = (
            tf.io.RaggedFeature(one["dtype"], row_splits_dtype=tf.int64)
            if ragged
            else tf.io.FixedLenFeature(one["shape"], one["dtype"])
        )
    paths = [store.local_path(shard["path"]) for shard in manifest["splits"]["train"]["shards"]]
    compression = {"none": "", "gzip": "GZIP"}[manifest["layout"]["compression"]]
    places = {feature["name"]: feature["place"] for feature in manifest["features"]}
    small, texts = [], []
    for record in tf.data.TFRecordDataset(paths, compression):
        parsed = tf.io.parse_example([record], spec)
        if manifest["layout"]["kind"] == "rows":
            small += parsed[places["small"]["key"]].numpy().tolist()
            texts += parsed[places["t"]["key"]].numpy().tolist()
            continue
        place, total = places["small"], int(parsed["rows"][0])
        matrix = tf.io.decode_raw(parsed[place["key"]][0], tf.float32).numpy().reshape(total, -1)
        small += matrix[:, place["offset"]].tolist()
        texts += parsed[places["t"]["values"]].flat_values.numpy().tolist()
    assert small == list(range(25))
    assert texts == make(25)["t"].to_pylist()


@examples(0.1)
@given(st.integers(0, 40))
def test_show_gives_the_first_rows(tmp_path_factory, n):
    for layout in (Layout("blocks", 8), Layout("rows")):
        store = open_store(str(tmp_path_factory.mktemp("show")))
        manifest = write(store, layout)
        rows = first_rows(store, manifest, "train", n)
        assert rows["id"].tolist() == list(range(min(n, 25)))
        assert rows["tags"].to_pylist() == make(25)["tags"].to_pylist()[:n]
        assert list(rows) == [info.name for info in INFOS]
        with pytest.raises(OutputError, match=r"no split 'trian'\. Did you mean 'train'"):
            first_rows(store, manifest, "trian", n)


def test_a_whole_dataset_is_verified(dataset):
    store, manifest = dataset
    found = verify_dataset(store, manifest)
    assert (found.shards, found.rows, found.notes) == (3, 25, ())
    assert found.records == sum(shard.records for shard in manifest.shards)
    assert found.bytes == sum(store.size(shard.path) for shard in manifest.shards)
    store.write_atomic("train/extra", b"")
    assert verify_dataset(store, manifest).notes == ("train/extra does not belong to the dataset",)


def test_every_harm_is_told_at_once(dataset):
    store, manifest = dataset
    store.delete("eval/a")
    data = store.read_bytes("train/a")
    store.write_atomic("train/a", data[:-1] + bytes([data[-1] ^ 1]))
    store.write_atomic("train/b", b"")
    store.delete("transform.json")
    with pytest.raises(VerificationError) as error:
        verify_dataset(store, manifest)
    text = str(error.value)
    for part in (
        "eval/a is missing",
        "train/a has another checksum",
        "train/b has 0 bytes instead",
        "transform.json is",
    ):
        assert part in text


def test_right_bytes_that_hold_other_things_are_told(tmp_path):
    """Checksums that fit are not enough: the records must hold what the manifest states."""
    store = open_store(str(tmp_path))
    manifest = write(store, Layout("blocks", 8))
    shard = manifest.splits["train"].shards[0]
    records = list(read_records(store, shard.path))
    assert verify_shard(store, manifest, shard) == []

    def claim(**changes):
        return verify_shard(store, manifest, type(shard)(**{**vars(shard), **changes}))

    assert claim(rows=14) == ["train/a has 2 records and 13 rows instead of 2 and 14"]
    assert claim(offsets=(0, 1), record_bytes=None) == ["train/a has records at other offsets"]
    assert claim(offsets=None, record_bytes=7) == ["train/a has records at other offsets"]
    fewer = manifest.model_copy(update={"features": manifest.features[1:]})
    assert (
        "holds 64 values" in verify_shard(store, fewer, shard)[0] or "features" in verify_shard(store, fewer, shard)[0]
    )
    strange = frame(b"\x0a\x00") + b"".join(map(frame, records))
    store.write_atomic("train/a", strange)
    (problem,) = claim(bytes=len(strange), crc32c=google_crc32c.value(strange))
    assert "the feature 'rows' is not one integer" in problem
    split = manifest.splits["train"].model_copy(update={"rows": 26})
    wrong = manifest.model_copy(update={"splits": {"train": split}})
    with pytest.raises(VerificationError, match="'train' do not add up"):
        verify_dataset(store, wrong)


def test_nothing_there_is_told_as_what_it_is(tmp_path):
    store = open_store(str(tmp_path / "out"))
    with pytest.raises(OutputError, match="There is no folder"):
        read_manifest(store)
    store.write_atomic("train/part", b"")
    with pytest.raises(OutputError, match="holds no dataset"):
        read_manifest(store)
    store.write_atomic("_run/x/plan.json", b"")
    with pytest.raises(OutputError, match=r"not finished.*--resume"):
        read_manifest(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "is not a manifest"),
        (lambda text: "[]", "is not a manifest"),
        (lambda text: "{}", "is not a manifest.*format_version"),
        (
            lambda text: text.replace('"rows": 13', '"rows": "many"'),
            r"is not a manifest: splits\.train\.shards\[0\]\.rows: found 'many': a whole number is needed\. It was",
        ),
        (lambda text: text.replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 99'), "format version 99"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told(tmp_path, change, message):
    store = open_store(str(tmp_path))
    write(store, Layout("blocks", 8))
    store.write_atomic("manifest.json", change(store.read_bytes("manifest.json").decode()).encode())
    with pytest.raises(OutputError, match=message):
        read_manifest(store)


def test_the_form_of_the_manifest_is_pinned(tmp_path):
    """Other programs rely on these names: whoever changes one raises FORMAT_VERSION."""
    store = open_store(str(tmp_path))
    manifest = json.loads(write(store, Layout("blocks", 8)).to_bytes())
    assert list(manifest) == list(Manifest.model_fields) == [
        "format_version", "fingerprint", "job", "source", "layout", "byte_order", "memory_order", "features",
        "feature_spec", "raw", "fitted_from", "parity", "splits", "sidecars", "software",
    ]  # fmt: skip
    assert manifest["layout"] == {"kind": "blocks", "rows_per_record": 8, "compression": "none"}
    assert manifest["source"]["files"] == {"found": 3, "pruned": 1, "read": 2}
    none = dict.fromkeys(("key", "offset", "width", "values", "lengths"))
    assert [feature["place"] for feature in manifest["features"]] == [
        {**none, "key": "int64", "offset": 0, "width": 1},
        {**none, "key": "float32", "offset": 0, "width": 2},
        {**none, "key": "uint8", "offset": 0, "width": 1},
        {**none, "key": "float32", "offset": 2, "width": 1},
        {**none, "values": "t/values"},
        {**none, "values": "tags/values", "lengths": "tags/lengths"},
        {**none, "key": "uint8", "offset": 1, "width": 1},
    ]
    assert manifest["splits"]["eval"]["shards"][0] == {
        "path": "eval/a", "split": "eval", "rows": 0, "records": 0, "bytes": 0, "crc32c": 0,
        "record_bytes": None, "offsets": [], "same_group": 0,
    }  # fmt: skip


@pytest.mark.parametrize("path", ["../x", "train/../../x", "/etc/hosts", "train//a", "./a", "", "manifest.json", "a\0"])
def test_a_manifest_that_names_other_files_is_refused(tmp_path, path):
    store = open_store(str(tmp_path))
    found = json.loads(write(store, Layout("blocks", 4)).to_bytes())
    found["splits"]["train"]["shards"][0]["path"] = path
    store.write_atomic("manifest.json", json.dumps(found).encode())
    with pytest.raises(OutputError, match=r"is not a manifest.*is no path of a shard"):
        read_manifest(store)
