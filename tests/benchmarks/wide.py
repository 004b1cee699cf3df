"""How the cost of planning and of a whole job grows with the number of columns, on 200 rows in one file.

    python tests/benchmarks/wide.py

Seconds of processor time, workers as threads of this process: they must lie on a straight line.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster

import dtap_dask
import machine
import straight
from dtap_dask.job.planning.plan import make_plan
from ours import cleared, processor

COUNTS = (500, 1000, 2000, 4000)
ROWS = 200


def notes(folder: Path, counts: Sequence[int]) -> list[str]:
    """Both curves as text, with the line through each."""
    planned, ran = [], []
    options = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        _job(folder, counts[0], client)  # what is imported with the first job
        for count in counts:
            planned.append(processor(partial(make_plan, _document(folder, count))))
            ran.append(processor(partial(_job, folder, count, client)))
    return [line for what, costs in (("plan", planned), ("run", ran)) for line in _curve(what, counts, costs)]


def _curve(what: str, counts: Sequence[int], costs: list[float]) -> list[str]:
    line = straight.fit(counts, costs)
    off = max(map(abs, straight.residuals(line, counts, costs)))
    most = f"{costs[-1]:.2f} s for {counts[-1]:,} columns"
    told = f"{what}: {most}, {line.each * 1e3:.2f} ms a column, at most {off:.0%}"
    return [
        f"{told} off the line. Seconds of processor time (o) against columns:",
        "",
        "```",
        *straight.drawing(line, counts, costs, "columns").split("\n"),
        "```",
    ]


def _document(folder: Path, count: int) -> dict[str, Any]:
    lake = folder / f"wide-{count}"
    if not lake.exists():
        lake.mkdir()
        values = np.random.default_rng(0).standard_normal((count, ROWS))
        pq.write_table(pa.table({f"f{i:05d}": column for i, column in enumerate(values)}), lake / "a.parquet")
    block = {"columns": ["f*"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]}
    return {"version": 1, "source": {"path": str(lake)}, "features": [block], "output": {"path": str(folder / "wide")}}


def _job(folder: Path, count: int, client: Client) -> None:
    cleared(folder / "wide")
    dtap_dask.run(_document(folder, count), client=client, progress="silent")


if __name__ == "__main__":
    print(machine.description(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        print(*notes(Path(name), COUNTS), sep="\n")
