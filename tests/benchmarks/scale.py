"""How planning and the engine behave at sizes that no test reaches.

    python tests/benchmarks/scale.py planning                # 100,000 files, 1,000,000 row groups: two minutes
    python tests/benchmarks/scale.py tasks                   # 200 threads of tasks that sleep: three minutes

`planning` makes a lake of small Parquet files (one is written a folder, and linked) and times `dtap-dask plan` and
what a run plans with two workers, with the memory of the process that plans. `tasks` lets the engine, with its watch,
its notices on the scheduler and everything that a run's tasks are given, work on tasks that only sleep; scheduler,
workers and client are processes of their own. It tells what a task costs the client and the scheduler in processor
time and lasting memory, and the share of the threads' time that is not slept.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from distributed import Client

import machine
from dtap_dask.job.execution.dask_executor import DaskExecutor
from dtap_dask.job.execution.lazy import LazyItems
from dtap_dask.job.execution.watchdog import Watchdog
from dtap_dask.job.jobfile.spec import Job
from dtap_dask.job.planning.plan import plan_of
from dtap_dask.job.planning.sharding import plan_shards
from dtap_dask.job.running.run import first_snapshot
from dtap_dask.job.running.run_folder import RunFolder
from dtap_dask.job.running.sources import write_sources
from dtap_dask.job.running.stages import scan, task_context
from dtap_dask.job.status.displays import Silent
from dtap_dask.job.status.reporter import EVENTS_SECONDS, RunReporter
from dtap_dask.job.status.scheduler_store import SchedulerStore
from dtap_dask.storage import open_store

GROUPS_A_FILE, ROWS_A_GROUP = 10, 100
WORKERS = 2


def write_lake(folder: Path, folders: int, files: int) -> None:
    """Folders of equal small files with ten row groups of eight columns; the files of a folder are hard links."""
    random, rows = np.random.default_rng(0), GROUPS_A_FILE * ROWS_A_GROUP
    columns: dict[str, Any] = {f"n{i}": pa.array(random.standard_normal(rows)) for i in range(4)}
    columns |= {f"s{i}": pa.array([f"w{word}" for word in random.integers(0, 20, rows)]) for i in range(2)}
    columns |= {"id": np.arange(rows), "label": random.integers(0, 2, rows)}
    for number in range(folders):
        place = folder / f"month={number // 31:02d}" / f"day={number % 31:02d}"
        place.mkdir(parents=True)
        pq.write_table(pa.table(columns), place / "part-00000.parquet", row_group_size=ROWS_A_GROUP)
        for file in range(1, files):
            os.link(place / "part-00000.parquet", place / f"part-{file:05d}.parquet")


def job_of(folder: Path) -> dict[str, Any]:
    """A job with a condition that statistics are asked for, and passes them."""
    return {
        "version": 1,
        "name": "scale",
        "source": {"path": str(folder / "lake"), "where": "id >= 0 and n0 > -100"},
        "label": "label",
        "split": {"parts": {"train": 0.9, "eval": 0.1}, "key": ["id"]},
        "features": [
            {"columns": ["n*"], "steps": [{"impute": {"strategy": "mean"}}, "standard_scale"]},
            {"columns": ["s*"], "steps": ["ordinal_encode"]},
        ],
        "output": {"path": str(folder / "out")},
    }


def planning(folder: Path, files: int) -> None:
    """Time `dtap-dask plan`, then the planning of a run on two workers."""
    write_lake(folder / "lake", 100, files // 100)
    (folder / "job.yaml").write_text(yaml.safe_dump(job_of(folder)))
    print(f"{files:,} files, {files * GROUPS_A_FILE:,} row groups")
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "dtap_dask", "plan", folder / "job.yaml"], stdout=-3) as told:
        peak = _peak_while_it_runs(told)
    print(f"dtap-dask plan: {time.perf_counter() - start:.1f} s, peak {peak:,.0f} MiB in the process that plans")
    with Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as client:
        _plan_of_a_run(folder, client)
    print(f"the client of a run: peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


def _peak_while_it_runs(told: subprocess.Popen[bytes]) -> float:
    peak = 0.0
    while told.poll() is None:
        status = Path(f"/proc/{told.pid}/status").read_text()
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(int(size) / 1024 for size in found)])
        time.sleep(0.05)
    return peak


def _plan_of_a_run(folder: Path, client: Client) -> None:
    job = Job.load_leniently(job_of(folder))
    report = RunReporter(first_snapshot(job), Silent(), job.secrets)
    start = time.perf_counter()
    plan = plan_of(job, None, partial(scan, DaskExecutor(client), report))
    planned = time.perf_counter()
    shards = plan_shards(plan, np.stack([plan.groups.rows - 10, np.full(len(plan.groups), 10)], axis=1), 30.0)
    store = open_store(job.output.path)
    RunFolder(store, plan.run_id).save_plan(plan.fingerprint, shards)
    write_sources(store, "sources.parquet", plan)
    sealed = time.perf_counter()
    print(f"a run on {WORKERS} workers: {planned - start:.1f} s to plan, {sealed - planned:.1f} s to seal and to write")


def sleep(context: Any, level: int, task: Any, seconds: float) -> int:
    """What stands for a task: it is given what a task is given, and counts the rows that it would read."""
    time.sleep(seconds)
    return int(task.rows)


def add(parts: list[int]) -> int:
    """What stands for a merge."""
    return sum(parts)


@contextmanager
def cluster(threads: int) -> Iterator[tuple[Client, psutil.Process]]:
    """A client, and the process of the scheduler; workers of 50 threads each are processes of their own."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = f"{folder}/scheduler.json"
        dask = [sys.executable, "-m", "dask"]
        both = ["--scheduler-file", file, "--no-dashboard"]
        threads_of = ["--nworkers", str(threads // 50), "--nthreads", "50"]
        commands = [
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *both],
            [*dask, "worker", *threads_of, *both, "--local-directory", folder],
        ]
        here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        running = [subprocess.Popen(command, stderr=subprocess.DEVNULL, env=here) for command in commands]
        for one in reversed(running):
            stack.callback(one.wait)
            stack.callback(one.terminate)
        with Client(scheduler_file=file) as client:
            client.wait_for_workers(threads // 50)
            yield client, psutil.Process(running[0].pid)


def tasks(folder: Path, threads: int, runs: list[tuple[int, float]]) -> None:
    """Let the engine work on so many tasks that sleep for so long, in a tree as fitting does."""
    write_lake(folder / "lake", 10, 10)
    job = Job.load_leniently(job_of(folder))
    plan = plan_of(job, None, None)
    with cluster(threads) as (client, scheduler):
        report = RunReporter(first_snapshot(job), Silent(), job.secrets)
        context = task_context(plan, open_store(job.output.path))
        with report.publishing(SchedulerStore(client).publish, EVENTS_SECONDS), Watchdog(client, report) as watchdog:
            executor = DaskExecutor(client, watchdog, job.secrets)
            task = plan.task(0, range(16))
            _sleeping(executor, (context, 0, task, 0.1), report, threads * 4)  # workers have imported everything
            print(
                f"{'tasks':>7} {'seconds':>8} {'client ms':>10} {'sched. ms':>10} {'idle':>6} {'overhead':>9} MiB/1000"
            )
            for count, seconds in runs:
                both = (psutil.Process(), scheduler)
                before = [(sum(one.cpu_times()[:2]), one.memory_info().rss) for one in both]
                start = time.perf_counter()
                _sleeping(executor, (context, 0, task, seconds), report, count)
                took = time.perf_counter() - start
                after = [(sum(one.cpu_times()[:2]), one.memory_info().rss) for one in both]
                each = [(then[0] - now[0]) / count for now, then in zip(before, after, strict=True)]
                grown = [(then[1] - now[1]) / 2**20 / count * 1000 for now, then in zip(before, after, strict=True)]
                idle = 1 - count * seconds / (took * threads)
                print(
                    f"{count:>7,} {seconds:>8.1f} {each[0] * 1e3:>10.2f} {each[1] * 1e3:>10.2f} {idle:>6.1%}"
                    f" {sum(each) / seconds:>9.3%} {grown[0]:.1f} client, {grown[1]:.1f} scheduler",
                    flush=True,
                )


def _sleeping(executor: DaskExecutor, item: tuple[Any, ...], report: RunReporter, count: int) -> None:
    rows = item[2].rows
    report.begin("fit", count, count * rows, 0)
    names = ("fit", "merge-fit", "finish-fit")
    items = LazyItems(count, lambda _: item)
    found = executor.tree(names, sleep, items, merge=add, last=int, on_end=lambda _: report.advance(rows, 0))
    report.end()
    if found != count * rows:
        raise SystemExit(f"{found:,} rows were counted, not {count * rows:,}.")


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/scale.py", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["planning", "tasks"])
    parser.add_argument("--files", type=int, default=100_000, help="files of the lake")
    parser.add_argument("--threads", type=int, default=200, help="threads of the workers, a multiple of 50")
    parser.add_argument("--folder", type=Path, help="where the lake goes for the time being")
    options = parser.parse_args()
    print(machine.description(), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.what == "planning":
            planning(Path(name), options.files)
        else:
            full = options.threads
            tasks(Path(name), full, [(5 * full, 1.0), (10 * full, 1.0), (20 * full, 1.0), (5 * full, 10.0)])


if __name__ == "__main__":
    import scale  # by its own name, so that what the tasks run is found on the workers and not sent with each

    scale.main()
