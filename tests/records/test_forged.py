"""Manifests that were damaged or forged: an error, never a process that dies or takes all memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import dtap_dask
from dtap_dask.errors import OutputError
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.storage import open_store

DATA = Path(__file__).parents[1] / "data" / "gzip_named_tfrecord"
HUGE = [[2**31], [2**63 - 1], [2**20, 2**20], [-1], [10**12]]
Change = Callable[[dict[str, Any]], None]


def forged(folder: Path, layout: str, change: Change) -> Path:
    """A dataset whose manifest was changed; its path."""
    shutil.copytree(DATA / layout, folder / "forged")
    file = folder / "forged" / "manifest.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return folder / "forged"


@pytest.mark.parametrize("layout", ["blocks", "rows"])
@pytest.mark.parametrize("shape", HUGE)
@pytest.mark.parametrize("where", ["features", "feature_spec", "both"])
def test_shapes_that_no_record_holds_are_refused(tmp_path: Path, layout: str, shape: list[int], where: str) -> None:
    def change(document: dict[str, Any]) -> None:
        feature = document["features"][0]
        if where != "feature_spec":
            feature["shape"] = shape
        if where != "features":
            spec = document["feature_spec"]
            spec[feature["name"] if feature["name"] in spec else "rows"]["shape"] = shape

    path = forged(tmp_path, layout, change)
    for read in (dtap_dask.load, dtap_dask.inputs, lambda path: read_manifest(open_store(str(path)))):
        with pytest.raises(OutputError, match=r"manifest\.json is not a manifest"):
            read(path)


@pytest.mark.parametrize("layout", ["blocks", "rows"])
@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["splits"]["train"]["shards"][0].update(records=0),
        lambda document: document["splits"]["train"]["shards"][0].update(rows=10**15),
        lambda document: document["splits"]["train"]["shards"][0].update(records=10**9, rows=10**9),
        lambda document: document["splits"]["train"]["shards"][0].update(rows=-1, records=-1),
        lambda document: document["splits"]["train"]["shards"][0].update(record_bytes=-5),
        lambda document: document["layout"].update(rows_per_record=0),
        lambda document: document["features"][0].update(dtype="quaternion"),
        lambda document: document["features"][0].update(stored="bytes"),
        lambda document: document["features"][0].update(stored="object"),
        lambda document: document["features"][0].update(name=document["features"][1]["name"]),
        lambda document: document["feature_spec"].popitem(),
    ],
)
def test_counts_and_types_that_cannot_be_are_refused(tmp_path: Path, layout: str, change: Change) -> None:
    path = forged(tmp_path, layout, change)
    with pytest.raises(OutputError, match=r"manifest\.json is not a manifest"):
        dtap_dask.load(path)


@pytest.mark.parametrize("layout", ["blocks", "rows"])
def test_a_shape_that_might_be_is_held_against_the_records(tmp_path: Path, layout: str) -> None:
    def change(document: dict[str, Any]) -> None:
        feature = next(one for one in document["features"] if one["name"] == "x")
        feature["shape"] = [3]
        if layout == "rows":
            document["feature_spec"]["x"]["shape"] = [3]
            return
        more, feature["place"]["width"] = 3 - feature["place"]["width"], 3
        for other in document["features"][document["features"].index(feature) + 1 :]:
            if other["place"]["key"] == feature["place"]["key"]:
                other["place"]["offset"] += more

    path = forged(tmp_path, layout, change)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(dtap_dask.load(path))
