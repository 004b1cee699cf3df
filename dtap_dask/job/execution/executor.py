"""What sends tasks to where they run: the two verbs that a run needs, and a plain loop that has both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar, TypeVarTuple

from dtap_dask.errors import RESUMABLE, STOPPED, DtapError, InterruptedRun

FAN_IN = 8  # results that one merge takes
Ts = TypeVarTuple("Ts")
T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Runs idempotent tasks. Errors of dtap_dask and OSError pass as raised; any other is an UnexpectedError."""

    @property
    def threads(self) -> int:
        """How many tasks run at a time."""

    def each(
        self,
        name: str,
        task: Callable[[*Ts], R],
        items: Sequence[tuple[*Ts]],
        on_result: Callable[[int, R], None],
        *,
        drain: bool = False,
    ) -> list[R]:
        """`[task(*item) for item in items]`; `on_result(i, result)` is called as each ends, in any order.

        With `drain`, a cancelled run lets tasks that have started finish: what they do is kept.
        """

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
        """`last` of the merged results of at least one task; `on_end(i)` is called as each task ends, in any order.

        Results are merged FAN_IN neighbours at a time, then those again, until one is left. Which are merged together
        depends on the number of items alone, so floating-point sums are the same wherever they are computed.
        `names` are for the keys of tasks, merges and the last step.
        """

    def dask_collections(self) -> AbstractContextManager[None]:
        """A block in which Dask collections are computed here."""


class LoopExecutor:
    """One task after another, in this thread. What every other executor must equal."""

    threads = 1

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
        results: list[R] = []
        with task_errors():
            for index, item in enumerate(items):
                results.append(task(*item))
                on_result(index, results[-1])
        return results

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
        """See Executor."""
        parts = self.each(names[0], task, items, lambda index, _: on_end(index))
        with task_errors():
            while len(parts) > 1:
                parts = [merge(parts[start : start + FAN_IN]) for start in range(0, len(parts), FAN_IN)]
            return last(parts[0])

    @contextmanager
    def dask_collections(self) -> Iterator[None]:
        """See Executor."""
        import dask

        with dask.config.set(scheduler="synchronous"):
            yield


class UnexpectedError(DtapError):
    """A task raised an error that none of ours describes; the cause has its traceback."""


@contextmanager
def task_errors() -> Iterator[None]:
    """Say what to do about errors of a task that none of ours describes, and about Ctrl-C."""
    try:
        yield
    except (DtapError, OSError):
        raise
    except KeyboardInterrupt as error:
        raise InterruptedRun(STOPPED) from error
    except Exception as error:
        raise _unexpected(error) from error


def _unexpected(error: Exception) -> UnexpectedError:
    what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:500]}".rstrip(": .")
    if isinstance(error, MemoryError):
        return UnexpectedError(
            f"A task ran out of memory ({what}). Give each worker more (--memory), or fewer threads (--threads). "
            f"{RESUMABLE}"
        )
    return UnexpectedError(
        f"A task failed with an unexpected error ({what}). Finished work is kept. `dtap-dask --debug run JOB` "
        "shows where it came from, as the traceback does in Python. Please report it with that."
    )
