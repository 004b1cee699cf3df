"""Mixtures whose components choose and weigh rows of their own."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from dtap_dask.errors import DataError, JobError
from dtap_dask.loading.batches import batches
from dtap_dask.loading.mixture.component import Component, Mixture
from mixtures import dataset, of
from numbered_rows import rows_of

pytestmark = pytest.mark.usefixtures("small_chunks")

EVEN = "row % 2 = 0"
CHOICES: dict[str, dict[str, Any]] = {
    "many": {"where": EVEN, "skip": 3, "resample": {True: 2, False: 0.5}},
    "few": {"take": 9, "class_weights": {True: 5}},
    "third": {},
}


def chosen(paths: dict[str, str], choices: dict[str, dict[str, Any]], repeat: str = "") -> Mixture:
    weights = {"many": 3, "few": 1, "third": 2}
    return Mixture(
        {n: Component(paths[n], weight=weights[n], repeat=n in repeat, **choices[n]) for n in sorted(choices)}
    )


def weights_of(data: Any) -> dict[int, float]:
    """The weight of each row."""
    return {row: w for batch, kept in data for row, w in zip(kept["row"].tolist(), batch[2].tolist(), strict=True)}


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"readers": (1, 2)}])
def test_each_component_gives_the_rows_that_it_chooses(paths: dict[str, str], options: dict[str, Any]) -> None:
    """In the order and with the weights that it has by itself, epoch by epoch."""
    data = batches(chosen(paths, CHOICES), batch_size=10, kept=True, **options)
    alone = {n: batches(paths[n], batch_size=10, kept=True, **CHOICES[n], **options) for n in CHOICES}
    for _ in range(2):
        rows = rows_of(data)
        for name, one in alone.items():
            assert of(name, rows) == rows_of(one), name
    if not options:
        assert sorted(of("many", rows)) != sorted({*of("many", rows)})  # some of them twice
        assert len(data) == -(-len(rows) // 10)


def test_rows_of_components_without_class_weights_weigh_1(paths: dict[str, str]) -> None:
    found = weights_of(batches(chosen(paths, {"few": CHOICES["few"], "third": {}}), kept=True))
    assert found == {row: 5 if row < 9 and row % 3 == 0 else 1 for row in [*range(9), *range(200, 223)]}
    balanced = {"few": {"class_weights": "balanced"}, "third": {"class_weights": "balanced", "take": 4}}
    expected = {}
    for name, choice in balanced.items():
        expected.update(weights_of(batches(paths[name], kept=True, **choice)))
    assert weights_of(batches(chosen(paths, balanced), kept=True)) == expected


@pytest.mark.parametrize("repeat", ["", "many"])
def test_from_every_state_come_the_batches_of_an_undisturbed_run(paths: dict[str, str], repeat: str) -> None:
    options: dict[str, Any] = {"batch_size": 7, "kept": True}
    data = batches(chosen(paths, CHOICES, repeat), **options)
    states, found = [data.state()], list[list[int]]()
    for _ in range(2):
        iterator = iter(data)
        for batch in iterator:
            found.append(batch[1]["row"].tolist())
            states.append(json.loads(json.dumps(iterator.state())))
    for number in range(0, len(states), 3):
        again = batches(chosen(paths, CHOICES, repeat), state=states[number], **options)
        rest = [batch[1]["row"].tolist() for _ in range(2 - states[number]["epoch"]) for batch in again]
        assert rest == found[number:]


def test_a_state_needs_the_choice_that_it_was_saved_with_but_not_the_weights(paths: dict[str, str]) -> None:
    whole = rows_of(batches(chosen(paths, CHOICES), kept=True))
    iterator = iter(batches(chosen(paths, CHOICES), batch_size=20, kept=True))
    taken, state = rows_of(itertools.islice(iterator, 1)), iterator.state()
    changed: dict[str, dict[str, Any]] = {
        "many": {"where": EVEN, "skip": 4, "resample": {True: 2, False: 0.5}}, "few": {"take": 8}, "third": {"take": 20}
    }  # fmt: skip
    with pytest.raises(JobError) as caught:
        batches(chosen(paths, changed), state=state)
    places = {line.partition(": ")[0] for line in str(caught.value).splitlines()}
    assert places >= {f"state.components.{each}" for each in ("many.skip", "few.take", "third.take")}
    assert "state.components.few.take: the state is of 9, but this is 8; give the same `take`" in str(caught.value)
    others = {**CHOICES, "few": {"take": 9}, "third": {"class_weights": {True: 2}}}
    assert taken + rows_of(batches(chosen(paths, others), kept=True, state=state)) == whole
    # A component that is added may choose.
    state = batches(chosen(paths, {"few": {"take": 9}})).state()
    more = batches(chosen(paths, {"few": {"take": 9}, "third": {"take": 2}}), kept=True, state=state)
    assert sorted(rows_of(more)) == [*range(9), 200, 201]


def test_rows_are_counted_once_where_a_state_of_other_readers_is_continued(
    paths: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dtap_dask.loading.reading import source

    counts = list[Any]()
    plain = source.counted
    monkeypatch.setattr(source, "counted", lambda *given: counts.append(given) or plain(*given))
    data = chosen(paths, {"many": {"where": EVEN}}, "many")
    state = batches(data, readers=(0, 2)).state()
    batches(data, state=state)
    assert len(counts) == 2


@pytest.mark.parametrize(
    ("choices", "options", "messages"),
    [
        (
            {"many": {"take": 0}, "few": {"take": 0}},
            {},
            ["components.few.take: 0 is not a positive number", "components.many.take: 0 is not a positive number"],
        ),
        ({"many": {"skip": 78}, "few": {}}, {}, ["components.many.skip: 78 leaves none of the 78 rows"]),
        (
            {"many": {"where": "nothing > 1"}, "few": {"resample": "even", "class_weights": {2: 1}}},
            {},
            [
                "components.few.resample: 'even' is not 'balanced' or a number for each class",
                "components.few.class_weights[2]: it is no value of the label 'late'",
                "components.many.where: ",
            ],
        ),
        (
            {"many": {"where": EVEN}, "few": {}},
            {"where": "row > 3", "take": 0},
            [
                "take: 0 is not a positive number",
                "components.many.where: it is given here and for all components at once; give it in one of these",
            ],
        ),
        ({"many": {}, "few": {"take": 1, "class_weights": {False: 2}}}, {}, []),
        (
            {"many": {"where": "row = 100"}, "few": {"take": 1, "class_weights": {True: 2}, "resample": {False: 2}}},
            {},
            ["components.few.resample[False]: no row has this class; there are True"],
        ),
        (
            {"many": {"where": "row % 3 = 1"}, "few": {"take": 1}},
            {"resample": {True: 2, False: 3}},
            [
                "components.few.resample[False]: no row has this class; there are True",
                "components.many.resample[True]: no row has this class; there are False",
            ],
        ),
    ],
)
def test_wrong_choices_are_named_with_their_components(
    paths: dict[str, str], choices: Any, options: dict[str, Any], messages: list[str]
) -> None:
    if not messages:
        assert len(batches(chosen(paths, choices), batch_size=100, **options)) == 1
        return
    with pytest.raises(JobError) as caught:
        batches(chosen(paths, choices), **options)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(message)


def test_a_component_without_rows_is_refused(paths: dict[str, str]) -> None:
    with pytest.raises(DataError, match="`where` leaves no row of the split 'train' of .*many: 'row = 5' is true"):
        batches(chosen(paths, {"many": {"where": "row = 5"}, "few": {}}))


def test_damaged_records_count_for_their_component(tmp_path: Path) -> None:
    found = {name: dataset(tmp_path, name) for name in ("few", "many")}
    shard = max(Path(found["few"]).glob("train/*"), key=lambda file: file.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 4] ^= 1
    shard.write_bytes(data)
    with pytest.warns(UserWarning, match="are left out"):
        data = batches(chosen(found, {"few": {"where": EVEN}, "many": {}}), kept=True, on_bad_record="skip")
    rows = rows_of(data)
    assert of("few", sorted(rows)) == [8, 10, 12]  # the block of rows 0 to 7 is damaged
    assert len(of("many", rows)) == 78
