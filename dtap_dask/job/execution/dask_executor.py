"""Tasks as Dask futures: a window of them at a time, merged in a tree whose shape the number of items fixes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import dask
from distributed import Client, Future, KilledWorker
from distributed.client import FutureCancelledError
from distributed.protocol.pickle import dumps, loads

from dtap_dask.errors import RESUMABLE, Cancelled, ClusterError, InterruptedRun
from dtap_dask.job.execution.executor import FAN_IN, R, T, Ts, task_errors
from dtap_dask.job.execution.watchdog import Watchdog
from dtap_dask.job.jobfile.secrets import Secrets

# Enough to keep every thread busy while the client reacts, few enough that a lost client leaves little behind.
WINDOW_PER_THREAD = 3
POLL_SECONDS = 0.5
# Tasks are planned to take seconds, or a few minutes.
DRAIN_SECONDS = 300.0


class DaskExecutor:
    """Executor on a Dask cluster: tasks have readable keys, such as `fit-<token>-1-00012-<run>`.

    `watchdog` says when to stop and how many threads there are now, and gives the run's id; `secrets` are removed from
    what tasks raise before Dask logs it.
    """

    def __init__(self, client: Client, watchdog: Watchdog | None = None, secrets: Secrets | None = None):
        self._client, self._watchdog, self._secrets = client, watchdog, secrets
        self._token = uuid.uuid4().hex[:8]
        self._stage = 0

    @property
    def threads(self) -> int:
        """See Executor."""
        return self._watchdog.threads if self._watchdog else sum(self._client.nthreads().values())

    def each(
        self,
        name: str,
        task: Callable[[*Ts], R],
        items: Sequence[tuple[*Ts]],
        on_result: Callable[[int, R], None],
        *,
        drain: bool = False,
    ) -> list[R]:
        """See Executor."""
        results: dict[int, R] = {}

        def ended(index: int, future: Future) -> list[Future]:
            results[index] = future.result()
            future.release()
            on_result(index, results[index])
            return []

        with cluster_errors(self._client):
            self._run_all(name, task, items, ended, drain)
        return [results[index] for index in range(len(items))]

    def tree(
        self,
        names: tuple[str, str, str],
        task: Callable[[*Ts], T],
        items: Sequence[tuple[*Ts]],
        *,
        merge: Callable[[Sequence[T]], T],
        last: Callable[[T], R],
        on_end: Callable[[int], None],
    ) -> R:
        """See Executor. Results and merges stay on the workers."""
        tree = _Tree(len(items), lambda parts, level, index: self._submit(names[1], f"{level}-{index}", merge, parts))

        def ended(index: int, future: Future) -> list[Future]:
            on_end(index)
            return tree.leaf(index, future)

        with cluster_errors(self._client):
            self._run_all(names[0], task, items, ended)
            result: R = self._submit(names[2], "0", last, tree.root()).result()
            return result

    @contextmanager
    def dask_collections(self) -> Iterator[None]:
        """See Executor."""
        with dask.config.set(scheduler=self._client), self._client.as_current(), cluster_errors(self._client):
            yield

    def _run_all(
        self,
        name: str,
        task: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        ended: Callable[[int, Future], list[Future]],
        drain: bool = False,
    ) -> None:
        """Keep a window of tasks in flight; `ended` may return further futures to wait for (merges)."""
        self._stage += 1
        threads = self.threads
        flight = _InFlight()
        rest = iter(enumerate(items))
        try:
            while True:
                window = WINDOW_PER_THREAD * (self._watchdog.threads if self._watchdog else threads)
                while len(flight.indices) < max(2, window):
                    index, item = next(rest, (-1, ()))
                    if index < 0:
                        break
                    flight.add(self._submit(name, f"{index:05d}", _unpacked, task, _Packed(dumps(item))), index)
                if not flight.pending:
                    return
                future = self._next(flight)
                if future.status != "finished":
                    future.result()  # raises what the task raised
                if (ended_index := flight.indices.pop(future.key, None)) is not None:
                    for merge in ended(ended_index, future):
                        flight.add(merge)
        except BaseException as error:
            if drain and isinstance(error, Cancelled):
                self._drain(flight, ended)
            self._client.cancel(list(flight.pending.values()), force=True)
            raise

    def _next(self, flight: _InFlight) -> Future:
        """The next future that has ended. Raises the reason to stop as soon as there is one."""
        while True:
            if self._watchdog:
                self._watchdog.check()
            future = flight.next(POLL_SECONDS)
            if future is not None:
                return future
            if self._client.status != "running":
                raise OSError("the Dask client is closed")

    def _drain(self, flight: _InFlight, ended: Callable[[int, Future], list[Future]]) -> None:
        """Cancel the tasks that wait and let those that run finish: what they have done is kept."""
        stacks = self._client.call_stack().values()
        running = {key for stack in stacks for key in stack} & flight.indices.keys()
        self._client.cancel([future for key, future in flight.pending.items() if key not in running], force=True)
        end = time.monotonic() + DRAIN_SECONDS
        while running and time.monotonic() < end:
            future = flight.next(POLL_SECONDS)
            if future is not None and future.key in running:
                running.remove(future.key)
                if future.status == "finished":
                    ended(flight.indices.pop(future.key), future)

    def _submit(self, name: str, suffix: str, task: Callable[..., Any], *args: Any) -> Future:
        key = f"{name}-{self._token}-{self._stage}-{suffix}" + (f"-{self._watchdog.run}" if self._watchdog else "")
        if self._secrets and self._secrets.variables:
            return self._client.submit(_redacting, self._secrets, task, *args, key=key, pure=False)
        return self._client.submit(task, *args, key=key, pure=False)


@dataclass(frozen=True, repr=False)
class _Packed:
    """A task's arguments as bytes.

    The scheduler keeps every task whose result went into another that still exists, to run it again if that is lost:
    as objects, the arguments of 100,000 tasks would take more than a gigabyte there.
    """

    data: bytes


def _unpacked(task: Callable[..., Any], packed: _Packed) -> Any:
    return task(*loads(packed.data))


def _redacting(secrets: Secrets, task: Callable[..., Any], *args: Any) -> Any:
    """Runs on the workers, which log what tasks raise: that must hold no secret."""
    with secrets.redacting():
        return task(*args)


class _InFlight:
    """Futures that have been submitted and not yet seen to end; `indices` has those of the stage's tasks, by key."""

    def __init__(self) -> None:
        self.pending: dict[str, Future] = {}
        self.indices: dict[str, int] = {}
        self._ended: SimpleQueue[Future] = SimpleQueue()

    def add(self, future: Future, index: int | None = None) -> None:
        """One more future."""
        self.pending[future.key] = future
        if index is not None:
            self.indices[future.key] = index
        future.add_done_callback(self._ended.put)

    def next(self, seconds: float) -> Future | None:
        """The next future that has ended, well or not; None if none does within `seconds`."""
        try:
            future = self._ended.get(timeout=seconds)
        except Empty:
            return None
        self.pending.pop(future.key, None)
        return future


@contextmanager
def cluster_errors(client: Client) -> Iterator[None]:
    """Say what it means and what to do when Dask loses workers, scheduler or client, or a task raises anything."""
    with task_errors():
        try:
            yield
        except KilledWorker as error:
            raise ClusterError(
                f"The task {error.task} lost its worker {error.allowed_failures + 1} times (last: {error.last_worker}"
                "). Most often the worker ran out of memory: give it more (--memory), or use fewer threads; the "
                f"worker's log says why it died. {RESUMABLE}"
            ) from error
        except (FutureCancelledError, OSError, TimeoutError) as error:
            if isinstance(error, OSError) and client.status == "running":
                raise
            first = (str(error).splitlines() or [""])[0].rstrip(".")
            raise InterruptedRun(
                f"The connection to the Dask scheduler was lost ({type(error).__name__}: {first}). Finished work "
                "is kept: start the cluster again and continue with --resume (in Python resume=True)."
            ) from error


class _Tree:
    """Merges the results of numbered leaves, FAN_IN neighbours at a time, as soon as all of a group have ended."""

    def __init__(self, leaves: int, merge: Callable[[list[Future], int, int], Future]):
        self._sizes = [leaves]
        while self._sizes[-1] > 1:
            self._sizes.append(-(-self._sizes[-1] // FAN_IN))
        self._merge = merge
        self._nodes: dict[tuple[int, int], Future] = {}

    def leaf(self, index: int, future: Future) -> list[Future]:
        """Add the result of one leaf; returns the merges that it completes."""
        self._nodes[0, index] = future
        merged = []
        level = 0
        while level + 1 < len(self._sizes):
            parent = index // FAN_IN
            group = [(level, i) for i in range(parent * FAN_IN, min((parent + 1) * FAN_IN, self._sizes[level]))]
            if not all(node in self._nodes for node in group):
                break
            level, index = level + 1, parent
            self._nodes[level, index] = self._merge([self._nodes.pop(node) for node in group], level, index)
            merged.append(self._nodes[level, index])
        return merged

    def root(self) -> Future:
        """The future of everything merged, once all leaves have ended."""
        return self._nodes[len(self._sizes) - 1, 0]
