"""What tests share: a sample lake, a Dask cluster of two processes, jobs on them, and the bytes of a dataset."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from dtap_dask.lake.sample.sample_lake import write_sample
from dtap_dask.storage import open_store

pytest_plugins = ["mini_hdfs"]  # the fixtures of a real HDFS

Document = dict[str, Any]


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample lake of 20,000 trips, not to be changed."""
    folder = tmp_path_factory.mktemp("lake")
    write_sample(open_store(str(folder)), 20_000)
    return folder


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A Dask cluster of two processes on loopback."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def job(lake: Path, tmp_path: Path) -> Document:
    """The README's job on the sample lake, with its output in a folder of the test's own."""
    return taxi_job(lake / "trips", tmp_path / "out")


def taxi_job(source: Path, output: Path) -> Document:
    """The README's job, by plain paths."""
    return {
        "version": 1,
        "name": "taxi-tips",
        "source": {
            "path": str(source),
            "partitions": {"year": "int32", "month": "int32"},
            "where": "trip_start >= '2013-06-01' and fare > 0 and company is not null",
        },
        "derive": {"big_tipper": "tips > 0.2 * fare"},
        "label": "big_tipper",
        "keep": ["trip_id"],
        "split": {"parts": {"train": 0.8, "eval": 0.1, "test": 0.1}, "key": ["trip_id"]},
        "features": [
            {
                "columns": ["trip_miles", "fare", "trip_seconds"],
                "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"],
            },
            {"columns": ["payment_type", "company"], "steps": [{"ordinal_encode": {"top_k": 1000, "oov_buckets": 10}}]},
            {
                "columns": ["pickup_l*", "dropoff_l*"],
                "steps": [{"impute": {"strategy": "constant", "value": 0}}, {"bucketize": {"quantiles": 10}}],
                "as": "{column}_bucket",
            },
            {
                "columns": ["trip_miles", "trip_seconds"],
                "steps": [
                    {"impute": {"strategy": "constant", "value": 0}},
                    {"clip": {"min": 0}},
                    "log1p",
                    "standard_scale",
                ],
                "name": "sizes",
            },
        ],
        "output": {"path": str(output)},
    }


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file of a dataset by its path, without what a run keeps of itself."""
    return dataset_digests


def dataset_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, `_run` left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "_run" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def placeless() -> Callable[[dict[str, str]], dict[str, str]]:
    """Digests of a dataset by paths that do not depend on where its source lies."""
    return without_run


def without_run(digests: dict[str, str]) -> dict[str, str]:
    """Digests by path, with the run's eight letters left out of the names of shards.

    The letters are the fingerprint's, which covers the place of the source. All shards must carry the same ones.
    """
    shard = re.compile(r"(.+/part-\d{5}-of-\d{5})-([0-9a-f]{8})(\.tfrecord(?:\.gz)?)")
    named = {path: shard.fullmatch(path) for path in digests}
    assert len({match[2] for match in named.values() if match}) == 1
    return {f"{match[1]}{match[3]}" if match else path: digests[path] for path, match in named.items()}
