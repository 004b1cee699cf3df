"""Choosing rows: skip, take, where, resample and class_weights, against lists of rows in plain Python."""

from __future__ import annotations

import itertools
import json
import struct
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import in_memory
from dtap_dask.errors import DamagedError, JobError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.order import epoch_order as orders
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, PLAIN, rows_of, values, write
from property_tests import examples

SHARDS = [30, 0, 1, 47]  # `late`, the label, is true of rows 0, 3, 6, ...
ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), SHARDS, Layout("blocks", 8), PLAIN)


WHERE = {
    '"row" % 5 <> 1': lambda row: row % 5 != 1,
    "fare > 10 and not late": lambda row: row * 0.5 > 10 and row % 3,
    'company in (3, 4, 70) or "row" < 9': lambda row: row in (3, 4, 70) or row < 9,
    'case when "row" > 20 then "row" < 40 end': lambda row: 20 < row < 40,  # null up to 20
    None: lambda row: True,
}


@given(
    shards=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    kind=st.sampled_from(["blocks", "rows"]),
    compression=st.sampled_from(["none", "gzip"]),
    where=st.sampled_from([*WHERE]),
    factors=st.none() | st.fixed_dictionaries({True: st.floats(0.2, 4), False: st.floats(0.2, 4)}),
    plain=st.booleans(),
    data=st.data(),
)
@examples(1)
def test_an_epoch_has_the_rows_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shards: list[int],
    kind: Any,
    compression: Any,
    where: str | None,
    factors: dict[bool, float] | None,
    plain: bool,
    data: st.DataObject,
) -> None:
    path = write(tmp_path_factory.mktemp("data"), shards, Layout(kind, 7, compression), PLAIN if plain else INFOS)
    total = sum(shards)
    skip = data.draw(st.integers(0, total - 1), "skip")
    take = data.draw(st.none() | st.integers(1, total + 3), "take")
    expected = [row for row in range(total)[skip:][:take] if WHERE[where](row)]
    sizes = Counter(row % 3 == 0 for row in expected)
    factors = {late: factor for late, factor in (factors or {}).items() if round(sizes[late] * factor)} or None
    if not expected:
        return
    options: dict[str, Any] = {"skip": skip, "take": take, "where": where, "resample": factors, "kept": True}
    for shuffle, window in itertools.product((True, False), (10, 65_536)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(orders, "WINDOW_ROWS", window)
            loaded = batches(path, batch_size=9, shuffle=shuffle, **options)
            found = list(loaded)
        rows = rows_of(found)
        assert len(loaded) == -(-len(rows) // 9) == len(found)
        assert shuffle or rows == sorted(rows)
        copies = Counter(rows)
        assert copies.keys() <= {*expected}
        if factors is None:
            assert sorted(rows) == expected
        for late, n in sizes.items():
            wanted = round(n * (factors or {}).get(late, 1.0))
            ours = [copies[row] for row in expected if (row % 3 == 0) == late]
            assert sum(ours) == wanted
            assert all(wanted // n <= count <= wanted // n + 1 for count in ours)
        for batch, kept in found:
            numbers = kept["row"].tolist()
            assert batch[1].tolist() == values("late", numbers)
            assert batch[0]["sizes"].tolist() == values("sizes", numbers)
            assert plain or batch[0]["note"].tolist() == values("note", numbers)


CHOICE: dict[str, Any] = {"skip": 4, "take": 70, "where": '"row" % 7 <> 2', "resample": {True: 2.5, False: 0.6}}


@pytest.mark.parametrize("shuffle", [True, False])
def test_from_every_state_come_the_batches_of_an_undisturbed_run(path: str, shuffle: bool) -> None:
    """At every batch of two epochs, and for the rest of them and one more."""
    options = {**CHOICE, "batch_size": 13, "shuffle": shuffle, "kept": True}
    data = batches(path, **options)
    states, found = [data.state()], list[list[int]]()
    for _ in range(2):
        iterator = iter(data)
        for batch in iterator:
            found.append(batch[1]["row"].tolist())
            states.append(iterator.state())
    found += [batch[1]["row"].tolist() for batch in data]
    for number, state in enumerate(states):
        state = json.loads(json.dumps(state))  # noqa: PLW2901
        assert len(json.dumps(state)) < 500
        again = batches(path, state=state, **options)
        assert [b[1]["row"].tolist() for _ in range(3 - state["epoch"]) for b in again] == found[number:], number


def test_a_state_of_another_choice_is_refused_naming_what_differs(path: str) -> None:
    iterator = iter(batches(path, **CHOICE))
    next(iterator)
    state = iterator.state()
    with pytest.raises(JobError) as caught:
        batches(path, skip=5, where="fare > 1", state=state)
    for name, theirs, mine in (
        ("skip", "4", "5"),
        ("take", "70", "None"),
        ("where", "'\"row\" % 7 <> 2'", "'fare > 1'"),
        ("resample", "'False: 0.6, True: 2.5'", "None"),
    ):
        assert f"state.{name}: the state is of {theirs}, but this is {mine}; give the same `{name}`" in str(
            caught.value
        )
    with pytest.raises(JobError, match=r"state\.counts: .*; records were damaged or mended since"):
        batches(path, **CHOICE, state={**state, "counts": "0" * 16})
    for weights in ({True: 2}, "balanced"):  # which rows come is the same
        assert batches(path, class_weights=weights, state=batches(path).state())
        assert batches(path, state=batches(path, class_weights=weights).state())
        assert batches(path, **CHOICE, class_weights=weights, state=state)
        where = {"where": CHOICE["where"]}
        assert batches(path, **where, state=batches(path, **where, class_weights=weights).state())
    assert not {"skip", "take", "where", "resample", "counts"} & {*batches(path).state()}


def test_long_settings_make_no_long_state(path: str) -> None:
    where = " or ".join(f'"row" = {row}' for row in range(60))
    state = batches(path, where=where).state()
    assert len(json.dumps(state)) < 500
    assert batches(path, where=where, state=state)
    with pytest.raises(JobError, match=r"state\.where"):
        batches(path, where=where.replace("59", "60"), state=state)


# skip and take.


def test_a_holdout_is_what_the_rest_leaves_out_in_every_epoch(path: str) -> None:
    held, rest = batches(path, take=33, kept=True), batches(path, skip=33, kept=True)
    for _ in range(2):
        assert sorted(rows_of(held)) == list(range(33))
        assert sorted(rows_of(rest)) == list(range(33, ROWS))
    assert len(batches(path, batch_size=10, skip=33)) == 5
    assert sorted(rows_of(batches(path, take=1000, skip=70, kept=True))) == list(range(70, ROWS))


def test_shards_that_are_left_out_are_not_opened(tmp_path: Path) -> None:
    path = write(tmp_path, SHARDS, Layout("blocks", 8), PLAIN)
    first, *_, last = sorted(tmp_path.glob("train/*"))
    data = [batches(path, skip=skip, take=take, kept=True) for skip, take in ((31, None), (10, 20), (0, 31))]
    last.rename(tmp_path / "last")
    assert [sorted(rows_of(each)) for each in data[1:]] == [list(range(10, 30)), list(range(31))]
    (tmp_path / "last").rename(last)
    first.unlink()
    assert sorted(rows_of(data[0])) == list(range(31, ROWS))


def test_staged_shards(path: str, tmp_path: Path) -> None:
    with in_memory(path, "memory://test_selection") as url:
        for options in ({"skip": 31, "take": 20}, CHOICE):
            storage = {"cache": {"path": str(tmp_path / "cache")}}
            staged = batches(url, storage=storage, kept=True, **options)
            here = batches(path, kept=True, **options)
            assert [rows_of(staged) for _ in range(2)] == [rows_of(here) for _ in range(2)]


# Readers.


@pytest.mark.parametrize("remainder", ["pad", "repeat", "drop"])
def test_three_readers_get_every_row_of_the_choice_once(path: str, remainder: str) -> None:
    options = {**CHOICE, "batch_size": 5, "kept": True}
    whole = rows_of(batches(path, **options))
    each = [list(batches(path, readers=(index, 3), remainder=remainder, **options)) for index in range(3)]
    assert len({len(found) for found in each}) == 1
    parts = [rows_of(found) for found in each]
    if remainder == "pad":
        assert [row for part in parts for row in part] == whole
    elif remainder == "drop":
        assert not Counter(row for part in parts for row in part) - Counter(whole)
    else:
        assert {row for part in parts for row in part} == {*whole}


def test_another_number_of_readers_continues(path: str) -> None:
    options = {**CHOICE, "batch_size": 4, "kept": True, "remainder": "pad"}
    seen, state = list[int](), None
    for count in (2, 3):
        readers = [iter(batches(path, readers=(index, count), state=state, **options)) for index in range(count)]
        seen += [row for reader in readers for row in rows_of(itertools.islice(reader, 3 if count == 2 else None))]
        state = readers[0].state()
    assert sorted(seen) == sorted(rows_of(batches(path, **options)))


# Damage.


def damage(path: str, record_rows: int) -> set[int]:
    """Damage a byte of record 1 of the last shard; the numbers of its rows."""
    shard = max(Path(path).glob("train/*.tfrecord"))
    data = bytearray(shard.read_bytes())
    (length,) = struct.unpack_from("<Q", data, 0)
    data[16 + length + 12 + 5] ^= 1
    shard.write_bytes(data)
    return {31 + record_rows + row for row in range(record_rows)}


@pytest.mark.parametrize("infos", [PLAIN, INFOS])
@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_rows_of_damaged_records_are_never_chosen(tmp_path: Path, kind: Any, infos: Any) -> None:
    path = write(tmp_path, SHARDS, Layout(kind, 8), infos)
    lost = damage(path, 8 if kind == "blocks" else 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*left out")
        sound = rows_of(batches(path, on_bad_record="skip", shuffle=False, kept=True))
        assert sound == sorted({*range(ROWS)} - lost)
        some = batches(path, on_bad_record="skip", shuffle=False, kept=True, where="fare >= 0", class_weights={1: 2})
        assert rows_of(some) == sound
        whole = batches(path, on_bad_record="skip", shuffle=False, kept=True, class_weights="balanced")
        assert rows_of(whole) == sound
        assert sum(len(kept["row"]) for _, kept in whole) == ROWS  # with padding, as without class_weights
        both = batches(path, on_bad_record="skip", resample={True: 2}, kept=True)
        assert sorted({*rows_of(both)}) == sound
        assert len(rows_of(both)) == len(sound) + sum(row % 3 == 0 for row in sound)
    with pytest.raises(DamagedError, match="the checksum of record"):
        batches(path, where="fare >= 0")


def test_damaged_records_are_named_once_even_where_no_epoch_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path, SHARDS, Layout("blocks", 8), PLAIN)
    damage(path, 8)
    where = '"row" < 31 or "row" > 37'
    with pytest.warns(UserWarning, match=r"checksum of record 1, .*\(record 1\) are left out, as are") as caught:
        rows = rows_of(batches(path, where=where, on_bad_record="skip", kept=True))
    assert sorted(rows) == [*range(31), 38, *range(47, ROWS)]
    assert len(caught) == 1


def test_what_has_no_chosen_rows_is_not_read(tmp_path: Path) -> None:
    """After they were counted, blocks may be damaged and shards missing."""
    path = write(tmp_path, SHARDS, Layout("blocks", 8), PLAIN)
    data = batches(path, where='"row" between 50 and 60', kept=True)
    damage(path, 8)
    min(Path(path).glob("train/*.tfrecord")).unlink()
    assert [sorted(rows_of(data)) for _ in range(2)] == [list(range(50, 61))] * 2


def test_damage_since_the_rows_were_counted_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, SHARDS, Layout("blocks", 8), PLAIN)
    data = batches(path, where="fare >= 0", on_bad_record="skip")
    damage(path, 8)
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DamagedError, match="that were counted"):
        list(data)


# Bad arguments.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": -1, "take": 0}, "skip: -1 is not a number of rows.*\n.*take: 0 is not a positive number of rows"),
        ({"skip": 78}, "skip: 78 leaves none of the 78 rows"),
        ({"take": True}, "take: True is not"),
        ({"where": "fair > 1"}, r"where: .*no column 'fair'\. Did you mean 'fare'"),
        ({"where": "fare >"}, "where: .*is not valid SQL"),
        ({"where": "fare + 1"}, "where: .*gives (float|double), not true or false"),
        ({"where": "1 = 1"}, "names no column of the dataset"),
        ({"where": "sizes is null"}, "'sizes' has several values in each row"),
        ({"where": 3}, "where: expected a SQL expression"),
        ({"resample": {}}, "resample: {} is not 'balanced' or a number for each class"),
        ({"resample": "equal"}, "resample: 'equal' is not 'balanced'"),
        (
            {"resample": {True: 0, False: float("nan")}, "class_weights": {2: -1}},
            "(?s)resample.True.: 0 is not a positive number.*resample.False.: nan.*class_weights.2.: it is no value",
        ),
        ({"resample": {True: 2, "yes": 1}}, "resample.'yes'.: the label 'late' has no class of that name"),
        ({"resample": {False: 0.001}}, "resample.False.: this factor leaves no row of the class"),
        ({"resample": {False: 1e25}}, "copies of rows of records that are read together"),
        ({"class_weights": {False: 1e-46}}, "class_weights.False.: 1e-46 is not between 1e-30 and 1e.30"),
        ({"resample": {False: 1e6}}, "copies of rows of records that are read together"),
        ({"resample": {True: 2}, "where": '"row" % 3 = 1'}, "resample.True.: no row has this class; there are False"),
    ],
)
def test_what_is_wrong_is_said(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        batches(path, **options)
