"""What a program keeps of datasets that it no longer uses, while TensorFlow keeps all Python functions for ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tensorflow as tf

from datasets import in_memory
from dtap_dask.loading.mixture.component import Component, Mixture
from dtap_dask.records.example import Layout
from dtap_dask.train.load import load
from numbered_rows import PLAIN, write

ROWS = 78


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("data"), [30, 0, 1, 47], Layout("blocks", 8), PLAIN)


@pytest.fixture
def ways(path: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Arguments of `load`: the dataset in place, staged, and in mixtures of both."""
    with in_memory(path, "memory://test_lifetimes") as url:
        storage = {"cache": {"path": str(tmp_path)}}
        yield {
            "in place": {"path": path},
            "staged": {"path": url, "storage": storage},
            "mixture": {"path": Mixture({"a": Component(path), "b": Component(path, repeat=True)})},
            "staged mixture": {"path": Mixture({"a": Component(url)}), "storage": storage},
        }


def rows_in(data: Any) -> int:
    return sum(int(tf.size(kept["row"])) for _, kept in data)


@pytest.mark.parametrize("way", ["in place", "staged", "mixture", "staged mixture"])
def test_a_dataset_that_is_gone_leaves_nothing_open(path: str, ways: dict[str, Any], way: str) -> None:
    """After whole loops, ones that were left early, and ones over something made from it."""
    found = []
    for _ in range(2):
        data = load(batch_size=10, kept=True, **ways[way])
        found.append(weakref.ref(data._hooks.passes))
        assert rows_in(data) >= ROWS
        iterator = iter(data.enumerate())
        next(iterator)
        del iterator, data
        gc.collect()
    assert [one() for one in found] == [None, None]
    assert not [file.path for file in psutil.Process().open_files() if file.path.startswith(path)]


def counting(data: Any) -> Any:
    """A function that has captured a dataset."""
    return tf.function(
        lambda: data.reduce(0, lambda total, batch: total + tf.size(batch[1]["row"]))
    ).get_concrete_function()


def test_what_was_made_from_a_dataset_keeps_it(path: str, ways: dict[str, Any]) -> None:
    def twice(data: Any) -> Any:
        return tf.data.Dataset.range(2).flat_map(lambda _: data)

    made = twice(load(path, batch_size=10, kept=True))
    count = counting(load(path, batch_size=10, kept=True))
    iterator = iter(load(batch_size=10, kept=True, **ways["mixture"]).enumerate())
    gc.collect()
    assert rows_in(made) == 2 * ROWS
    assert int(count()) == ROWS
    assert rows_in(batch for _, batch in iterator) >= ROWS
