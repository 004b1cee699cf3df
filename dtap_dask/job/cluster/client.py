"""Opens a Dask client: the current one, one of a running scheduler, or one of a cluster that is started here."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import dask
from distributed import Client, default_client

from dtap_dask.errors import ClusterError, JobError
from dtap_dask.job import taps
from dtap_dask.job.cluster.file import read_cluster_file, started_cluster
from dtap_dask.job.cluster.local import local_cluster
from dtap_dask.job.cluster.security import reach, refuse_open, refuse_unknown, security_for
from dtap_dask.records.folder import RUNS
from dtap_dask.storage import Store
from dtap_dask.storage.access import cannot_list, cannot_write

WAIT_SECONDS = 15.0
# The time that a batch system or an autoscaler may need to start the first worker, or new ones when all are gone.
WAIT_FOR_WORKERS_SECONDS = 1800.0
_COMPARED = ("dtap_dask", "pyarrow", "numpy")
Notify = Callable[[str], None]


def _ignore(_: object) -> None:
    """Default callback: does nothing."""


@dataclass(frozen=True)
class ClusterOptions:
    """Where to run. Without `scheduler`, `scheduler_file` or `cluster`: the current Dask client if there is one, else
    the scheduler of Dask's configuration, else a cluster of worker processes on this machine.

    - `workers`, `threads`, `memory`: of such a cluster: processes, threads of each, memory of each (such as '4GiB').
    - `scheduler`: an address. `scheduler_file`: the file written by `dask scheduler --scheduler-file`. `cluster`: a
      YAML file that describes a cluster to start.
    - `insecure`: allow a scheduler on the network that is not encrypted (tls://).
    - `tls_ca_file`, `tls_cert`, `tls_key`: the certificates; by default those of Dask's configuration.

    An open client is used as it is.
    """

    workers: int | None = None
    threads: int | None = None
    memory: str | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    cluster: str | None = None
    insecure: bool = False
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = field(default=None, repr=False)  # may be the key itself

    @property
    def names_cluster(self) -> bool:
        """Whether the options name a cluster to use or to start."""
        return bool(self.scheduler or self.scheduler_file or self.cluster)


@contextmanager
def open_client(
    options: ClusterOptions,
    client: Client | None = None,
    note: Notify = _ignore,
    starting: Callable[[int], None] = _ignore,
) -> Iterator[Client]:
    """A connected client. Closes what it opens, and leaves open what was open before.

    `note` receives messages about what is started, `starting` the number of worker processes started on this machine.
    Raises JobError for options that contradict each other or are not safe, ClusterError if no scheduler answers or no
    cluster starts.
    """
    _refuse_contradictions(options, client)
    client = client or _current(options)
    if client is not None:
        _refuse_unusable(client)
        _refuse_own(options, "the current Dask client already has workers. Close it, or leave the options out.")
        yield client
        return
    address = _address(options)
    if address:
        _refuse_own(options, f"{address} already has workers. Leave either the options or the scheduler out.")
        with _connect(address, options) as connected:
            yield connected
        return
    _refuse_certificates(options)
    with _started_cluster(options, note, starting) as cluster, Client(cluster) as connected:
        yield connected


def _current(options: ClusterOptions) -> Client | None:
    if options.names_cluster:
        return None
    try:
        return default_client()
    except ValueError:  # there is none
        return None


def _refuse_unusable(client: Client) -> None:
    if client.status in ("closed", "closing"):
        raise JobError("The Dask client is closed. Pass an open one, or none to start a cluster on this machine.")
    if client.asynchronous:
        raise JobError(
            "The Dask client was opened with asynchronous=True, but a job waits for its client's answers. Pass a "
            "synchronous one, `client=Client(address, set_as_default=False)` with the address of the same scheduler, "
            "and from asynchronous code run the job in a thread: `await asyncio.to_thread(dtap_dask.run, job, "
            "client=client)`."
        )


def _refuse_contradictions(options: ClusterOptions, client: Client | None) -> None:
    given = [f"--{_flag(name)}" for name in ("scheduler", "scheduler_file", "cluster") if getattr(options, name)]
    given += ["client="] if client is not None and given else []
    if len(given) > 1:
        raise JobError(f"{' and '.join(given)} all say where to run. Give only one.")
    if given:
        _refuse_own(options, f"{given[0]} says where to run. Leave one or the other out.")


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _refuse_own(options: ClusterOptions, why: str) -> None:
    own = [f"--{name}" for name in ("workers", "threads", "memory") if getattr(options, name) is not None]
    if own:
        raise JobError(f"{', '.join(own)} are for a cluster on this machine that the run starts itself; {why}")


def _refuse_certificates(options: ClusterOptions) -> None:
    given = [f"--{_flag(one.name)}" for one in fields(options) if one.name[:4] == "tls_" and getattr(options, one.name)]
    if given:
        raise JobError(
            f"{', '.join(given)} are for a running scheduler (--scheduler tls://...). A cluster that is "
            "started here takes its certificates from Dask's configuration (distributed.comm.tls)."
        )


def _address(options: ClusterOptions) -> str | None:
    """The address of a running scheduler, if the options or Dask's configuration name one."""
    if options.scheduler_file:
        return _address_in(options.scheduler_file)
    if options.scheduler or options.cluster:
        return options.scheduler
    configured = dask.config.get("scheduler-address", None)
    return str(configured) if configured else None


def _address_in(file: str) -> str:
    """The address in a scheduler file, which may be written a little later (Dask's own client waits forever)."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return str(json.loads(Path(file).read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > end:
                raise ClusterError(
                    f"The scheduler file {file} names no scheduler after {WAIT_SECONDS:g} s ({type(error).__name__}: "
                    f"{error}). Start one with `dask scheduler --scheduler-file {file}`, on a path seen from here."
                ) from error
            time.sleep(0.1)


def _connect(address: str, options: ClusterOptions) -> Client:
    """A client of the scheduler, checked first: a Client that fails waits long and stays the current one."""
    refuse_unknown(address)
    refuse_open(address, options.insecure)
    security = security_for(address, options.tls_ca_file, options.tls_cert, options.tls_key)
    reach(address, security, WAIT_SECONDS)
    try:
        return Client(address, security=security, timeout=WAIT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"The Dask scheduler {address} answered once, but no longer does ({error}).") from error


def _started_cluster(
    options: ClusterOptions, note: Notify, starting: Callable[[int], None]
) -> AbstractContextManager[Any]:
    if not options.cluster:
        sizes = options.workers, options.threads, options.memory
        own: AbstractContextManager[Any] = local_cluster(*sizes, note, starting)
        return own
    file = read_cluster_file(options.cluster)
    note(f"Dask: starting the {file.name} of {options.cluster}")
    return started_cluster(file, lambda address: refuse_open(address, options.insecure))


def preflight(client: Client, source: Store, output: Store, note: Notify = _ignore) -> None:
    """ClusterError unless there are workers, of the same versions, that can read the source and write the output.

    Waits for workers that are due, such as those that a cluster object has requested, and says so through `note`.
    """
    _wait_for_workers(client, note)
    compare_versions(client)
    settings = taps.combined(source, output)
    answers = client.run(_probe, source.address, output.address, settings, on_error="return")
    failed = {worker: answer for worker, answer in answers.items() if answer and not _has_left(answer)}
    if failed:
        worker, answer = sorted(failed.items())[0]
        raise ClusterError(f"{len(failed)} of {len(answers)} workers cannot do the job. Worker {worker}: {answer}")


def _has_left(answer: Any) -> bool:
    """Whether a worker left while it was asked: others will do the work. Raises any other error."""
    if isinstance(answer, Exception) and not isinstance(answer, OSError):
        raise answer
    return isinstance(answer, OSError)


def _wait_for_workers(client: Client, note: Notify) -> None:
    if client.nthreads():
        return
    cluster = client.cluster
    due = cluster is not None and bool(getattr(cluster, "plan", None) or getattr(cluster, "_adaptive", None))
    end = time.monotonic() + (WAIT_FOR_WORKERS_SECONDS if due else WAIT_SECONDS)
    if due:
        note("Waiting for workers: there are none yet.")
    task = client.submit(int, key=f"preflight-{uuid.uuid4().hex[:8]}", pure=False)  # makes adaptive clusters start
    try:
        while not client.nthreads():
            if time.monotonic() > end:
                raise ClusterError(_no_workers(client.scheduler.address, due))
            time.sleep(0.1)
    finally:
        task.release()


def _no_workers(address: str, due: bool) -> str:
    if due:
        return (
            f"No worker has joined {address} for {WAIT_FOR_WORKERS_SECONDS / 60:.0f} minutes. Check what starts them."
        )
    return (
        f"The scheduler {address} has no workers after {WAIT_SECONDS:g} s. Start some: `dask worker <address of the "
        "scheduler>`. If they are started once there is work, use `dtap-dask submit`, which waits for them."
    )


def compare_versions(client: Client) -> None:
    """ClusterError if workers and client run different software. Dask's own check only warns, and omits packages."""
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


def _probe(source: str, output: str, settings: dict[str, Any]) -> str | None:
    """Why a worker cannot read the source or write the output. Runs on it, with plain values: opening may fail."""
    return cannot_list(source, settings) or cannot_write(output, settings, RUNS)
