"""Freed memory is kept for the next batch, unless somebody has said how memory is to be taken."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np, pyarrow as pa
from dtap_dask.records.memory import keep_freed_memory
keep_freed_memory()
def faults():
    np.ones(2 << 20)  # 16 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(2 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(pa.default_memory_pool().backend_name, faults())
"""


def found(**environment: str) -> tuple[str, int]:
    """Arrow's allocator, and the pages that the system had to give for eight arrays of 16 MiB, one after the other:
    eight times 4096, or 8 where pages are huge."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ARROW_", "MALLOC_"))}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env={**own, **environment}, capture_output=True, text=True, check=True)
    pool, faults = done.stdout.split()
    return pool, int(faults)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_what_is_freed_is_kept_in_a_worker_of_dask() -> None:
    pool, faults = found(MALLOC_TRIM_THRESHOLD_="65536")
    assert pool == "system"
    assert faults < 32


def test_who_has_set_it_is_obeyed() -> None:
    pool, faults = found(MALLOC_TRIM_THRESHOLD_="131072", ARROW_DEFAULT_MEMORY_POOL="mimalloc")
    assert pool == "mimalloc"
    assert faults >= 64
