"""The measurements: the whole job on two processes, and the loading in this one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from distributed import Client, LocalCluster

import by_hand
import dtap_dask
import floor
import loading

LAYOUTS = ("blocks", "rows")
BATCHES = (1024, 4096)


@dataclass
class Measurement:
    """One contender: the rows a second of every round, and the names of those it is held against."""

    name: str
    against: tuple[str, ...] = ()
    rows: int = 0
    rates: list[float] = field(default_factory=list)

    def add(self, rows: int, seconds: float) -> None:
        """One more round."""
        self.rows = rows
        self.rates.append(rows / seconds)


@dataclass(frozen=True)
class Lakes:
    """The lake of the measurements, the one that is small enough to be done by hand, and one to warm up on."""

    whole: Path
    by_hand: Path
    small: Path


def job(lake: Path, out: Path, layout: str) -> dict[str, Any]:
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
        "output": {"path": str(out), "layout": layout},
    }


@contextmanager
def workers() -> Iterator[Client]:
    """A LocalCluster of two processes of one thread each."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def cold(folder: Path, lake: Path) -> dict[str, float]:
    """Seconds that a user waits before anything is warm: workers up, their first job, and the same job again."""
    start = time.perf_counter()
    with workers() as client:
        up = time.perf_counter() - start
        first = run_ours(client, lake, folder / "first", "blocks")
        again = run_ours(client, lake, folder / "again", "blocks")
    job_name = f"blocks job on {rows_of(lake):,} rows"
    return {"cluster up": up, f"first {job_name}": first, "the same again": again}


def run_ours(client: Client, lake: Path, out: Path, layout: str) -> float:
    """Our job on the client's workers, from listing the lake to the manifest, in seconds."""
    with client.as_current():
        return _timed(lambda: dtap_dask.run(job(lake, out, layout), progress="silent"))


def run_by_hand(client: Client, lake: Path, out: Path) -> float:
    """The job by hand on the client's workers, in seconds."""
    with client.as_current():
        return _timed(lambda: by_hand.run(lake, out))


def whole_job(ours: Client, theirs: Client, lakes: Lakes, folder: Path, rounds: int) -> list[Measurement]:
    """Ours in both layouts, the floor of each, and by hand, in turns; leaves our datasets in `folder`."""
    hand = Measurement("job: by hand (dask.dataframe, dask-ml, tf.train.Example)")
    floors = [Measurement(f"job: floor of {layout} (read twice, write as many bytes)") for layout in LAYOUTS]
    jobs = [Measurement(f"job: ours, {a}", (hand.name, b.name)) for a, b in zip(LAYOUTS, floors, strict=True)]
    for _ in range(rounds):
        for layout, job_, floor_ in zip(LAYOUTS, jobs, floors, strict=True):
            out = _cleared(folder / layout)
            job_.add(rows_of(lakes.whole), run_ours(ours, lakes.whole, out, layout))
            size = sum(file.stat().st_size for file in out.rglob("*.tfrecord"))
            idle = partial(floor.run, ours, lakes.whole, _cleared(folder / "floor"), size)
            floor_.add(rows_of(lakes.whole), _timed(idle))
        hand.add(rows_of(lakes.by_hand), run_by_hand(theirs, lakes.by_hand, _cleared(folder / "by_hand")))
    return [*jobs, *floors, hand]


def loads(folder: Path, rounds: int, most: int) -> list[Measurement]:
    """Every way to load, at every batch size, in turns; the slower ones over fewer than `most` rows."""
    tasks = [contender for batch in BATCHES for contender in _loaders(folder, batch, most)]
    for _ in range(rounds):
        for measurement, build, rows in tasks:
            measurement.add(*loading.seconds_of(build, rows))
    return [measurement for measurement, _, _ in tasks]


def _loaders(folder: Path, batch: int, most: int) -> list[tuple[Measurement, Callable[[], Any], int]]:
    blocks, rows = folder / "blocks", folder / "rows"
    each = Measurement(f"load {batch}: map(parse_single_example)")
    together = Measurement(f"load {batch}: batch + parse_example", (each.name,))
    against = (each.name, together.name)
    return [
        (Measurement(f"load {batch}: ours, blocks", against), lambda: loading.ours(blocks, batch), most),
        (Measurement(f"load {batch}: ours, rows", against), lambda: loading.ours(rows, batch), most // 5),
        (together, lambda: loading.parse_batch(rows, batch), most // 5),
        (each, lambda: loading.parse_each(rows, batch), most // 40),
    ]


def rows_of(lake: Path) -> int:
    """Rows by the footers."""
    return sum(pq.read_metadata(file).num_rows for file in lake.glob("*.parquet"))


def _cleared(folder: Path) -> Path:
    """Remove what an earlier round left, outside the clock."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
