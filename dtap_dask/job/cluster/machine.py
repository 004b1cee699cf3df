"""The cores and the memory of this machine, without distributed, so that planning need not import it."""

from __future__ import annotations

import os
from pathlib import Path

from dask.system import CPU_COUNT
from dask.utils import parse_bytes

from dtap_dask.errors import JobError

# Limits of a control group: hard and soft, of versions 2 and 1.
_LIMITS = ("memory.max", "memory.high", "memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes")


def cores() -> int:
    """The processors that this process may use, also by its control group; a local cluster has a worker for each."""
    return int(CPU_COUNT)


def memory() -> int:
    """The bytes of memory that this process may use: the machine's, or the limit of its control group."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in (Path("/sys/fs/cgroup") / name for name in _LIMITS):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit() and int(text):
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
