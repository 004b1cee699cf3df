"""A filesystem for tests: local files that count as remote ones, with every read in a log, slow or wrong if wanted."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem


class Elsewhere(AbstractFileSystem):
    """`elsewhere:///folder`. Each read is a line "path offset size" of the file `log`, which processes may share.

    A read takes `pause` seconds; the first `wrong` reads have a flipped bit, the first `failing` raise OSError.
    Files of JSON are spared.
    """

    protocol = "elsewhere"
    cachable = False

    def __init__(self, log: str, pause: float = 0.0, wrong: int = 0, failing: int = 0, **more: Any):
        super().__init__(**more)
        self.log, self.pause, self.wrong, self.failing = log, pause, wrong, failing

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        found = os.stat(self._strip_protocol(path))
        kind = "directory" if os.path.isdir(path) else "file"
        return {"name": self._strip_protocol(path), "size": found.st_size, "type": kind}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        names = sorted(entry.path for entry in os.scandir(self._strip_protocol(path)))
        return [self.info(name) if detail else name for name in names]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return _Reading(self, path)


class _Reading(io.FileIO):
    def __init__(self, fs: Elsewhere, path: str):
        super().__init__(path, "rb")
        self._fs = fs

    def read(self, size: int | None = -1) -> Any:
        at = self.tell()
        time.sleep(self._fs.pause)
        if self._fs.failing > 0 and not str(self.name).endswith(".json"):
            self._fs.failing -= 1
            raise ConnectionResetError("the other end is gone")
        data = bytearray(super().read(size))
        with open(self._fs.log, "a") as log:
            log.write(f"{self.name} {at} {len(data)}\n")
        if self._fs.wrong > 0 and data and not str(self.name).endswith(".json"):
            self._fs.wrong -= 1
            data[0] ^= 1
        return bytes(data)


def reads(log: str | Path, suffix: str = "") -> list[tuple[str, int, int]]:
    """(path, offset, bytes) of every read so far of files whose path ends so."""
    lines = Path(log).read_text().splitlines() if Path(log).exists() else []
    found = [line.rsplit(" ", 2) for line in lines]
    return [(path, int(at), int(size)) for path, at, size in found if path.endswith(suffix)]


fsspec.register_implementation("elsewhere", Elsewhere, clobber=True)
