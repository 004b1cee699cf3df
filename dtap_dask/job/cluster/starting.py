"""Why worker processes on this machine do not start: refused beforehand if known, else diagnosed afterwards."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys

from distributed import Nanny, get_worker

from dtap_dask.errors import ClusterError

# The exit status of a worker process that would start workers itself when it imports the script that started it.
UNGUARDED = 77
_GUARD = (
    "A script must run a job under `if __name__ == '__main__':`, because each worker process imports the script again."
)
_LIMITS = (
    "Check the limits on memory, processes and threads here (`ulimit -a`, or those of the container), or give fewer "
    "--workers."
)
_ELSEWHERE = "use a running cluster (--scheduler ADDR, in Python client=...)"


def refuse_unguarded() -> None:
    """End a worker process that would start workers itself when it imports the script that started it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(UNGUARDED)


def refuse_unable() -> None:
    """ClusterError in a process that cannot have worker processes."""
    if _in_a_task():
        raise ClusterError(
            "A Dask task cannot start worker processes. Run the job outside of tasks, or submit it to "
            "the cluster: dtap_dask.submit(job, client=...)."
        )
    if multiprocessing.current_process().daemon:
        raise ClusterError(
            "This process is daemonic, like those of multiprocessing.Pool and of some workflow schedulers, and Python "
            f"does not let such a process start others. Run the job in an ordinary process, or {_ELSEWHERE}."
        )
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is not None and getattr(main, "__spec__", None) is None and not os.path.exists(file):
        raise ClusterError(
            "Each worker process imports the script that started it, but this one cannot be imported: there is no file "
            f"{file}. Save the script to a file and run that instead of reading it from standard input, use the "
            f"command `dtap-dask run`, or {_ELSEWHERE}."
        )


def _in_a_task() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


class WatchedNanny(Nanny):  # type: ignore[misc]  # distributed has no types
    """Dask's nanny, which also records the exit status of worker processes."""

    ended: list[int] = []  # noqa: RUF012  # of the cluster started last

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self.ended.append(exitcode)
        super()._on_worker_exit_sync(exitcode)


def why_not_started(error: BaseException) -> ClusterError:
    """The error for a cluster that did not start, with its cause: the last in the chain of Dask's errors."""
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
            "Dask's configuration requires encryption (distributed.comm.require-encryption) but names no certificates "
            "(distributed.comm.tls). Name them, or turn encryption off for this run, whose processes communicate on "
            "this machine only: DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=false."
        )
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename}: {error.strerror}. Worker processes need a folder there, as set by Dask's "
            "temporary-directory (DASK_TEMPORARY_DIRECTORY) or TMPDIR; name one that can be written."
        )
    short = isinstance(error, MemoryError) or "can't start new thread" in text
    short |= isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN)
    return f"{text.rstrip('.')} ({type(error).__name__}).{f' {_LIMITS}' if short else ''}"


def _ended_early() -> str:
    """The cause, where a worker process ended without reporting to the process that started it."""
    status = WatchedNanny.ended[-1] if WatchedNanny.ended else 1
    if status < 0:
        memory = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
        return f"A worker process was killed by signal {-status} while it started{memory}. {_LIMITS}"
    return (
        "A worker process ended before it began to work: importing the script that started it failed for the reason "
        "printed above. Make the script importable, or use `dtap-dask run`."
    )
