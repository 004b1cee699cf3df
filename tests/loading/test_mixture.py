"""Mixtures: the shares of components, the order of each, and positions from which a changed mixture continues."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import in_memory, write_dataset
from dtap_dask.errors import JobError, OutputError, StorageError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.batches import Batches, batches
from dtap_dask.loading.columns import Ragged
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.loading.mixture.opening import opened
from dtap_dask.loading.mixture.source import MixtureSource
from dtap_dask.records.example import Layout
from mixtures import FIRST, SHARDS, all_kinds, dataset, mixture, numbers, of
from numbered_rows import INFOS, rows_of, values

pytestmark = pytest.mark.usefixtures("small_chunks")


def alone(path: str, epochs: int, **options: Any) -> list[int]:
    """The rows of the first epochs of a component by itself."""
    data = batches(path, kept=True, **options)
    return [row for _ in range(epochs) for row in rows_of(data)]


# Rows.


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_of_components_that_are_not_repeated_come_once(paths: dict[str, str], shuffle: bool) -> None:
    """In the order that each component has by itself, epoch by epoch."""
    data = batches(mixture(paths, many=3, few=1, third=2), batch_size=10, kept=True, shuffle=shuffle)
    for epoch in range(3):
        rows = rows_of(data)
        assert len(rows) == sum(map(len, map(numbers, SHARDS)))
        for name in SHARDS:
            assert of(name, rows) == alone(paths[name], epoch + 1, shuffle=shuffle)[-len(numbers(name)) :]
    assert len(data) == -(-len(rows) // 10)
    assert rows_of(batches(mixture(paths, third=2, few=1, many=3), seed=0, kept=True, shuffle=shuffle)) == rows_of(
        batches(mixture(paths, many=3, few=1, third=2), batch_size=7, kept=True, shuffle=shuffle)
    )


def test_repeated_components_continue_where_they_were_until_all_others_are_exhausted(paths: dict[str, str]) -> None:
    data = batches(mixture(paths, many=1, few=1, third=1, repeat="few"), batch_size=10, kept=True)
    epochs = [rows_of(data) for _ in range(3)]
    assert len({len(epoch) for epoch in epochs}) > 1
    for rows in epochs:
        assert sorted(of("many", rows)) == numbers("many")
        assert sorted(of("third", rows)) == numbers("third")
        assert rows[-1] >= FIRST["many"]
    repeated = of("few", [row for epoch in epochs for row in epoch])
    assert repeated == alone(paths["few"], 20)[: len(repeated)]
    with pytest.raises(TypeError, match="no certain number of batches"):
        len(data)


def test_without_an_end(paths: dict[str, str]) -> None:
    data = batches(mixture(paths, repeat="many few"), batch_size=10, kept=True)
    rows = rows_of(itertools.islice(data, 40))
    assert len(rows) == 400
    for name in ("many", "few"):
        found = of(name, rows)
        assert found == alone(paths[name], 20)[: len(found)]
    with pytest.raises(TypeError):
        len(data)
    assert of("many", rows_of(itertools.islice(data, 10))) != of("many", rows)[:75]  # another iteration, another order


def test_columns_of_all_kinds_whatever_they_are_stored_in(tmp_path: Path) -> None:
    both = all_kinds(tmp_path)
    data = batches(both, batch_size=13, kept=True)
    found = list(data)
    features = [info.name for info in INFOS if info.role == "feature"]
    assert [*found[0][0][0]] == features  # in the first component's order
    for (columns, late, weight), kept in found:
        rows = kept["row"].tolist()
        for info in INFOS:
            column = {"late": late, "weight": weight, "row": kept["row"]}.get(info.name, columns.get(info.name))
            assert plain(column) == values(info.name, rows), info.name
            dtype = column.values.dtype if isinstance(column, Ragged) else column.dtype
            assert dtype == (np.float32 if info.name == "late" else object if info.stored == "bytes" else info.dtype)
    wide = batches(both, batch_size=13, kept=True, as_vectors=True, ids="int32")
    for ((packed, _, _), kept), ((columns, _, _), _) in zip(wide, found, strict=True):
        for dtype, names in wide.vectors.items():
            parts = [columns[name].reshape(len(kept["row"]), -1) for name in names]
            np.testing.assert_array_equal(packed[dtype], np.concatenate(parts, axis=1))
            assert packed[dtype].dtype == dtype
    chosen = batches(both, features=["note", "miles"], label=False)
    assert [*next(iter(chosen))[0]] == ["note", "miles"]


def plain(column: Any) -> list[Any]:
    if isinstance(column, Ragged):
        return [column.values[start:stop].tolist() for start, stop in itertools.pairwise(column.offsets)]
    return column.tolist()


# Positions.


def run(data: Batches, epochs: int) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """The states before the batches of some epochs and after them, and the rows of each batch."""
    states, found = [data.state()], list[list[int]]()
    for _ in range(epochs):
        iterator = iter(data)
        for batch in iterator:
            found.append(batch[1]["row"].tolist())
            states.append(json.loads(json.dumps(iterator.state())))
    return states, found


@pytest.mark.parametrize("repeat", ["", "few"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False, "remainder": "drop"},
        {"remainder": "pad", "readers": (1, 3)},
        {"remainder": "repeat", "readers": (2, 3)},
    ],
)
def test_from_every_state_come_the_batches_of_an_undisturbed_run(
    paths: dict[str, str], repeat: str, options: dict[str, Any]
) -> None:
    """For the rest of two epochs and one more."""
    options = {"batch_size": 7, "kept": True, **options}
    data = batches(mixture(paths, repeat=repeat), **options)
    states, found = run(data, 2)
    found += [batch[1]["row"].tolist() for batch in data]
    assert {len(rows) for rows in found[:-1]} <= {7} or options.get("remainder") is None
    for number, state in enumerate(states):
        assert len(json.dumps(state)) < 700
        again = batches(mixture(paths, repeat=repeat), state=state, **options)
        rest = [batch[1]["row"].tolist() for _ in range(3 - state["epoch"]) for batch in again]
        assert rest == found[number:], number


def test_a_state_means_the_same_for_other_batch_sizes(paths: dict[str, str]) -> None:
    states, found = run(batches(mixture(paths), batch_size=7, kept=True), 1)
    rest = rows_of(batches(mixture(paths), batch_size=5, kept=True, state=states[4]))
    assert rest == [row for rows in found[4:] for row in rows]


@pytest.mark.parametrize("taken", [0, 1, 4, 9, 12])
def test_components_and_weights_may_change_at_a_state(paths: dict[str, str], taken: int) -> None:
    """What was taken does not come again; each component continues in its own order."""
    states, found = run(batches(mixture(paths), batch_size=7, kept=True), 1)
    before = [row for rows in found[:taken] for row in rows]
    changed = mixture(paths, many=1, few=9, third=5)
    data = batches(changed, batch_size=7, kept=True, state=states[taken])
    after = rows_of(data)
    for name in ("many", "few"):
        assert of(name, before + after) == alone(paths[name], 1)
    assert of("third", after) == alone(paths["third"], 1)
    assert sorted(rows_of(data)) == sorted(before + after)
    again = batches(mixture(paths, repeat="few", many=1, few=3), batch_size=7, kept=True, state=states[taken])
    rows = before + rows_of(again)
    assert of("many", rows) == alone(paths["many"], 1)
    assert of("few", rows) == alone(paths["few"], 20)[: len(of("few", rows))]


def test_a_changed_mixture_has_positions_too(paths: dict[str, str]) -> None:
    states, _ = run(batches(mixture(paths), batch_size=7, kept=True), 1)
    changed: dict[str, Any] = {"batch_size": 7, "kept": True}
    more = mixture(paths, many=1, few=1, third=2)
    later, found = run(batches(more, state=states[3], **changed), 2)
    for number in range(0, len(later), 3):
        again = batches(more, state=later[number], **changed)
        rest = [batch[1]["row"].tolist() for _ in range(2 - later[number]["epoch"]) for batch in again]
        assert rest == found[number:]


def test_states_of_something_else_are_refused_with_all_differences(paths: dict[str, str], tmp_path: Path) -> None:
    state = run(batches(mixture(paths)), 0)[0][0]
    with pytest.raises(JobError, match=r"state\.components\.few: the mixture lacks this component; add it"):
        batches(mixture(paths, many=3), state=state)
    other = {**paths, "few": dataset(tmp_path, "few", Layout("rows"))}
    with pytest.raises(JobError) as caught:
        batches(mixture(other), seed=4, state=state)
    for place in ("few.dataset", "few.seed", "many.seed"):
        assert f"state.components.{place}: the state is of " in str(caught.value)
    with pytest.raises(JobError, match="it is of a single dataset, but this is a mixture"):
        batches(mixture(paths), state=batches(paths["few"]).state())
    with pytest.raises(JobError, match="state"):
        batches(paths["few"], state=state)
    with pytest.raises(JobError, match=r"state\.version: the state is of 2"):
        batches(mixture(paths), state={**state, "version": 2})
    for wrong in ({}, {**state, "rows": -1}, {**state, "readers": 0}, {**state, "row": 3}, [state], 3):
        with pytest.raises(JobError, match="state"):
            batches(mixture(paths), state=wrong)  # type: ignore[arg-type]


# Readers.


@pytest.mark.parametrize("remainder", ["pad", "repeat", "drop"])
@pytest.mark.parametrize("counts", [(3,), (1, 3), (3, 2), (2, 1)])
def test_readers_get_every_row_once_and_equally_many_batches(
    paths: dict[str, str], remainder: str, counts: tuple[int, ...]
) -> None:
    """Also where their number changes within the epoch, from one state that all of them have in common."""
    state, seen = None, list[int]()
    for turn, count in enumerate(counts):
        taken, states = list[list[Any]](), list[Any]()
        for index in range(count):
            data = batches(
                mixture(paths), batch_size=4, kept=True, readers=(index, count), remainder=remainder, state=state
            )
            iterator = iter(data)
            taken.append(list(itertools.islice(iterator, None if turn == len(counts) - 1 else 3)))
            states.append(iterator.state())
        assert len({len(each) for each in taken}) == 1
        assert len({json.dumps(each) for each in states}) == 1
        assert all(len(kept["row"]) == 4 for each in taken for _, kept in each)
        seen += [row for each in taken for row in rows_of(each)]
        state = states[0]
    everything = sorted(numbers("many") + numbers("few"))
    if remainder == "pad":
        assert sorted(seen) == everything
    elif remainder == "repeat":
        assert {*seen} == {*everything}
    else:
        assert len(seen) == len({*seen}) > len(everything) - 2 * 3 - 4 * 3


def test_repeated_components_of_several_readers(paths: dict[str, str]) -> None:
    """Each epoch of a component is divided among them; padding gives all of them equally many rows."""
    parts = [
        batches(mixture(paths, repeat="few", many=1, few=2), batch_size=4, kept=True, readers=(index, 3))
        for index in range(3)
    ]
    rows = [rows_of(part) for part in parts]
    assert sorted(row for part in rows for row in of("many", part)) == numbers("many")
    for index, part in enumerate(rows):
        mine = alone(paths["few"], 1, readers=(index, 3))
        assert of("few", part)[: len(mine)] == mine
    assert len({json.dumps(part.state()) for part in parts}) == 1


# Files.


@pytest.fixture
def staged(paths: dict[str, str]) -> Iterator[dict[str, str]]:
    with (
        in_memory(paths["few"], "memory://mixture_few") as few,
        in_memory(paths["many"], "memory://mixture_many") as many,
    ):
        yield {"few": few, "many": many}


def test_staged_components_share_the_cache(paths: dict[str, str], staged: dict[str, str], tmp_path: Path) -> None:
    sizes = [sum(file.stat().st_size for file in Path(paths[name]).glob("train/*")) for name in staged]
    cache = {"path": str(tmp_path), "size": sum(sizes)}
    options: dict[str, Any] = {"batch_size": 7, "kept": True, "storage": {"cache": cache}}
    data = batches(mixture(staged, repeat="few"), **options)
    assert [rows_of(data) for _ in range(2)] == [
        rows_of(one) for one in [batches(mixture(paths, repeat="few"), kept=True)] for _ in range(2)
    ]
    cache["size"] -= 1
    with pytest.raises(StorageError, match="the shards of all components that are read at the same time take"):
        batches(mixture(staged), **options)


def test_damage(tmp_path: Path) -> None:
    found = {name: dataset(tmp_path, name) for name in ("few", "many")}
    shard = max(Path(found["few"]).glob("train/*"), key=lambda file: file.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 4] ^= 1
    shard.write_bytes(data)
    with pytest.raises(OutputError, match=rf"{shard.name} is damaged"):
        list(batches(mixture(found)))
    skipping = batches(mixture(found), kept=True, on_bad_record="skip")
    with pytest.warns(UserWarning, match="are left out"):
        rows = rows_of(skipping)
    assert sorted(of("many", rows)) == numbers("many")
    assert 0 < len(of("few", rows)) < len(numbers("few"))
    assert skipping.stats()["skipped_records"] == 1


def test_a_loop_that_ends_early_leaves_no_threads(paths: dict[str, str]) -> None:
    before = threading.active_count()
    iterator = iter(batches(mixture(paths, repeat="few many"), batch_size=2))
    next(iterator)
    iterator.close()
    assert threading.active_count() == before


def test_rows_are_chosen_in_each_component(paths: dict[str, str]) -> None:
    data = batches(mixture(paths), kept=True, where="row % 2 = 0", take=10)
    assert sorted(rows_of(data)) == [row for name in ("few", "many") for row in numbers(name)[:10] if row % 2 == 0]


def test_chunks_of_long_rows_are_small(paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    long = FeatureInfo("long", "feature", "float32", "float32", (1 << 14,))  # 64 KiB
    path = write_dataset(
        tmp_path, (long,), Layout("blocks", 4), {"train": [8]}, lambda _, rows: {"long": np.ones((rows, 1 << 14), "f4")}
    )
    arguments: dict[str, Any] = {
        "readers": None, "storage": None, "features": None, "kept": False, "label": True, "as_vectors": False,
        "ids": "int64", "remainder": None,
    }  # fmt: skip
    for one, chunk in ((path, 1023), (paths["many"], 65_536)):
        source, _ = opened(Mixture({"one": Component(one)}), "train", 8, True, 0, **arguments)
        assert isinstance(source, MixtureSource)
        assert source.chunk == chunk
