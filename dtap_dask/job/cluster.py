"""A Dask cluster to run on: the current client, one that runs already, or one of our own on this machine."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_bytes
from distributed import Client, LocalCluster, default_client
from distributed.comm import parse_address
from distributed.comm.registry import get_backend

from dtap_dask.errors import ClusterError, DtapError, JobError
from dtap_dask.storage import Store

WAIT_SECONDS = 15
LEAST_MEMORY = 512 << 20
_COMPARED = ("dtap_dask", "pyarrow", "numpy")


@dataclass(frozen=True)
class ClusterOptions:
    """Where to run. Without `scheduler` and `scheduler_file`: the current client, Dask's own config, or locally.

    `workers` processes of `threads` threads, each with `memory` (such as '4GiB'), are for a cluster of our own.
    """

    workers: int | None = None
    threads: int | None = None
    memory: str | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None


@contextmanager
def open_client(options: ClusterOptions, client: Client | None = None) -> Iterator[Client]:
    """A connected client; what is opened here is closed again, what was open stays so."""
    _refuse_contradictions(options)
    client = client or _current(options)
    if client is not None:
        _refuse_own_workers(options, "the current Dask client has its workers already. Close it, or leave them out.")
        yield client
        return
    file = options.scheduler_file
    address = _address_in(file) if file else options.scheduler or dask.config.get("scheduler-address", None)
    if address:
        with _connect(address) as connected:
            yield connected
        return
    with _local(options) as cluster, Client(cluster) as connected:
        yield connected


def _current(options: ClusterOptions) -> Client | None:
    if options.scheduler or options.scheduler_file:
        return None
    try:
        return default_client()
    except ValueError:  # there is none
        return None


def _refuse_contradictions(options: ClusterOptions) -> None:
    if options.scheduler and options.scheduler_file:
        raise JobError("--scheduler and --scheduler-file both say where to run. Give one of the two.")
    if options.scheduler or options.scheduler_file:
        _refuse_own_workers(options, "one that runs already has its workers. Leave them out, or leave out --scheduler.")


def _refuse_own_workers(options: ClusterOptions, why: str) -> None:
    own = [f"--{name}" for name in ("workers", "threads", "memory") if getattr(options, name) is not None]
    if own:
        raise JobError(f"{', '.join(own)} are for a cluster on this machine that the run starts itself; {why}")


def _address_in(file: str) -> str:
    """The address in a scheduler's file, which may be about to be written: Dask's own client waits for ever."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return str(json.loads(Path(file).read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > end:
                raise ClusterError(
                    f"The scheduler file {file} names no scheduler after {WAIT_SECONDS} s ({type(error).__name__}: "
                    f"{error}). Start one, `dask scheduler --scheduler-file {file}`, where this machine sees the file."
                ) from error
            time.sleep(0.1)


def _connect(address: str) -> Client:
    try:
        get_backend(parse_address(address)[0])  # a client that fails at this would stay the current one
        return Client(address, timeout=WAIT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"No Dask scheduler answers at {address} within {WAIT_SECONDS} s ({error}). Check the address "
            "(`dask scheduler` prints it) and that this machine may reach it; without --scheduler the job runs here."
        ) from error


def _local(options: ClusterOptions) -> LocalCluster:
    """One process a core, as encoding holds Python's lock; the dashboard on loopback only."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = options.threads or 1
    workers = options.workers or max(1, cores // threads)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_UNGUARDED)  # a worker process that imports the script which started it
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            memory_limit=_memory(options.memory),
            host="127.0.0.1",
            dashboard_address=f"127.0.0.1:{_free_port(8787)}",
            silence_logs=logging.ERROR,
        )
    except RuntimeError as error:
        raise ClusterError(f"The worker processes did not start ({error}). {_UNGUARDED}") from error


_UNGUARDED = (
    "A script that runs a job must do so below `if __name__ == '__main__':`, as each worker process imports the script "
    "once more."
)


def _memory(size: str | None) -> int | str:
    if size is None:
        return "auto"
    try:
        found = int(parse_bytes(size))
    except ValueError as error:
        raise JobError(f"--memory {size!r} is not a size such as 4GiB.") from error
    if found < LEAST_MEMORY:
        raise JobError(
            f"--memory {size!r} is {found:,} bytes a worker, which needs 1GiB or more. Did you mean {size}GiB?"
        )
    return found


def _free_port(preferred: int) -> int:
    """`preferred`, or 0 (any) where something listens there already: Dask would warn and choose one itself."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return 0
    return preferred


def preflight(client: Client, source: Store, output: Store) -> None:
    """Refuse to start where workers are missing, run other versions, or cannot read the source and write the output."""
    try:
        client.wait_for_workers(1, timeout=WAIT_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"The scheduler {client.scheduler.address} has no workers after {WAIT_SECONDS} s. "
            "Start some: `dask worker <address of the scheduler>`."
        ) from error
    _compare_versions(client)
    answers = client.run(_probe, source, output)
    failed = {worker: answer for worker, answer in answers.items() if answer}
    if failed:
        worker, answer = sorted(failed.items())[0]
        raise ClusterError(f"{len(failed)} of {len(answers)} workers cannot do the job. Worker {worker}: {answer}")


def _compare_versions(client: Client) -> None:
    """Dask's own check only warns, and leaves out the packages that decide the bytes."""
    versions = client.get_versions(packages=list(_COMPARED))
    mine = _relevant(versions["client"])
    differences = [
        f"{worker} has {name} {theirs}, the client {mine[name]}"
        for worker, found in sorted(versions["workers"].items())
        for name, theirs in sorted(_relevant(found).items())
        if theirs != mine[name]
    ]
    if differences:
        more = f" ({len(differences) - 3} more)" if len(differences) > 3 else ""
        raise ClusterError(
            f"Workers and client run different software: {'; '.join(differences[:3])}{more}. "
            "Install the same versions on both."
        )


def _relevant(found: dict[str, Any]) -> dict[str, str | None]:
    packages = found["packages"]
    python = ".".join(str(packages.get("python") or "").split(".")[:2])
    return {"python": python, **{name: packages.get(name) for name in ("dask", "distributed", *_COMPARED)}}


def _probe(source: Store, output: Store) -> str | None:
    """Runs on each worker: None, or why it cannot read the source or write the output."""
    try:
        if not source.exists():
            return f"the source {source.url} does not exist as seen from there. Mount it on every worker."
        name = f"_run/.probe-{uuid.uuid4().hex}"
        output.write_atomic(name, b"")
        output.delete(name)
    except (DtapError, OSError) as error:
        return str(error)
    return None
