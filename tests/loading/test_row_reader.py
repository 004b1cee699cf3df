"""Rows by their numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.errors import OutputError
from dtap_dask.loading import row_reader
from dtap_dask.loading.batches import batches
from dtap_dask.loading.columns import Ragged
from dtap_dask.loading.dataset import open_split
from dtap_dask.loading.order.position import Readers
from dtap_dask.loading.reading.options import batch_options
from dtap_dask.loading.row_reader import RowReader
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, PLAIN, values, write
from property_tests import examples

LAYOUTS = [Layout("blocks", 7), Layout("blocks", 7, "gzip"), Layout("rows"), Layout("rows", compression="gzip")]
SHARDS = [30, 0, 1, 47]


def reader(path: str, **options: Any) -> RowReader:
    split = open_split(path, "train", None)
    plain: dict[str, Any] = {"features": None, "kept": True, "label": True, "as_vectors": False, "ids": "int64"}
    return RowReader(split, batch_options(split, Readers(), 1, **{**plain, **options}, remainder="keep"), None)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, tuple[Any, ...]]]:
    """Datasets in all layouts, with texts and lists and without."""
    return [
        (write(tmp_path_factory.mktemp("data"), SHARDS, layout, infos), infos)
        for layout in LAYOUTS
        for infos in (INFOS, PLAIN)
    ]


def plain(column: Any) -> list[Any]:
    if isinstance(column, Ragged):
        return [column.values[a:b].tolist() for a, b in zip(column.offsets, column.offsets[1:], strict=False)]
    return column.tolist()


@given(
    dataset=st.integers(0, 2 * len(LAYOUTS) - 1),
    wanted=st.lists(st.lists(st.integers(0, sum(SHARDS) - 1), max_size=40), min_size=1, max_size=3),
    together=st.sampled_from([1, 10, 20, 65_536]),
)
@examples(0.5)
def test_rows_in_any_order_hold_their_own_values(paths: Any, dataset: int, wanted: Any, together: int) -> None:
    path, infos = paths[dataset]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_reader, "WINDOW_ROWS", together)
        found = reader(path)
    for rows in wanted:
        (features, label, *weight), kept = found.batch(np.array(rows, np.int64))
        columns = {**features, **kept, "late": label, **({"weight": weight[0]} if weight else {})}
        assert {*columns} == {info.name for info in infos}
        for name, column in columns.items():
            assert plain(column) == values(name, rows), name


def test_batches_are_those_of_batches(paths: Any) -> None:
    for path, _ in paths:
        (all_rows,) = batches(path, shuffle=False, batch_size=100, kept=True, as_vectors=True, ids="stored")
        found = reader(path, as_vectors=True, ids="stored").batch(np.arange(sum(SHARDS)))
        for expected, column in zip((*all_rows[0][0].values(),), (*found[0][0].values(),), strict=True):
            assert plain(column) == plain(expected)
            assert getattr(column, "dtype", None) == getattr(expected, "dtype", None)


def test_a_record_is_read_once_for_all_of_its_rows(paths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[tuple[int, int]]()
    whole = row_reader.open_shard

    class Counted:
        def __init__(self, *arguments: Any, **named: Any):
            self._shard = whole(*arguments, **named)

        def read(self, start: int, stop: int) -> Any:
            read.append((start, stop))
            return self._shard.read(start, stop)

    monkeypatch.setattr(row_reader, "open_shard", Counted)
    found = reader(paths[1][0])  # blocks of 7 rows
    found.batch(np.array([29, 0, 28, 6, 3, 30]))
    assert read == [(0, 1), (4, 5), (0, 1)]  # the last one is of the next shard
    found.batch(np.array([7, 14, 0, 21]))
    assert read[3:] == [(0, 4)]
    found.batch(np.array([20, 1, 8, 27]))
    assert len(read) == 4  # they are still decoded


@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_a_damaged_record_is_named(tmp_path: Path, kind: Any) -> None:
    path = write(tmp_path, [30], Layout(kind, 8), PLAIN)
    (shard,) = tmp_path.glob("train/*")
    data = bytearray(shard.read_bytes())
    data[-8] ^= 1
    shard.write_bytes(data)
    found = reader(path)
    assert found.batch(np.array([3]))[1]["row"].tolist() == [3]
    record = 3 if kind == "blocks" else 29
    with pytest.raises(OutputError, match=rf"{shard.name} is damaged: the checksum of record {record}, at byte"):
        found.batch(np.array([3, 29]))


def test_records_of_another_dataset_are_named(tmp_path: Path) -> None:
    for kind in ("blocks", "rows"):
        mine = write(tmp_path / kind, [30], Layout(kind, 8), PLAIN)  # type: ignore[arg-type]
        other = write(tmp_path / f"other_{kind}", [30], Layout(kind, 8), PLAIN[1:])  # type: ignore[arg-type]
        split = open_split(mine, "train", None)
        there = open_split(other, "train", None)
        options = batch_options(
            split, Readers(), 1, features=None, kept=True, label=True, as_vectors=False, ids="int64", remainder="keep"
        )
        mixed = RowReader(dataclasses.replace(split, shards=there.shards, paths=there.paths), options, None)
        with pytest.raises(OutputError, match=r"tfrecord, record 1, at byte [\d,]+: A record does not hold the"):
            mixed.batch(np.array([12] if kind == "blocks" else [1]))
