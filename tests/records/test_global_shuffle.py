"""A global shuffle: every row once in its split, anywhere in it, whatever the batches and the order of tasks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbered_rows
from dtap_dask.errors import OutputError, SourceError
from dtap_dask.features import Rows
from dtap_dask.records import global_shuffle
from dtap_dask.records.commit import noted_rows, run_write_task
from dtap_dask.records.example import Layout, decode_records
from dtap_dask.records.first_rows import RowRecorder, rows_at
from dtap_dask.records.folder import RunPaths
from dtap_dask.records.global_shuffle import gathered, run_shuffle_task
from dtap_dask.records.manifest_build import mixing_quality
from dtap_dask.records.pieces import PieceReader
from dtap_dask.records.shard import ROW_GROUP, AssignedRows, ShardInfo, TaskShards
from dtap_dask.records.shard_plan import ShardPlan, ShuffleTask, dealt
from dtap_dask.records.tfrecord import read_records
from dtap_dask.storage import Store, open_store
from property_tests import examples

INFOS, PLAIN = numbered_rows.INFOS, numbered_rows.PLAIN
SPLITS = ("train", "eval")
LAYOUTS = [Layout("blocks", 8), Layout("blocks", 3, "gzip"), Layout("rows", 1), Layout("rows", 1, "gzip")]
GROUP = 16  # rows of a row group


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("shuffled")))


class Run:
    """A run of tasks with these numbers of rows, numbered through; every fifth row is of the split 'eval'."""

    def __init__(self, store: Store, run: str, tasks: Sequence[int], shards: tuple[int, int], infos=INFOS, **options):
        self.store, self.run, self.infos = store, run, infos
        self.options = {"infos": infos, "seed": 3, **options}
        self.starts = [0, *itertools.accumulate(tasks)]
        rows = [self.count(start, stop) for start, stop in itertools.pairwise(self.starts)]
        totals = np.sum([(0, 0), *rows], axis=0).tolist()
        self.shards = tuple(min(most, total) for most, total in zip(shards, totals, strict=True))
        one_each = [
            TaskShards(number, SPLITS, *self.one(split, shard, totals[split]))
            for number, (split, shard) in enumerate((s, j) for s in range(2) for j in range(self.shards[s]))
        ]
        pairs = [self.pairs(rows, split) for split in range(2)]
        self.plan = ShardPlan(tuple(one_each), tuple(pairs), tuple(map(tuple, rows)))
        assert ShardPlan.from_json(json.loads(json.dumps(self.plan.to_json()))) == self.plan

    @staticmethod
    def count(start: int, stop: int) -> tuple[int, int]:
        evals = sum(row % 5 == 0 for row in range(start, stop))
        return stop - start - evals, evals

    def one(self, split: int, shard: int, total: int):
        path, rows = f"{SPLITS[split]}/{shard}-{self.run}", dealt(total, self.shards[split], shard)
        return ((rows, 0), ((path,), ())) if split == 0 else ((0, rows), ((), (path,)))

    def pairs(self, rows, split: int) -> int:
        every = np.arange(self.starts[-1])
        mine = every[(every % 5 == 0) == (split == 1)]
        counts = np.bincount(mine // GROUP)
        return int((counts * (counts - 1)).sum())

    def batches(self, task: int, cut: int, recorder: RowRecorder | None = None) -> Iterator[AssignedRows]:
        start, end = self.starts[task : task + 2]
        for first in range(start, end, cut):
            ids = range(first, min(first + cut, end))
            if recorder is not None:
                recorder.came(pa.record_batch({"row": list(ids)}))
            rows: Rows = {info.name: numbered_rows.column(info, ids) for info in self.infos}
            rows[ROW_GROUP] = np.array(ids, np.int32) // GROUP - start // GROUP
            yield (np.array(ids) % 5 == 0).astype(np.int16), rows

    def deal(self, task: int, cut: int = 7, noted: int = 0):
        recorder = RowRecorder(noted) if noted else None
        dealing = self.plan.shuffle_tasks()[task]
        batches = self.batches(task, cut, recorder)
        return run_shuffle_task(self.store, self.run, dealing, batches, recorder=recorder, **self.options)

    def gather(self, number: int) -> ShardInfo:
        plan = self.plan.tasks[number]
        place = number - (self.shards[0] if plan.rows[1] else 0), number
        rows = gathered(self.store, self.run, len(self.plan.dealt), plan, place, **self.options)
        [info] = run_write_task(self.store, self.run, plan, rows, shuffle="global", **self.options)
        return info

    def all(self, cut: int = 7, step: int = 1, noted: int = 0) -> list[ShardInfo]:
        for task in range(len(self.plan.dealt))[::step]:
            self.deal(task, cut, noted)
        return sorted((self.gather(number) for number in range(len(self.plan.tasks))[::step]), key=lambda one: one.path)

    def ids(self, info: ShardInfo) -> npt.NDArray[np.int64]:
        """The numbers of a shard's rows; every other column follows from them."""
        layout = self.options["layout"]
        records = list(read_records(self.store, info.path, layout.compression))
        rows = decode_records(self.infos, layout, records)
        for one in self.infos:
            expected = numbered_rows.column(one, rows["row"].tolist())
            if isinstance(expected, np.ndarray):
                np.testing.assert_array_equal(rows[one.name], expected)
            else:
                assert rows[one.name].to_pylist() == expected.to_pylist()
        return rows["row"]


RUNS = itertools.count()


@examples(0.1)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(sum),
    st.tuples(st.integers(1, 9), st.integers(1, 4)),
    st.sampled_from(LAYOUTS),
    st.integers(1, 70),
)
def test_every_row_once_in_its_split_in_whatever_order_and_batches(
    shared: Store, tasks: list[int], shards: tuple[int, int], layout: Layout, cut: int
) -> None:
    run = Run(shared, f"{next(RUNS):08x}", tasks, shards, layout=layout)
    found = run.all()
    again = Run(shared, f"{next(RUNS):08x}", tasks, shards, layout=layout)
    assert [one.crc32c for one in again.all(cut=cut, step=-1)] == [one.crc32c for one in found]
    for split, name in enumerate(SPLITS):
        ids = [run.ids(one) for one in found if one.split == name]
        assert len(ids) == run.shards[split]
        assert max(map(len, ids), default=0) - min(map(len, ids), default=0) <= 1
        every = np.arange(sum(tasks))
        want = every[(every % 5 == 0) == (split == 1)]
        assert sorted(np.concatenate([*ids, want[:0]]).tolist()) == want.tolist()
    for info in found:
        groups = run.ids(info) // GROUP * 1000 + np.searchsorted(run.starts, run.ids(info), side="right")
        assert info.same_group == int((groups[1:] == groups[:-1]).sum())


def test_a_small_memory_changes_no_byte(shared: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that is larger than what may be held is gathered in parts."""
    run, other = (Run(shared, f"{next(RUNS):08x}", [90, 80], (2, 1), layout=LAYOUTS[0]) for _ in range(2))
    found = run.all()
    for task in range(2):
        other.deal(task)
    monkeypatch.setattr(global_shuffle, "HELD_BYTES", 3000)
    monkeypatch.setattr(global_shuffle, "WRITTEN_ROWS", 5)
    assert [other.gather(number).crc32c for number in (1, 2, 0)] == [found[one].crc32c for one in (2, 0, 1)]


def test_windows_are_bounded_and_each_is_dealt_to_all_shards(shared: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(global_shuffle, "HELD_BYTES", 4000)
    run = Run(shared, f"{next(RUNS):08x}", [400], (4, 1), PLAIN, layout=LAYOUTS[0])
    found = run.all(cut=400)
    reader = PieceReader(shared, [RunPaths(run.run).pieces(0)], 0, PLAIN, LAYOUTS[0])
    [windows] = [index["rows"].tolist() for index in reader._indexes]
    assert sum(windows) == 80
    assert len(windows) == 4
    assert max(windows) - min(windows[:-1]) <= 5
    assert sorted(np.concatenate([run.ids(one) for one in found]).tolist()) == list(range(400))


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_are_spread_evenly_over_shards_and_places(shared: Store, seed: int) -> None:
    """A chi-square of row groups by shards, and the tasks of the first half of every shard, on fixed seeds."""
    tasks, shards, rows = 10, 8, 16 * 64
    run = Run(shared, f"{next(RUNS):08x}", [rows] * tasks, (shards, 1), PLAIN, layout=LAYOUTS[0], seed=seed)
    ids = [run.ids(one) for one in run.all(cut=200) if one.split == "train"]
    groups = tasks * rows // GROUP
    counts = np.stack([np.bincount(one // GROUP, minlength=groups) for one in ids])  # [shards, groups]
    expected = counts.sum(axis=0) / shards
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = (shards - 1) * (groups - 1)
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5
    halves = np.stack([np.bincount(one[: len(one) // 2] // (GROUP * 64), minlength=tasks) for one in ids])
    assert abs(halves - halves.mean()).max() < 5 * halves.mean() ** 0.5
    together = np.concatenate(ids)
    assert abs(np.corrcoef(together[1:], together[:-1])[0, 1]) < 0.05
    assert abs(np.corrcoef(together, np.arange(len(together)))[0, 1]) < 0.05


def test_the_seed_decides(shared: Store) -> None:
    def crcs(seed: int) -> tuple[int, ...]:
        run = Run(shared, f"{next(RUNS):08x}", [50, 20], (2, 1), PLAIN, layout=LAYOUTS[0], seed=seed)
        return tuple(one.crc32c for one in run.all())

    assert crcs(0) == crcs(0) != crcs(1)


@examples(0.1)
@given(st.integers(0, 40), st.integers(1, 60), st.sampled_from(LAYOUTS), st.integers(1, 80))
def test_noted_rows_are_at_their_places(shared: Store, before: int, rows: int, layout: Layout, cut: int) -> None:
    run = Run(shared, f"{next(RUNS):08x}", [before, rows], (3, 2), layout=layout)
    run.all(cut=cut, noted=10)
    noted = noted_rows(shared, RunPaths(run.run).dealt(1))
    assert noted is not None
    assert len(noted.places) == min(10, rows, cut)
    for place, number in zip(noted.places, noted.rows["row"].to_pylist(), strict=True):
        path = run.plan.paths[place.split][place.shard]
        found = rows_at(shared, path, INFOS, layout, np.array([place.position]))
        assert found["row"].tolist() == [number]


def test_what_is_kept_is_taken_up_and_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = Run(store, "0000aaaa", [30, 30], (2, 1), layout=LAYOUTS[0])
    first = [run.deal(0), run.deal(1)]
    unread = iter(lambda: pytest.fail("read again"), None)
    for task, dealing in enumerate(run.plan.shuffle_tasks()):
        assert run_shuffle_task(store, run.run, dealing, unread, **run.options) == first[task]
    path, data = tmp_path / first[0].path, (tmp_path / first[0].path).read_bytes()
    for damaged in (data[:5], data[:-30], data[:40] + b"?" + data[41:], b""):
        path.write_bytes(damaged)
        with pytest.raises(OutputError, match=r"pieces/00000.arrow, .* is missing or damaged. Continue with --resume"):
            run.gather(0)
        assert run.deal(0) == first[0]
        assert path.read_bytes() == data
    path.unlink()
    with pytest.raises(OutputError, match="is missing or damaged"):
        run.gather(0)
    (tmp_path / RunPaths(run.run).dealt(0)).write_bytes(b"{")
    assert run.deal(0) == first[0]
    assert run.gather(0).rows == 24
    path.write_bytes((tmp_path / first[1].path).read_bytes())  # another task's
    with pytest.raises(OutputError, match=r"are \d+, but \d+ were planned: .* Start over with --overwrite"):
        Run(store, "0000aaaa", [30, 29], (2, 1), layout=LAYOUTS[0]).gather(1)


def test_another_number_of_rows_than_planned_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    run = Run(store, "0000aaaa", [30], (2, 1), PLAIN, layout=LAYOUTS[0])
    for rows, found in ((23, "at least 24"), (25, "24")):
        task = ShuffleTask(0, SPLITS, (rows, 6), (0, 0), (rows, 6), (2, 1))
        with pytest.raises(SourceError, match=f"found {found} rows for the split 'train', but the plan counted {rows}"):
            run_shuffle_task(store, run.run, task, run.batches(0, 30), **run.options)
    assert store.list_files() == []


@pytest.mark.parametrize(
    ("shards", "pairs", "quality"),
    [
        ([(10, 9)], 90, None),  # one row group
        ([(10, 9)], None, None),
        ([(1, 0), (1, 0)], 0, None),  # no neighbours
        ([(5, 4), (5, 4)], 40, 0.4444),  # two row groups, each in a shard of its own: 40 of 90 pairs
        ([(5, 2), (5, 1)], 40, 1.0),
        ([(5, 4), (5, None)], 40, None),
        ([], 0, None),
    ],
)
def test_the_quality_of_mixing(shards, pairs: int | None, quality: float | None) -> None:
    infos = [ShardInfo("p", "s", rows, 1, 1, 1, same_group=same) for rows, same in shards]
    assert mixing_quality(infos, pairs) == quality


def test_dealing_adds_up() -> None:
    for rows, shards in itertools.product(range(12), range(1, 6)):
        counts = [dealt(rows, shards, shard) for shard in range(shards)]
        assert counts == [sum(row % shards == shard for row in range(rows)) for shard in range(shards)]
