"""Finished datasets that no job wrote: columns as shards, with a manifest; and the rows of any dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dtap_dask.features.graph.state import FeatureInfo
from dtap_dask.records.example import Layout
from dtap_dask.records.folder import MANIFEST
from dtap_dask.records.manifest import SourceTotals
from dtap_dask.records.manifest_build import build_manifest
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.shard import TaskShards, write_shards
from dtap_dask.records.verify import first_rows
from dtap_dask.storage import open_store


def write_dataset(
    folder: Path,
    infos: tuple[FeatureInfo, ...],
    layout: Layout,
    splits: Mapping[str, Sequence[int]],
    columns: Callable[[int, int], Mapping[str, Any]],
    job: Mapping[str, Any] | None = None,
) -> str:
    """A dataset with this number of rows in each shard of each split; its path.

    `columns(first, count)` gives `count` rows from number `first` on; each split's rows are numbered from 0.
    """
    store, written = open_store(str(folder)), []
    for split, shards in splits.items():
        for number, rows in enumerate(shards):
            name = f"{split}/part-{number:05d}-of-{len(shards):05d}.tfrecord"
            plan = TaskShards(number, (split,), (rows,), ((name,),))
            batch = (np.zeros(rows, np.int8), columns(sum(shards[:number]), rows))
            written += write_shards(store, "draft", plan, [batch], infos=infos, layout=layout, shuffle="none")
            store.publish(f"draft/{name}", name)
    manifest = build_manifest(
        job=job or {}, fingerprint="f", source=SourceTotals(), infos=infos, layout=layout, splits=list(splits),
        shards=written,
    )  # fmt: skip
    store.write_atomic(MANIFEST, manifest.to_bytes())
    return str(folder)


@contextmanager
def in_memory(path: str, url: str) -> Iterator[str]:
    """A copy of the dataset at `path` on fsspec's memory filesystem, which TensorFlow cannot open; its URL."""
    there, here = open_store(url), open_store(path)
    for file in here.list_files():
        there.write_atomic(file.path, here.read_bytes(file.path))
    yield url
    there.delete_tree("")


def rows_of(path: Path, split: str = "train") -> dict[str, Any]:
    """All rows of a split, columns in their stored dtypes."""
    store = open_store(str(path))
    manifest = read_manifest(store)
    return first_rows(store, manifest, split, manifest.splits[split].rows)


def bytes_of(path: str | Path, split: str = "train") -> int:
    """The size of all shards of a split."""
    return sum(file.stat().st_size for file in Path(path).glob(f"{split}/*"))
