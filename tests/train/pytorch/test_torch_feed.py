"""`stats()` of `torch_batches`, without workers and with them, and the warning of loops that are `measured`."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dtap_dask
from datasets import bytes_of
from dtap_dask.errors import JobError
from dtap_dask.records.example import Layout
from dtap_dask.train import feed_warning
from mixtures import dataset, mixture
from numbered_rows import PLAIN, write
from waiting import slowed

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

from dtap_dask.train.pytorch import iterable  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
ROWS, SIZE = 320, 16
SLOW = 0.02  # seconds; what nothing slows down takes far less


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [ROWS // 4] * 4, Layout("blocks", 16), PLAIN)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtap_dask.loading.order.epoch_order.WINDOW_ROWS", SIZE)


def loader(data: Any, workers: int = 0) -> Any:
    method = "fork" if workers else None
    return DataLoader(data, batch_size=None, num_workers=workers, multiprocessing_context=method)


def test_without_workers_everything_is_known(path: str) -> None:
    """As of `batches`; of each loop by itself, over the dataset, a DataLoader, or one that is measured."""
    data = dtap_dask.torch_batches(path, batch_size=SIZE)
    ours = dtap_dask.batches(path, batch_size=SIZE)
    assert data.stats() == ours.stats()
    for _ in ours:
        pass
    for batches in (data, loader(data), data.measured(loader(data))):
        for _ in batches:
            pass
        found, expected = data.stats(), ours.stats()
        assert found.keys() == expected.keys()
        for key in ("batches", "rows", "bytes", "queues", "staging", "skipped_records"):
            assert found[key] == expected[key], key
        assert found["bytes"] == bytes_of(path)
        assert found["rows_per_second"] == pytest.approx((ROWS - SIZE) / found["seconds"])
        assert 0 < found["waiting"] <= 1
        assert found["stages"].keys() == expected["stages"].keys()


@pytest.mark.parametrize(("feed", "step"), [(2 * SLOW, 0.0), (0.0, SLOW)])
def test_waiting_without_workers(path: str, monkeypatch: pytest.MonkeyPatch, feed: float, step: float) -> None:
    monkeypatch.setattr(os, "preadv", slowed(os.preadv, feed))
    data = dtap_dask.torch_batches(path, batch_size=SIZE)
    for _ in loader(data):
        time.sleep(step)
    found = data.stats()
    assert (found["bottleneck"], found["waiting"] > 0.8) == (("disk", True) if feed else (None, False))


def of_workers(data: Any, monkeypatch: pytest.MonkeyPatch, workers: int) -> Iterator[Any]:
    """The batches as a DataLoader has them from its workers, all of which are in this process."""
    batches = list[Iterator[Any]]()
    for number in range(workers):
        info = SimpleNamespace(id=number, num_workers=workers, seed=number)
        monkeypatch.setattr(iterable, "get_worker_info", lambda info=info: info)
        batches.append(iter(data))
    while batches:
        for one in list(batches):
            found = next(one, None)
            if found is None:
                batches.remove(one)
            else:
                yield found


class InProcess:
    """In place of a DataLoader with workers."""

    def __init__(self, *arguments: Any):
        self._arguments = arguments

    def __iter__(self) -> Iterator[Any]:
        return of_workers(*self._arguments)


@pytest.mark.parametrize("remainder", ["keep", "pad", "drop"])
def test_what_workers_read_is_added_up(path: str, monkeypatch: pytest.MonkeyPatch, remainder: Any) -> None:
    data = dtap_dask.torch_batches(path, batch_size=30, workers=3, remainder=remainder)
    batches = data.measured(InProcess(data, monkeypatch, 3))
    for _ in range(2):
        rows = [len(label) for _, label, *_ in batches]
        found = data.stats()
        assert (found["batches"], found["rows"]) == (len(rows), sum(rows))
        assert found["rows_per_second"] == pytest.approx(sum(rows[1:]) / found["seconds"], rel=0.2)
        assert found["queues"] == {"records": 0, "decoded": 0, "ready": 0}
        assert found["stages"]["decode"] > 0
        if remainder == "keep":
            assert found["bytes"] > bytes_of(path)  # blocks at the borders of parts are read by two workers


def test_loops_that_are_left_early_are_measured_by_themselves(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dtap_dask.torch_batches(path, batch_size=SIZE, workers=2)
    batches = data.measured(InProcess(data, monkeypatch, 2))
    for _, _ in zip(range(3), batches, strict=False):
        pass
    assert data.stats()["rows"] == 3 * SIZE
    assert data.stats()["queues"]["decoded"] > 0
    assert len([*batches]) == ROWS / SIZE
    assert data.stats()["rows"] == ROWS


@pytest.mark.parametrize(
    ("feed", "make", "step", "bottleneck"),
    [(4 * SLOW, 0.0, 0.0, "disk"), (SLOW, 4 * SLOW, 0.0, "decode"), (SLOW, 0.0, 2 * SLOW, None)],
)
def test_what_a_loop_waits_for_from_workers(
    path: str, monkeypatch: pytest.MonkeyPatch, feed: float, make: float, step: float, bottleneck: str | None
) -> None:
    """Making batches, which workers do after reading, counts as decoding."""
    monkeypatch.setattr(os, "preadv", slowed(os.preadv, feed))
    monkeypatch.setattr(iterable, "tensors_of", slowed(iterable.tensors_of, make))
    data = dtap_dask.torch_batches(path, batch_size=SIZE, workers=2)
    batches = data.measured(loader(data, 2))
    assert len(batches) == ROWS / SIZE
    for _ in batches:
        time.sleep(step)
    found = data.stats()
    assert found["bottleneck"] == bottleneck
    assert found["waiting"] > 0.5 if bottleneck else found["waiting"] < 0.1
    assert found["rows"] == ROWS
    assert found["bytes"] == bytes_of(path)
    assert found["stages"]["disk"] > feed * ROWS / SIZE / 2


def test_without_measuring_only_what_workers_read_is_known(path: str) -> None:
    data = dtap_dask.torch_batches(path, batch_size=SIZE, workers=1)
    assert len([*loader(data, 1)]) == ROWS / SIZE
    found = data.stats()
    unknown = ("batches", "rows", "bytes", "seconds", "rows_per_second", "bytes_per_second", "waiting", "bottleneck")
    assert {found[key] for key in unknown} == {None}
    assert found["stages"]["decode"] > 0
    assert found["queues"] == {"records": 0, "decoded": None, "ready": None}


def test_components_of_a_mixture_are_added_up(path: str, tmp_path: Path) -> None:
    data = dtap_dask.torch_batches(mixture({"few": dataset(tmp_path, "few"), "many": path}), batch_size=SIZE)
    rows = sum(len(label) for _, label in data)
    assert data.stats()["rows"] == rows == ROWS + 13
    assert data.stats()["bytes"] == bytes_of(path) + bytes_of(tmp_path / "few")


def test_more_workers_are_a_remedy_for_decoding(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dtap_dask.torch_batches(path)
    found = {"bottleneck": "decode", "waiting": 0.345, "batches": 50, "seconds": 1.0}
    monkeypatch.setattr(data, "stats", lambda: found)
    with pytest.warns(dtap_dask.FeedWarning, match="waits for data in 34%.*layout: blocks, or have more `workers` if"):
        list(data.measured([]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_measured_loop_that_waits_is_warned_once(path: str, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(feed_warning, "FEWEST", 5)
    monkeypatch.setattr(feed_warning, "SHORTEST", 0.0)
    monkeypatch.setattr(os, "preadv", slowed(os.preadv, SLOW))
    data = dtap_dask.torch_batches(path, batch_size=SIZE, workers=workers)
    batches = data.measured(InProcess(data, monkeypatch, workers) if workers else loader(data))
    with warnings.catch_warnings(record=True) as once:
        warnings.simplefilter("always")
        for _ in range(2):
            for _ in batches:
                pass
    ((message, category, file),) = [(str(each.message), each.category, each.filename) for each in once]
    assert message.startswith("The model waits for data in ")
    assert "% of the time, most of all for reading records from disk" in message
    assert (category, file) == (dtap_dask.FeedWarning, __file__)
    if not workers:
        assert len([*loader(data)]) == ROWS / SIZE  # a loop that is not measured is never warned
    monkeypatch.setattr(feed_warning, "SOON", 2 * SLOW)
    with warnings.catch_warnings(record=True) as early:
        warnings.simplefilter("always")
        taken = 0
        for _ in data.measured(InProcess(data, monkeypatch, workers) if workers else loader(data)):
            taken += 1
            if early:
                break
    assert 1 < taken < ROWS / SIZE


def test_bad_input(path: str) -> None:
    data, other = (dtap_dask.torch_batches(path, batch_size=SIZE) for _ in range(2))
    for wrong in (3, None, loader(other)):
        with pytest.raises(JobError, match="^loader: .* is no DataLoader of this dataset; give DataLoader"):
            data.measured(wrong)  # type: ignore[arg-type]
    with pytest.raises(JobError, match="workers: the batches were divided among 0 workers, but the DataLoader has 1"):
        next(iter(data.measured(loader(data, 1))))
