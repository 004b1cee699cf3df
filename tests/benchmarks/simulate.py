"""What the whole job would take on 10, 100 and 1,000 workers, and what would hold it up, from costs measured here.

    python tests/benchmarks/simulate.py                              # measures the costs first: a minute
    python tests/benchmarks/simulate.py --bandwidth 10e9 --rows 1e11 # a lake and a storage of another size
    python tests/benchmarks/simulate.py --costs costs.json           # that an earlier call wrote with --keep

The costs of a row come from Dask's record of each task in a job on one worker. The same job on two workers is
predicted from them and measured, too: predicted against measured is printed above the table. What the client and the
scheduler do for a task, one after the other, is what `scale.py tasks` measures.

The model: a stage ends when the slowest of four is done, who work at the same time: the workers, round after round;
the storage, which all share; client and scheduler, task after task; and what follows the last task, the merges on the
way from it to the root. Before and after the stages there is the client's fixed time.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distributed import Client, get_task_stream

WORKERS = (1, 2, 10, 100, 1000)
FAN_IN = 8  # as the engine merges
TASK_ROWS = 800_000  # 16 row groups of 50,000 rows


@dataclass(frozen=True)
class Costs:
    """Seconds, by one thread: of a row in fitting and in writing, of a merge at each level, of the last step, of the
    client and the scheduler for a task, and of the client for a job; and bytes of a row in the lake and in records."""

    fit_row: float
    write_row: float
    merges: tuple[float, ...]
    finish: float
    task: float
    fixed: float
    read_bytes: float
    written_bytes: float


@dataclass(frozen=True)
class Prediction:
    """Seconds of a job in all, and what each that could hold it up takes, over both stages."""

    rows: float
    workers: int
    seconds: float
    parts: dict[str, float]
    busy: float

    @property
    def bottleneck(self) -> str:
        """What takes longest."""
        return max(self.parts, key=lambda name: self.parts[name])


def predict(costs: Costs, rows: float, workers: int, *, task_rows: float, bandwidth: float) -> Prediction:
    """A job that fits in one pass and writes in another, on workers of one thread; `bandwidth` in bytes a second."""
    tasks = math.ceil(rows / task_rows)
    rounds = math.ceil(tasks / workers)
    tail = merge_tail(costs, tasks)
    moved = {"fit": costs.read_bytes, "write": costs.read_bytes + costs.written_bytes}
    seconds = costs.fixed + tail
    parts = {"workers": 0.0, "storage": 0.0, "client and scheduler": 0.0, "merges": tail, "fixed": costs.fixed}
    for stage, row in (("fit", costs.fit_row), ("write", costs.write_row)):
        each = {
            "workers": rounds * row * min(task_rows, rows),
            "storage": rows * moved[stage] / bandwidth,
            "client and scheduler": tasks * costs.task,
        }
        seconds += max(each.values())
        for name, one in each.items():
            parts[name] += one
    busy = rows * (costs.fit_row + costs.write_row) / (workers * seconds)
    return Prediction(rows, workers, seconds, parts, busy)


def merge_tail(costs: Costs, tasks: int) -> float:
    """Seconds from the end of the last fitting task to the fitted state: one merge a level, and the last step.

    Levels above those that were measured take as long as the highest of them.
    """
    levels = math.ceil(math.log(tasks, FAN_IN) - 1e-9) if tasks > 1 else 0
    known = costs.merges or (0.0,)
    return costs.finish + sum(known[min(level, len(known) - 1)] for level in range(levels))


def table(predictions: Sequence[Prediction]) -> str:
    """A row for each prediction."""
    lines = ["| workers | rows | time | rows/s | busy | held up by |", "|---|---|---|---|---|---|"]
    for one in predictions:
        pace, longest = one.rows / one.seconds, one.parts[one.bottleneck]
        lines.append(
            f"| {one.workers:,} | {one.rows:,.0f} | {one.seconds:,.1f} s | {pace:,.0f} | {one.busy:.0%}"
            f" | {one.bottleneck} ({longest:,.1f} s) |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Measured:
    """A job as it was: its seconds, and those of each task by its kind, merges by `merge-fit-<level>`."""

    seconds: float
    tasks: dict[str, list[float]]
    read_bytes: int
    written_bytes: int


def run(lake: Path, out: Path, workers: int) -> Measured:
    """One job on a warm cluster of so many workers, the third time."""
    import ours

    with Client(n_workers=workers, threads_per_worker=1, dashboard_address=None) as client:
        for warm in range(2):
            ours.run(client, lake, out / f"warm-{warm}", "blocks")
        with get_task_stream(client) as stream:
            start = time.perf_counter()
            ours.run(client, lake, out / "timed", "blocks")
            seconds = time.perf_counter() - start
    tasks = defaultdict(list)
    for record in stream.data:
        kind, at = kind_of(record["key"])
        tasks[kind if at is None else f"{kind}-{at}"].append(
            sum(part["stop"] - part["start"] for part in record["startstops"] if part["action"] == "compute")
        )
    status = next((out / "timed" / "_run" / "status").glob("*.json"))
    told = json.loads(status.read_bytes())
    return Measured(seconds, dict(tasks), told["bytes_read"], told["bytes_written"])


def kind_of(key: str) -> tuple[str, int | None]:
    """The stage that the engine's key names, and the level of a merge: `merge-fit-<token>-<stage>-<level>-<index>`."""
    for kind in ("merge-fit", "finish-fit"):
        if key.startswith(f"{kind}-"):
            return kind, int(key.removeprefix(f"{kind}-").split("-")[2]) if kind == "merge-fit" else None
    return key.split("-", maxsplit=1)[0], None


def costs_of(measured: Measured, rows: int, task: float) -> Costs:
    """The costs that a job on one worker tells; what is left beside tasks and engine is the client's fixed time."""
    tasks = measured.tasks
    merges = sorted((name, times) for name, times in tasks.items() if name.startswith("merge-fit"))
    in_tasks = sum(map(sum, tasks.values())) + sum(map(len, tasks.values())) * task
    return Costs(
        fit_row=sum(tasks["fit"]) / rows,
        write_row=sum(tasks["write"]) / rows,
        merges=tuple(sum(times) / len(times) for _, times in merges),
        finish=sum(tasks["finish-fit"]),
        task=task,
        fixed=max(0.0, measured.seconds - in_tasks),
        read_bytes=measured.read_bytes / 2 / rows,
        written_bytes=measured.written_bytes / rows,
    )


def measure_costs(rows: int, task: float, bandwidth: float) -> Costs:
    """Run the job on one worker and on two, and print what the model says of both beside what was measured."""
    from lake import ROW_GROUP_ROWS, write_lake

    with tempfile.TemporaryDirectory() as name:
        lake = write_lake(Path(name) / "lake", rows)
        found = {workers: run(lake, Path(name) / f"out-{workers}", workers) for workers in (1, 2)}
    costs = costs_of(found[1], rows, task)
    task_rows = min(ROW_GROUP_ROWS, math.ceil(rows / 8))
    for workers, measured in found.items():
        said = predict(costs, rows, workers, task_rows=task_rows, bandwidth=bandwidth)
        was = measured.seconds
        print(f"{workers} workers: predicted {said.seconds:.2f} s, was {was:.2f} s ({said.seconds / was - 1:+.0%})")
    return costs


def main() -> None:
    """Parse the arguments, measure if need be, print."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/simulate.py", description=__doc__.splitlines()[0])
    parser.add_argument("--costs", type=Path, help="costs that were kept; none are measured")
    parser.add_argument("--keep", type=Path, help="write the measured costs to this file")
    parser.add_argument("--measured-rows", type=int, default=400_000, help="rows of the job that is measured")
    parser.add_argument("--rows", type=float, default=1e10, help="rows of the lake that is predicted")
    parser.add_argument("--task-rows", type=float, default=TASK_ROWS, help="rows that one task reads")
    parser.add_argument("--task-seconds", type=float, default=0.005, help="client and scheduler for a task")
    parser.add_argument("--bandwidth", type=float, default=5e9, help="of the storage that all share, bytes a second")
    options = parser.parse_args()
    if options.costs:
        kept = json.loads(options.costs.read_text())
        costs = Costs(**{**kept, "merges": tuple(kept["merges"])})
    else:
        costs = measure_costs(options.measured_rows, options.task_seconds, options.bandwidth)
    if options.keep:
        options.keep.write_text(json.dumps(asdict(costs), indent=1))
    print(costs)
    shared = {"task_rows": options.task_rows, "bandwidth": options.bandwidth}
    print(table([predict(costs, options.rows, workers, **shared) for workers in WORKERS]))


if __name__ == "__main__":
    main()
