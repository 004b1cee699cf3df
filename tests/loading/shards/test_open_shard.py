"""Shards on a disk: files that cannot be read, that hold less than they should, and how many are open at a time."""

from __future__ import annotations

import errno
import gzip
import os
import resource
from pathlib import Path
from typing import Any

import psutil
import pytest

from dtap_dask.errors import DamagedError, OutputError
from dtap_dask.loading.batches import batches
from dtap_dask.records.example import Layout
from numbered_rows import PLAIN, rows_of, write

SHARDS = [16, 16, 16, 16]


def failing(number: int) -> Any:
    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number", "message"),
    [
        ("open", errno.EMFILE, "cannot be opened: .*open files as it may have: raise the limit"),
        ("open", errno.ENOENT, "cannot be opened: .*moved or deleted after it was loaded: load it again"),
        ("open", errno.EACCES, "cannot be opened: Permission denied. Check its permissions"),
        ("preadv", errno.EIO, "cannot be read: Input/output error. .* the disk or mount"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, message: str
) -> None:
    data = batches(write(tmp_path, SHARDS, Layout("blocks", 8), PLAIN), on_bad_record="skip")
    monkeypatch.setattr(os, function, failing(number))
    with pytest.raises(OutputError, match=rf"part-\d+-of-00004.tfrecord {message}"):
        next(iter(data))


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore:.*left out")
def test_compressed_shards_that_hold_less(tmp_path: Path, kept: float) -> None:
    """The file has the size that the manifest states, and its checksum is right."""
    path = write(tmp_path, SHARDS, Layout("blocks", 4, "gzip"), PLAIN)
    shard = min(tmp_path.glob("train/*"))
    packed = shard.read_bytes()
    whole = gzip.decompress(packed)
    part = gzip.compress(whole[: int(kept if kept > 1 else kept * len(whole))], mtime=0)
    shard.write_bytes(part + bytes(len(packed) - len(part)))
    with pytest.raises(
        DamagedError, match=f"{shard.name} is damaged: (it ends at byte .*, before the end of|the checksum)"
    ):
        list(batches(path, shuffle=False))
    rows = rows_of(batches(path, kept=True, on_bad_record="skip", shuffle=False))
    assert rows == [*range(int(kept * 4) * 4 if kept < 1 else 0), *range(16, 64)]


def test_all_datasets_together_have_a_share_of_the_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / name, SHARDS, Layout("rows"), PLAIN) for name in "ab"]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))  # a quarter of them: 5
    data = [batches(path, kept=True, batch_size=5) for path in paths]
    for _ in range(2):
        rows: list[list[int]] = [[], []]
        for pair in zip(*data, strict=True):
            for number, batch in enumerate(pair):
                rows[number] += rows_of([batch])
            assert len([file for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]) <= 5
        assert [sorted(of) for of in rows] == [[*range(64)]] * 2
