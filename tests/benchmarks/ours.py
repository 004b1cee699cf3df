"""Our own job on the benchmark's lake, and the cluster that it runs on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from distributed import Client, LocalCluster

import dtap_dask

Layout = Literal["blocks", "rows"]
LAYOUTS: tuple[Layout, ...] = ("blocks", "rows")


def document(lake: Path, out: Path, layout: Layout, shuffle: str = "mixed") -> dict[str, Any]:
    """Our job file, as a dict."""
    return {
        "version": 1,
        "name": f"benchmark-{layout}",
        "source": {"path": str(lake)},
        "label": "label",
        "features": [
            {"columns": ["I*"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
            {"columns": ["C*"], "steps": ["ordinal_encode"]},
        ],
        "output": {"path": str(out), "layout": layout, "shuffle": shuffle},
    }


@contextmanager
def workers(count: int = 2) -> Iterator[Client]:
    """A LocalCluster of so many processes of one thread each."""
    with (
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def run(client: Client, lake: Path, out: Path, layout: Layout, shuffle: str = "mixed") -> float:
    """Our job on the client's workers, from listing the lake to the manifest, in seconds."""
    with client.as_current():
        return timed(lambda: dtap_dask.run(document(lake, out, layout, shuffle), progress="silent"))


def cleared(folder: Path) -> Path:
    """Remove what an earlier round left, outside the clock."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor(work: Callable[[], object]) -> float:
    """Seconds of this process's processor time that it takes."""
    start = time.process_time()
    work()
    return time.process_time() - start
