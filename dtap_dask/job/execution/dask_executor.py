"""Run a plan's tasks as Dask futures: a window of them at a time, merged in a tree whose shape the plan fixes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed.client import FutureCancelledError
from distributed.protocol.pickle import dumps, loads

from dtap_dask.errors import RESUMABLE, Cancelled, ClusterError, DtapError, InterruptedRun
from dtap_dask.job.execution.watchdog import Watchdog
from dtap_dask.job.jobfile.secrets import Secrets

# Enough to keep every thread busy while the client reacts, few enough that a lost client leaves little behind.
WINDOW_PER_THREAD = 3
FAN_IN = 8
STOPPED = f"Stopped. {RESUMABLE}"
LOOK_SECONDS = 0.5
# Tasks are made to take seconds, or a few minutes.
LET_END_SECONDS = 300.0


class DaskExecutor:
    """Submits idempotent tasks under readable keys (`fit-<token>-1-00012`) and hands back their results in order.

    `watch` says when to stop and how many threads there are now, and has the run's id put into the keys; `secrets` are
    taken out of what tasks raise before Dask logs it.
    """

    def __init__(self, client: Client, watch: Watchdog | None = None, secrets: Secrets | None = None):
        self._client, self._watch, self._secrets = client, watch, secrets
        self._token = uuid.uuid4().hex[:8]
        self._stage = 0

    def each(
        self,
        name: str,
        task: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        done: Callable[[int], None],
        *,
        took: Callable[[Any], None] = lambda result: None,
        lasting: bool = False,
    ) -> list[Any]:
        """`[task(*item) for item in items]` on the workers; `done(i)` is called as each ends, in any order.

        `took` gets each result before that. What `lasting` tasks do outlives the run: when it is cancelled, those that
        have begun may end.
        """
        results: list[Any] = [None] * len(items)

        def ended(index: int, future: Future) -> list[Future]:
            results[index] = future.result()
            future.release()
            took(results[index])
            done(index)
            return []

        with watching(self._client):
            self._flow(name, task, items, ended, lasting)
        return results

    def tree(
        self,
        names: tuple[str, str, str],
        task: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        *,
        merge: Callable[[Sequence[Any]], Any],
        last: Callable[[Any], Any],
        done: Callable[[int], None],
    ) -> Any:
        """`last(merge(... task(*item) ...))` on the workers, merged eight by eight in the order of the items.

        What is merged with what depends on the number of items alone, so floating-point sums come out the same
        on any cluster. `names` are the stages' names: of a task, of a merge, of the last step.
        """
        tree = _Tree(len(items), lambda parts, level, index: self._submit(names[1], f"{level}-{index}", merge, parts))

        def ended(index: int, future: Future) -> list[Future]:
            done(index)
            return tree.leaf(index, future)

        with watching(self._client):
            self._flow(names[0], task, items, ended)
            root = tree.root()
            return self._submit(names[2], "0", last, root).result()

    def _flow(
        self,
        name: str,
        task: Callable[..., Any],
        items: Sequence[tuple[Any, ...]],
        ended: Callable[[int, Future], list[Future]],
        lasting: bool = False,
    ) -> None:
        """Keep a window of tasks under way; `ended` may return further futures to wait for (merges)."""
        self._stage += 1
        threads = sum(self._client.nthreads().values())
        flow = _Flow()
        rest = iter(enumerate(items))
        try:
            while True:
                window = WINDOW_PER_THREAD * int(self._watch.threads if self._watch else threads)
                while len(flow.indices) < max(2, window):
                    index, item = next(rest, (-1, ()))
                    if index < 0:
                        break
                    flow.follow(self._submit(name, f"{index:05d}", _unpacked, task, _Packed(dumps(item))), index)
                if not flow.pending:
                    return
                future = self._next(flow)
                if future.status != "finished":
                    future.result()  # raises what the task raised
                if (ended_index := flow.indices.pop(future.key, None)) is not None:
                    for merge in ended(ended_index, future):
                        flow.follow(merge)
        except Cancelled:
            if lasting:
                self._let_end(flow, ended)
            self._client.cancel(list(flow.pending.values()), force=True)
            raise
        except BaseException:
            self._client.cancel(list(flow.pending.values()), force=True)
            raise

    def _next(self, flow: _Flow) -> Future:
        """The next future that has ended. Raises the reason to stop, should there come one first."""
        while True:
            if self._watch:
                self._watch.check()
            future = flow.next(LOOK_SECONDS)
            if future is not None:
                return future
            if self._client.status != "running":
                raise OSError("the Dask client is closed")

    def _let_end(self, flow: _Flow, ended: Callable[[int, Future], list[Future]]) -> None:
        """Cancel the tasks that wait and let those that run come to their end: their work is done already."""
        stacks = self._client.call_stack().values()
        running = {key for stack in stacks for key in stack} & flow.indices.keys()
        self._client.cancel([future for key, future in flow.pending.items() if key not in running], force=True)
        end = time.monotonic() + LET_END_SECONDS
        while running and time.monotonic() < end:
            future = flow.next(LOOK_SECONDS)
            if future is not None and future.key in running:
                running.remove(future.key)
                if future.status == "finished":
                    ended(flow.indices.pop(future.key), future)

    def _submit(self, name: str, suffix: str, task: Callable[..., Any], *args: Any) -> Future:
        key = f"{name}-{self._token}-{self._stage}-{suffix}" + (f"-{self._watch.run}" if self._watch else "")
        if self._secrets and self._secrets.variables:
            return self._client.submit(_redacting, self._secrets, task, *args, key=key, pure=False)
        return self._client.submit(task, *args, key=key, pure=False)


@dataclass(frozen=True, repr=False)
class _Packed:
    """What a task is given, as bytes.

    The scheduler keeps every task whose result went into another that is still there, to begin it again should that be
    lost: as the objects that they are, what 100,000 tasks are given would take more than a gigabyte there.
    """

    data: bytes


def _unpacked(task: Callable[..., Any], packed: _Packed) -> Any:
    return task(*loads(packed.data))


def _redacting(secrets: Secrets, task: Callable[..., Any], *args: Any) -> Any:
    """Runs on the workers, which log what tasks raise: that must hold no secret."""
    with secrets.redacting():
        return task(*args)


class _Flow:
    """Futures under way; `indices` has those of the stage's own tasks, by key."""

    def __init__(self) -> None:
        self.pending: dict[str, Future] = {}
        self.indices: dict[str, int] = {}
        self._ended: SimpleQueue[Future] = SimpleQueue()

    def follow(self, future: Future, index: int | None = None) -> None:
        """One more future."""
        self.pending[future.key] = future
        if index is not None:
            self.indices[future.key] = index
        future.add_done_callback(self._ended.put)

    def next(self, seconds: float) -> Future | None:
        """The next future that has ended, well or not; None if none does for so long."""
        try:
            future = self._ended.get(timeout=seconds)
        except Empty:
            return None
        self.pending.pop(future.key, None)
        return future


class UnexpectedError(DtapError):
    """A task raised what none of our errors describes; the cause has its traceback."""


@contextmanager
def watching(client: Client) -> Iterator[None]:
    """Say in our own words what it means when Dask loses workers, scheduler or client, or a task raises anything."""
    try:
        yield
    except DtapError:
        raise
    except KilledWorker as error:
        raise ClusterError(
            f"The task {error.task} lost its worker {error.allowed_failures + 1} times (last: {error.last_worker}"
            "). Most often the worker ran out of memory: give it more (--memory), or use fewer threads; the worker's "
            f"log says why it died. {RESUMABLE}"
        ) from error
    except (FutureCancelledError, OSError, TimeoutError) as error:
        if isinstance(error, OSError) and client.status == "running":
            raise
        first = (str(error).splitlines() or [""])[0].rstrip(".")
        raise InterruptedRun(
            f"The connection to the Dask scheduler was lost ({type(error).__name__}: {first}). "
            "Finished work is kept: start the cluster again and continue with --resume (in Python resume=True)."
        ) from error
    except KeyboardInterrupt as error:
        raise InterruptedRun(STOPPED) from error
    except Exception as error:
        raise _unforeseen(error) from error


def _unforeseen(error: Exception) -> UnexpectedError:
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:500]}".rstrip(": .")
    if isinstance(error, MemoryError):
        return UnexpectedError(
            f"A task ran out of memory ({said}). Give each worker more (--memory), or fewer threads (--threads). "
            f"{RESUMABLE}"
        )
    return UnexpectedError(
        f"A task failed in a way that was not foreseen ({said}). Finished work is kept. Where it came from is shown by "
        "`dtap-dask --debug run JOB`, and in Python by the traceback: please report it with that."
    )


class _Tree:
    """Merges the results of numbered leaves, FAN_IN neighbours at a time, as soon as all of a group have ended."""

    def __init__(self, leaves: int, merge: Callable[[list[Future], int, int], Future]):
        self._sizes = [leaves]
        while self._sizes[-1] > 1:
            self._sizes.append(-(-self._sizes[-1] // FAN_IN))
        self._merge = merge
        self._nodes: dict[tuple[int, int], Future] = {}

    def leaf(self, index: int, future: Future) -> list[Future]:
        """Take in the result of one leaf; the merge that it completes, if any."""
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
        """The future of everything merged; there is one as soon as all leaves have ended."""
        return self._nodes[len(self._sizes) - 1, 0]
