"""Choosing rows: skip, take, where, resample and class_weights, against lists of rows in plain Python."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtap_dask.loading import order as orders
from dtap_dask.loading.batches import batches
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
