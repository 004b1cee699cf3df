"""How the job's cost and its workers' memory grow with the rows, and what a second worker brings.

    python tests/benchmarks/growth.py --sizes 250000 500000 1000000 2000000
    python tests/benchmarks/growth.py --sizes 1000000 20000000 --rounds 1      # memory: 3 GB of lake, as much again

Cost must lie on a straight line, memory must stay the same. Cost against columns and against row groups is drawn, too,
as wide.py and streamed.py say.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from distributed import Client

import machine
import ours
import straight
import streamed
import table
import wide
from lake import lake_of
from ours import cleared
from results import Figure, Ratio, Section, at_least, at_most

SIZES = (250_000, 500_000, 1_000_000, 2_000_000)
WARM_UP_ROWS = 20_000


def measure(folder: Path, sizes: Sequence[int], counts: Sequence[int], rounds: int) -> Section:
    """Each size, of two or more, on two new workers; the largest on one too. `counts`: of columns, of row groups."""
    sizes = sorted(sizes)
    costs, peaks = [], []
    for rows in sizes:
        cost, peak = _run(folder, rows, 2, rounds)
        costs.append(cost)
        peaks.append(peak)
    alone, _ = _run(folder, sizes[-1], 1, rounds)
    medians = [cost.median for cost in costs]
    line = straight.fit(sizes, medians)
    for cost, off in zip(costs, straight.residuals(line, sizes, medians), strict=True):
        cost.note = f"{off:+.1%} off the line"
    notes = [
        "Blocks, on new workers that did a small job first. Memory is the largest peak of a worker process (VmHWM).",
        f"The line: {line.start:.2f} s + {line.each * 1e6:.2f} s a million rows. Seconds (o) against rows:",
        "",
        "```",
        straight.drawing(line, sizes, medians),
        "```",
    ]
    ratios = [
        Ratio(costs[-1], alone, "x as fast", at_least(1.8)),
        Ratio(peaks[-1], peaks[0], "x as much", at_most(1.1)),
    ]
    of_groups, figures, ratio = streamed.measure(folder, counts, rounds)
    notes += [*wide.notes(folder, counts), *of_groups]
    return Section("Growth", notes, [*costs, alone, *peaks, *figures], [*ratios, ratio])


def _run(folder: Path, rows: int, count: int, rounds: int) -> tuple[Figure, Figure]:
    """Seconds of the job and the peak memory of a worker, on `count` new workers."""
    what = f"{rows:,} rows, {count} worker{'s' * (count > 1)}"
    cost, peak = Figure(f"growth: {what}", "s", rows=rows), Figure(f"growth: peak of {what}", "MiB", rows=rows)
    lake, small = lake_of(folder, rows), lake_of(folder, min(rows, WARM_UP_ROWS))
    with ours.workers(count) as client:
        ours.run(client, small, cleared(folder / "growth"), "blocks")
        for _ in range(rounds):
            cost.values.append(ours.run(client, lake, cleared(folder / "growth"), "blocks"))
        peak.values.append(_peak(client) / 2**20)
    cleared(folder / "growth")
    return cost, peak


def _peak(client: Client) -> int:
    """Bytes of the worker process that had most in memory at any time."""
    return max(client.run(_own_peak).values())


def _own_peak() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/growth.py", description="Cost and memory by size.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows, two sizes or more")
    parser.add_argument("--rounds", type=int, default=3, help="jobs a size")
    parser.add_argument("--folder", type=Path, help="where the lakes and datasets go for the time being")
    options = parser.parse_args()
    if len(options.sizes) < 2:
        parser.error("--sizes needs two sizes or more: a line goes through them")
    print(machine.description(), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        section = measure(Path(name), options.sizes, options.rounds)
    print(table.figures(section), table.aims([section]), sep="\n\n")


if __name__ == "__main__":
    main()
