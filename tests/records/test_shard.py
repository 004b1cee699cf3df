"""A task's rows in its shards: every row once, in the planned place, whatever the batches were."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import SourceError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.records import columns, shard
from dtap_dask.records.example import Layout, decode_records, encoder_of
from dtap_dask.records.shard import ShardInfo, TaskShards, write_shards
from dtap_dask.records.tfrecord import OVERHEAD, file_crc32c, read_records
from dtap_dask.storage import open_store
from property_tests import examples

INFOS = (
    FeatureInfo("id", "kept", "int64", "int64"),
    FeatureInfo("v", "feature", "float32", "float32", (2,)),
    FeatureInfo("t", "feature", "bytes", "bytes"),
)
FIXED = INFOS[:2]
SPLITS = ("train", "eval")
BLOCKS = Layout("blocks", 8)


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return open_store(str(tmp_path_factory.mktemp("shards")))


def rows_of(ids, infos=INFOS):
    rows = {
        "id": ids,
        "v": np.stack([ids, -ids], axis=1).astype(np.float32),
        "t": pa.array([b"x" * (i % 7) for i in ids.tolist()], pa.large_binary()),
    }
    return {info.name: rows[info.name] for info in infos}


def make(n, infos=INFOS):
    ids = np.arange(n)
    ids = ids[ids % 7 != 6]
    return (ids % 5 == 0).astype(np.int8), rows_of(ids, infos)


def batched(split, rows, cuts):
    ends = [0, *sorted(min(cut, len(split)) for cut in cuts), len(split)]
    return [(split[a:b], columns.cut(rows, a, b)) for a, b in itertools.pairwise(ends)]


def plan_of(split, shards=(3, 1), task=4):
    counts = tuple(int((split == i).sum()) for i in range(2))
    paths = tuple(tuple(f"{name}/part-{j}" for j in range(m)) for name, m in zip(SPLITS, shards, strict=True))
    return TaskShards(task, SPLITS, counts, paths)


def write(store, plan, batches, infos=INFOS, layout=BLOCKS, **options):
    return write_shards(store, options.pop("attempt", "try"), plan, batches, infos=infos, layout=layout, **options)


def read(store, info, infos=INFOS, layout=BLOCKS, attempt="try"):
    records = list(read_records(store, f"{attempt}/{info.path}", layout.compression))
    return decode_records(infos, layout, records)


def contents(store, infos, attempt="try"):
    return [store.read_bytes(f"{attempt}/{info.path}") for info in infos]


@examples(0.3)
@given(
    st.integers(0, 300),
    st.lists(st.integers(0, 300), max_size=5),
    st.tuples(
        st.sampled_from([Layout("blocks", 8), Layout("blocks", 1, "gzip"), Layout("rows"), Layout("rows", 1, "gzip")]),
        st.sampled_from(["none", "mixed"]),
        st.sampled_from([1, 7, 64, 65536]),
    ),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_every_row_once_in_its_split_whatever_the_batches(shared, n, cuts, how, shards):
    layout, shuffle, window = how
    split, rows = make(n)
    plan = plan_of(split, shards)
    options = {"layout": layout, "shuffle": shuffle, "seed": 3, "window": window}
    infos = write(shared, plan, batched(split, rows, cuts), **options)
    again = write(shared, plan, batched(split, rows, []), attempt="again", **options)
    assert infos == again
    assert contents(shared, infos) == contents(shared, infos, "again")
    assert [info.path for info in infos] == [path for paths in plan.shards for path in paths]
    for i, name in enumerate(SPLITS):
        mine = [info for info in infos if info.split == name]
        assert [info.rows for info in mine] == plan.rows_per_shard(i)
        found = [read(shared, info, layout=layout) for info in mine]
        ids = np.concatenate([part["id"] for part in found])
        want = rows["id"][split == i]
        np.testing.assert_array_equal(ids if shuffle == "none" else np.sort(ids), want)
        for part in found:
            np.testing.assert_array_equal(part["v"][:, 1], -part["id"].astype(np.float32))
            assert [len(text) for text in part["t"].to_pylist()] == (part["id"] % 7).tolist()


@examples(0.15)
@given(
    st.integers(0, 100),
    st.sampled_from([Layout("blocks", 8), Layout("blocks", 8, "gzip"), Layout("rows")]),
    st.booleans(),
)
def test_what_is_told_of_a_shard_is_true(shared, n, layout, fixed):
    columns_ = FIXED if fixed else INFOS
    split, rows = make(n, columns_)
    for info in write(shared, plan_of(split), [(split, rows)], columns_, layout):
        path = f"try/{info.path}"
        lengths = [len(record) + OVERHEAD for record in read_records(shared, path, layout.compression)]
        assert (info.bytes, info.crc32c) == (shared.size(path), file_crc32c(shared, path))
        assert (info.rows, info.records) == (columns.row_count(read(shared, info, columns_, layout)), len(lengths))
        if info.record_bytes is not None:
            assert set(lengths[:-1]) <= {info.record_bytes}
            assert lengths[-1] <= info.record_bytes
        elif info.offsets is not None:
            assert info.offsets == tuple(np.cumsum([0, *lengths])[:-1].tolist())
        assert (info.record_bytes is None) or (info.offsets is None)
        assert fixed is False or lengths == [] or info.record_bytes is not None
        assert ShardInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


def test_mixing_takes_from_everywhere_and_moves_nearly_every_row(store):
    n = 20_000
    split = np.zeros(n, np.int8)
    rows = rows_of(np.arange(n), FIXED)
    plan = TaskShards(0, SPLITS, (n, 0), (("train/a", "train/b"), ()))
    infos = write(store, plan, [(split, rows)], FIXED, Layout("rows"), seed=1, window=4096)
    for info in infos:
        ids = read(store, info, FIXED, Layout("rows"))["id"]
        assert abs(ids[:2048].mean() - 2048) < 200  # the first window, sampled evenly
        assert (np.diff(ids) == 1).mean() < 0.01
        assert np.corrcoef(np.arange(2048), ids[:2048])[0, 1] < 0.1


def test_seed_and_task_choose_the_order(store):
    split, rows = make(200)
    seen = set()
    for task, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        infos = write(store, plan_of(split, task=task), [(split, rows)], seed=seed)
        seen.add(tuple(info.crc32c for info in infos))
    assert len(seen) == 3


def test_the_order_of_rows_is_pinned(store):
    """Which row goes where is part of the format of a run: a resumed run must go on as the first began."""
    split, rows = make(20, FIXED)
    infos = write(store, plan_of(split), [(split, rows)], FIXED, seed=5)
    assert [read(store, info, FIXED)["id"].tolist() for info in infos] == PINNED


PINNED = [[18, 12, 17, 9, 7], [4, 3, 16, 2, 14], [1, 19, 11, 8], [5, 15, 0, 10]]


def test_a_window_is_no_larger_than_memory_allows(store, monkeypatch):
    monkeypatch.setattr(shard, "WINDOW_BYTES", 1000)
    split, rows = make(500)
    plan = plan_of(split)
    want = write(store, plan, [(split, rows)])
    assert write(store, plan, batched(split, rows, [1, 2, 50, 51, 400])) == want
    as_they_are = encoder_of(INFOS, Layout("rows"))  # packs rows without a change
    windows = list(shard.windows([(split, rows)], as_they_are, 65536, 1000))
    assert sum(len(assigned) for assigned, _ in windows) == int((split >= 0).sum())
    assert all(1000 <= columns.bytes_per_row(INFOS, part).sum() < 1030 for _, part in windows[:-1])


def test_counts_that_differ_from_the_plan_are_an_error_and_leave_nothing(store):
    split, rows = make(100)
    plan = plan_of(split)
    with pytest.raises(
        SourceError, match=r"Task 4 found at least 69 rows for the split 'train', but the plan counted 68"
    ):
        write(store, TaskShards(4, SPLITS, (68, plan.rows[1]), plan.shards), [(split, rows)])
    with pytest.raises(SourceError, match=r"found 69 rows for the split 'train', but the plan counted 70.*--overwrite"):
        write(store, TaskShards(4, SPLITS, (70, plan.rows[1]), plan.shards), [(split, rows)])
    assert store.list_files() == []


def test_no_rows_give_valid_empty_files(store):
    plan = TaskShards(0, SPLITS, (0, 0), (("train/a",), ()))
    for layout in (Layout("blocks"), Layout("rows", 1, "gzip")):
        (info,) = write(store, plan, [], layout=layout)
        assert (info.rows, info.records) == (0, 0)
        assert (info.record_bytes, info.offsets) == (None, ())
        assert columns.row_count(read(store, info, layout=layout)) == 0


def test_plans_are_plain_json_and_hold_together():
    plan = TaskShards(7, SPLITS, (5, 0), (("a", "b"), ()))
    assert TaskShards.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.rows_per_shard(0) == [3, 2]
    assert plan.rows_per_shard(1) == []
    with pytest.raises(ValueError, match="shards for them"):
        TaskShards(7, SPLITS, (5, 1), (("a", "b"), ()))
