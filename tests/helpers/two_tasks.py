"""A dataset of two tasks in three shards, written and committed in one process, and what a reader finds of it."""

from __future__ import annotations

import numpy as np

from dtap_dask.errors import OutputError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records.commit import begin_commit, commit_dataset, finish_commit, run_write_task, sidecar_path, sweep
from dtap_dask.records.example import Layout
from dtap_dask.records.lock import lock
from dtap_dask.records.manifest import SourceTotals
from dtap_dask.records.manifest_build import build_manifest
from dtap_dask.records.manifest_read import read_manifest
from dtap_dask.records.shard import TaskShards
from dtap_dask.records.verify import verify_dataset
from dtap_dask.storage import open_store

INFOS = (FeatureInfo("id", "feature", "int64", "int64"),)
LAYOUT = Layout("blocks", 4)


def batches(start, n):
    ids = np.arange(start, start + n, dtype=np.int64)
    yield (ids % 3 == 0).astype(np.int8), {"id": ids}


def plan_of(fingerprint, task, start, n):
    ids = np.arange(start, start + n)
    counts = (int((ids % 3 != 0).sum()), int((ids % 3 == 0).sum()))
    paths = [
        tuple(f"{name}/part-{task * 2 + j}-{fingerprint}" for j in range(m)) for name, m in (("train", 2), ("eval", 1))
    ]
    return TaskShards(task, ("train", "eval"), counts, tuple(paths))


def manifest_of(fingerprint, shards):
    return build_manifest(
        job={"version": 1, "label": None},
        fingerprint=fingerprint,
        source=SourceTotals(),
        infos=INFOS,
        layout=LAYOUT,
        splits=("train", "eval"),
        shards=shards,
    )


def run(store, fingerprint, *, first=0, words=b"a,b"):
    """What the engine does, in one process."""
    with lock(store):
        finish_commit(store)
        sweep(store, fingerprint)
        shards = []
        for task in range(2):
            plan = plan_of(fingerprint, task, first + task * 20, 20)
            rows = batches(first + task * 20, 20)
            shards += run_write_task(store, fingerprint, plan, rows, infos=INFOS, layout=LAYOUT, window=8)
        folder = begin_commit(store, fingerprint)
        for name, data in (("transform.json", words), (f"transform/{len(words)}.parquet", words * 9)):
            with store.create(f"{folder}/{name}") as file:
                file.write(data)
        commit_dataset(store, fingerprint, manifest_of(fingerprint, shards))


def contents(store):
    return {file.path: store.read_bytes(file.path) for file in store.list_files()}


def seen_by_a_reader(url):
    """The fingerprint of the dataset that stands, all of it there with the right bytes; None where there is none."""
    store = open_store(url)
    try:
        manifest = read_manifest(store)
    except OutputError as error:
        assert "manifest.json" in str(error) or "no folder" in str(error)  # noqa: PT017 - both outcomes are right
        return None
    verify_dataset(store, manifest)
    for sidecar in manifest.sidecars:
        assert len(store.read_bytes(sidecar_path(store, manifest, sidecar.path))) == sidecar.bytes
    return manifest.fingerprint


def prepared(folder, *, old):
    url = str(folder)
    if old:
        run(open_store(url), "old", first=1000, words=b"older")
    return url
