"""Jobs with `output.shuffle: global`: the rows of any other shuffle, anywhere; interrupted, resumed, almost empty."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dtap_dask
from digests import digests
from documents import Document
from dtap_dask.errors import InterruptedRun
from dtap_dask.job.execution import tasks
from dtap_dask.job.execution.executor import LoopExecutor
from dtap_dask.job.planning import grouping
from dtap_dask.job.planning.describe import plan_numbers
from dtap_dask.job.planning.forecast import forecast
from dtap_dask.job.planning.plan import make_plan
from dtap_dask.job.planning.plan_text import format_plan
from dtap_dask.job.planning.sharding import plan_shards
from dtap_dask.records import commit, global_shuffle
from dtap_dask.records.manifest import Manifest
from dtap_dask.records.verify import verify_dataset
from dtap_dask.storage import open_store
from in_process import interrupt, run_in_process
from property_tests import examples

FILES, ROWS = 4, 400  # rows of each file, in ten row groups


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of ten row groups each, sorted by id."""
    folder = tmp_path_factory.mktemp("lake") / "lake"
    folder.mkdir()
    for number in range(FILES):
        ids = np.arange(ROWS) + ROWS * number
        table = {
            "id": ids,
            "x": ids % 17 / 4,
            "text": [f"t{row % 30}" * (row % 4) for row in ids.tolist()],
            "list": pa.array([list(range(row % 4)) for row in ids.tolist()], pa.list_(pa.int16())),
        }
        pq.write_table(pa.table(table), folder / f"{number}.parquet", row_group_size=ROWS // 10)
    return folder


def job_on(lake: Path, output: Path, shuffle: str = "global", **options: Any) -> Document:
    return {
        "version": 1,
        "source": {"path": str(lake)},
        "split": {"where": {"train": "id % 5 <> 0", "eval": "id % 5 = 0"}},
        "keep": ["id"],
        "features": [{"columns": ["x"], "steps": ["standard_scale"]}, {"columns": ["text", "list"]}],
        "output": {"path": str(output), "shuffle": shuffle, "shard_size": "4KiB", "rows_per_record": 16, **options},
    }


def rows_of(manifest: Manifest, path: Path) -> dict[str, dict[str, list[Any]]]:
    """The rows of each split in the manifest's order."""
    return {
        split: dtap_dask.read_records(str(path), split=split).to_pydict()
        for split, part in manifest.splits.items()
        if part.rows
    }


def in_order(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    order = np.argsort(rows["id"], kind="stable")
    return {name: [values[one] for one in order] for name, values in rows.items()}


@examples(0.05)
@given(
    where=st.sampled_from(["id >= 0", "id % 7 = 3", "id between 395 and 420", "id in (7, 8, 900)", "id = 77"]),
    limit=st.sampled_from([None, 450, 41]),
    layout=st.sampled_from(["blocks", "rows"]),
    compression=st.sampled_from(["none", "gzip"]),
    size=st.sampled_from(["1KiB", "7KiB", "1MiB"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_it_has_the_rows_that_none_has(
    lake: Path, tmp_path_factory: pytest.TempPathFactory, where: str, limit: int | None, seed: int, **options: str
) -> None:
    folder, found = tmp_path_factory.mktemp("out"), []
    size = options.pop("size")
    for shuffle in ("none", "global"):
        job = job_on(lake, folder / shuffle, shuffle, shard_size=size, seed=seed, **options)
        job["source"]["where"] = f"{where} or id = 1"
        manifest = run_in_process(job, limit=limit)
        assert manifest.parity is not None
        assert (manifest.parity.rows > 0, manifest.parity.differing) == (True, 0)
        found.append(rows_of(manifest, folder / shuffle))
    assert {split: in_order(rows) for split, rows in found[1].items()} == found[0]
    assert [path.name for path in (folder / "global/_run").iterdir()] == ["status"]


def test_every_shard_has_rows_of_every_row_group_and_the_manifest_says_so(lake: Path, tmp_path: Path) -> None:
    quality = {}
    for shuffle in ("none", "mixed", "global"):
        manifest = run_in_process(job_on(lake, tmp_path / shuffle, shuffle))
        quality[shuffle] = manifest.splits["train"].quality
        document = json.loads((tmp_path / shuffle / "manifest.json").read_text())
        assert document["splits"]["train"]["quality"] == quality[shuffle]
        assert document["job"]["output"]["shuffle"] == shuffle
    ids = np.array(rows_of(manifest, tmp_path / "global")["train"]["id"])
    shards = manifest.splits["train"].shards
    assert max(one.rows for one in shards) - min(one.rows for one in shards) <= 1
    groups = FILES * 10
    for mine in np.split(ids, np.cumsum([one.rows for one in shards])[:-1]):
        expected = len(mine) / groups
        statistic = ((np.bincount(mine // (ROWS // 10), minlength=groups) - expected) ** 2 / expected).sum()
        assert statistic < groups + 5 * (2 * groups) ** 0.5
    assert quality["none"] == pytest.approx(1 / groups, rel=0.1)
    assert quality["mixed"] == pytest.approx(grouping.MIN_TASKS / 2 / groups, rel=0.5)
    assert quality["global"] > 0.8


def test_parts_without_rows_and_tasks_without_rows(lake: Path, tmp_path: Path) -> None:
    job = job_on(lake, tmp_path / "out")
    job["split"] = {"where": {"train": "id between 50 and 90", "eval": "id > 99999", "test": "id = 1500"}}
    manifest = run_in_process(job)
    assert {name: (part.rows, part.quality) for name, part in manifest.splits.items() if name != "train"} == {
        "eval": (0, None),
        "test": (1, None),
    }
    assert manifest.splits["eval"].shards == ()
    assert sorted(rows_of(manifest, tmp_path / "out")["train"]["id"]) == list(range(50, 91))


class Backwards(LoopExecutor):
    """Runs tasks in another order than they are planned in."""

    def each(self, name: str, task: Any, items: Any, on_result: Any, **options: Any) -> list[Any]:
        found = super().each(name, task, list(items)[::-1], lambda i, one: on_result(len(items) - 1 - i, one))
        return found[::-1]


def test_the_order_of_tasks_changes_no_byte(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_on(lake, tmp_path / "out")
    run_in_process(job)
    before = digests(tmp_path / "out")
    assert len(before) > 10
    monkeypatch.setattr("in_process._HookedLoop", lambda _: Backwards())
    run_in_process(job, overwrite=True)
    assert digests(tmp_path / "out") == before


def failing(module: Any, name: str, after: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Ctrl-C in the place of a call once it was called that often; returns how often it was called since."""
    real, calls = getattr(module, name), [0]

    def call(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == after:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(module, name, call)
    return lambda: calls[0]


@pytest.mark.parametrize(("stage", "damaged"), [("transformed", 0), ("gathered", 0), ("gathered", 1)])
def test_a_stopped_run_is_resumed(
    stage: str, damaged: int, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the steps have finished is taken up, and made again where it was damaged meanwhile."""
    job, out = job_on(lake, tmp_path / "out"), tmp_path / "out"
    undisturbed = run_in_process(job)
    before = digests(out)
    with monkeypatch.context() as patched:
        failing(tasks, stage, 4, patched)
        with pytest.raises(InterruptedRun):
            run_in_process(job, overwrite=True)
    [run] = (one for one in (out / "_run").iterdir() if one.name != "status")
    pieces, total = sorted((run / "pieces").glob("*.arrow")), len(make_plan(job).write_tasks)
    assert list((run / "attempts").glob("*")) == []
    assert len(pieces) == (3 if stage == "transformed" else total)
    for path in pieces[:damaged]:
        path.write_bytes(b"x" * path.stat().st_size)
    finished = len(list((run / "tasks").glob("*.json")))
    assert finished == (0 if stage == "transformed" else 3)
    dealt = failing(global_shuffle, "deal_rows", -1, monkeypatch)
    written = failing(commit, "write_shards", -1, monkeypatch)
    stages: list[str] = []
    hooks = {name: lambda name=name: stages.append(name) for name in ("fit", "shuffle", "write")}  # type: ignore[misc]
    assert run_in_process(job, resume=True, before=hooks) == undisturbed
    assert digests(out) == before
    assert stages == ["shuffle", "write"]
    assert dealt() == total - len(pieces) + damaged
    assert written() == len(undisturbed.shards) - finished
    assert not run.exists()


def test_a_run_that_is_stopped_between_the_steps_leaves_no_shard(lake: Path, tmp_path: Path) -> None:
    job = job_on(lake, tmp_path / "out")
    with pytest.raises(InterruptedRun):
        run_in_process(job, before={"write": interrupt})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"_run"}
    other = copy.deepcopy(job)
    other["output"]["seed"] = 1
    run_in_process(other, overwrite=True)
    assert [path.name for path in (tmp_path / "out/_run").iterdir()] == ["status"]


def test_with_the_state_of_an_earlier_dataset(lake: Path, tmp_path: Path) -> None:
    run_in_process(job_on(lake, tmp_path / "first"))
    job = job_on(lake, tmp_path / "out")
    job["fit"], job["source"]["sample"] = {"from": str(tmp_path / "first")}, 0.5
    manifest = run_in_process(job)
    ids = rows_of(manifest, tmp_path / "out")["train"]["id"]
    assert 500 < len(ids) == len(set(ids)) < 800
    assert manifest.parity is not None
    assert manifest.parity.rows > 32
    assert manifest.parity.differing == 0


def test_on_an_object_store_as_on_the_local_disk(lake: Path, tmp_path: Path) -> None:
    here = run_in_process(job_on(lake, tmp_path / "out", compression="gzip"))
    job = job_on(lake, tmp_path / "out", compression="gzip")
    job["output"]["path"] = "memory://shuffled-of-test"
    there = run_in_process(job)
    assert there.splits == here.splits
    assert verify_dataset(open_store(job["output"]["path"]), there).shards == len(here.shards)


def test_the_plan_shows_both_steps_and_the_space_they_need(lake: Path, tmp_path: Path) -> None:
    job = job_on(lake, tmp_path / "out", shard_size="64KiB")
    job["split"] = None
    plan = make_plan(job)
    numbers = plan_numbers(plan, forecast(plan))
    assert numbers["tasks"] == {"fit": 8, "shuffle": len(plan.write_tasks), "write": numbers["output"]["shards"]}
    assert numbers["passes"] == 2
    assert numbers["row_groups_a_shard"] == {"least": 40, "most": 40}
    row_bytes = numbers["output"]["row_bytes"][1]
    assert numbers["output"]["shuffled_bytes"] == pytest.approx(FILES * ROWS * row_bytes, rel=0.01)
    text = format_plan(numbers)
    assert " in _run/ of the output until the run ends" in text
    assert "; the rows of a shard come from 40 row groups" in text
    job["output"]["shuffle"] = "mixed"
    assert "_run/" not in format_plan(plan_numbers(make_plan(job), forecast(make_plan(job))))


def test_shards_are_as_many_as_their_size_asks_for_and_a_few_at_least(lake: Path, tmp_path: Path) -> None:
    plan = make_plan(job_on(lake, tmp_path / "out", shard_size="64KiB"))
    rows = np.full((len(plan.groups), 2), (1000, 0), np.int64)
    for row_bytes, shards in ((1.0, 2), (65.536, 40), (0.001, 2)):
        found = plan_shards(plan, rows, row_bytes)
        assert [len(paths) for paths in found.paths] == [shards, 0]
        assert sum(one.rows[0] for one in found.tasks) == 40_000
        assert sum(each[0] for each in found.dealt) == 40_000
        assert found.pairs == (40 * 1000 * 999, 0)


def test_a_global_shuffle_has_a_bounded_number_of_tasks() -> None:
    sizes = np.full(100_000, 40 << 20, np.int64)
    assert len(grouping.group_write_tasks(sizes, range(len(sizes)), 128 << 20)) > 4000
    made = grouping.group_write_tasks(sizes, range(len(sizes)), 128 << 20, shuffle=True)
    assert len(made) == grouping.MOST_SHUFFLING
    assert sorted(sum(made, ())) == list(range(len(sizes)))
