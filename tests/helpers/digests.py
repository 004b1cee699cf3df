"""Digests of what a run wrote, to compare datasets byte by byte."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, `_run` left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "_run" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def without_run(found: dict[str, str]) -> dict[str, str]:
    """Digests by path, with the run's eight letters left out of the names of shards.

    The letters are from the fingerprint, which covers the URL of the source. All shards must carry the same ones.
    """
    shard = re.compile(r"(.+/part-\d{5}-of-\d{5})-([0-9a-f]{8})(\.tfrecord(?:\.gz)?)")
    named = {path: shard.fullmatch(path) for path in found}
    assert len({match[2] for match in named.values() if match}) == 1
    return {f"{match[1]}{match[3]}" if match else path: found[path] for path, match in named.items()}
