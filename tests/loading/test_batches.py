"""`dtap_dask.batches`: the rows of `load` as NumPy arrays, from any position, for any number of readers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import in_memory, write_dataset
from dtap_dask.errors import DataError, JobError, OutputError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.batches import batches
from dtap_dask.loading.columns import Ragged
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, PLAIN, rows_of, values, write
from property_tests import examples

ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 0, 1, 47], Layout("blocks", 8), PLAIN)


def plain(column: Any) -> list[Any]:
    if isinstance(column, Ragged):
        lists = zip(column.offsets, column.offsets[1:], strict=False)
        return [column.values[start:stop].tolist() for start, stop in lists]
    return column.tolist()


@given(
    shards=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any),
    size=st.integers(1, 40),
    kind=st.sampled_from(["blocks", "rows"]),
    compression=st.sampled_from(["none", "gzip"]),
    shuffle=st.booleans(),
)
@examples(0.4)
def test_every_row_comes_once_with_its_own_values(
    tmp_path_factory: pytest.TempPathFactory, *, shards: list[int], size: int, kind: Any, compression: Any, shuffle: Any
) -> None:
    path = write(tmp_path_factory.mktemp("data"), shards, Layout(kind, 7, compression))
    data = batches(path, batch_size=size, shuffle=shuffle, kept=True)
    found = list(data)
    rows = rows_of(found)
    assert sorted(rows) == list(range(sum(shards)))
    assert shuffle or rows == list(range(sum(shards)))
    assert len(found) == len(data) == -(-sum(shards) // size)
    assert [len(kept["row"]) for _, kept in found[:-1]] == [size] * (len(found) - 1)
    for (features, late, weight), kept in found:
        numbers = kept["row"].tolist()
        for info in INFOS:
            column = {"late": late, "weight": weight, "row": kept["row"]}.get(info.name, features.get(info.name))
            assert plain(column) == values(info.name, numbers), info.name
            dtype = column.values.dtype if isinstance(column, Ragged) else column.dtype
            assert dtype == (np.float32 if info.name == "late" else object if info.stored == "bytes" else info.dtype)


def test_no_tensorflow_and_no_dask_are_needed(path: str) -> None:
    code = (
        f"import sys, dtap_dask; list(dtap_dask.batches({path!r})); print({{'tensorflow', 'dask'}} & {{*sys.modules}})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_another_epoch_is_another_order_and_the_same_in_every_process(path: str) -> None:
    data = batches(path, kept=True, batch_size=9, seed=4)
    epochs = [rows_of(data) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [rows_of(batches(path, kept=True, batch_size=50, seed=4)) for _ in range(2)] == [epochs[0]] * 2
    assert iter(data) is not iter(data)  # no epoch begins before its first batch is asked for
    assert data.state()["epoch"] == 3


def test_the_order_is_pinned(path: str) -> None:
    data = batches(path, kept=True)
    assert [rows_of(data)[:8] for _ in range(2)] == PINNED


PINNED = [[38, 63, 14, 66, 34, 23, 39, 42], [45, 21, 58, 33, 47, 67, 39, 64]]


# Positions.


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("remainder", ["keep", "drop", "pad", "repeat"])
def test_from_every_state_come_the_batches_of_an_undisturbed_run(path: str, shuffle: bool, remainder: str) -> None:
    """At every batch of three epochs, and for the rest of them and one more."""
    options: dict[str, Any] = {"batch_size": 13, "shuffle": shuffle, "remainder": remainder, "kept": True}
    data = batches(path, **options)
    states, all_rows = [data.state()], list[list[int]]()
    for _ in range(3):
        iterator = iter(data)
        for batch in iterator:
            all_rows.append(batch[1]["row"].tolist())
            states.append(iterator.state())
    assert len(all_rows) == 3 * len(data) == len(states) - 1
    all_rows += [batch[1]["row"].tolist() for batch in data]
    for number, state in enumerate(states):
        state = json.loads(json.dumps(state))  # noqa: PLW2901
        assert len(json.dumps(state)) < 400
        again = batches(path, state=state, **options)
        rest = [batch[1]["row"].tolist() for _ in range(4 - state["epoch"]) for batch in again]
        assert rest == all_rows[number:], number


def test_random_steps_of_a_large_dataset(tmp_path: Path) -> None:
    """In four epochs of half a million rows in 160 shards, which are more than a group."""
    infos = (FeatureInfo("row", "feature", "int64", "int64"),)
    path = write_dataset(
        tmp_path, infos, Layout("blocks", 100), {"train": [3_125] * 160}, lambda a, n: {"row": np.arange(a, a + n)}
    )
    data = batches(path, batch_size=1000, shuffle=True, seed=3)
    states, all_rows = [data.state()], list[list[int]]()
    for _ in range(4):
        iterator = iter(data)
        for features in iterator:
            all_rows.append(features["row"].tolist())
            states.append(iterator.state())
    assert sorted(itertools.chain(*all_rows[500:1000])) == [*range(500_000)]
    random = np.random.default_rng(0)
    for number in (499, 501, 999, 1997, *random.integers(0, 1997, 20).tolist()):
        again = batches(path, batch_size=1000, shuffle=True, seed=3, state=states[number])
        rest = (features["row"].tolist() for _ in range(2) for features in again)
        assert list(itertools.islice(rest, 3)) == all_rows[number : number + 3], number


def test_a_state_means_the_same_for_other_batch_sizes_and_may_be_edited(path: str) -> None:
    data = batches(path, batch_size=10, kept=True)
    whole = rows_of(data)
    iterator = iter(batches(path, batch_size=10, kept=True))
    next(iterator)
    state = iterator.state()
    assert state["taken"] == [{"readers": 1, "rows": 10}]
    state["taken"][0]["rows"] += 7
    assert rows_of(batches(path, batch_size=3, kept=True, state=state)) == whole[17:]
    state["taken"][0]["rows"] = 10_000
    assert rows_of(batches(path, batch_size=3, kept=True, state=state)) == rows_of(data)  # the next epoch


def test_a_state_of_something_else_is_refused_with_all_differences(path: str, tmp_path: Path) -> None:
    iterator = iter(batches(path, seed=3))
    next(iterator)
    state = iterator.state()
    other = write(tmp_path, [78], Layout("blocks", 8), PLAIN)
    with pytest.raises(JobError) as caught:
        batches(other, seed=4, shuffle=False, state=state)
    for name in ("dataset", "seed", "shuffle"):
        assert f"state.{name}: the state is of " in str(caught.value)
    with pytest.raises(JobError, match=r"state\.version: the state is of 2, but this is 1; load it with the version"):
        batches(path, seed=3, state={**state, "version": 2})
    for wrong in ({}, {**state, "epoch": -1}, {**state, "rows": 3}, {**state, "taken": [{"readers": 0, "rows": 1}]}):
        with pytest.raises(JobError, match=r"^state"):
            batches(path, seed=3, state=wrong)
    for wrong in ("x", 3, [state], b"{}", {**state, "epoch": {1}}, {**state, "split": b"train"}):
        with pytest.raises(JobError, match="state"):
            batches(path, seed=3, state=wrong)  # type: ignore[arg-type]
    plain = {**state, "epoch": 0, "taken": [{"readers": 1, "rows": 20}]}
    numpy = {**state, "epoch": np.int64(0), "taken": [{"readers": 1, "rows": np.uint16(20)}]}
    assert batches(path, seed=3, state=numpy).state() == batches(path, seed=3, state=plain).state()


# Readers.


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    size=st.integers(1, 20),
    steps=st.integers(0, 4),
    remainder=st.sampled_from(["pad", "repeat", "drop"]),
    shuffle=st.booleans(),
)
@examples(0.4)
def test_readers_get_every_row_once_and_equally_many_batches(
    path: str, *, counts: list[int], size: int, steps: int, remainder: str, shuffle: bool
) -> None:
    """Also where their number changes within the epoch, from one state that all of them have in common."""
    options: dict[str, Any] = {"batch_size": size, "remainder": remainder, "shuffle": shuffle, "kept": True}
    state, seen, done = None, list[int](), False
    for turn, count in enumerate(counts):
        last = turn == len(counts) - 1
        taken, states = list[list[Any]](), list[Any]()
        for index in range(count):
            try:
                data = batches(path, readers=(index, count), state=state, **options)
            except DataError:
                assert remainder == "drop"
                return
            done = done or data.state()["epoch"] > 0  # what is left is less than a batch for each reader
            iterator = iter(data)
            taken.append(list(itertools.islice(iterator, ROWS if last else steps)))
            states.append(iterator.state())
        assert len({len(each) for each in taken}) == 1
        assert len({json.dumps(each) for each in states}) == 1
        assert all(len(kept["row"]) == size for each in taken for _, kept in each)
        if not done:
            seen += [row for each in taken for row in rows_of(each)]
        state = states[0]
        done = done or state["epoch"] > 0
    assert set(seen) <= set(range(ROWS))
    if remainder == "pad":
        assert sorted(seen) == list(range(ROWS))
    elif remainder == "repeat":
        assert set(seen) == set(range(ROWS))
    else:
        assert len(seen) == len(set(seen))


def test_the_readers_parts_are_those_of_one_readers_order(path: str) -> None:
    whole = rows_of(batches(path, kept=True, batch_size=8))
    parts = [rows_of(batches(path, kept=True, batch_size=8, readers=(index, 3))) for index in range(3)]
    assert [row for part in parts for row in part] == whole


def test_more_readers_than_rows(tmp_path: Path) -> None:
    path = write(tmp_path, [2], Layout("blocks", 8), PLAIN)
    for remainder, expected in (("pad", [[0], [1], []]), ("repeat", [[0], [1], [0]])):
        parts = [
            batches(path, batch_size=1, shuffle=False, kept=True, readers=(index, 3), remainder=remainder)
            for index in range(3)
        ]
        assert [rows_of(part) for part in parts] == expected
        assert [len(part) for part in parts] == [1] * 3
    with pytest.raises(DataError, match="has 0 rows for a reader, so that dropping incomplete batches"):
        batches(path, batch_size=1, readers=(0, 3), remainder="drop")


def test_padding_is_zeros_that_weigh_nothing(tmp_path: Path) -> None:
    for kind in ("blocks", "rows"):
        path = write(tmp_path / kind, [5], Layout(kind, 4))  # type: ignore[arg-type]
        *_, ((features, late, weight), kept) = batches(path, batch_size=4, shuffle=False, kept=True, remainder="pad")
        assert weight.tolist() == [1, 0, 0, 0]  # the dataset's own weight of row 4, then padding
        assert kept["row"].tolist() == [4, 0, 0, 0]
        assert plain(features["words"]) == [[], [], [], []]
        assert plain(features["pair"])[1:] == [[b"", b""]] * 3
        assert features["sizes"][1:].tolist() == [[0, 0, 0]] * 3
        assert late.dtype == np.float32
    none = FeatureInfo("none", "feature", "float64", "float64", (0,))  # a vector without values, beside texts
    empty = write(tmp_path / "empty", [5], Layout("blocks", 4), (*INFOS, none))
    *_, ((features, _, _), _) = batches(empty, batch_size=4, remainder="pad", kept=True)
    assert features["none"].shape == (4, 0)
    own = write(tmp_path / "own", [5], Layout("blocks", 4), PLAIN)
    *_, (_, _, weight) = batches(own, batch_size=4, remainder="pad")
    assert weight.tolist() == [1, 0, 0, 0]
    assert weight.dtype == np.float32


def test_rows_that_repeat_are_fetched_again_with_room_for_one_shard(path: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 200, "shuffle": False, "remainder": "repeat", "kept": True}
    largest = max(shard.stat().st_size for shard in Path(path).glob("train/*"))
    with in_memory(path, "memory://test_batches") as url:
        staged = batches(url, storage={"cache": {"path": str(tmp_path), "size": f"{largest}"}}, **options)
        assert (
            rows_of(staged) == rows_of(staged) == rows_of(batches(path, **options)) == [*range(ROWS)] * 2 + [*range(44)]
        )


# What a batch holds.


def test_features_may_come_as_matrices_and_ids_narrow(tmp_path: Path) -> None:
    path = write(tmp_path, [30, 17], Layout("blocks", 8))
    for ids, dtypes in (("int64", ["int64"]), ("int32", ["int32", "int64"]), ("stored", ["uint16", "uint8", "int64"])):
        named = list(batches(path, batch_size=20, ids=ids, kept=True))
        wide = batches(path, batch_size=20, ids=ids, kept=True, as_vectors=True)
        vectors = wide.vectors
        assert {*dtypes, "float32", "uint32"} == {*vectors}
        for ((features, late, _), kept), ((packed, label, _), _) in zip(named, wide, strict=True):
            assert kept["row"].dtype == np.int64
            np.testing.assert_array_equal(late, label)
            for dtype, names in vectors.items():
                columns = [features[name].reshape(len(late), -1) for name in names]
                np.testing.assert_array_equal(packed[dtype], np.concatenate(columns, axis=1))
                assert packed[dtype].dtype == dtype
            assert {*packed} == {*vectors, "note", "tags", "words", "pair"}


def test_a_batch_without_its_label(path: str) -> None:
    assert {*next(iter(batches(path, label=False)))} == {"fare", "miles", "company", "sizes"}
    assert [*next(iter(batches(path, features=["sizes", "fare"])))[0]] == ["sizes", "fare"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readers": (3, 3)}, r"readers: \(3, 3\) is not \(index, count\)"),
        ({"readers": 2}, "readers: 2 is not"),
        ({"readers": (0, 2), "remainder": "keep"}, "remainder: 'keep' could give one reader a batch more"),
        ({"remainder": "fill"}, "remainder: 'fill' is none of 'keep', 'drop', 'pad', 'repeat'"),
        ({"ids": "int16"}, "ids: 'int16' is none of 'int64', 'int32', 'stored'"),
        ({"features": ["fair"]}, r"no feature 'fair'\. Did you mean 'fare'"),
        ({"features": 3}, "features: 3 is not a list of names"),
        ({"split": 3}, "has no split 3. Known here: train"),
        ({"kept": "no", "label": None}, "kept: 'no' is neither True nor False.*\n.*label: None is neither"),
        ({"shuffle": "no", "batch_size": 2**63}, "batch_size: .*\n.*shuffle: 'no' is neither True nor False"),
        ({"batch_size": 0, "seed": "x", "readers": "x"}, "batch_size: .*\n.*seed: .*\n.*readers: "),
    ],
)
def test_what_is_wrong_is_said(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        batches(path, **options)


def test_a_dataset_of_which_no_column_is_left(tmp_path: Path) -> None:
    keys = write(tmp_path, [5], Layout("blocks", 8), tuple(info for info in INFOS if info.role == "kept"))
    with pytest.raises(JobError, match=r"no column is left: the dataset has 'row' \(kept\)\. Give `kept=True`"):
        batches(keys)
    assert sorted(rows_of((batch, kept) for batch, kept in batches(keys, kept=True))) == [*range(5)]


# Files.


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, [30, 47], Layout("blocks", 8), PLAIN)
    shard = max(tmp_path.glob("train/*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(
        OutputError, match=rf"{shard.name} is damaged: the checksum of record \d, at byte [\d,]+, is wrong"
    ):
        list(batches(path))
    shard.write_bytes(data[:-1])
    with pytest.raises(OutputError, match="the manifest states"):
        batches(path)


def test_a_loop_that_ends_early_leaves_no_threads(path: str) -> None:
    before = threading.active_count()
    for _ in batches(path, batch_size=2):
        break
    iterator = iter(batches(path, batch_size=2))
    next(iterator)
    iterator.close()
    assert threading.active_count() == before
