"""Ends the process of a command, once the command is over."""

from __future__ import annotations

import atexit
import os
import threading
from typing import NoReturn

from dtap_dask.job.console import say, settle_standard_streams


def end_process(code: int, lost: OSError | None = None) -> NoReturn:
    """End as Python does, except that Python is not taken apart: threads end, then functions registered with atexit.

    The exit status is `code`, or 1 if output was `lost`, now or before. Threads of libraries (pyarrow, gRPC) that ask
    for Python's lock while Python is taken apart would abort the process, status 134, after a command that succeeded
    (Python below 3.14).
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        lost = settle_standard_streams() or lost
        if lost is not None:
            say(f"Error: the output could not be written ({lost.strerror}).")
    finally:
        os._exit(code if lost is None else 1)
