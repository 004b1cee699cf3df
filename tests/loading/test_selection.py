"""Choosing rows: skip, take, where, resample and class_weights, against lists of rows in plain Python."""

from __future__ import annotations

import itertools
import json
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from datasets import in_memory, write_dataset
from dtap_dask.errors import DamagedError, DataError, JobError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading import choice
from dtap_dask.loading import order as orders
from dtap_dask.loading.batches import batches
from dtap_dask.loading.choice import RunCounts
from dtap_dask.records.example import Layout
from numbered_rows import INFOS, PLAIN, values, write
from property_tests import examples

SHARDS = [30, 0, 1, 47]  # `late`, the label, is true of rows 0, 3, 6, ...
ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), SHARDS, Layout("blocks", 8), PLAIN)


def rows_of(data: Iterable[Any]) -> list[int]:
    """The numbers of the rows, but for padding."""
    found = list[int]()
    for batch, kept in data:
        weight = batch[2] if len(batch) == 3 else np.ones(len(kept["row"]))
        found += kept["row"][weight > 0].tolist()
    return found


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
    assert batches(path, class_weights={True: 2}, state=batches(path).state())  # which rows come is the same
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


# where.


TEXTS = (
    FeatureInfo("size", "feature", "float32", "float32"),
    FeatureInfo("Kind", "feature", "int64", "uint8", ids=9),
    FeatureInfo("half", "feature", "float16", "float16"),
    FeatureInfo("far", "label", "float32", "uint8"),
    FeatureInfo("weight", "weight", "float32", "float32"),
    FeatureInfo("row", "kept", "int64", "int64"),
    FeatureInfo("city", "kept", "bytes", "bytes"),
    FeatureInfo("exact", "kept", "float64", "float64"),
    FeatureInfo("wide", "feature", "float32", "float32", (2,)),
)


def texts(first: int, count: int) -> dict[str, Any]:
    rows = np.arange(first, first + count)
    return {
        "size": np.where(rows % 6 == 0, np.nan, rows / 4).astype(np.float32),
        "Kind": (rows % 9).astype(np.uint8),
        "half": (rows / 8).astype(np.float16),
        "far": (rows % 4 == 0).astype(np.uint8),
        "weight": (rows % 3).astype(np.float32),
        "row": rows,
        "city": pa.array([["Köln", "", "São Paulo", "oslo"][row % 4] for row in rows], pa.large_string()).cast(
            pa.large_binary()
        ),
        "exact": rows / 3,
        "wide": np.zeros((count, 2), np.float32),
    }


@pytest.fixture(scope="module")
def text_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same rows in both layouts, of which `rows` holds neither float64 nor float16."""
    paths = {}
    for kind in ("blocks", "rows"):
        infos = tuple(info for info in TEXTS if kind == "blocks" or info.name not in ("half", "exact"))

        def columns(first: int, count: int, infos: tuple[FeatureInfo, ...] = infos) -> dict[str, Any]:
            return {info.name: texts(first, count)[info.name] for info in infos}

        folder = tmp_path_factory.mktemp("texts")
        layout = Layout(kind, 16)  # type: ignore[arg-type]
        paths[kind] = write_dataset(folder, infos, layout, {"train": [60, 50]}, columns)
    return paths


def of_duckdb(where: str) -> list[int]:
    columns = {name: column for name, column in texts(0, 110).items() if name != "wide"}
    columns["half"] = columns["half"].astype(np.float32)
    columns["city"] = columns["city"].cast(pa.large_string())
    columns["size"] = pa.array(columns["size"], from_pandas=True)  # NaN is null
    table = pa.table(columns)
    return duckdb.sql(f'select "row" from "table" where {where} order by 1').fetchnumpy()["row"].tolist()


WHERES = [
    "size > 5",
    "not (size > 5)",
    "size is null or kind = 3",
    "city = 'Köln' and far = 1",
    "lower(city) like '%o%' and weight > 0",
    "coalesce(size, -1) < 0 or city = ''",
    "size > 5 or null",
    "(kind in (1, 2)) is distinct from (far = 0)",
]


@pytest.mark.parametrize(
    ("kind", "where"),
    [*itertools.product(["blocks", "rows"], WHERES), ("blocks", "half between 2 and 4 and exact * 3 <> 18")],
)
def test_conditions_choose_what_duckdb_chooses(text_paths: dict[str, str], kind: str, where: str) -> None:
    expected = of_duckdb(where)
    assert 0 < len(expected) < 110
    data = batches(text_paths[kind], features=["Kind"], where=where, shuffle=False, kept=True)
    assert [row for _, kept in data for row in kept["row"]] == expected


# resample.


def test_every_epoch_draws_other_rows_but_equally_many(path: str) -> None:
    for shuffle in (True, False):
        data = batches(path, resample={False: 0.3, True: 1.7}, shuffle=shuffle, kept=True)
        epochs = [Counter(rows_of(data)) for _ in range(4)]
        assert len({tuple(sorted(epoch.items())) for epoch in epochs}) == 4
        for epoch in epochs:
            assert sum(count for row, count in epoch.items() if row % 3) == round(52 * 0.3)
            assert sum(count for row, count in epoch.items() if row % 3 == 0) == round(26 * 1.7)


def test_balanced_classes_have_the_rows_of_the_largest(path: str) -> None:
    found = Counter(rows_of(batches(path, resample="balanced", kept=True)))
    assert sum(count for row, count in found.items() if row % 3 == 0) == 52
    assert {count for row, count in found.items() if row % 3 == 0} == {2}
    assert {count for row, count in found.items() if row % 3} == {1}


def test_each_row_comes_equally_often_over_epochs(path: str) -> None:
    """Of 52 rows 13 come in each epoch: in 800 epochs each of them 200 times, give or take 5 standard deviations."""
    source = batches(path, resample={False: 0.25}, shuffle=True, kept=True, batch_size=100)
    times = Counter(itertools.chain.from_iterable(rows_of(source) for _ in range(800)))
    assert all(times[row] == 800 for row in range(0, ROWS, 3))
    often = np.array([times[row] for row in range(ROWS) if row % 3])
    assert often.sum() == 800 * 13
    assert np.abs(often - 200).max() < 5 * (800 * 0.25 * 0.75) ** 0.5
    assert often.std() > 1


@given(
    rows=st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=12),
    wanted=st.lists(st.integers(0, 60), min_size=3, max_size=3),
    exact=st.sampled_from([0, 3_000_000_000]),
    seed=st.integers(-(2**63), 2**63 - 1),
)
@examples(1)
def test_runs_share_what_a_class_has(rows: list[list[int]], wanted: list[int], exact: int, seed: int) -> None:
    """Every run gets its share of its class, rounded up or down, and all of them the whole; in big integers, too."""
    table = np.array(rows)
    runs, classes = np.nonzero(table)
    first = np.concatenate([[0], np.cumsum((table > 0).sum(axis=1))])
    counts = RunCounts(first, classes, table[runs, classes], pa.array([0, 1, 2]))
    targets = np.where(table.sum(axis=0) > 0, wanted, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "_EXACT", exact)
        drawn = counts.drawn(targets, (seed, 3))
    assert np.bincount(classes, drawn, minlength=3).tolist() == targets.tolist()
    share = counts.rows * targets[classes] / np.maximum(counts.totals, 1)[classes]
    assert (np.abs(drawn - share) < 1).all()


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


# class_weights.


def weights_of(data: Iterable[Any]) -> dict[int, float]:
    return {row: weight for (*_, w), kept in data for row, weight in zip(kept["row"].tolist(), w.tolist(), strict=True)}


def test_balanced_weights_are_those_of_scikit_learn(path: str, text_paths: dict[str, str]) -> None:
    options: dict[str, Any] = {"where": '"row" < 40', "class_weights": "balanced", "kept": True}
    labels = [row % 3 == 0 for row in range(40)]
    expected = compute_class_weight("balanced", classes=np.array([False, True]), y=labels).astype(np.float32)
    assert weights_of(batches(path, **options)) == {row: expected[int(late)] for row, late in enumerate(labels)}
    found = weights_of(batches(text_paths["blocks"], **options))  # which has a weight of its own
    labels = [row % 4 == 0 for row in range(40)]
    expected = compute_class_weight("balanced", classes=np.array([False, True]), y=labels).astype(np.float32)
    assert found == {row: np.float32(row % 3) * expected[int(far)] for row, far in enumerate(labels)}


def test_weights_multiply_and_count_what_resample_leaves(path: str, text_paths: dict[str, str]) -> None:
    given = weights_of(batches(path, class_weights={True: 2.5}, kept=True))
    assert given == {row: 2.5 if row % 3 == 0 else 1.0 for row in range(ROWS)}
    own = weights_of(batches(text_paths["rows"], class_weights={1: 0.1}, kept=True, features=["size"]))
    assert own == {row: np.float32(row % 3) * np.float32(0.1 if row % 4 == 0 else 1) for row in range(110)}
    after = weights_of(batches(path, class_weights="balanced", resample="balanced", kept=True))
    assert {*after.values()} == {1.0}
    (features, weight), _ = next(iter(batches(path, class_weights={1: 3}, label=False, kept=True)))[0][::2], None
    assert {*weight.tolist()} == {1.0, 3.0}
    assert "late" not in features


def test_padding_weighs_nothing(path: str) -> None:
    *_, (_, late, weight) = batches(path, class_weights={True: 2}, batch_size=50, remainder="pad", shuffle=False)
    assert weight.tolist() == [2.0 if row % 3 == 0 else 1.0 for row in range(50, 78)] + [0.0] * 22


# Damage.


def damage(path: str, offset: int) -> None:
    shard = max(Path(path).glob("train/*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2 + offset] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize("infos", [PLAIN, INFOS])
@pytest.mark.parametrize("kind", ["blocks", "rows"])
def test_rows_of_damaged_records_are_never_chosen(tmp_path: Path, kind: Any, infos: Any) -> None:
    path = write(tmp_path, SHARDS, Layout(kind, 8), infos)
    damage(path, 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*left out")
        whole = batches(path, on_bad_record="skip", shuffle=False, kept=True)
        sound = [r for (*_, w), k in whole for r, zero in zip(k["row"], w == 0, strict=True) if not zero]
        assert 70 <= len({*sound}) < 78 or kind == "rows"
        some = batches(path, on_bad_record="skip", shuffle=False, kept=True, where="fare >= 0", class_weights={1: 2})
        assert rows_of(some) == sound[: len(sound)]
        both = batches(path, on_bad_record="skip", resample={True: 2}, kept=True)
        assert sorted({*rows_of(both)}) == sound
        assert len(rows_of(both)) == len(sound) + sum(row % 3 == 0 for row in sound)
    with pytest.raises(DamagedError, match="the checksum of record"):
        batches(path, where="fare >= 0")


def test_damage_since_the_rows_were_counted_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, SHARDS, Layout("blocks", 8), PLAIN)
    data = batches(path, where="fare >= 0", on_bad_record="skip")
    damage(path, 0)
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
        ({"resample": {True: 2, 1.0: 3, "yes": 1}}, "resample.'yes'.: the label 'late' has no class of that name"),
        ({"resample": {False: 0.001}}, "resample.False.: this factor leaves no row of the class"),
        ({"resample": {False: 1e6}}, "copies of rows of records that are read together"),
        ({"resample": {True: 2}, "where": '"row" % 3 = 1'}, "resample.True.: no row has this class; there are False"),
    ],
)
def test_what_is_wrong_is_said(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        batches(path, **options)


def test_a_condition_without_rows(path: str) -> None:
    with pytest.raises(DataError, match=r"`where` leaves no row of the split 'train' of .*'fare < 0' is true of none"):
        batches(path, where="fare < 0")


def test_texts_must_be_text(tmp_path: Path) -> None:
    path = write(tmp_path, [12], Layout("blocks", 8))
    with pytest.raises(DataError, match="Column 'note' has bytes that are not UTF-8 text"):
        batches(path, where="note = 'x'")


LABELS = {
    "one": FeatureInfo("one", "label", "int64", "uint8", ids=3, classes=("red", "green", "blue")),
    "many": FeatureInfo("many", "label", "float32", "float32"),
    "hole": FeatureInfo("hole", "label", "float32", "float32"),
    "vector": FeatureInfo("vector", "label", "float32", "float32", (2,)),
    "text": FeatureInfo("text", "label", "bytes", "bytes"),
}


def labelled(folder: Path, *names: str) -> str:
    def columns(first: int, count: int) -> dict[str, Any]:
        rows = np.arange(first, first + count)
        made = {
            "row": rows,
            "one": (rows % 3).astype(np.uint8),
            "many": rows.astype(np.float32),
            "hole": np.where(rows == 7, np.nan, rows % 2).astype(np.float32),
            "vector": np.zeros((count, 2), np.float32),
            "text": pa.array([b"ab"[row % 2 :] for row in rows.tolist()], pa.large_binary()),
        }
        return {name: made[name] for name in ("row", *names)}

    infos = (FeatureInfo("row", "kept", "int64", "int64"), *(LABELS[name] for name in names))
    return write_dataset(folder, infos, Layout("blocks", 500), {"train": [1500]}, columns)


def test_classes_have_names(tmp_path: Path) -> None:
    path = labelled(tmp_path, "one")
    by_name = batches(path, resample={"green": 0.5}, class_weights={"blue": 2.0}, kept=True)
    by_number = batches(path, resample={1: 0.5}, class_weights={2: 2.0}, kept=True)
    for (_, one, weight), kept in by_name:
        assert weight.tolist() == np.where(one == 2, 2.0, 1.0).tolist()
        assert (kept["row"] % 3 == one).all()
    assert rows_of(by_name) == rows_of([*by_number][:0] or by_number)
    assert by_name.state()["resample"] == "1: 0.5"
    with pytest.raises(JobError, match=r"'gren'.: the label 'one' has no class of that name\. Did you mean 'green'"):
        batches(path, resample={"gren": 0.5})
    with pytest.raises(JobError, match="class_weights.3.: the label 'one' has classes 0 to 2"):
        batches(path, class_weights={3: 2.0})


def test_texts_may_be_classes(tmp_path: Path) -> None:
    path = labelled(tmp_path, "text")
    found = Counter(row % 2 for row in rows_of(batches(path, resample={"b": 0.1}, class_weights={b"ab": 2}, kept=True)))
    assert found == {0: 750, 1: 75}


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ((), JobError, "resample: the dataset has no label, so that its rows have no classes"),
        (("one", "many"), JobError, r"the dataset has several labels \('one', 'many'\)"),
        (("vector",), JobError, "the label 'vector' has several values in each row"),
        (("many",), DataError, "The label 'many' has more than 1,000 values"),
        (("hole",), DataError, "The label 'hole' is NaN in some rows"),
    ],
)
def test_rows_need_classes(tmp_path: Path, names: tuple[str, ...], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        batches(labelled(tmp_path, *names), resample="balanced")
