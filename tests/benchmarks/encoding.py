"""Encoding alone, on one core: columns in memory to TFRecord bytes, ours and with Python's protobuf classes.

    python tests/benchmarks/encoding.py PARQUET DATASET ROUNDS

The rows are those of the Parquet file; their columns are stored as in the manifest of DATASET. Ours includes the
framing and its checksums, protobuf does without. A process of its own, so that it can be held on one core; the seconds
are the processor's, so that what else the machine does counts little.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SLOW = 20  # protobuf encodes one row of so many


def main() -> None:
    """Read, measure, print one line of JSON: for each contender rows, bytes and the seconds of each round."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from dtap_dask.records.example import Layout, encoder_of
    from dtap_dask.records.manifest_read import read_manifest
    from dtap_dask.records.memory import keep_freed_memory
    from dtap_dask.records.shard import ENCODED_ROWS
    from dtap_dask.storage import open_store

    keep_freed_memory()  # as workers do
    path, dataset, rounds = sys.argv[1:]
    table = pq.read_table(path)
    infos = read_manifest(open_store(dataset)).infos
    columns = {info.name: table.column(info.name).to_numpy().astype(info.stored) for info in infos}
    pieces = [
        {name: column[start : start + ENCODED_ROWS] for name, column in columns.items()}
        for start in range(0, len(table), ENCODED_ROWS)
    ]
    ways: dict[str, tuple[int, Callable[[], int]]] = {}
    for kind in ("blocks", "rows"):
        encoder = encoder_of(infos, Layout(kind))
        ways[kind] = len(table), lambda encoder=encoder: sum(len(encoder.encode(piece).data) for piece in pieces)
    few = table.slice(0, max(1, len(table) // SLOW))
    rows = list(zip(*[column.to_pylist() for column in few.columns], strict=True))
    ways["protobuf"] = len(few), lambda: protobuf(few.schema, rows)
    found: dict[str, dict[str, Any]] = {name: {"rows": count, "seconds": []} for name, (count, _) in ways.items()}
    for _ in range(int(rounds) + 1):
        for name, (_, work) in ways.items():
            start = time.process_time()
            found[name]["bytes"] = work()
            found[name]["seconds"].append(time.process_time() - start)
    for numbers in found.values():
        del numbers["seconds"][0]  # the round that warms up
    print(json.dumps(found))


def protobuf(schema: pa.Schema, rows: list[tuple[Any, ...]]) -> int:
    """One tf.train.Example a row, one feature a column; returns the bytes."""
    import tensorflow as tf

    columns = [(field.name, pa.types.is_floating(field.type)) for field in schema]
    size = 0
    for row in rows:
        feature = {}
        for (name, floating), value in zip(columns, row, strict=True):
            if floating:
                feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
            else:
                feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        size += len(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return size


if __name__ == "__main__":
    main()
