"""Why worker processes of our own do not start: refused beforehand where that is known, else found out afterwards."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys

from distributed import Nanny, get_worker

from dtap_dask.errors import ClusterError

# The exit status of a worker process that, importing the script that started it, would start workers itself.
UNGUARDED = 77
_GUARD = (
    "A script that runs a job must do so below `if __name__ == '__main__':`, as each worker process imports the script "
    "once more."
)
_LIMITS = (
    "Look at the limits of memory, processes and threads here (`ulimit -a`, or those of the container), or give fewer "
    "--workers."
)
_ELSEWHERE = "give it a cluster that runs already (--scheduler ADDR, in Python client=...)"


def refuse_unguarded() -> None:
    """End a worker process that, importing the script which started it, would start workers itself."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(UNGUARDED)


def refuse_unable() -> None:
    """ClusterError in a process that can have no worker processes."""
    if _in_a_task():
        raise ClusterError(
            "A task of Dask cannot start worker processes of its own. Run the job outside of tasks, or submit it to "
            "the cluster: dtap_dask.submit(job, client=...)."
        )
    if multiprocessing.current_process().daemon:
        raise ClusterError(
            "This process is daemonic, as those of multiprocessing.Pool and of some schedulers of workflows are, and "
            f"Python lets such a process start no others. Run the job in an ordinary process, or {_ELSEWHERE}."
        )
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is not None and getattr(main, "__spec__", None) is None and not os.path.exists(file):
        raise ClusterError(
            f"Each worker process imports the script that started it, and this one cannot be imported: there is no "
            f"file {file}. Save it to a file and run that instead of reading it from standard input, use the command "
            f"`dtap-dask run`, or {_ELSEWHERE}."
        )


def _in_a_task() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


class WatchedNanny(Nanny):  # type: ignore[misc]  # distributed has no types
    """Dask's own, which remembers how worker processes ended that did not come up."""

    ended: list[int] = []  # noqa: RUF012  # of the last cluster that was started

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self.ended.append(exitcode)
        super()._on_worker_exit_sync(exitcode)


def why_not_started(error: BaseException) -> ClusterError:
    """The error of a cluster that did not start, with the cause at the end of the chain of Dask's errors."""
    chain = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and below not in chain:
        chain.append(below)
    causes = [one for one in chain if str(one) and not isinstance(one, AssertionError)]
    return ClusterError(f"No worker processes were started here. {_cause(causes[-1] if causes else error)}")


def _cause(error: BaseException) -> str:
    if UNGUARDED in WatchedNanny.ended:
        return _GUARD
    text = str(error)
    if "failed to start worker process" in text:
        return _ended_early()
    if "ssl_context" in text or "encryption required" in text.lower():
        return (
            "Dask's configuration asks for encryption (distributed.comm.require-encryption) and names no certificates "
            "for it (distributed.comm.tls). Name them; or leave encryption off for this run, whose processes talk on "
            "this machine only: DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=false."
        )
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename}: {error.strerror}. Worker processes need a folder of their own there: it is what Dask's "
            "setting temporary-directory (DASK_TEMPORARY_DIRECTORY) or TMPDIR says; name one that can be written."
        )
    short = isinstance(error, MemoryError) or "can't start new thread" in text
    short |= isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN)
    return f"{text.rstrip('.')} ({type(error).__name__}).{f' {_LIMITS}' if short else ''}"


def _ended_early() -> str:
    """Of a worker process that ended without a word to the process that started it."""
    status = WatchedNanny.ended[-1] if WatchedNanny.ended else 1
    if status < 0:
        memory = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
        return f"A worker process was killed by signal {-status} while it started{memory}. {_LIMITS}"
    return (
        "A worker process ended before it began to work: it imports the script that started it, and that failed, for "
        "the reason printed above. Make the script one that can be imported, or use `dtap-dask run`."
    )
