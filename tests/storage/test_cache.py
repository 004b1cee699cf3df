"""The local cache: nothing fetched twice, nothing in use evicted, nothing wrong given out, whatever processes do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from dtap_dask.errors import JobError, OutputError, StorageError
from dtap_dask.storage import Store, cache, fetch, local_copies, open_store
from dtap_dask.storage.cache import Cache, Held
from dtap_dask.storage.settings import checked
from waiting import HANG, until

HELPERS = Path(__file__).parents[1] / "helpers"
SIZE = 10_000


@dataclass(frozen=True)
class Shard:
    path: str
    bytes: int
    crc32c: int


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HELPERS)
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    monkeypatch.setattr(fetch, "WAIT", 0.01)
    monkeypatch.setattr(cache, "PATIENCE", 0.2)
    monkeypatch.setattr(cache, "_sound", set())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "reads"


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    """Files of 10,000 bytes in the folder `far`."""
    (tmp_path / "far").mkdir()
    found = []
    for number in range(6):
        data = bytes((number + at * at) % 251 for at in range(SIZE))
        (tmp_path / "far" / f"{number}").write_bytes(data)
        found.append(Shard(f"{number}", SIZE, google_crc32c.value(data)))
    return found


@pytest.fixture
def store(tmp_path: Path, log: Path) -> Store:
    return store_of(tmp_path, log)


def store_of(tmp_path: Path, log: Path, **options: Any) -> Store:
    import elsewhere

    assert elsewhere.Elsewhere.protocol == "elsewhere"
    return open_store(f"elsewhere://{tmp_path}/far", {"elsewhere": {"log": str(log), **options}})


def taken(log: Path) -> list[tuple[str, int, int]]:
    import elsewhere

    return [(os.path.basename(path), at, size) for path, at, size in elsewhere.reads(log)]


def never() -> bool:
    return False


def stage(kept: Cache, store: Store, shard: Shard) -> Held:
    return kept.stage(store, shard, never)


def files(kept: Cache) -> list[str]:
    """What the cache holds, by suffix."""
    return sorted(name.partition(".")[2] for name in os.listdir(kept.path) if "." in name)


def test_a_file_is_fetched_once_in_large_pieces(tmp_path: Path, store: Store, shards: list[Shard], log: Path) -> None:
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    for _ in range(2):
        held = stage(kept, store, shards[1])
        assert Path(held.path).read_bytes() == (tmp_path / "far" / "1").read_bytes()
        held.release()
        held.release()
    assert taken(log) == [("1", at, 1000) for at in range(0, SIZE, 1000)]
    assert files(kept) == ["shard"]


@pytest.mark.parametrize("kind", ["shard", "part"])
def test_a_link_in_the_place_of_a_file_is_not_followed(
    kind: str, tmp_path: Path, store: Store, shards: list[Shard]
) -> None:
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    held = stage(kept, store, shards[1])
    held.release()
    (tmp_path / "mine").write_text("mine")
    place = Path(held.path).with_suffix(f".{kind}")
    Path(held.path).unlink()
    place.symlink_to(tmp_path / "mine")
    (tmp_path / "cache" / "lock").unlink()
    (tmp_path / "cache" / "lock").symlink_to(tmp_path / "mine")
    held = stage(kept, store, shards[1])
    assert Path(held.path).read_bytes() == (tmp_path / "far" / "1").read_bytes()
    assert not Path(held.path).is_symlink()
    held.release()
    assert (tmp_path / "mine").read_text() == "mine"


def child(tmp_path: Path, log: Path, code: str, pause: float = 0.0) -> subprocess.Popen[str]:
    """Another process, with `kept`, `store` and `shards` as here."""
    prelude = f"""
import sys, time
sys.path.insert(0, {str(HELPERS)!r})
import elsewhere, google_crc32c
from pathlib import Path
from types import SimpleNamespace
from dtap_dask.storage import fetch, open_store
from dtap_dask.storage.cache import Cache
fetch.CHUNK = 1000
store = open_store("elsewhere://{tmp_path}/far", {{"elsewhere": {{"log": {str(log)!r}, "pause": {pause}}}}})
files = sorted(Path({str(tmp_path / "far")!r}).iterdir())
shards = [SimpleNamespace(path=f.name, bytes={SIZE}, crc32c=google_crc32c.value(f.read_bytes())) for f in files]
kept = Cache({str(tmp_path / "cache")!r}, {10 * SIZE})
print("ready", flush=True)
sys.stdin.readline()
"""
    started = subprocess.Popen([sys.executable, "-c", prelude + code], stdin=-1, stdout=-1, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=HANG)
    return out


def test_processes_that_want_the_same_fetch_it_once(tmp_path: Path, shards: list[Shard], log: Path) -> None:
    code = "for shard in shards: print(Path(kept.stage(store, shard, lambda: False).path).stat().st_size)"
    others = [child(tmp_path, log, code, 0.01) for _ in range(4)]
    for other in others:
        go(other)
    for other in others:
        assert ended(other).split() == [str(SIZE)] * len(shards)
        assert other.returncode == 0
    assert not list((tmp_path / "cache").glob("*.part"))
    assert sorted(taken(log)) == sorted((shard.path, at, 1000) for shard in shards for at in range(0, SIZE, 1000))


def test_a_killed_fetch_is_continued(tmp_path: Path, store: Store, shards: list[Shard], log: Path) -> None:
    other = child(tmp_path, log, "kept.stage(store, shards[2], lambda: False)", 0.1)
    go(other)
    until(lambda: len(taken(log)) >= 4)
    other.send_signal(signal.SIGKILL)
    ended(other)
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    (part,) = Path(kept.path).glob("*.part")
    there, before = part.stat().st_size, len(taken(log))
    assert 0 < there < SIZE
    held = stage(kept, store, shards[2])
    assert Path(held.path).read_bytes() == (tmp_path / "far" / "2").read_bytes()
    assert taken(log)[before:] == [("2", at, 1000) for at in range(there, SIZE, 1000)]
    assert files(kept) == ["shard"]


def test_a_part_with_wrong_bytes_is_fetched_anew(tmp_path: Path, store: Store, shards: list[Shard], log: Path) -> None:
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    stopped = iter([False] * 5 + [True])
    with pytest.raises(fetch.Stopped):
        kept.stage(store, shards[0], lambda: next(stopped))
    (part,) = Path(kept.path).glob("*.part")
    part.write_bytes(b"x" * 3000)
    held = stage(kept, store, shards[0])
    assert Path(held.path).read_bytes() == (tmp_path / "far" / "0").read_bytes()


def test_a_wrong_crc_is_met_by_one_more_fetch(tmp_path: Path, shards: list[Shard], log: Path) -> None:
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    held = stage(kept, store_of(tmp_path, log, wrong=1), shards[0])
    assert Path(held.path).read_bytes() == (tmp_path / "far" / "0").read_bytes()
    assert len(taken(log)) == 20
    data = (tmp_path / "far" / "1").read_bytes()
    found = google_crc32c.value(bytes(byte ^ (at % 1000 == 0) for at, byte in enumerate(data)))
    with pytest.raises(OutputError) as raised:
        stage(kept, store_of(tmp_path, log, wrong=1000), shards[1])
    assert f"elsewhere://{tmp_path}/far/1 is damaged: its CRC32C is {found:08x}, the" in str(raised.value)
    assert f"the manifest states {shards[1].crc32c:08x} (fetched twice)" in str(raised.value)
    assert "dtap-dask verify" in str(raised.value)
    assert len(taken(log)) == 40


def test_a_damaged_file_of_the_cache_is_found_once_a_process(
    tmp_path: Path, store: Store, shards: list[Shard], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size each time, its CRC when a process meets a file that it did not fetch itself."""
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    held = stage(kept, store, shards[0])
    held.release()
    right = Path(held.path).read_bytes()
    Path(held.path).write_bytes(right[:-1] + b"\xff")
    monkeypatch.setattr(cache, "_sound", set())  # as another process begins
    reader = open(held.path, "rb")  # which keeps what it has opened
    held = stage(kept, store, shards[0])
    assert Path(held.path).read_bytes() == right
    assert reader.read() != right
    reader.close()
    held.release()
    Path(held.path).write_bytes(right[:-1])
    held = stage(kept, store, shards[0])
    assert Path(held.path).read_bytes() == right
    assert len(taken(log)) == 30


def test_the_oldest_in_use_by_nobody_goes_first(tmp_path: Path, store: Store, shards: list[Shard], log: Path) -> None:
    kept = Cache(str(tmp_path / "cache"), 3 * SIZE + 10)
    paths = []
    for number in (0, 1, 2):
        held = stage(kept, store, shards[number])
        paths.append(held.path)
        held.release()
    stage(kept, store, shards[0]).release()  # used again: now 1 is the oldest
    pin = stage(kept, store, shards[1])  # but it is in use
    stage(kept, store, shards[3]).release()
    assert [os.path.exists(path) for path in paths] == [True, True, False]
    stage(kept, store, shards[4]).release()
    assert [os.path.exists(path) for path in paths] == [False, True, False]
    pin.release()
    assert sum(path.stat().st_size for path in Path(kept.path).glob("*-*")) <= kept.size


def test_what_another_process_reads_stays(tmp_path: Path, store: Store, shards: list[Shard], log: Path) -> None:
    code = "held = kept.stage(store, shards[0], lambda: False); print(held.path, flush=True); sys.stdin.readline()"
    other = child(tmp_path, log, code)
    go(other)
    assert other.stdout is not None
    path = other.stdout.readline().strip()
    kept = Cache(str(tmp_path / "cache"), SIZE + 10)
    with pytest.raises(StorageError, match="is full of files that are being read.*storage.cache.size"):
        stage(kept, store, shards[1])
    assert os.path.exists(path)
    other.kill()
    ended(other)
    stage(kept, store, shards[1]).release()
    assert not os.path.exists(path)


def test_promises_stay_below_the_size_and_end_with_their_process(
    tmp_path: Path, shards: list[Shard], log: Path
) -> None:
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    first = kept.reserve(SIZE, 100 * SIZE)
    assert first.bytes == 5 * SIZE  # half of what is free: others may come
    other = child(tmp_path, log, f"held = kept.reserve({4 * SIZE}, {4 * SIZE}); print('held', flush=True); input()")
    go(other)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(StorageError, match="others that are reading now hold 90,000 bytes.*size to 110,000"):
        kept.reserve(2 * SIZE, 3 * SIZE)
    other.kill()
    ended(other)
    Path(kept.path, "reserved", ".nfs0000000000a1b2c3").touch()
    second = kept.reserve(5 * SIZE, 5 * SIZE)
    for held in (first, second):
        held.release()
    assert os.listdir(os.path.join(kept.path, "reserved")) == [".nfs0000000000a1b2c3"]


def test_a_rewritten_file_never_meets_old_bytes(tmp_path: Path, store: Store, shards: list[Shard]) -> None:
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    old = stage(kept, store, shards[0])
    new = bytes(SIZE)
    (tmp_path / "far" / "0").write_bytes(new)
    held = stage(kept, store, Shard("0", SIZE, google_crc32c.value(new)))
    assert Path(held.path).read_bytes() == new
    assert Path(old.path).read_bytes() != new


def test_reads_that_fail_are_tried_again_from_where_they_stopped(
    tmp_path: Path, shards: list[Shard], log: Path
) -> None:
    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    stage(kept, store_of(tmp_path, log, failing=3), shards[0])
    assert len(taken(log)) == 10
    with pytest.raises(StorageError, match="far/1 could not be read, 4 times in a row: the other end is gone.*kept"):
        stage(kept, store_of(tmp_path, log, failing=4), shards[1])
    (tmp_path / "far" / "2").write_bytes(b"short")
    with pytest.raises(OutputError, match="far/2 ends after 5 of its 10,000 bytes"):
        stage(kept, store_of(tmp_path, log), shards[2])
    (tmp_path / "far" / "3").unlink()
    with pytest.raises(OutputError, match="far/3 is missing. The dataset was changed"):
        stage(kept, store_of(tmp_path, log), shards[3])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said(
    tmp_path: Path, store: Store, shards: list[Shard], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    kept = Cache(str(tmp_path / "cache"), 10 * SIZE)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left on the disk of the cache .*storage.cache.size"):
        stage(kept, store, shards[0])


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/cache cannot be used: Not a directory. Set storage.cache.path"):
        Cache(str(tmp_path / "file" / "cache"), SIZE)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("DTAP_CACHE", "DTAP_CACHE_SIZE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def test_settings_come_before_the_environment(tmp_path: Path, bare: pytest.MonkeyPatch) -> None:
    def found(settings: dict[str, Any]) -> tuple[str, int]:
        kept = local_copies.cache(settings)
        return os.path.relpath(kept.path, tmp_path), kept.size

    assert found({}) == (".cache/dtap_dask", 20 << 30)
    bare.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert found({}) == ("xdg/dtap_dask", 20 << 30)
    bare.setenv("DTAP_CACHE", "~/mine")
    bare.setenv("DTAP_CACHE_SIZE", "3MiB")
    assert found({}) == ("mine", 3 << 20)
    assert found({"cache": {"path": str(tmp_path / "job"), "size": 77}}) == ("job", 77)
    bare.setenv("DTAP_CACHE_SIZE", "much")
    with pytest.raises(JobError, match="DTAP_CACHE_SIZE: found 'much'"):
        local_copies.cache({})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cache": {"sise": 3}}, "storage.cache.sise: unknown key 'sise'. Did you mean 'size'?"),
        ({"cache": {"size": "much"}}, "storage.cache.size: found 'much': a size is needed, such as 20GiB"),
        ({"cache": {"size": 0}}, "storage.cache.size: found 0"),
        ({"cache": {"size": True}}, "storage.cache.size: found True"),
        ({"cache": {"path": 3}}, "storage.cache.path: found 3: a local folder is needed"),
        ({"cache": "/mnt"}, "storage.cache: found '/mnt': a mapping"),
        ({"mounts": ["a"]}, "storage.mounts: found ['a']: a mapping"),
        ({"mounts": {"/mnt": "/far"}}, "storage.mounts./mnt: '/mnt' is not a URL"),
        ({"mounts": {"hdfs://ns/a": "hdfs://ns/b"}}, "storage.mounts.hdfs://ns/a: found 'hdfs://ns/b': a local folder"),
    ],
)
def test_wrong_settings_are_all_named(settings: dict[str, Any], said: str) -> None:
    (problem,) = checked(settings)[1]
    assert said in str(problem)
    with pytest.raises(JobError):
        local_copies.cache(settings)


def test_a_mount_must_show_the_same_file(tmp_path: Path, store: Store) -> None:
    mount = tmp_path / "mount"
    (mount / "in").mkdir(parents=True)
    (tmp_path / "far" / "in").mkdir(parents=True)
    inner = open_store(f"{store.url}/in", store.settings)
    (tmp_path / "far" / "in" / "name").write_bytes(b"one")
    mounts = {"mounts": {f"{store.url}/": f"{mount}/", f"{store.url}/i": "/nowhere", "elsewhere://": "/nowhere"}}
    with pytest.raises(StorageError, match=f"{mount}/in is not elsewhere:.*: there is no name.*correct storage.mounts"):
        local_copies.mounted(inner, "name", mounts)
    (mount / "in" / "name").write_bytes(b"two")
    with pytest.raises(StorageError, match="name is another one"):
        local_copies.mounted(inner, "name", mounts)
    (mount / "in" / "name").write_bytes(b"one")
    found = local_copies.mounted(inner, "name", mounts)
    assert found is not None
    assert found.local_path("name") == str(mount / "in" / "name")
    assert local_copies.mounted(inner, "name", {}) is None
