"""What the numbers were measured on: processor, memory and versions, and nothing that names the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ["dtap-dask", "dask", "dask-ml", "pyarrow", "numpy", "pandas", "tensorflow"]


def description() -> str:
    """Two lines for the head of the table."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    load = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GiB memory, {platform.system()};"
        f" load average at the start {load:.1f}\nPython {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    """The processor's model as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
