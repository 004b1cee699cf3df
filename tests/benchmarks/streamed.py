"""How the cost of reading one file grows with the number of its row groups, of five rows each, beside pyarrow's own.

    python tests/benchmarks/streamed.py

Seconds of processor time, in this process: they must lie on a straight line, and stay within four times pyarrow's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import dtap_dask
import machine
import straight
from ours import processor
from results import Figure, Ratio, at_most

COUNTS = (500, 1000, 2000, 4000)
ROWS = 5


def measure(folder: Path, counts: Sequence[int], rounds: int) -> tuple[list[str], list[Figure], Ratio]:
    """The curve as text with the line through it; the figures of the longest file and pyarrow's; their ratio."""
    ours = [Figure(f"growth: {count:,} row groups", "s", rows=count * ROWS) for count in counts]
    theirs = Figure(f"growth: {counts[-1]:,} row groups, pyarrow", "s", rows=counts[-1] * ROWS)
    files = [_file(folder, count) for count in counts]
    _read(files[0])  # what is imported with the first
    for _ in range(rounds):
        for figure, file in zip(ours, files, strict=True):
            figure.values.append(processor(lambda file=file: _read(file)))
        theirs.values.append(processor(lambda: pq.read_table(files[-1])))
    costs = [figure.median for figure in ours]
    line = straight.fit(counts, costs)
    off = max(map(abs, straight.residuals(line, counts, costs)))
    notes = [
        f"read: {line.each * 1e3:.2f} ms a row group, at most {off:.0%} off the line. Seconds of processor time (o) "
        "against row groups of one file:",
        "",
        "```",
        *straight.drawing(line, counts, costs, "row groups").split("\n"),
        "```",
    ]
    return notes, [ours[-1], theirs], Ratio(ours[-1], theirs, "x the time", at_most(4))


def _file(folder: Path, count: int) -> Path:
    path = folder / f"streamed-{count}.parquet"
    with pq.ParquetWriter(path, pa.schema([("i", pa.int64()), ("s", pa.string()), ("f", pa.float64())])) as writer:
        for at in range(count):
            writer.write_table(pa.table({"i": [at] * ROWS, "s": [f"x{at}"] * ROWS, "f": [float(at)] * ROWS}))
    return path


def _read(path: Path) -> None:
    dtap_dask.read(str(path)).compute(scheduler="synchronous")


if __name__ == "__main__":
    print(machine.description(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        notes, figures, ratio = measure(Path(name), COUNTS, 3)
    print(*notes, *(f"{figure.name}: {figure.median:.2f} {figure.unit}" for figure in figures), sep="\n")
    print(f"{figures[0].median / figures[1].median:.1f} {ratio.words}")
