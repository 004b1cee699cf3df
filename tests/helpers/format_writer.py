"""A writer of datasets made from docs/format.md alone: nothing of dtap_dask is imported or looked at."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
from tensorflow.train import BytesList, Example, Feature, Features, FloatList, Int64List

from format_reader import masked

Json: TypeAlias = dict[str, Any]
# name, role, dtype, stored, shape; the numbers are of one column each, and `pair` is a vector
COLUMNS: Sequence[tuple[str, str, str, str, list[int | None]]] = (
    ("fare", "feature", "float32", "float32", []),
    ("word", "feature", "bytes", "bytes", []),
    ("pair", "feature", "float32", "float32", [2]),
    ("visits", "feature", "int64", "uint8", [None]),
    ("paid", "label", "float32", "uint8", []),
)


def example_rows(count: int) -> list[Json]:
    """Rows of COLUMNS, each another one."""
    return [
        {"fare": i / 2, "word": f"w{i}".encode(), "pair": [i, -i], "visits": [i] * (i % 3), "paid": i % 2}
        for i in range(count)
    ]


def _bytes(*values: bytes) -> Feature:
    return Feature(bytes_list=BytesList(value=values))


def block(rows: Sequence[Json]) -> dict[str, Feature]:
    """The features of a record of the layout `blocks`, `rows` first."""
    floats = np.array([[row["fare"], *row["pair"]] for row in rows], "<f4")
    visits = [item for row in rows for item in row["visits"]]
    return {
        "rows": Feature(int64_list=Int64List(value=[len(rows)])),
        "float32": _bytes(floats.tobytes()),
        "uint8": _bytes(bytes(row["paid"] for row in rows)),
        "word/values": _bytes(*(row["word"] for row in rows)),
        "visits/values": _bytes(bytes(visits)),
        "visits/lengths": _bytes(np.array([len(row["visits"]) for row in rows], "<i4").tobytes()),
    }


def single(row: Json) -> dict[str, Feature]:
    """The features of a record of the layout `rows`."""
    return {
        "fare": Feature(float_list=FloatList(value=[row["fare"]])),
        "word": _bytes(row["word"]),
        "pair": Feature(float_list=FloatList(value=row["pair"])),
        "visits": Feature(int64_list=Int64List(value=row["visits"])),
        "paid": Feature(int64_list=Int64List(value=[row["paid"]])),
    }


def serialized(features: dict[str, Feature]) -> bytes:
    """An Example with its features in this order: messages that are put together one after the other are one."""
    return b"".join(Example(features=Features(feature={key: one})).SerializeToString() for key, one in features.items())


def framed(record: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record))


def places(layout: str) -> Iterator[tuple[Json, Json]]:
    """Where each column is in a record, and its part of `feature_spec`."""
    ends: dict[str, int] = {}
    raw = {"kind": "FixedLenFeature", "dtype": "string", "shape": []}
    for name, _, _, stored, shape in COLUMNS:
        if layout == "rows":
            dtype = {"float32": "float32", "bytes": "string"}.get(stored, "int64")
            ragged, fixed = {"kind": "RaggedFeature", "dtype": dtype}, {"kind": "FixedLenFeature", "dtype": dtype}
            yield {"key": name}, {name: ragged if None in shape else {**fixed, "shape": shape}}
        elif None in shape:
            keys = {"values": f"{name}/values", "lengths": f"{name}/lengths"}
            yield keys, dict.fromkeys(keys.values(), raw)
        elif stored == "bytes":
            yield {"values": f"{name}/values"}, {f"{name}/values": {"kind": "RaggedFeature", "dtype": "string"}}
        else:
            offset, width = ends.get(stored, 0), shape[0] if shape else 1
            ends[stored] = offset + width
            yield {"key": stored, "offset": offset, "width": width}, {stored: raw}


def write(folder: Path, layout: str, groups: Sequence[Sequence[Json]]) -> None:
    """A dataset of one shard, whose records have these rows."""
    groups = [[row] for group in groups for row in group] if layout == "rows" else groups
    records = [framed(serialized(single(group[0]) if layout == "rows" else block(group))) for group in groups]
    (folder / "train").mkdir(parents=True)
    data, total = b"".join(records), sum(map(len, groups))
    (folder / "train" / "data.tfrecord").write_bytes(data)
    offsets = np.cumsum([0, *map(len, records)])[:-1].tolist()
    shard = {
        "path": "train/data.tfrecord", "split": "train", "rows": total, "records": len(records), "bytes": len(data),
        "crc32c": google_crc32c.value(data), "offsets": offsets if layout == "blocks" else None,
    }  # fmt: skip
    spec: Json = {"rows": {"kind": "FixedLenFeature", "dtype": "int64", "shape": []}} if layout == "blocks" else {}
    features = []
    for (name, role, dtype, stored, shape), (place, keys) in zip(COLUMNS, places(layout), strict=True):
        column = {"name": name, "role": role, "dtype": dtype, "stored": stored, "shape": shape, "columns": [name]}
        features.append({**column, "place": place})
        spec |= keys
    manifest = {
        "format_version": 1, "fingerprint": "0" * 64, "job": {}, "source": {}, "software": {},
        "layout": {"kind": layout, "rows_per_record": max(map(len, groups)), "compression": "none"},
        "features": features, "feature_spec": spec,
        "splits": {"train": {"rows": total, "records": len(records), "shards": [shard]}},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
