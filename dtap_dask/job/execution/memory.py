"""How a worker process takes memory: what a batch frees is kept for the next one."""

from __future__ import annotations

import ctypes
import os
from functools import cache

import pyarrow as pa

KEPT_BYTES = 256 << 20
_LARGEST = 32 << 20  # glibc takes no more: larger arrays are given back to the system at once
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_DASKS = "65536"  # what Dask's nanny sets MALLOC_TRIM_THRESHOLD_ to


@cache
def keep_freed_memory() -> None:
    """See to that, once in this process; who has set ARROW_DEFAULT_MEMORY_POOL or MALLOC_TRIM_THRESHOLD_ is obeyed.

    A batch is made of arrays of some megabytes. Dask has the C library give those back to the system as soon as they
    are freed, and Arrow's own allocator (seen with pyarrow 26) does so soon after; the system then has to clear pages
    for the next batch. Write tasks of two workers beside each other took 40 % more time so.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
    if os.environ.get("MALLOC_TRIM_THRESHOLD_", _DASKS) == _DASKS:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, others need not
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGEST)
            mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
