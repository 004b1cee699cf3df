"""A Dask cluster on this machine, of a suitable size."""

from __future__ import annotations

import logging
from collections.abc import Callable

from distributed import LocalCluster

from dtap_dask.errors import JobError
from dtap_dask.job.cluster import machine
from dtap_dask.job.cluster.security import on_loopback, without_port_warning
from dtap_dask.job.cluster.starting import WatchedNanny, refuse_unable, why_not_started
from dtap_dask.job.interrupts import start_shielded
from dtap_dask.words import count, human

LEAST_MEMORY = 512 << 20
# Enough for a worker: the libraries, and the most that a task takes.
GOOD_MEMORY = 2 << 30


def local_cluster(
    workers: int | None,
    threads: int | None,
    memory: str | None,
    note: Callable[[str], None],
    starting: Callable[[int], None],
) -> LocalCluster:
    """A cluster on loopback with one process per core, as encoding holds the GIL, but no more than fit into memory.

    ClusterError, with the cause, if it does not start.
    """
    refuse_unable()
    workers, threads, each = _sizes(workers, threads or 1, _memory(memory))
    note(f"Dask on this machine: {count(workers, 'worker process')} of {count(threads, 'thread')}, {human(each)} each")
    starting(workers)
    WatchedNanny.ended.clear()

    @without_port_warning()
    def start() -> LocalCluster:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            memory_limit=each,
            host="127.0.0.1",
            dashboard_address=on_loopback(8787),
            silence_logs=logging.CRITICAL,  # Dask would log what tasks raise, with tracebacks
            worker_class=WatchedNanny,
        )

    try:
        return start_shielded(start, LocalCluster.close)
    except Exception as error:  # Dask raises errors of any kind
        raise why_not_started(error) from error


def _sizes(workers: int | None, threads: int, memory: int | None) -> tuple[int, int, int]:
    """Workers, and threads and bytes of memory of each: as given, or suited to the machine or container."""
    available = machine.memory()
    fitting = max(1, available // (memory or GOOD_MEMORY))
    workers = workers or max(1, min(machine.cores() // threads, fitting))
    memory = memory or available // workers
    if memory < LEAST_MEMORY:
        raise JobError(
            f"--workers {workers} leaves each {human(memory)} of this machine's {human(available)}, but it needs at "
            f"least {human(LEAST_MEMORY)}. Give --workers {fitting} or fewer."
        )
    return workers, threads, memory


def _memory(size: str | None) -> int | None:
    if size is None:
        return None
    found = machine.parse_size(size)
    if found < LEAST_MEMORY:
        raise JobError(
            f"--memory {size!r} is {found:,} bytes per worker, which needs 1GiB or more. Did you mean {size}GiB?"
        )
    return found
