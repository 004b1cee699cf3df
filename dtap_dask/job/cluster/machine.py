"""The cores and the memory of this machine, without distributed, so that planning need not import it."""

from __future__ import annotations

import os
from pathlib import Path

from dask.utils import parse_bytes

from dtap_dask.errors import JobError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def cores() -> int:
    """The processors that this process may use; a cluster on this machine has a worker for each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """The bytes of memory that this process may use: the machine's, or the limit of its control group."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in map(Path, _LIMITS):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found)


def parse_size(size: str) -> int:
    """A size such as 4GiB in bytes; JobError for anything else."""
    try:
        found = int(parse_bytes(size))
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise JobError(f"--memory {size!r} is not a size such as 4GiB.")
    return found
