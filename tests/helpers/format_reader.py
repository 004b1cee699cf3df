"""A reader of datasets written from docs/format.md alone: nothing of dtap_dask is imported or looked at."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
import pyarrow.parquet as pq
from tensorflow.train import Example

Json: TypeAlias = dict[str, Any]
Values: TypeAlias = Any  # an array [rows, ...], or a list with the texts or the array of each row


def masked(data: bytes) -> int:
    """The masked CRC32C."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def records(path: Path, compression: str) -> Iterator[bytes]:
    """The data of every record of a shard, in order."""
    data = path.read_bytes()
    if compression == "gzip":
        data = gzip.decompress(data)
    at = 0
    while at < len(data):
        (length, of_length) = struct.unpack_from("<QI", data, at)
        record = data[at + 12 : at + 12 + length]
        (of_data,) = struct.unpack_from("<I", data, at + 12 + length)
        assert masked(data[at : at + 8]) == of_length
        assert masked(record) == of_data
        yield record
        at += 16 + length


def read(folder: Path, split: str) -> dict[str, Values]:
    """Every column of a split, in the dtypes that the manifest names."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    layout = manifest["layout"]
    columns = blocks if layout["kind"] == "blocks" else rows
    found: dict[str, list[Values]] = {one["name"]: [] for one in manifest["features"]}
    for shard in manifest["splits"][split]["shards"]:
        path = folder / shard["path"]
        assert (path.stat().st_size, google_crc32c.value(path.read_bytes())) == (shard["bytes"], shard["crc32c"])
        for record in records(path, layout["compression"]):
            example = Example.FromString(record).features.feature
            for name, values in columns(manifest["features"], example):
                found[name].append(values)
    return {one["name"]: joined(found[one["name"]]) for one in manifest["features"]}


def joined(parts: list[Values]) -> Values:
    """The values of many records."""
    if isinstance(parts[0], list):
        return [one for part in parts for one in part]
    return np.concatenate(parts)


def rows(features: list[Json], example: Any) -> Iterator[tuple[str, Values]]:
    """The columns of a record of the layout `rows`."""
    for one in features:
        feature = example[one["place"]["key"]]
        if one["stored"] == "bytes":
            texts = list(feature.bytes_list.value)
            yield one["name"], texts if one["shape"] == [] else [texts]
            continue
        kind = feature.float_list if one["stored"] == "float32" else feature.int64_list
        values = np.array(kind.value, one["stored"]).astype(one["dtype"])
        yield one["name"], [values] if None in one["shape"] else values.reshape(1, *one["shape"])


def blocks(features: list[Json], example: Any) -> Iterator[tuple[str, Values]]:
    """The columns of a record of the layout `blocks`."""
    (total,) = example["rows"].int64_list.value

    def raw(key: str, dtype: str) -> Values:
        (value,) = example[key].bytes_list.value
        return np.frombuffer(value, np.dtype(dtype).newbyteorder("<"))

    for one in features:
        place, stored = one["place"], one["stored"]
        if place["key"] is not None:
            matrix = raw(place["key"], stored).reshape(total, -1)
            inside = matrix[:, place["offset"] : place["offset"] + place["width"]]
            yield one["name"], inside.reshape(total, *one["shape"]).astype(one["dtype"])
        elif place["lengths"] is None:
            yield one["name"], list(example[place["values"]].bytes_list.value)
        else:
            ends = np.cumsum(raw(place["lengths"], "int32"))
            texts = stored == "bytes"
            values = list(example[place["values"]].bytes_list.value) if texts else raw(place["values"], stored)
            pieces = [values[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
            yield one["name"], pieces if texts else [piece.astype(one["dtype"]) for piece in pieces]


def words(folder: Path, name: str) -> Callable[[int], Any]:
    """The word of each id of a column; None for null and unseen values."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (one,) = [one for one in manifest["features"] if one["name"] == name]
    vocabulary = pq.read_table(folder / one["vocabulary"])["vocabulary"].to_pylist()
    first = one["ids"] - len(vocabulary)
    return lambda id_: vocabulary[id_ - first] if id_ >= first else None
