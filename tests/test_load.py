"""Loading: every row once an epoch with its own values, in an order that (seed, epoch) decides, ready for Keras."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtap_dask.errors import JobError, OutputError, StorageError
from dtap_dask.features.state import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.manifest import MANIFEST, SourceTotals, build_manifest
from dtap_dask.records.shard import TaskShards, write_shards
from dtap_dask.storage import open_store
from dtap_dask.train.load import load

# Columns of every kind, of neighbours that differ in role, dtype and shape. Each value follows from the row's number.
INFOS = (
    FeatureInfo("fare", "feature", "float32", "float32"),
    FeatureInfo("late", "label", "bool", "bool"),
    FeatureInfo("miles", "feature", "float32", "float32"),
    FeatureInfo("company", "feature", "int64", "uint16", ids=1000),
    FeatureInfo("payment", "feature", "int64", "uint8", ids=200),
    FeatureInfo("sizes", "feature", "float32", "float32", (3,)),
    FeatureInfo("flags", "feature", "int64", "uint8", (2,)),
    FeatureInfo("big", "feature", "uint32", "uint32"),
    FeatureInfo("weight", "weight", "float32", "float32"),
    FeatureInfo("row", "kept", "int64", "int64"),
    FeatureInfo("note", "feature", "bytes", "bytes"),
    FeatureInfo("tags", "feature", "int64", "int32", (None,)),
    FeatureInfo("words", "feature", "bytes", "bytes", (None,)),
    FeatureInfo("pair", "feature", "bytes", "bytes", (2,)),
)
PLAIN = tuple(info for info in INFOS if info.name in ("fare", "miles", "company", "sizes", "late", "row"))


def values(name: str, rows: Sequence[int]) -> list[Any]:
    """The oracle: what a column holds in the rows with these numbers."""
    return [_VALUE[name](row) for row in rows]


_VALUE = {
    "fare": lambda row: row * 0.5,
    "late": lambda row: row % 3 == 0,
    "miles": lambda row: -row,
    "company": lambda row: row % 1000,
    "payment": lambda row: row * 7 % 200,
    "sizes": lambda row: [row, row + 0.25, -row],
    "flags": lambda row: [row % 2, row % 5],
    "big": lambda row: 2**32 - 1 - row,
    "weight": lambda row: 1 + row % 4,
    "row": lambda row: row,
    "note": lambda row: b"" if row % 4 == 0 else b"\x00\xff" + str(row).encode() * (row % 4),
    "tags": lambda row: list(range(row, row + row % 3)),
    "words": lambda row: [b"w%d" % (row + i) for i in range(row % 4)],
    "pair": lambda row: [b"%d" % row, b""],
}


def column(info: FeatureInfo, rows: Sequence[int]) -> Any:
    found = values(info.name, rows)
    if info.stored == "bytes" and info.shape == ():
        return pa.array(found, pa.large_binary())
    if info.stored == "bytes" or None in info.shape:
        kind = pa.large_binary() if info.stored == "bytes" else pa.from_numpy_dtype(info.stored)
        return pa.array(found, pa.large_list(kind))
    return np.array(found, info.stored).reshape(len(rows), *info.shape)


def write(
    folder: Path, shards: Sequence[int], layout: Layout, infos: tuple[FeatureInfo, ...] = INFOS, split: str = "train"
) -> str:
    """A finished dataset of one split whose shards have so many rows, numbered through in order; its path."""
    store = open_store(str(folder))
    names = [f"{split}/part-{number:05d}-of-{len(shards):05d}.tfrecord" for number in range(len(shards))]
    written = []
    for number, (name, rows) in enumerate(zip(names, shards, strict=True)):
        first = sum(shards[:number])
        columns = {info.name: column(info, range(first, first + rows)) for info in infos}
        plan = TaskShards(number, (split,), (rows,), ((name,),))
        written += write_shards(
            store, "draft", plan, [(np.zeros(rows, np.int8), columns)], infos=infos, layout=layout, shuffle="none"
        )
        store.publish(f"draft/{name}", name)
    manifest = build_manifest(
        job={}, fingerprint="f", source=SourceTotals(), infos=infos, layout=layout, splits=[split], shards=written
    )
    store.write_atomic(MANIFEST, manifest.to_bytes())
    return str(folder)


def numbers(data: tf.data.Dataset) -> list[int]:
    """The row numbers of one epoch, from a dataset loaded with kept columns."""
    return [int(row) for _, kept in data for row in kept["row"]]


def plain(values: Any) -> list[Any]:
    return values.to_list() if isinstance(values, tf.RaggedTensor) else values.numpy().tolist()


@given(
    shards=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    record=st.integers(1, 17),
    batch=st.integers(1, 60),
    kind=st.sampled_from(["blocks", "rows"]),
    compression=st.sampled_from(["none", "gzip"]),
    shuffle=st.booleans(),
    drop=st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_once_with_its_own_values(
    tmp_path_factory: pytest.TempPathFactory,
    shards: list[int],
    record: int,
    batch: int,
    kind: Any,
    compression: Any,
    shuffle: bool,
    drop: bool,
) -> None:
    path = write(tmp_path_factory.mktemp("data"), shards, Layout(kind, record, compression))
    data = load(path, batch_size=batch, shuffle=shuffle, kept=True, drop_remainder=drop)
    total = sum(shards)
    expected = [batch] * (total // batch) + [total % batch] * (total % batch > 0 and not drop)
    assert len(data) == len(expected)
    for _ in range(2):
        seen: list[int] = []
        sizes = []
        for (features, label, weight), kept in data:
            rows = kept["row"].numpy().tolist()
            for name, found in {**features, "late": label, "weight": weight}.items():
                assert plain(found) == values(name, rows), name
            seen += rows
            sizes.append(len(rows))
        assert sizes == expected
        assert len(set(seen)) == len(seen) == sum(expected)
        assert set(seen) <= set(range(total))
        assert shuffle or seen == list(range(len(seen)))


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("drop", [True, False])
def test_shapes_and_dtypes_are_static(tmp_path: Path, kind: Any, drop: bool) -> None:
    path = write(tmp_path, [10, 5], Layout(kind, 4))
    n = 6 if drop else None
    (features, label, weight), kept = load(path, batch_size=6, kept=True, drop_remainder=drop).element_spec
    assert features == {
        "fare": tf.TensorSpec([n], tf.float32),
        "miles": tf.TensorSpec([n], tf.float32),
        "company": tf.TensorSpec([n], tf.int64),
        "payment": tf.TensorSpec([n], tf.int64),
        "sizes": tf.TensorSpec([n, 3], tf.float32),
        "flags": tf.TensorSpec([n, 2], tf.int64),
        "big": tf.TensorSpec([n], tf.uint32),
        "note": tf.TensorSpec([n], tf.string),
        "tags": tf.RaggedTensorSpec([n, None], tf.int64),
        "words": tf.RaggedTensorSpec([n, None], tf.string),
        "pair": tf.TensorSpec([n, 2], tf.string),
    }
    assert label == weight == tf.TensorSpec([n], tf.float32)
    assert kept == {"row": tf.TensorSpec([n], tf.int64)}
    assert load(path, batch_size=6, drop_remainder=drop).element_spec == (features, label, weight)


def infos_with(*roles: Any) -> tuple[FeatureInfo, ...]:
    """A feature, and a further column for each role."""
    names = iter(["late", "miles", "payment"])
    further = [FeatureInfo(next(names), role, "float32", "float32") for role in roles]
    return (FeatureInfo("fare", "feature", "float32", "float32"), *further)


FEATURES = {"fare": tf.TensorSpec([None], tf.float32)}
ONE = tf.TensorSpec([None], tf.float32)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ([], FEATURES),
        (["label"], (FEATURES, ONE)),
        (["label", "weight"], (FEATURES, ONE, ONE)),
        (["label", "label"], (FEATURES, {"late": ONE, "miles": ONE})),
        (["label", "label", "weight"], (FEATURES, {"late": ONE, "miles": ONE}, ONE)),
        (["weight"], (FEATURES, tf.nest.map_structure(lambda _: None, ONE), ONE)),
        (["kept"], FEATURES),
    ],
)
def test_structure_follows_the_roles(tmp_path: Path, roles: list[Any], expected: Any) -> None:
    path = write(tmp_path, [9], Layout("blocks", 4), infos_with(*roles))
    data = load(path, batch_size=4)
    if roles == ["weight"]:  # Keras's own spelling of a weight without a label
        for features, label, weight in data:
            assert label is None
            assert features["fare"].shape == weight.shape
    else:
        assert data.element_spec == expected
    kept = load(path, batch_size=4, kept=True).element_spec[1]
    assert kept == ({"late": ONE} if roles == ["kept"] else {})


def model_of(features: list[str], outputs: int = 1) -> keras.Model:
    inputs = {name: keras.Input((), name=name) for name in features}
    joined = keras.layers.Concatenate()([keras.ops.expand_dims(each, -1) for each in inputs.values()] * 2)
    heads = {name: keras.layers.Dense(1, name=name)(joined) for name in ("late", "miles")[:outputs]}
    model = keras.Model(inputs, heads if outputs > 1 else heads["late"])
    model.compile("sgd", loss="mse" if outputs == 1 else {"late": "mse", "miles": "mse"})
    return model
