"""The plan: what it reads, what it depends on, how it makes tasks and shards, and what it warns of."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

import dtap_dask
from documents import Document
from dtap_dask.errors import DataError
from dtap_dask.job.execution import dask_executor, tasks
from dtap_dask.job.planning import warnings
from dtap_dask.job.planning.footers import summarize_in_processes
from dtap_dask.job.planning.forecast import forecast
from dtap_dask.job.planning.grouping import (
    MIN_TASKS,
    MIXED_FROM,
    MOST_GROUPS,
    OWN_TASK_BYTES,
    TASK_BYTES,
    WRITERS,
    group_tasks,
    group_write_tasks,
)
from dtap_dask.job.planning.plan import Plan, make_plan
from dtap_dask.job.planning.sharding import assign_shards
from dtap_dask.storage import Store
from property_tests import examples


def comparable(made: Plan) -> Document:
    """All that a plan decides."""
    told = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    return {**told, "source": made.source.url}


# What it reads


def test_many_footers_are_read_in_tasks_named_scan(
    job: Document, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit lowered to fewer than the 12 files: writing more than 1,000 would take longer than it shows."""
    job["source"]["where"] = "fare > 0"
    here = make_plan(job)
    monkeypatch.setattr("dtap_dask.job.planning.footers.FOOTERS_ON_CLIENT", 5)
    monkeypatch.setattr("dtap_dask.job.planning.footers.FOOTERS_A_TASK", 5)
    calls: list[tuple[str, int]] = []
    each = dask_executor.DaskExecutor.each

    def spy(self: Any, name: str, task: Any, items: Any, on_result: Any, **options: Any) -> list[Any]:
        calls.append((name, len(items)))
        assert (task is tasks.read_footers) == (name == "scan")
        return each(self, name, task, items, on_result, **options)

    monkeypatch.setattr(dask_executor.DaskExecutor, "each", spy)
    manifest = dtap_dask.run(job, client=client, progress="silent")
    assert calls == [("scan", 3), ("write", len(here.write_tasks)), ("compare", 1)]
    assert manifest.fingerprint == here.fingerprint
    assert manifest.source.rows.read == here.totals.rows.read


def test_the_plan_is_the_same_wherever_footers_are_read(job: Document, client: Client) -> None:
    here = make_plan(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dtap_dask.job.planning.footers.FOOTERS_ON_CLIENT", 5)
        asked: list[int] = []

        def elsewhere(source: Store, files: Any, wanted: Any) -> Any:
            asked.append(len(files))
            return client.submit(tasks.read_footers, source, files, wanted, pure=False).result()

        there = make_plan(job, read_footers=elsewhere)
    assert asked == [12]
    assert comparable(here) == comparable(there)


def test_the_plan_is_the_same_from_many_processes(job: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    job["source"]["where"] = "fare > 0"
    here = make_plan(job)
    monkeypatch.setattr("dtap_dask.job.planning.footers.FOOTERS_ON_CLIENT", 5)
    monkeypatch.setattr("dtap_dask.job.planning.footers.FOOTERS_A_TASK", 5)
    asked: list[int] = []

    def spy(source: Store, files: Any, wanted: Any) -> Any:
        asked.append(len(files))
        return summarize_in_processes(source, files, wanted)

    assert comparable(make_plan(job, read_footers=spy)) == comparable(here)
    assert asked == [12]


def test_few_footers_are_read_here(job: Document) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("12 footers need no cluster")

    assert make_plan(job, read_footers=never).fingerprint == make_plan(job).fingerprint


def test_it_reads_nothing_but_footers(job: Document, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each file that folders do not rule out is opened once (the first twice, for its schema); no byte is written."""
    job["source"]["where"] += " and month > 6"
    opened: Counter[str] = Counter()
    open_input = Store.open_input

    def count(self: Store, path: str) -> Any:
        opened[path.rsplit("trips/", maxsplit=1)[-1]] += 1
        return open_input(self, path)

    monkeypatch.setattr(Store, "open_input", count)
    made = make_plan(job)
    assert set(opened) == {f"year=2013/month={month}/part-00000.parquet" for month in range(7, 13)}
    assert sorted(opened.values()) == [1, 1, 1, 1, 1, 2]
    counters = made.source.counters
    assert counters.bytes_read == counters.footer_bytes
    assert counters.bytes_written == 0
    assert list(tmp_path.rglob("*")) == []


# What it depends on

CHANGES: list[tuple[str, Any, bool]] = [
    ("name", "another", False),
    ("output.path", "elsewhere", False),
    ("storage", {"file": {"auto_mkdir": True}}, False),
    ("output.seed", 1, True),
    ("output.layout", "rows", True),
    ("output.shard_size", "1MiB", True),
    ("source.where", "fare > 0", True),
    ("source.sample", 0.5, True),
    ("derive.big_tipper", "tips > 0.3 * fare", True),
    ("split.fit", "eval", True),
    ("split.parts", {"eval": 0.1, "train": 0.8, "test": 0.1}, True),
    ("features.0.steps.1", "minmax_scale", True),
    ("keep", [], True),
    ("version", 1, False),
    ("output.layout", "blocks", False),  # the default, written out
    ("output.shard_size", "131072KiB", False),
]


@pytest.mark.parametrize(("key", "value", "differs"), CHANGES)
def test_the_fingerprint_tells_what_decides_the_bytes(job: Document, key: str, value: Any, differs: bool) -> None:
    changed = copy.deepcopy(job)
    target: Any = changed
    *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in parents:
        target = target[part]
    target[last] = value
    assert (make_plan(changed).fingerprint != make_plan(job).fingerprint) == differs


def test_an_override_changes_its_key_and_nothing_else(job: Document) -> None:
    """Neither the order of the parts, which decides their rows, nor that of derived columns, nor the job given."""
    job["derive"] = {"pace": "trip_miles / fare", "big_tipper": "tips > 0.2 * fare", "fast": "pace > 1"}
    before = copy.deepcopy(job)
    made = make_plan(job, overrides=["name=another", "output.path=elsewhere", "storage.file.auto_mkdir=true"])
    assert made.fingerprint == make_plan(job).fingerprint
    assert list(made.job.document["split"]["parts"]) == ["train", "eval", "test"]
    assert list(made.job.derive) == ["pace", "big_tipper", "fast"]
    assert (made.job.name, made.job.output.path) == ("another", "elsewhere")
    assert job == before


def test_the_fingerprint_tells_the_limit_and_the_files(job: Document, tmp_path: Path) -> None:
    assert make_plan(job).fingerprint != make_plan(job, limit=1000).fingerprint
    table = pa.table({"x": np.arange(1000.0)})
    simple = {"version": 1, "features": [{"columns": "x"}], "output": {"path": str(tmp_path / "out")}}
    prints = []
    for folder, rows, name in [("a", 500, "1"), ("b", 500, "1"), ("c", 400, "1"), ("d", 500, "2")]:
        (tmp_path / folder).mkdir()
        pq.write_table(table.slice(0, rows), tmp_path / folder / f"{name}.parquet")
        prints.append(make_plan({**simple, "source": {"path": str(tmp_path / folder)}}).fingerprint)
    assert len(set(prints)) == 4  # another place is another source


# Tasks


SIZES = st.lists(st.sampled_from([1, 1000, OWN_TASK_BYTES, OWN_TASK_BYTES + 1]), min_size=1, max_size=400)


@given(SIZES, st.randoms(use_true_random=False))
def test_every_row_group_is_in_exactly_one_task(sizes: list[int], random: Any) -> None:
    order = list(range(len(sizes)))
    random.shuffle(order)
    made = group_tasks(np.array(sizes), order)
    assert sorted(position for task in made for position in task) == list(range(len(sizes)))
    giants = [position for position in order if sizes[position] > OWN_TASK_BYTES]
    shared = [task for task in made if not set(task) & set(giants)]
    assert [task for task in made if set(task) & set(giants)] == [(position,) for position in giants]
    assert [position for task in shared for position in task] == [p for p in order if p not in set(giants)]
    assert len(shared) >= min(MIN_TASKS, len(sizes) - len(giants))
    assert all(1 <= len(task) <= MIXED_FROM for task in shared)
    assert max(map(len, shared), default=0) - min(map(len, shared), default=0) <= 1


def test_of_very_many_row_groups_a_task_takes_sixteen() -> None:
    made = group_tasks(np.ones(100_000, np.int64), range(100_000))
    assert {len(task) for task in made} == {16}


def test_tasks_take_more_of_the_small_row_groups_of_one_file() -> None:
    """Each task reads its file's whole footer: of 4,000 row groups that would be done 500 times."""
    small, files = np.full(4000, 1000), 1
    made = group_tasks(small, range(4000), files)
    assert len(made) == 64
    assert [position for task in made for position in task] == list(range(4000))
    assert len(group_tasks(np.full(40_000, 1000), range(40_000), files)) == 40_000 // 64
    assert group_tasks(small, range(4000), 4000) == group_tasks(small, range(4000))  # one in each file
    assert group_tasks(np.full(4000, 20 << 20), range(4000), 1) == group_tasks(np.full(4000, 20 << 20), range(4000))
    assert len(group_tasks(np.full(100, 1000), range(100), 1)) == len(group_tasks(np.full(100, 1000), range(100)))


@given(
    st.lists(st.sampled_from([1, 1000, TASK_BYTES, OWN_TASK_BYTES, OWN_TASK_BYTES + 1]), min_size=1, max_size=400),
    st.sampled_from([1024, 1 << 20, TASK_BYTES, 128 << 20]),
)
def test_write_tasks_are_as_few_as_small_data_need(sizes: list[int], shard_size: int) -> None:
    order, raw = list(range(len(sizes))), np.array(sizes)
    made, usual = group_write_tasks(raw, order, shard_size), group_tasks(raw, order)
    least = min(TASK_BYTES, shard_size)
    assert [position for task in made for position in task] == [position for task in usual for position in task]
    small = [size for size in sizes if size <= OWN_TASK_BYTES]
    shared = len(made) - (len(sizes) - len(small))
    assert len(made) <= len(usual)
    assert shared >= min(WRITERS, len(small))
    if sum(small) >= MIN_TASKS * least * MIXED_FROM and least == TASK_BYTES:
        assert made == usual
    if shared > WRITERS:
        by_groups = -(-len(small) // MOST_GROUPS)
        assert sum(small) >= least * shared / 2 or shared in (by_groups, 1 << (by_groups - 1).bit_length())
    if WRITERS < shared < min(MIN_TASKS, len(small)):
        assert shared == 4
    assert all(len(task) <= MOST_GROUPS for task in made)


def test_a_lake_of_a_few_mebibytes_gets_few_shards(job: Document) -> None:
    plan = make_plan(job)
    assert len(plan.write_tasks) == WRITERS
    assert len(plan.fit_tasks) >= MIN_TASKS
    assert sum(part.shards for part in forecast(plan).parts) == 3 * WRITERS


# Shards


@pytest.fixture(scope="module")
def of_two_parts(lake: Path) -> Plan:
    return make_plan(
        {
            "version": 1,
            "source": {"path": str(lake / "trips")},
            "split": {"parts": {"train": 0.5, "eval": 0.5}},
            "features": [{"columns": "fare"}],
            "output": {"path": "out", "shard_size": "1KiB"},
        }
    )


@examples(0.3)
@given(st.sampled_from([2, 5, 1000]), st.integers(0, 2**32), st.sampled_from([0.5, 8.0, 100.0, 4096.0]))
def test_shards_are_named_once_add_up_and_aim_at_their_size(
    of_two_parts: Plan, most: int, seed: int, row_bytes: float
) -> None:
    rows = np.random.default_rng(seed).integers(0, most, (len(of_two_parts.groups), 2))
    rows *= np.random.default_rng(seed).random(rows.shape) < 0.3  # whole tasks without rows of a part
    rows[0, 0] += 1  # the fitted part has a row
    sealed = assign_shards(of_two_parts, rows, row_bytes)
    assert [one.task for one in sealed] == list(range(len(of_two_parts.write_tasks)))
    assert np.array_equal(np.sum([one.rows for one in sealed], axis=0), rows.sum(axis=0))
    for part, name in enumerate(("train", "eval")):
        paths = [path for one in sealed for path in one.shards[part]]
        expected = [
            f"{name}/part-{i:05d}-of-{len(paths):05d}-{of_two_parts.run_id}.tfrecord" for i in range(len(paths))
        ]
        assert paths == expected
    for one, positions in zip(sealed, of_two_parts.write_tasks, strict=True):
        assert one.rows == tuple(rows[list(positions)].sum(axis=0))
        for part in range(2):
            assert (len(one.shards[part]) == 0) == (one.rows[part] == 0)
            if one.shards[part]:
                size = one.rows[part] * row_bytes / len(one.shards[part])
                a_row = max(row_bytes, 1024)  # no shard is smaller than a row
                assert size <= 1.5 * a_row
                assert size >= a_row / 1.5 or len(one.shards[part]) == 1


def test_shards_of_nothing_are_refused(of_two_parts: Plan) -> None:
    rows = np.zeros((len(of_two_parts.groups), 2), np.int64)
    with pytest.raises(DataError, match="No row of .* is left"):
        assign_shards(of_two_parts, rows, 8.0)
    rows[3, 1] = 7
    with pytest.raises(DataError, match=r"The part 'train', which is fitted, has no rows \(train 0, eval 7\)"):
        assign_shards(of_two_parts, rows, 8.0)


# Warnings: each on a real lake of a few rows, and none on a normal one


def warned(job: Document, **changes: Any) -> str:
    document = copy.deepcopy(job)
    document["source"].update(changes)
    return "\n".join(make_plan(document).warnings)


def job_on(folder: Path, where: str | None = None, columns: str = "x") -> Document:
    source = {"path": str(folder), "where": where} if where else {"path": str(folder)}
    out = str(folder.parent / "out")
    return {"version": 1, "source": source, "features": [{"columns": columns}], "output": {"path": out}}


def write(folder: Path, rows: int, groups: int, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    table = pa.table({"x": np.arange(rows), "y": np.arange(rows) % 7})
    pq.write_table(table, folder / f"{len(list(folder.iterdir()))}.parquet", row_group_size=rows // groups, **options)
    return folder


def test_nothing_is_told_of_a_normal_lake(job: Document) -> None:
    assert make_plan(job).warnings == ()


def test_a_condition_that_prunes_nothing_is_told(job: Document) -> None:
    told = "source.where prunes nothing: every row group is read"
    assert told in warned(job, where="fare > 0")
    assert told not in warned(job, where="fare > 0 and month > 3")
    assert told not in warned(job, where=None)


@pytest.mark.parametrize(("rows", "groups", "few"), [(70_000, 3, True), (70_000, 64, False), (60_000, 3, False)])
def test_few_row_groups_to_mix_are_told_where_loading_does_not_mix_all(
    tmp_path: Path, rows: int, groups: int, few: bool
) -> None:
    job = job_on(write(tmp_path / "lake", rows, groups))
    told = "come from only 2 row groups (8 or more mix well): the source has 4."
    assert (told in warned(job)) == few
    for other in ("none", "global"):
        job["output"]["shuffle"] = other
        assert not make_plan(job).warnings


@pytest.mark.parametrize("files", [1001, 999])
def test_many_small_files_are_told(tmp_path: Path, files: int) -> None:
    lake = write(tmp_path / "lake", 10, 1)
    one = (lake / "0.parquet").read_bytes()
    for number in range(1, files):
        (lake / f"{number}.parquet").write_bytes(one)
    told = "1,001 files hold 0 KiB of the needed columns each: reading many small files is slow. Compact the lake"
    assert (told in warned(job_on(lake))) == (files > 1000)


def test_a_huge_row_group_is_told(job: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit lowered: a row group of half a gigabyte takes longer to write than it shows."""
    assert "The largest row group" not in warned(job)
    monkeypatch.setattr(warnings, "OWN_TASK_BYTES", 1000)
    assert "and its rows are mixed only among themselves. Row groups of 16 to 128 MiB work better." in warned(job)
    job["output"]["shuffle"] = "global"
    assert "it is streamed. Row groups of 16 to 128 MiB work better." in warned(job)


def test_missing_statistics_of_the_condition_are_told(tmp_path: Path) -> None:
    lake = write(tmp_path / "lake", 1000, 2, write_statistics=False)
    assert "Statistics of x, y are missing in 2 of 2 row groups (100%), so that" in warned(job_on(lake, "x > y"))
    write(lake, 1000, 2)
    one = warned(job_on(lake, "x >= 400"))
    assert "Statistics of x are missing in 2 of 4 row groups (50%)" in one
    assert "Write the lake with statistics" in one
    assert "prunes nothing" not in one  # it cannot: that says it all
    assert make_plan(job_on(lake)).warnings == ()
    whole = write(tmp_path / "whole", 1000, 2)
    assert make_plan(job_on(whole, "x >= 600")).warnings == ()


def test_columns_that_are_all_null_or_nan_do_have_statistics(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    table = pa.table({"x": np.arange(10), "n": pa.nulls(10, pa.int64()), "f": pa.nulls(10, pa.float64())})
    pq.write_table(table, tmp_path / "lake" / "a.parquet")
    made = make_plan(job_on(tmp_path / "lake", "x > 4 or n > 1 or f > 1"))
    assert made.source_notes.lacking == {}


def test_what_cannot_be_served_is_a_line_of_the_plan(tmp_path: Path) -> None:
    job = job_on(write(tmp_path, rows=9, groups=1))
    assert "serving" not in repr(dtap_dask.plan(job))
    job["derive"] = {"spelt": "cast(x * 1e0 as varchar)"}
    job["features"] = [{"columns": ["spelt"], "steps": ["ordinal_encode"]}]
    text = " ".join(repr(dtap_dask.plan(job)).replace("│", " ").split())
    because = "CAST(x * 1e0 AS TEXT): the text of a float has no TensorFlow twin"
    assert f"serving not servable: feature 'spelt': column 'spelt', {because}" in text
