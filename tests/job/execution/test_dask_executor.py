"""The Dask executor on a real cluster: windows of tasks, trees whose shape depends on the number of items alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import ClusterError, DataError
from dtap_dask.job.cluster.client import ClusterOptions, open_client
from dtap_dask.job.execution import dask_executor
from dtap_dask.job.execution.dask_executor import DaskExecutor
from dtap_dask.job.execution.executor import FAN_IN, UnexpectedError


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster) as client,
    ):
        yield client


def square(x: int) -> int:
    return x * x


def leaf(x: int) -> str:
    return str(x)


def nest(parts: Sequence[str]) -> str:
    return f"({' '.join(parts)})"


def last(tree: str) -> str:
    return f"[{tree}]"


def nested(count: int) -> str:
    """The tree that `count` leaves must give, made the obvious way."""
    level = [str(i) for i in range(count)]
    while len(level) > 1:
        level = [nest(level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
    return last(level[0])


@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_each_returns_results_in_order(client: Client, count: int) -> None:
    ended: list[int] = []
    results = DaskExecutor(client).each(
        "scan", square, [(i,) for i in range(count)], lambda index, _: ended.append(index)
    )
    assert results == [i * i for i in range(count)]
    assert sorted(ended) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 64, 65, 150])
def test_the_tree_depends_on_the_number_of_items_alone(client: Client, count: int) -> None:
    ended: list[int] = []
    items = [(i,) for i in range(count)]
    names = ("fit", "merge-fit", "finish-fit")
    result = DaskExecutor(client).tree(names, leaf, items, merge=nest, last=last, on_end=ended.append)
    assert result == nested(count)
    assert sorted(ended) == list(range(count))


def fail_at_seven(x: int) -> int:
    if x == 7:
        raise DataError("Row 7 is bad. Mend it.")
    return x


def test_an_error_of_a_task_arrives_as_it_was_raised(client: Client) -> None:
    with pytest.raises(DataError, match=r"^Row 7 is bad\. Mend it\.$"):
        DaskExecutor(client).each("scan", fail_at_seven, [(i,) for i in range(1000)], lambda *_: None)
    assert DaskExecutor(client).each("scan", square, [(3,)], lambda *_: None) == [9]


def raise_anything(kind: str, x: int) -> int:
    if x == 7:
        raise {"memory": MemoryError("malloc of size 8 failed"), "other": LookupError("one\ntwo")}[kind]
    return x


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("memory", r"A task ran out of memory \(MemoryError: malloc of size 8 failed\)\. Give each .*--memory"),
        ("other", r"A task failed with an unexpected error \(LookupError: one\)\. .*--debug"),
    ],
)
def test_whatever_a_task_raises_arrives_as_a_paragraph_with_its_cause(client: Client, kind: str, message: str) -> None:
    items = [(kind, i) for i in range(FAN_IN)]  # one merge, which waits for all
    with pytest.raises(UnexpectedError, match=f"^{message}") as caught:
        DaskExecutor(client).each("scan", raise_anything, items, lambda *_: None)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError | MemoryError)
    names = ("fit", "merge-fit", "finish-fit")
    with pytest.raises(UnexpectedError, match=f"^{message}"):
        DaskExecutor(client).tree(names, raise_anything, items, merge=nest, last=last, on_end=lambda *_: None)


def die_once(marker: str, x: int) -> int:
    if not os.path.exists(marker):
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def die(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_killed_worker_costs_its_tasks_one_more_try(client: Client, tmp_path: Path) -> None:
    items = [(str(tmp_path / "died"), i) for i in range(12)]
    assert DaskExecutor(client).each("write", die_once, items, lambda *_: None) == list(range(12))


def test_a_task_that_kills_every_worker_is_named(client: Client) -> None:
    with pytest.raises(ClusterError, match=r"The task write-\w+-1-00000 lost its worker 4 times.*--memory"):
        DaskExecutor(client).each("write", die, [(0,)], lambda *_: None)


def test_no_scheduler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtap_dask.job.cluster.client.WAIT_SECONDS", 1.0)
    options = ClusterOptions(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"), open_client(options):
        pass


@dataclass(frozen=True)
class Merged:
    """What stands for a future: the leaves it holds, from and to, and how many merges lie between it and a leaf."""

    first: int
    end: int
    depth: int


def merged(count: int, order: Sequence[int]) -> tuple[Merged, list[Merged]]:
    """The root of the executor's tree, and all merges, when leaves end in some order."""
    made: list[Merged] = []

    def merge(parts: list[Any], level: int, index: int) -> Any:
        assert 1 <= len(parts) <= FAN_IN
        assert [one.first for one in parts[1:]] == [one.end for one in parts[:-1]]
        made.append(Merged(parts[0].first, parts[-1].end, 1 + max(one.depth for one in parts)))
        return made[-1]

    tree = dask_executor._Tree(count, merge)
    for index in order:
        tree.leaf(index, cast("Any", Merged(index, index + 1, 0)))
    return cast("Merged", tree.root()), made


@pytest.mark.parametrize(("count", "depth"), [(1, 0), (2, 1), (8, 1), (9, 2), (1000, 4), (100_000, 6)])
def test_merging_is_as_deep_as_the_logarithm_of_the_tasks(count: int, depth: int) -> None:
    root, merges = merged(count, range(count))
    assert root == Merged(0, count, depth)
    assert len(merges) <= count / (FAN_IN - 1) + depth


@given(st.integers(1, 300), st.randoms(use_true_random=False))
def test_what_is_merged_with_what_depends_on_the_plan_alone(count: int, random: Any) -> None:
    order = list(range(count))
    random.shuffle(order)
    root, merges = merged(count, order)
    in_order, others = merged(count, range(count))
    assert root == in_order
    assert set(merges) == set(others)
