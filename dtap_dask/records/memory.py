"""Memory of a process that works on one batch after another: what a batch frees is kept for the next one."""

from __future__ import annotations

import ctypes
import os
from functools import cache

import pyarrow as pa

KEPT_BYTES = 256 << 20
_LARGEST = 32 << 20  # the most that glibc accepts: larger arrays are returned to the system at once
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_DASKS = "65536"  # what Dask's nanny sets MALLOC_TRIM_THRESHOLD_ to


@cache
def keep_freed_memory() -> None:
    """Apply once per process, unless the user set ARROW_DEFAULT_MEMORY_POOL or MALLOC_TRIM_THRESHOLD_.

    A batch consists of arrays of some megabytes. Dask makes the C library return those to the system as soon as they
    are freed, and Arrow's own allocator (seen with pyarrow 26) does so soon after; the system must then clear pages for
    the next batch. Without this, write tasks of two workers side by side took 40 % more time, and loading 15 %.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
    if os.environ.get("MALLOC_TRIM_THRESHOLD_", _DASKS) == _DASKS:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, others need not
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGEST)
            mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
