"""Fixtures of all tests: a sample lake, a Dask cluster of two processes, and a job on them."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from documents import Document, taxi_job
from dtap_dask.lake.sample.sample_lake import write_sample
from dtap_dask.storage import open_store
from property_tests import register_profiles

register_profiles()
for stop in (signal.SIGINT, signal.SIGHUP):  # a shell's background job, or nohup, ignores one; children inherit that
    if signal.getsignal(stop) is signal.SIG_IGN:
        signal.signal(stop, signal.default_int_handler if stop is signal.SIGINT else signal.SIG_DFL)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what tests start would compile this package, each process for itself
# Nannies in this process fork workers from one that has imported everything: a second less for each. Commands that
# tests start spawn theirs, as those of users do.
dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
get_mp_context().set_forkserver_preload(["distributed.nanny", "pandas", "dtap_dask.job.running.ask"])
MEMORY = Path("/dev/shm")
pytest_plugins = ["mini_hdfs"]  # the fixtures of a real HDFS


def has_room_for_tests(folder: Path) -> bool:
    """Whether files in a folder of memory may be as large as those of the tests, and may be run."""
    if not folder.is_dir():
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= 4 << 30 and not found.f_flag & (os.ST_NOEXEC | os.ST_NODEV)


if has_room_for_tests(MEMORY):  # thousands of files are synced, which takes minutes on a disk
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first and those of features last, so that no process is left alone with a long one.

    The latter take a few seconds each; a file is never divided among processes.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    features = Path(__file__).with_name("features")
    items.sort(key=lambda item: (item.path not in slow, features in item.path.parents))


def pytest_collection_finish() -> None:
    """What all imports made stays, and garbage collections pass over it: each full one would take half a second."""
    gc.collect()
    gc.freeze()


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
