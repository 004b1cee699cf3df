"""`resample` and `class_weights`: every row as often as its class wants it, and weights as scikit-learn has them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from datasets import write_dataset
from dtap_dask.errors import DataError, JobError
from dtap_dask.features.info import FeatureInfo
from dtap_dask.loading.batches import batches
from dtap_dask.loading.choice import rows as choice
from dtap_dask.loading.choice.rows import RunCounts
from dtap_dask.records.example import Layout
from numbered_rows import PLAIN, rows_of, write
from property_tests import examples

SHARDS = [30, 0, 1, 47]  # `late`, the label, is true of rows 0, 3, 6, ...
ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), SHARDS, Layout("blocks", 8), PLAIN)


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
    """Of 52 rows 13 come in each epoch: in 400 epochs each of them 100 times, give or take 5 standard deviations."""
    source = batches(path, resample={False: 0.25}, shuffle=True, kept=True, batch_size=100)
    times = Counter(itertools.chain.from_iterable(rows_of(source) for _ in range(400)))
    assert all(times[row] == 400 for row in range(0, ROWS, 3))
    often = np.array([times[row] for row in range(ROWS) if row % 3])
    assert often.sum() == 400 * 13
    assert np.abs(often - 100).max() < 5 * (400 * 0.25 * 0.75) ** 0.5
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


# class_weights.


@pytest.fixture(scope="module", params=["blocks", "rows"])
def weighted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same rows with texts, lists and a weight of their own."""
    return write(tmp_path_factory.mktemp("weighted"), SHARDS, Layout(request.param, 8))


def weights_of(data: Iterable[Any]) -> dict[int, float]:
    return {row: weight for (*_, w), kept in data for row, weight in zip(kept["row"].tolist(), w.tolist(), strict=True)}


def test_balanced_weights_are_those_of_scikit_learn(path: str, weighted: str) -> None:
    options: dict[str, Any] = {"where": '"row" < 40', "class_weights": "balanced", "kept": True}
    labels = [row % 3 == 0 for row in range(40)]
    expected = compute_class_weight("balanced", classes=np.array([False, True]), y=labels).astype(np.float32)
    assert weights_of(batches(path, **options)) == {row: expected[int(late)] for row, late in enumerate(labels)}
    found = weights_of(batches(weighted, **options))  # which has a weight of its own
    assert found == {row: np.float32(1 + row % 4) * expected[int(late)] for row, late in enumerate(labels)}


def test_weights_multiply_and_count_what_resample_leaves(path: str, weighted: str) -> None:
    given = weights_of(batches(path, class_weights={True: 2.5}, kept=True))
    assert given == {row: 2.5 if row % 3 == 0 else 1.0 for row in range(ROWS)}
    own = weights_of(batches(weighted, class_weights={1: 0.1}, kept=True, features=["fare"]))
    assert own == {row: np.float32(1 + row % 4) * np.float32(0.1 if row % 3 == 0 else 1) for row in range(ROWS)}
    after = weights_of(batches(path, class_weights="balanced", resample="balanced", kept=True))
    assert {*after.values()} == {1.0}
    for (features, label, weight), kept in batches(path, class_weights={1: 3}, label=False, kept=True):
        assert weight.tolist() == [3.0 if row % 3 == 0 else 1.0 for row in kept["row"]]
        assert label is None
        assert "late" not in features


def test_padding_weighs_nothing(path: str) -> None:
    *_, (_, _, weight) = batches(path, class_weights={True: 2}, batch_size=50, remainder="pad", shuffle=False)
    assert weight.tolist() == [2.0 if row % 3 == 0 else 1.0 for row in range(50, 78)] + [0.0] * 22


# Labels.


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
    found = list(by_name)
    for (_, one, weight), kept in found:
        assert weight.tolist() == np.where(one == 2, 2.0, 1.0).tolist()
        assert (kept["row"] % 3 == one).all()
    assert rows_of(found) == rows_of(by_number)
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
        batches(labelled(tmp_path, *names), kept=True, resample="balanced")
