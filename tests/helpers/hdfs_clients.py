"""The filesystem of a real HDFS, in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from dtap_dask.storage.hadoop.native import HdfsFileSystem
from waiting import HANG

CONTENT = bytes(range(256)) * 49


def connect(url: str, **options: Any) -> HdfsFileSystem:
    """The filesystem of a URL, the class passed explicitly: who owns `hdfs` in fsspec does not matter here."""
    return HdfsFileSystem(**HdfsFileSystem._get_kwargs_from_urls(url), **options)


def in_process(code: str, *arguments: str, **environment: str) -> str:
    """What a program prints in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
