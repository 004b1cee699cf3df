"""`stats()` of `batches`: how fast a loop is fed, what it waits for, and the stage that makes it wait."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

import elsewhere
from datasets import bytes_of
from dtap_dask.loading import batches as module
from dtap_dask.loading.batches import Batches, batches
from dtap_dask.loading.shards.decode import Decoder
from dtap_dask.records import columns
from dtap_dask.records.example import Layout
from numbered_rows import PLAIN, write
from waiting import slowed, until

ROWS, WINDOW, SIZE = 320, 16, 16
SLOW = 0.02  # seconds; what nothing slows down takes far less


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [ROWS // 4] * 4, Layout("blocks", 16), PLAIN)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", WINDOW)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset for loops that take long."""
    return write(tmp_path_factory.mktemp("data"), [ROWS // 4] * 2, Layout("blocks", 16), PLAIN)


def finished(data: Batches, step: float = 0.0) -> dict[str, Any]:
    for _ in data:
        time.sleep(step)
    return data.stats()


SLOWED = {
    "disk": lambda patch: patch.setattr(os, "preadv", slowed(os.preadv, SLOW)),
    "decode": lambda patch: patch.setattr(Decoder, "decode", slowed(Decoder.decode, SLOW)),
    "shuffle": lambda patch: patch.setattr(columns, "take", slowed(columns.take, SLOW)),
}


@pytest.mark.parametrize("stage", SLOWED)
def test_the_stage_that_is_slow_is_the_bottleneck(path: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    SLOWED[stage](monkeypatch)
    found = finished(batches(path, batch_size=SIZE))
    assert found["bottleneck"] == stage
    assert found["waiting"] > 0.5
    assert found["stages"][stage] > 0.8 * sum(found["stages"].values())
    assert found["stages"][stage] > SLOW * ROWS / WINDOW / 2  # of all windows but those before the first batch


def test_batches_that_the_loops_own_thread_makes_slowly_are_decoding(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    SLOWED["disk"](monkeypatch)
    monkeypatch.setattr(module, "delivered", slowed(module.delivered, 5 * SLOW))
    found = finished(batches(short, batch_size=SIZE))
    assert (found["bottleneck"], found["waiting"] > 0.5) == ("decode", True)


def test_shards_that_have_to_be_fetched_are_remote(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD", "CYCLE", "MIXED_BYTES"):  # one shard after the other
        monkeypatch.setattr(f"dtap_dask.loading.order.epoch_order.{name}", 1)
    monkeypatch.setattr("dtap_dask.loading.shards.staging.FETCHERS", 1)
    storage = {
        elsewhere.Elsewhere.protocol: {"log": str(tmp_path / "log"), "pause": 0.2},
        "cache": {"path": str(tmp_path / "cache")},
    }
    data = batches(f"elsewhere://{path}", batch_size=SIZE, storage=storage)
    first = finished(data)
    assert (first["bottleneck"], first["staging"]) == ("remote", {"hits": 0, "fetched": 4})
    assert first["waiting"] > 0.5
    assert finished(data)["staging"] == {"hits": 4, "fetched": 0}


@pytest.mark.parametrize("stage", SLOWED)
def test_a_slow_loop_does_not_wait_and_has_no_bottleneck(
    short: str, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    SLOWED[stage](monkeypatch)
    found = finished(batches(short, batch_size=SIZE), step=4 * SLOW)
    assert found["bottleneck"] is None
    assert found["waiting"] < 0.1
    assert found["stages"][stage] > 0
    assert found["rows_per_second"] < SIZE / (4 * SLOW)


def test_waiting_is_the_share_of_the_time_that_the_loop_does_not_work(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One window after the other takes three times as long as a step, so that two thirds are waiting."""
    monkeypatch.setattr(os, "preadv", slowed(os.preadv, 0.06))
    monkeypatch.setattr(module, "THREADS", 1)
    found = finished(batches(path, batch_size=SIZE), step=0.02)
    assert 0.55 < found["waiting"] < 0.75


@pytest.mark.parametrize("options", [{}, {"remainder": "drop"}, {"remainder": "pad"}, {"readers": (1, 3)}])
@pytest.mark.parametrize("size", [16, 100, 7])
def test_rows_and_bytes_are_those_of_the_batches(path: str, options: dict[str, Any], size: int) -> None:
    data = batches(path, batch_size=size, **options)
    rows = [len(batch[1]) for batch in data]
    found = data.stats()
    assert (found["batches"], found["rows"]) == (len(rows), sum(rows))
    assert found["rows_per_second"] == pytest.approx(sum(rows[1:]) / found["seconds"])
    if not options:
        assert found["bytes"] == bytes_of(path)
        assert found["bytes_per_second"] == pytest.approx(bytes_of(path) / ROWS * found["rows_per_second"])
    assert found["queues"] == {"records": 0, "decoded": 0, "ready": 0}


def test_queues_are_full_while_the_loop_works(path: str) -> None:
    data = batches(path, batch_size=SIZE // 2)
    iterator = iter(data)
    next(iterator)
    until(lambda: data.stats()["queues"] == {"records": 0, "decoded": module.THREADS * WINDOW, "ready": SIZE // 2})


def test_each_loop_is_measured_by_itself(path: str) -> None:
    data = batches(path, batch_size=SIZE)
    assert data.stats() == {
        "batches": None,
        "rows": None,
        "bytes": None,
        "seconds": None,
        "rows_per_second": None,
        "bytes_per_second": None,
        "waiting": None,
        "bottleneck": None,
        "stages": {"disk": 0, "remote": 0, "decode": 0, "shuffle": 0},
        "queues": {"records": 0, "decoded": None, "ready": None},
        "staging": {"hits": 0, "fetched": 0},
        "skipped_records": 0,
    }
    assert finished(data)["rows"] == ROWS
    given_up = iter(data)
    next(given_up)
    assert data.stats()["rows"] == SIZE
    assert data.stats()["rows_per_second"] is None  # the first batch, for which reading has to start, is not counted
    del given_up
    assert finished(data)["rows"] == ROWS


def test_shards_are_read_once_where_they_are_decompressed(tmp_path: Path) -> None:
    data = batches(write(tmp_path, [30, 50], Layout("blocks", 16, "gzip"), PLAIN), batch_size=SIZE)
    assert finished(data)["bytes"] == bytes_of(tmp_path)


def test_the_table_of_the_page_has_the_keys(path: str) -> None:
    found = batches(path).stats()
    names = [name for key, value in found.items() for name in _names(key, value)]
    page = (Path(module.__file__).parents[1] / "docs/loading.md").read_text()
    _, table = page.split("| key of `stats()` | meaning |\n|---|---|\n")
    assert re.findall(r"^\| `(.+?)` \|", table.partition("\n\n")[0], re.MULTILINE) == names


def _names(key: str, value: Any) -> list[str]:
    return [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
