"""The order of an epoch: every row once, computed at any place alone, and well mixed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.features.columns.column import offsets_of
from dtap_dask.loading.dataset import DatasetSplit, open_split
from dtap_dask.loading.order import epoch_order as orders
from dtap_dask.loading.order.epoch_order import EpochOrder
from dtap_dask.loading.order.runs import Runs, runs_of
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, write
from property_tests import examples


def a_split(shards: list[int], record_rows: int, record_bytes: int) -> tuple[DatasetSplit, Runs]:
    """A split of shards with these numbers of rows, in blocks; only what the order depends on."""
    infos = [SimpleNamespace(rows=rows, bytes=-(-rows // record_rows) * record_bytes) for rows in shards]
    split = cast("DatasetSplit", SimpleNamespace(shards=infos, record_bytes=record_bytes))
    rows = [[record_rows] * ((n - 1) // record_rows) + [(n - 1) % record_rows + 1] for n in shards]
    return split, Runs(1, offsets_of([len(one) for one in rows]), np.array([n for one in rows for n in one], np.int64))


def sequence(order: EpochOrder, runs: Runs, spans: list[tuple[int, int]]) -> list[int]:
    """The numbers of the rows of spans: those of the manifest's order."""
    starts, found = offsets_of(runs.rows), list[int]()
    for number, start, stop in order.pieces(spans).tolist():
        window = order.window(number)
        rows = np.concatenate([np.arange(starts[run], starts[run + 1]) for run in window.runs])
        assert len(rows) == window.rows
        places = order.permutation(window)
        rows = rows if places is None else rows[places]
        found += rows[start : window.rows if stop < 0 else stop].tolist()
    return found


@given(
    shards=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    record_rows=st.integers(1, 7),
    window=st.integers(1, 50),
    cycle=st.integers(4, 9),
    key=st.none() | st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40)),
    data=st.data(),
)
@examples(1)
def test_every_row_comes_once_and_any_part_is_that_of_the_whole(
    shards: list[int], record_rows: int, window: int, cycle: int, key: Any, data: st.DataObject
) -> None:
    split, runs = a_split(shards, record_rows, 10)
    total = sum(shards)
    ends = sorted(data.draw(st.lists(st.integers(0, total), min_size=4, max_size=4)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WINDOW_ROWS", window), ("CYCLE", cycle), ("MIXED_BYTES", 1)):
            patch.setattr(orders, name, value)
        whole = sequence(EpochOrder(split, runs, key), runs, [(0, total)])
        assert sorted(whole) == list(range(total))
        assert key is not None or whole == list(range(total))
        part = sequence(EpochOrder(split, runs, key), runs, [(ends[0], ends[1]), (ends[2], ends[3])])
    assert part == whole[ends[0] : ends[1]] + whole[ends[2] : ends[3]]


def test_seeds_and_epochs_give_orders_of_their_own() -> None:
    split, runs = a_split([50, 60, 70], 10, 10)
    keys = [(seed, epoch) for seed in (-1, 0, 1, 2**63 - 1, -(2**63)) for epoch in range(3)]
    assert len({tuple(sequence(EpochOrder(split, runs, key), runs, [(0, 180)])) for key in keys}) == len(keys)


def test_small_shards_form_larger_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MIXED_BYTES", 5000)
    split, runs = a_split([10] * 300, 10, 100)
    order = EpochOrder(split, runs, (0, 0))
    assert [len(order.shards(group)) for group in range(7)] == [12, *[50] * 5, 38]
    monkeypatch.setattr(orders, "CYCLE_BYTES", 700)
    monkeypatch.setattr(orders, "MIXED_BYTES", 1)
    order = EpochOrder(split, runs, (0, 0))
    assert [len(order.shards(group)) for group in range(44)] == [4, *[7] * 42, 2]


def test_the_place_does_not_matter_for_the_cost() -> None:
    """Of a billion rows only the groups that hold the place are computed."""
    split, runs = a_split([4_000_000] * 250, 1000, 100_000)
    order = EpochOrder(split, runs, (0, 0))
    built: list[int] = []
    arranged = order._arranged
    order._group = lambda number: (built.append(number), arranged(number))[1]
    assert len(order.pieces([(987_654_321, 987_654_322)])) == 1
    assert len(set(built)) == 1
    pieces = order.pieces([(500_000_000, 1_000_000_000)])
    assert len(order.groups(pieces[:, 0])) == len(pieces) > 7_000
    assert order.window(int(pieces[0, 0])).rows > 0
    assert len(set(built)) <= 3  # the groups of both ends


@pytest.mark.parametrize("kind", ["blocks", "rows"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_runs_hold_the_rows_that_the_files_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, compression: Any
) -> None:
    """Also where blocks were cut shorter than usual, because they would have become too large."""
    path = write(tmp_path, [30, 1, 47], Layout(kind, 8, compression), INFOS)
    split = open_split(path, "train", None)
    assert runs_of(split).rows.sum() == 78
    if kind == "blocks":
        assert runs_of(split).rows.tolist() == [8, 8, 8, 6, 1, 8, 8, 8, 8, 8, 7]
        # The same files under a layout whose records would hold more rows: each must be asked.
        wider = dataclasses.replace(split, layout=Layout("blocks", 1000, compression))
        assert runs_of(wider).rows.tolist() == runs_of(split).rows.tolist()
