"""What no tool can beat by much: read the columns twice with pyarrow and write as many bytes, doing nothing between."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
from distributed import Client

from lake import COLUMNS

_PIECE = os.urandom(1 << 20) * 8


def run(client: Client, lake: Path, out: Path, size: int) -> None:
    """Read every file on the workers; then read every file again and write its share of `size` bytes, with fsync."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(lake.glob("*.parquet"))
    client.gather(client.map(read, files, pure=False))
    targets = [out / file.with_suffix(".bytes").name for file in files]
    client.gather(client.map(read_and_write, files, targets, size=size // len(files), pure=False))


def read(path: Path) -> int:
    """Decode all columns of a file, row group after row group; returns the rows."""
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        return sum(file.read_row_group(group, columns=COLUMNS, use_threads=False).num_rows for group in groups)


def read_and_write(path: Path, target: Path, size: int) -> None:
    """Read a file, write `size` bytes of noise, wait for the disk."""
    read(path)
    with target.open("wb") as file:
        for start in range(0, size, len(_PIECE)):
            file.write(_PIECE[: size - start])
        file.flush()
        os.fsync(file.fileno())
