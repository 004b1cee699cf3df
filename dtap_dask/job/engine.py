"""Run a plan's tasks as Dask futures: a window of them at a time, merged in a tree whose shape the plan fixes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed
from distributed.client import FutureCancelledError

from dtap_dask.errors import ClusterError, InterruptedRun

# Enough to keep every thread busy while the client reacts, few enough that a lost client leaves little behind.
WINDOW_PER_THREAD = 3
FAN_IN = 8


class Engine:
    """Submits idempotent tasks under readable keys (`fit-<token>-00012`) and hands back their results in order."""

    def __init__(self, client: Client):
        self._client = client
        self._token = uuid.uuid4().hex[:8]
        self._stage = 0

    def each(
        self, name: str, task: Callable[..., Any], items: Sequence[tuple[Any, ...]], done: Callable[[int], None]
    ) -> list[Any]:
        """`[task(*item) for item in items]` on the workers; `done(i)` is called as each ends, in any order."""
        results: list[Any] = [None] * len(items)

        def ended(index: int, future: Future) -> list[Future]:
            results[index] = future.result()
            future.release()
            done(index)
            return []

        with watching(self._client):
            self._flow(name, task, items, ended)
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
    ) -> None:
        """Keep a window of tasks under way; `ended` may return further futures to wait for (merges)."""
        self._stage += 1
        waiting, indices = as_completed(loop=self._client.loop), {}
        rest = iter(enumerate(items))
        window = max(2, WINDOW_PER_THREAD * int(sum(self._client.nthreads().values())))
        try:
            for index, item in rest:
                future = self._submit(name, f"{index:05d}", task, *item)
                indices[future.key] = index
                waiting.add(future)
                if len(indices) >= window:
                    break
            for future in waiting:
                future.result()  # raises what the task raised
                if future.key not in indices:
                    continue
                for merge in ended(indices.pop(future.key), future):
                    waiting.add(merge)
                for index, item in rest:
                    following = self._submit(name, f"{index:05d}", task, *item)
                    indices[following.key] = index
                    waiting.add(following)
                    break
        except BaseException:
            self._client.cancel(list(waiting.futures), force=True)
            raise

    def _submit(self, name: str, suffix: str, task: Callable[..., Any], *args: Any) -> Future:
        return self._client.submit(task, *args, key=f"{name}-{self._token}-{self._stage}-{suffix}", pure=False)


@contextmanager
def watching(client: Client) -> Iterator[None]:
    """Say in our own words what it means when Dask loses workers, scheduler or client."""
    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"The task {error.task} lost its worker {error.allowed_failures + 1} times (last: {error.last_worker}"
            "). Most often the worker ran out of memory: give it more (--memory), or use fewer threads; the worker's "
            "log says why it died. What is written stays: go on with --resume."
        ) from error
    except (FutureCancelledError, OSError, TimeoutError) as error:
        if isinstance(error, OSError) and client.status == "running":
            raise
        raise InterruptedRun(
            f"The connection to the Dask scheduler was lost ({type(error).__name__}: {error}). "
            "What is written stays: start the cluster again and go on with --resume."
        ) from error
    except KeyboardInterrupt as error:
        raise InterruptedRun("Stopped. What is written stays: go on with --resume.") from error


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
