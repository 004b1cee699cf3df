"""Keras inputs made from a manifest fit what load yields, and know how many ids an embedding needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dtap_dask.errors import OutputError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.folder import MANIFEST
from dtap_dask.records.manifest import SourceTotals
from dtap_dask.records.manifest_build import build_manifest
from dtap_dask.records.shard import TaskShards, write_shards
from dtap_dask.storage import open_store
from dtap_dask.train.inputs import inputs
from dtap_dask.train.load import load

NUMBERS = (
    FeatureInfo("fare", "feature", "float32", "float32"),
    FeatureInfo("company", "feature", "int64", "uint16", ids=12),
    FeatureInfo("sizes", "feature", "float32", "float32", (3,)),
    FeatureInfo("late", "label", "float32", "uint8"),
    FeatureInfo("row", "kept", "int64", "int64"),
)
OTHERS = (
    FeatureInfo("note", "feature", "bytes", "bytes"),
    FeatureInfo("tags", "feature", "int64", "uint8", (None,), ids=7),
    FeatureInfo("pair", "feature", "bytes", "bytes", (2,)),
)


def write(folder: Path, infos: tuple[FeatureInfo, ...], rows: dict[str, Any] | None = None) -> str:
    store = open_store(str(folder))
    layout = Layout("blocks", 8)
    shards = ()
    if rows:
        count = len(next(iter(rows.values())))
        plan = TaskShards(0, ("train",), (count,), (("train/only",),))
        shards = write_shards(store, "draft", plan, [(np.zeros(count, np.int8), rows)], infos=infos, layout=layout)
        store.publish("draft/train/only", "train/only")
    manifest = build_manifest(
        job={}, fingerprint="f", source=SourceTotals(), infos=infos, layout=layout, splits=["train"], shards=shards
    )
    store.write_atomic(MANIFEST, manifest.to_bytes())
    return str(folder)


def test_every_feature_has_an_input_of_its_shape_and_dtype(tmp_path: Path) -> None:
    found = inputs(write(tmp_path, NUMBERS + OTHERS))
    assert {name: (each.shape, each.dtype, each.name) for name, each in found.items()} == {
        "fare": ((None,), "float32", "fare"),
        "company": ((None,), "int64", "company"),
        "sizes": ((None, 3), "float32", "sizes"),
        "note": ((None,), "string", "note"),
        "tags": ((None, None), "int64", "tags"),
        "pair": ((None, 2), "string", "pair"),
    }
    assert [name for name, each in found.items() if each.ragged] == ["tags"]
    assert {name: each.ids for name, each in found.items()} == {
        "fare": None,
        "company": 12,
        "sizes": None,
        "note": None,
        "tags": 7,
        "pair": None,
    }


def test_a_model_built_from_them_trains_on_what_load_yields(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {
        "fare": rng.normal(size=50).astype(np.float32),
        "company": rng.integers(0, 12, 50).astype(np.uint16),
        "sizes": rng.normal(size=(50, 3)).astype(np.float32),
        "late": rng.integers(0, 2, 50).astype(np.uint8),
        "row": np.arange(50),
    }
    path = write(tmp_path, NUMBERS, rows)
    found = inputs(path)
    parts = [
        keras.layers.Embedding(each.ids, 4)(each)
        if each.ids
        else each
        if len(each.shape) > 1
        else keras.ops.expand_dims(each, -1)
        for each in found.values()
    ]
    model = keras.Model(found, keras.layers.Dense(1)(keras.layers.concatenate(parts)))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    history = model.fit(load(path, batch_size=16), epochs=3, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()
    assert tf.reduce_all(tf.math.is_finite(model.predict(load(path), verbose=0)))


def test_a_folder_without_a_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no dataset"):
        inputs(tmp_path)
