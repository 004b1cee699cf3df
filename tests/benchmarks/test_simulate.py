"""The simulation's arithmetic, on costs that were made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

import simulate

COSTS = simulate.Costs(2e-6, 3e-6, (0.1, 0.3), 0.5, 0.001, 0.4, 100, 50)
QUICK = 1e18  # a storage that never holds anything up


def test_one_worker_takes_the_sum_of_all() -> None:
    said = simulate.predict(COSTS, 8e6, 1, task_rows=1e6, bandwidth=QUICK)
    assert said.seconds == pytest.approx(0.4 + 8 * 2 + 8 * 3 + 0.1 + 0.5)
    assert said.bottleneck == "workers"
    assert said.busy == pytest.approx(40 / said.seconds)


def test_workers_share_rounds_and_not_what_is_fixed() -> None:
    of = {
        workers: simulate.predict(COSTS, 8e6, workers, task_rows=1e6, bandwidth=QUICK).seconds
        for workers in (2, 4, 8, 100)
    }
    assert of[2] - of[4] == pytest.approx(10)
    assert of[4] - of[8] == pytest.approx(5)
    assert of[100] == of[8]  # there are eight tasks


def test_tiny_tasks_are_held_up_by_the_scheduler() -> None:
    said = simulate.predict(COSTS, 1e6, 100, task_rows=100, bandwidth=QUICK)
    assert said.bottleneck == "client and scheduler"
    assert said.seconds == pytest.approx(0.4 + 2 * 10_000 * 0.001 + simulate.merge_tail(COSTS, 10_000))


def test_a_slow_storage_holds_up_everybody() -> None:
    of = [simulate.predict(COSTS, 1e9, workers, task_rows=1e6, bandwidth=1e6) for workers in (1, 1000)]
    assert [one.bottleneck for one in of] == ["storage", "storage"]
    assert (
        of[0].seconds
        == of[1].seconds
        == pytest.approx(0.4 + 1e9 * (100 + 150) / 1e6 + simulate.merge_tail(COSTS, 1000))
    )


@pytest.mark.parametrize(
    ("tasks", "seconds"), [(1, 0.5), (2, 0.6), (8, 0.6), (9, 0.9), (64, 0.9), (512, 1.2), (513, 1.5)]
)
def test_the_last_task_waits_for_a_merge_a_level(tasks: int, seconds: float) -> None:
    assert simulate.merge_tail(COSTS, tasks) == pytest.approx(seconds)


def test_costs_are_those_of_the_tasks_and_the_rest_is_fixed() -> None:
    tasks = {"fit": [1.0, 3.0], "write": [2.0, 4.0], "merge-fit-1": [0.25], "finish-fit": [0.5]}
    found = simulate.costs_of(simulate.Measured(12.0, tasks, 4000, 500), 10, 0.01)
    assert found == simulate.Costs(0.4, 0.6, (0.25,), 0.5, 0.01, pytest.approx(12 - 10.75 - 0.06), 200, 50)
    assert simulate.costs_of(simulate.Measured(1.0, tasks, 4000, 500), 10, 0.01) == replace(found, fixed=0.0)


def test_keys_of_the_engine_tell_stage_and_level() -> None:
    assert simulate.kind_of("fit-1a2b3c4d-1-00012-job-abcdef") == ("fit", None)
    assert simulate.kind_of("merge-fit-1a2b3c4d-1-2-7-job-abcdef") == ("merge-fit", 2)
    assert simulate.kind_of("finish-fit-1a2b3c4d-1-0-job-abcdef") == ("finish-fit", None)
    assert simulate.kind_of("write-1a2b3c4d-2-00000") == ("write", None)
