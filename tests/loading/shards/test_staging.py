"""Staging in a cache that holds one shard at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest

from dtap_dask.errors import OutputError
from dtap_dask.loading.feed import FeedMeter
from dtap_dask.loading.shards.staging import StagingSession
from dtap_dask.records.shard import ShardInfo
from dtap_dask.storage import open_store
from dtap_dask.storage.cache import Cache
from waiting import HANG, until

SIZE = 1000


@pytest.fixture
def session(tmp_path: Path) -> Iterator[StagingSession]:
    """Of three shards, the first of which is not what the manifest states."""
    shards = []
    for number in range(3):
        data = bytes([number]) * SIZE
        (tmp_path / f"shard-{number}").write_bytes(data)
        crc = google_crc32c.value(data) + (number == 0)
        shards.append(ShardInfo(path=f"shard-{number}", split="train", rows=1, records=1, bytes=SIZE, crc32c=crc))
    cache, store = Cache(str(tmp_path / "cache"), SIZE), open_store(str(tmp_path))
    session = StagingSession(cache, store, shards, SIZE, SIZE, feed=FeedMeter())
    yield session
    session.close()


def test_a_shard_that_cannot_be_fetched_takes_no_space(session: StagingSession) -> None:
    with pytest.raises(OutputError):
        session.path(0, HANG)
    session.done(0)
    for number in (1, 2):
        path = session.path(number, HANG)
        assert path is not None
        assert Path(path).read_bytes() == bytes([number]) * SIZE
        session.done(number)


def test_a_shard_that_nobody_asked_for_is_released_whether_it_has_arrived_or_not(session: StagingSession) -> None:
    session.done(0)
    session.done(1)
    assert session.path(2, HANG) is not None
    session.done(2)
    until(lambda: session._bytes == 0)
